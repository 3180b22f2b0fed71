"""Classifiers of frozen features that are interpretable by construction: an answer is the sum of the terms that are shown."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
