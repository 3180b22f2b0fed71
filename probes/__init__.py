"""Which physical quantity follows which feature: linear probes, the attribute matrix, and their controls."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
