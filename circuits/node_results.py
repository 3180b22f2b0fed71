"""What changing every node does to a metric, with what is needed to believe it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from circuits.ablations import Ablation
from circuits.inputs import Batch, no_interval
from mechinterp.errors import ConfigError

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from mechinterp.statistics import Interval

Resolution = Literal["image", "region", "token"]


@dataclass(frozen=True)
class NodeName:
    """Which node: where it is, what it is, how it is called."""

    site: str
    index: int
    kind: str
    name: str


@dataclass(frozen=True, eq=False)
class Effects:
    """Effect of every node on a metric: changed minus unchanged.

    Parameters
    ----------
    metric
        Its name.
    method
        How it was computed.
    ablation
        What was put in place.
    resolution
        What was changed at once: a node in the whole image, in a region of it, or at one token.
    nodes
        One per column.
    values
        Effects, averaged over the ablation's draws; one place for the whole image.
    before
        The unchanged metric.
    norms
        Norm of the activation's change, in the site's scale; what controls are matched on.
    off_data
        Mean Mahalanobis distance of the changed tokens as a multiple of the unchanged ones', per node, over images in which
        the node changes; NaN where it never does or was not run.
    passes
        Forward and backward passes over one batch that it took: what the method costs.
    batch
        The images and their patients.

    """

    metric: str
    method: str
    ablation: Ablation
    resolution: Resolution
    nodes: tuple[NodeName, ...]
    values: Float[NDArray[np.float32], "image node place"]
    before: Float[NDArray[np.float32], " image"]
    norms: Float[NDArray[np.float32], "image node"]
    off_data: Float[NDArray[np.float64], " node"]
    passes: Mapping[str, int] = field(default_factory=dict)
    batch: Batch | None = None

    @property
    def per_image(self) -> Float[NDArray[np.float32], "image node"]:
        """Effects of whole nodes.

        Raises
        ------
        ConfigError
            If they were changed place by place: exact effects of places do not add up to the node's.

        """
        if self.resolution != "image" and self.method == "exact":
            raise ConfigError(
                f"exact effects were measured per {self.resolution} and do not add up to a node's: "
                "measure with resolution='image'"
            )
        total: NDArray[np.float32] = self.values.sum(2)
        return total

    def mean(self) -> Float[NDArray[np.float64], " node"]:
        """Return the mean effect over images."""
        result: NDArray[np.float64] = self.per_image.astype(np.float64).mean(0)
        return result

    def top(self, n: int = 10) -> Int[NDArray[np.int64], " node"]:
        """Return the columns of the nodes with the largest mean absolute effect."""
        result: NDArray[np.int64] = np.argsort(-np.abs(self.per_image).mean(0), kind="stable")[:n].astype(np.int64)
        return result

    def interval(self, node: int, *, boot: int = 2000, seed: int = 0) -> Interval:
        """Return the interval of one node's mean effect over patients."""
        values = self.per_image[:, node].astype(np.float64)
        if self.batch is None:
            return no_interval()
        return self.batch.interval(lambda rows: float(values[rows].mean()), np.arange(len(values)), boot, seed)

    def matched_nodes(
        self, nodes: NDArray[np.int64], *, n_sets: int = 200, seed: int = 0
    ) -> Int[NDArray[np.int64], "set node"]:
        """Return random sets of other nodes whose norms add up to what these nodes' do: controls of an effect.

        Norms of single changes are added in squares, which is exact where the nodes' directions are orthogonal.
        """
        from circuits.matched_sets import matched_controls

        gram = np.diag(np.square(self.norms.astype(np.float64)).mean(0))
        return matched_controls(gram, np.asarray(nodes, dtype=np.int64), n_sets=n_sets, seed=seed).sets

    def to_json(self, n: int = 50) -> dict[str, Any]:
        """Return the `n` largest as plain JSON."""
        rows = []
        for k in self.top(n).tolist():
            node, interval = self.nodes[k], self.interval(k)
            rows.append(
                {
                    "site": node.site, "index": node.index, "kind": node.kind, "name": node.name,
                    "mean": float(self.per_image[:, k].mean()), "size": float(np.abs(self.per_image[:, k]).mean()),
                    "interval": None if interval.low is None else [interval.low, interval.high],
                    "interval_note": interval.reason, "norm": float(self.norms[:, k].mean()),
                    "off_data": None if np.isnan(self.off_data[k]) else float(self.off_data[k]),
                }
            )  # fmt: skip
        return {
            "metric": self.metric,
            "method": self.method,
            "ablation": self.ablation.name,
            "puts": self.ablation.sentence,
            "passes": dict(self.passes),
            "nodes": rows,
        }

    def figure(self, n: int = 20) -> go.Figure:
        """Draw the largest as a waterfall; see :func:`circuits.graph_figures.waterfall_figure`."""
        from circuits.graph_figures import waterfall_figure

        chosen = self.top(n)
        means = self.mean()
        rest = float(means.sum() - means[chosen].sum())
        names = [self.nodes[k].name for k in chosen.tolist()]
        return waterfall_figure(
            [*names, f"{len(means) - len(chosen)} others"], [*means[chosen].tolist(), rest], metric=self.metric
        )
