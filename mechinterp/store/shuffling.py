"""One epoch of rows in random order, from files that are read whole and in turn: which order, and how it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

# Reads some images, image i of them ending at row ends[i]: yields the places of rows, and the rows that belong there.
Read = Callable[
    [NDArray[np.int64], NDArray[np.int64]], Iterator[tuple[NDArray[np.int64] | slice, Float[Tensor, "row width"]]]
]


@dataclass(frozen=True)
class EpochPlan:
    """The order of one epoch, decided before anything is read.

    Parameters
    ----------
    groups
        The images whose rows are shuffled among each other, group by group.
    ends
        For each group, at which row each of its images ends.
    seeds
        Seed and epoch.
    batch_size
        Rows per batch.

    """

    groups: tuple[NDArray[np.int64], ...]
    ends: tuple[NDArray[np.int64], ...]
    seeds: tuple[int, int]
    batch_size: int

    @classmethod
    def of(
        cls,
        images: NDArray[np.int64],
        rows_of: NDArray[np.int64],
        shard_of: NDArray[np.int64],
        seeds: tuple[int, int],
        batch_size: int,
        most_rows: int,
    ) -> EpochPlan:
        """Permute the images and cut them into groups of whole shards.

        One group where the rows fit `most_rows`; otherwise as many shards as fit half of it, in the order in which the
        permuted images come to them, so that the next group can be read while one is handed out. A group has at least one
        shard, and at least one batch.
        """
        order = np.random.default_rng(seeds).permutation(len(images))
        images, rows_of, shard_of = images[order], rows_of[order], shard_of[order]
        if rows_of.sum() <= most_rows:
            return cls((images,), (np.cumsum(rows_of),), seeds, batch_size)
        shards, first_seen, inverse = np.unique(shard_of, return_index=True, return_inverse=True)
        rows_in = np.bincount(inverse, weights=rows_of, minlength=len(shards)).astype(np.int64)
        group_of, group, held = np.empty(len(shards), dtype=np.int64), 0, 0
        for shard in np.argsort(first_seen):
            if held >= batch_size and held + rows_in[shard] > most_rows // 2:
                group, held = group + 1, 0
            group_of[shard] = group
            held += rows_in[shard]
        members = [np.flatnonzero(group_of[inverse] == g) for g in range(group + 1)]
        return cls(tuple(images[m] for m in members), tuple(np.cumsum(rows_of[m]) for m in members), seeds, batch_size)

    def first_of(self, batch: int) -> tuple[int, int]:
        """Return the group in which a batch begins, and how many of the group's rows come before it."""
        row = batch * self.batch_size
        for group, ends in enumerate(self.ends):
            if row < ends[-1]:
                return group, row
            row -= int(ends[-1])
        return len(self.groups), 0


def shuffled_rows(plan: EpochPlan, start: int, width: int, read: Read) -> Iterator[Float[Tensor, "row width"]]:
    """Yield the whole batches of an epoch from batch `start` on; no group that ends before it is read."""
    first, skip = plan.first_of(start)
    left = torch.empty(0, width)
    with ThreadPoolExecutor(max_workers=1) as reader:
        ahead = reader.submit(_group, plan, first, width, read) if first < len(plan.groups) else None
        for group in range(first, len(plan.groups)):
            assert ahead is not None
            rows = ahead.result()
            ahead = reader.submit(_group, plan, group + 1, width, read) if group + 1 < len(plan.groups) else None
            rows, skip = rows[skip:], 0
            if len(left):  # only the batch that spans two groups is put together, so that no group is held twice
                missing = min(plan.batch_size - len(left), len(rows))
                left = torch.cat([left, rows[:missing]])
                rows = rows[missing:]
                if len(left) < plan.batch_size:
                    continue
                yield left
            whole = len(rows) // plan.batch_size * plan.batch_size
            left = rows[whole:].clone()
            for at_row in range(0, whole, plan.batch_size):
                # the last is a copy: a caller still holds it, but not all its group, while the next group is read
                last = at_row + plan.batch_size == whole
                yield rows[at_row:whole].clone() if last else rows[at_row : at_row + plan.batch_size]
            del rows


def _group(plan: EpochPlan, group: int, width: int, read: Read) -> Float[Tensor, "row width"]:
    """Read one group and shuffle its rows; a generator of its own, so that those before it need not be touched."""
    images, ends = plan.groups[group], plan.ends[group]
    place = np.random.default_rng((*plan.seeds, 1 + group)).permutation(int(ends[-1]))
    rows = torch.empty(len(place), width)
    target = rows.numpy()
    for at, part in read(images, ends):
        target[place[at]] = part.numpy()
    return rows
