"""The activation store: a folder of safetensors shards with a manifest, an index and checksums."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
