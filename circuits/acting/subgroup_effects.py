"""``subgroups``: effects of nodes in every subgroup of patients, with intervals, and how far the subgroups lie apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from circuits.inputs import no_interval
from mechinterp.errors import ConfigError, ShapeError

if TYPE_CHECKING:
    from circuits.node_results import Effects, NodeName
    from mechinterp.statistics import Interval


@dataclass(frozen=True)
class SubgroupEffect:
    """Mean effect of one node in one subgroup.

    Parameters
    ----------
    node
        Which.
    subgroup
        Its name.
    images
        How many there are.
    mean
        Mean effect.
    interval
        Of it, over patients.

    """

    node: NodeName
    subgroup: str
    images: int
    mean: float
    interval: Interval

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {
            "node": self.node.name, "subgroup": self.subgroup, "images": self.images, "mean": self.mean,
            "interval": self.interval.to_json(),
        }  # fmt: skip


def subgroups(
    effects: Effects, of: Sequence[Any] | NDArray[Any], *, n: int = 10, n_boot: int = 1000, seed: int = 0
) -> tuple[SubgroupEffect, ...]:
    """Return the effects of the `n` strongest nodes in every subgroup.

    Parameters
    ----------
    effects
        From :func:`circuits.effects`.
    of
        Subgroup of each image: sex, age band, scanner.
    n
        How many nodes.
    n_boot, seed
        Of the intervals.

    Raises
    ------
    ShapeError
        If there is not one for each image.
    ConfigError
        If `n` is below 1.

    """
    values = effects.per_image.astype(np.float64)
    given = np.asarray(of)
    if given.shape != (len(values),):
        raise ShapeError(f"subgroups have shape {given.shape} for {len(values)} images: give one each")
    if n < 1:
        raise ConfigError(f"n is {n}: give at least 1")
    found = []
    for node in effects.top(n).tolist():
        for name in dict.fromkeys(given.tolist()):
            rows = np.flatnonzero(given == name)
            own = values[rows, node]
            interval = no_interval()
            if effects.batch is not None:
                interval = effects.batch.interval(partial(_mean_of, own), rows, n_boot, seed)
            found.append(SubgroupEffect(effects.nodes[node], str(name), len(rows), float(own.mean()), interval))
    return tuple(found)


def _mean_of(values: Float[NDArray[np.float64], " image"], rows: Int[NDArray[np.int64], " drawn"]) -> float:
    return float(values[rows].mean())
