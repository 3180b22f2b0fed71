"""Let the C library keep the memory of large tensors from one batch to the next.

By default glibc gives every tensor of more than 32 MiB back to the kernel when it is freed and asks for it anew in the next
block of the model, so that each of its pages is cleared and mapped again: about a tenth of a ViT-S's forward pass on a CPU.
"""

from __future__ import annotations

import ctypes
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

# malloc.h
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_LARGEST_INT = 2**31 - 1
# Where glibc's own rule ends up once a large block was freed (mallopt(3), "M_MMAP_THRESHOLD"), and its limit of mappings.
_LEFT_WITH = ((_MMAP_MAX, 65536), (_MMAP_THRESHOLD, 32 << 20), (_TRIM_THRESHOLD, 64 << 20))

_lock = threading.Lock()
_holders = 0


@contextmanager
def reused_memory() -> Iterator[None]:
    """Reuse freed memory within the process until the last of those who asked for it leaves, then give it back.

    Changes no number. Nothing happens where the C library is not glibc.
    """
    global _holders
    libc = _glibc()
    if libc is None:
        yield
        return
    with _lock:
        _holders += 1
        libc.mallopt(_MMAP_MAX, 0)
        libc.mallopt(_TRIM_THRESHOLD, _LARGEST_INT)
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if _holders == 0:
                for option, value in _LEFT_WITH:
                    libc.mallopt(option, value)
                libc.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
