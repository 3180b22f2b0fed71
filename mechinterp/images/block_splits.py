"""Split the slices of a volume into blocks with gaps: neighbouring slices are not independent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.errors import ConfigError


@dataclass(frozen=True)
class BlockSplits:
    """The group and split of every slice.

    Parameters
    ----------
    groups
        Name of the block of neighbouring slices it belongs to.
    splits
        Its split; ``None`` for slices in a gap, which belong to none.

    """

    groups: tuple[str, ...]
    splits: tuple[str | None, ...]


def split_blocks(
    positions_mm: Sequence[float] | Float[NDArray[np.float64], " slice"],
    block_mm: float,
    gap_mm: float,
    pattern: Sequence[str] = ("train", "train", "test"),
) -> BlockSplits:
    """Cut a row of slices into blocks, give the blocks to splits in turn, and leave gaps where splits meet.

    Parameters
    ----------
    positions_mm
        Where each slice lies; any order.
    block_mm
        Thickness of a block: the unit that is permuted or left out as a whole.
    gap_mm
        Slices of different splits are at least so far apart: those nearer than half of it to the border between two
        blocks of different splits belong to no split.
    pattern
        Splits of the first, second, … block, over and over; ``("train", "test")`` alternates.

    Returns
    -------
    BlockSplits
        One group and one split per slice, in the order given.

    Raises
    ------
    ConfigError
        If a size cannot be meant, or a split of the pattern is left without any slice.

    Examples
    --------
    >>> split_blocks([0, 1, 2, 3, 4, 5, 6, 7], block_mm=4, gap_mm=2, pattern=("train", "test")).splits
    ('train', 'train', 'train', None, None, 'test', 'test', 'test')

    """
    positions = np.asarray(positions_mm, dtype=float)
    if positions.ndim != 1 or not len(positions) or not np.isfinite(positions).all():
        raise ConfigError("positions_mm must be a list of finite positions, one per slice")
    if not (np.isfinite(block_mm) and block_mm > 0):
        raise ConfigError(f"block_mm is {block_mm}: it must be a positive number of millimetres")
    if not (np.isfinite(gap_mm) and gap_mm >= 0):
        raise ConfigError(f"gap_mm is {gap_mm}: it must be a number of millimetres, 0 or more")
    if not pattern:
        raise ConfigError("pattern is empty: name the split of each block in turn, as ('train', 'train', 'test')")
    # Borders lie half-way between slices, so that no slice lies on one whatever rounding does.
    every = np.unique(positions)
    slab = float(np.diff(every).min()) if len(every) > 1 else 1.0
    start = every[0] - slab / 2
    block = np.floor((positions - start) / block_mm + 1e-9).astype(int)
    split = [pattern[b % len(pattern)] for b in block]
    dropped = np.zeros(len(positions), dtype=bool)
    for border in range(1, int(block.max()) + 1):
        if pattern[(border - 1) % len(pattern)] != pattern[border % len(pattern)]:
            dropped |= np.abs(positions - (start + border * block_mm)) < gap_mm / 2 - 1e-9
    splits = tuple(None if gone else s for gone, s in zip(dropped, split, strict=True))
    for wanted in dict.fromkeys(pattern):
        if wanted not in splits:
            raise ConfigError(
                f"no slice is left for split '{wanted}': {np.ptp(positions):g} mm of slices in blocks of {block_mm:g} mm "
                f"with gaps of {gap_mm:g} mm; make blocks or gaps smaller"
            )
    digits = len(str(int(block.max())))
    return BlockSplits(tuple(f"block-{b:0{digits}d}" for b in block), splits)
