"""Mechanistic interpretability for medical vision models.

The public names stand in ``__init__.pyi``; each is loaded when it is first used, so that importing this package costs nothing.
"""

import lazy_loader

from mechinterp._version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
