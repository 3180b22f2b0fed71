"""Share a compiled loop out over threads: each takes a range of rows or latents, with the same machine code whatever their number.

Numba's own parallel loops are compiled otherwise for one thread than for two, which reorders sums, and wake OpenMP's whole pool for
each loop, which on a busy machine waits for its slowest thread. OpenMP's threads also keep a core busy for some milliseconds after each
of torch's operations, which is when ours shall run; so what torch does inside a task here, it does on that thread alone.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import torch
from numba import njit

# float32 sums may be reordered into vector lanes; nothing else is relaxed: a NaN stays one
REORDER = {"reassoc", "contract"}
_PARTS = 4  # ranges for each thread, so that one that is held up holds up little


def share(n: int, task: Callable[[int, int], None], *, multiple: int = 1, largest: int | None = None) -> None:
    """Call ``task(first, last)`` for ranges that make up 0 to `n`, on as many threads as torch has.

    Parameters
    ----------
    n
        How many rows or latents.
    task
        What handles some of them.
    multiple
        Of which every range but the last has a length.
    largest
        Length of a range, at most; unlimited by default.

    """
    threads = torch.get_num_threads()
    size = n if threads == 1 or n < 2 * threads else -(-n // (_PARTS * threads))
    size = max(multiple, -(-min(size, largest or n) // multiple) * multiple)
    ranges = [(first, min(first + size, n)) for first in range(0, n, size)]
    if threads == 1 or len(ranges) == 1:
        for first, last in ranges:
            task(first, last)
        return
    pool = _pool(threads, os.getpid())
    for part in [pool.submit(task, first, last) for first, last in ranges]:
        part.result()


class SharedLoop:
    """A function of ``(first, last, …)`` that handles rows or latents from `first` to `last`, compiled once on a machine."""

    def __init__(self, function: Callable[..., None]) -> None:
        # a division by zero gives infinity, as everywhere in numpy: looking for it would cost the vector lanes
        self.part: Any = njit(fastmath=REORDER, cache=True, nogil=True, error_model="numpy")(function)
        self.__doc__ = function.__doc__

    def __call__(self, n: int, *arguments: Any, multiple: int = 1, largest: int | None = None) -> None:
        """Handle rows or latents 0 to `n` on as many threads as torch has; see :func:`share`."""
        share(n, lambda first, last: self.part(first, last, *arguments), multiple=multiple, largest=largest)


@lru_cache(maxsize=4)
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Return the process's own pool: threads do not survive a fork."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix=f"sparse-step-{process}")
    all_there = threading.Barrier(threads)

    def begin() -> None:
        all_there.wait()  # so that each thread begins once
        torch.set_num_threads(1)

    for began in [pool.submit(begin) for _ in range(threads)]:
        began.result()
    # torch takes the last number told for threads that start later; this thread's own is what it was
    torch.set_num_threads(threads)
    return pool
