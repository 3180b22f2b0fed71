"""Where in the image an answer comes from: maps, scored against masks, for faithfulness, and against randomised models."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
