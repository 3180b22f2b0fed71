"""Share a compiled loop out over threads: each takes a range of rows or latents, with the same machine code whatever their number.

Numba's own parallel loops are compiled otherwise for one thread than for two, which reorders sums, and wake OpenMP's whole pool for
each loop, which on a busy machine waits for its slowest thread.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import torch
from numba import njit

# float32 sums may be reordered into vector lanes; nothing else is relaxed: a NaN stays one
REORDER = {"reassoc", "contract"}
_PARTS = 4  # ranges for each thread, so that one that is held up holds up little


class SharedLoop:
    """A function of ``(first, last, …)`` that handles rows or latents from `first` to `last`, compiled once on a machine."""

    def __init__(self, function: Callable[..., None]) -> None:
        self._compiled: Any = njit(fastmath=REORDER, cache=True, nogil=True)(function)
        self.__doc__ = function.__doc__

    def __call__(self, n: int, *arguments: Any) -> None:
        """Handle rows or latents 0 to `n` on as many threads as torch has."""
        threads = torch.get_num_threads()
        if threads == 1 or n < 2 * threads:
            self._compiled(0, n, *arguments)
            return
        edges = [n * part // (_PARTS * threads) for part in range(_PARTS * threads + 1)]
        ranges = itertools.pairwise(edges)
        waiting = [_pool(threads, os.getpid()).submit(self._compiled, a, b, *arguments) for a, b in ranges]
        for part in waiting:
            part.result()


@lru_cache(maxsize=4)
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Return the process's own pool: threads do not survive a fork."""
    return ThreadPoolExecutor(threads, thread_name_prefix=f"sparse-step-{process}")
