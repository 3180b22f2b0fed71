"""Sparse autoencoders: train, evaluate, summarise, and the baselines they have to beat.

The public names stand in ``__init__.pyi``; each is loaded when it is first used. Only training imports SAELens.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
