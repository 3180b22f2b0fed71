"""What holds when images are not independent: whole units are permuted or resampled, never single images of one."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
