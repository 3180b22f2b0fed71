"""``subgroups``: effects of nodes in every subgroup of patients, with intervals, and which subgroups differ.

Many nodes in many subgroups make many pairs: that two intervals lie apart is no finding among dozens. So pairs are tested, and
corrected for all of them together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
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


@dataclass(frozen=True)
class SubgroupDifference:
    """One node's effect in two subgroups.

    Parameters
    ----------
    node
        Which.
    first, second
        The subgroups.
    difference
        Mean effect in the first minus that in the second, over patients.
    p
        Two-sided, corrected for all pairs of subgroups and all nodes.

    """

    node: NodeName
    first: str
    second: str
    difference: float
    p: float

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {
            "node": self.node.name, "first": self.first, "second": self.second, "difference": self.difference,
            "p_corrected": self.p,
        }  # fmt: skip


def subgroup_differences(
    effects: Effects, of: Sequence[Any] | NDArray[Any], *, n: int = 10
) -> tuple[SubgroupDifference, ...]:
    """Test the effects of the `n` strongest nodes between every two subgroups.

    Welch's test on the patients' means, with Holm's correction over all pairs and nodes: the chance that any pair is called
    different where none is stays below the level that p is compared with. Patients with images in both subgroups (left and
    right eyes) count once in each, which makes the test careful where their effects go together.

    Parameters
    ----------
    effects
        From :func:`circuits.effects`.
    of
        Subgroup of each image.
    n
        How many nodes.

    Returns
    -------
    tuple of SubgroupDifference
        The least p first; none where nobody said who the patients are, or where groups are no patients.

    """
    from scipy.stats import ttest_ind

    from circuits.set_verdict import holm
    from mechinterp.statistics.permutation import unit_means

    batch, given = effects.batch, np.asarray(of)
    if batch is None or batch.groups is None or not batch.units_are_patients:
        return ()
    nodes = effects.top(n)
    values = effects.per_image[:, nodes].astype(np.float64)
    by_name = {
        str(name): unit_means(values[given == name], batch.groups[given == name])
        for name in dict.fromkeys(given.tolist())
    }
    # one patient has no spread
    known = {name: means for name, means in by_name.items() if len(means) > 1}
    pairs = list(combinations(known, 2))
    if not pairs:
        return ()
    p = np.stack([ttest_ind(known[a], known[b], axis=0, equal_var=False).pvalue for a, b in pairs])
    corrected = holm(np.nan_to_num(p, nan=1.0).ravel()).reshape(p.shape)
    found = [
        SubgroupDifference(
            effects.nodes[int(node)],
            a,
            b,
            float(known[a][:, k].mean() - known[b][:, k].mean()),
            float(corrected[row, k]),
        )
        for row, (a, b) in enumerate(pairs)
        for k, node in enumerate(nodes)
    ]
    return tuple(sorted(found, key=lambda d: d.p))


def _mean_of(values: Float[NDArray[np.float64], " image"], rows: Int[NDArray[np.int64], " drawn"]) -> float:
    return float(values[rows].mean())
