"""Sparse probes: how well a few features of an encoder read an attribute, against as many neurons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.attributes.table import AttributeTable
from mechinterp.errors import AttributeTableError, ConfigError, ShapeError
from mechinterp.feature_encoder import FeatureEncoder
from mechinterp.files import jsonable
from mechinterp.progress import SILENT, Progress
from mechinterp.statistics.bootstrap import Interval
from probes.folds import Folds, make_folds
from probes.linear import kind_of
from probes.pooling import Pooling, TokenStore, patients_of, pooled_features
from probes.reading import classified, read_new
from probes.score_intervals import reading_interval
from probes.scores import METRICS, ProbeKind, Reading

Values = NDArray[np.float64]
SIZES = (1, 2, 5, 10, 20)


@dataclass(frozen=True)
class SparseProbe:
    """Held-out scores of probes on the k features chosen for them.

    Parameters
    ----------
    attribute, unit, metric, encoder
        What was read, how it is scored, and off which kind of features.
    sizes
        Numbers of features, k.
    scores, intervals
        Held-out score with each k, and its interval over patients.
    dense
        Score with all features.
    chosen
        For each k, the features chosen in each fold.

    """

    attribute: str
    unit: str
    metric: str
    encoder: str
    sizes: tuple[int, ...]
    scores: tuple[float, ...]
    intervals: tuple[Interval, ...]
    dense: float
    chosen: tuple[tuple[tuple[int, ...], ...], ...]

    def always(self, k: int) -> tuple[int, ...]:
        """Return the features chosen in every fold with this k."""
        folds = self.chosen[self.sizes.index(k)]
        return tuple(sorted(set(folds[0]).intersection(*folds[1:])))

    @property
    def text(self) -> str:
        """One line with the numbers."""
        found = ", ".join(f"{k}: {s:.2f}" for k, s in zip(self.sizes, self.scores, strict=True))
        return f"{self.attribute} from the best k {self.encoder}, {self.metric} {found}; all: {self.dense:.2f}"

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        found: dict[str, Any] = jsonable(
            {**vars(self), "intervals": [i.to_json() for i in self.intervals], "text": self.text}
        )
        return found


def fit_sparse_probe(
    features: Float[NDArray[Any], "image feature"],
    attribute: Float[NDArray[Any], " image"],
    *,
    groups: Sequence[Any] | NDArray[Any] | None = None,
    sizes: Sequence[int] = SIZES,
    kind: ProbeKind | None = None,
    folds: int = 5,
    name: str = "attribute",
    unit: str = "1",
    encoder: str = "features",
    n_boot: int = 1000,
    seed: int = 0,
) -> SparseProbe:
    """Choose k features on training patients, fit a probe to them, score it on the others [1]_.

    Parameters
    ----------
    features
        Image-level values, see :func:`~probes.pooling.pooled_features`.
    attribute
        Value of each image; images with NaN are left out.
    groups
        Patient of each image; no fold straddles one.
    sizes
        Numbers of features; those above the number of features are left out.
    kind
        As for :func:`~probes.linear.fit_probe`.
    folds
        Outer folds. Features, and the probe's penalty, are chosen on the other folds of each.
    name, unit, encoder
        For texts.
    n_boot, seed
        Of the intervals.

    Raises
    ------
    ConfigError
        If a size is below 1.
    AttributeTableError, ShapeError
        If there are too few values, or they do not vary, or are not as many as the images.

    Notes
    -----
    Features are ranked by the absolute correlation with the attribute (for classes, with each class's indicator, the
    highest counts): for two classes that is the order of the standardised difference of means, which Gurnee et al. find as good as
    slower choices.

    References
    ----------
    .. [1] Gurnee et al. Finding neurons in a haystack: case studies with sparse probing. TMLR 2023.

    """
    x, values = np.asarray(features, dtype=np.float64), np.asarray(attribute, dtype=np.float64)
    if x.ndim != 2 or len(x) != len(values):
        raise ShapeError(f"features have shape {x.shape} for {len(values)} values of '{name}': one row per image")
    if any(k < 1 for k in sizes):
        raise ConfigError(f"sizes holds {min(sizes)}: a sparse probe needs one feature at least")
    kept = np.flatnonzero(~np.isnan(values))
    x, y = x[kept], values[kept]
    if len(y) < 10 or np.ptp(y) == 0:
        raise AttributeTableError(f"'{name}' has {len(y)} values, or one only: a probe needs 10 that vary")
    kind = kind or ("binary" if set(np.unique(y)) == {0.0, 1.0} else "continuous")
    units = np.arange(len(y)) if groups is None else np.asarray(groups, dtype=object)[kept]
    made = make_folds(len(y), folds, groups=units, classes=None if kind == "continuous" else y, seed=seed)
    ranked = [_ranked(x[train], y[train], kind) for train, _ in map(made.split, range(made.n))]
    ks = tuple(k for k in sorted(set(sizes)) if k <= x.shape[1])
    readings = [_read(x, y, made, kind, name, [order[:k] for order in ranked]) for k in ks]
    everything = _read(x, y, made, kind, name, [np.arange(x.shape[1])] * made.n)
    return SparseProbe(
        name, unit, METRICS[kind], encoder, ks,
        tuple(float(r.scores()[0]) for r in readings),
        tuple(reading_interval(r, units, n_boot, seed) for r in readings),
        float(everything.scores()[0]),
        tuple(tuple(tuple(int(f) for f in order[:k]) for order in ranked) for k in ks),
    )  # fmt: skip


def sparse_probe_store(
    encoder: FeatureEncoder,
    store: TokenStore,
    attributes: AttributeTable,
    name: str,
    *,
    pooling: Pooling = "max",
    images: NDArray[np.int64] | None = None,
    progress: Progress = SILENT,
    **settings: Any,
) -> SparseProbe:
    """Probe an encoder's features on a store; groups come from the store.

    Parameters
    ----------
    encoder, store
        Any encoder of one of the store's sites.
    attributes, name
        The table of the store's images, and the attribute.
    pooling
        How an image's tokens become one value: small lesions want the maximum, areas the mean.
    images
        Positions of the images; all by default.
    progress
        Of the encoding.
    **settings
        Of :func:`fit_sparse_probe`.

    Raises
    ------
    ConfigError
        If the store's groups are parts of one subject: then no image is independent of the training ones.

    """
    chosen = np.arange(len(store.images)) if images is None else np.asarray(images)
    groups, are_patients = patients_of(store)
    if not are_patients:
        raise ConfigError(
            "the groups are parts of one subject: a sparse probe needs patients to choose its features on"
        )
    about = attributes[name]
    settings.setdefault("groups", None if groups is None else groups[chosen])
    settings.setdefault("kind", kind_of(about))
    values = pooled_features(encoder, store, images=chosen, progress=progress).take(pooling)
    return fit_sparse_probe(
        values, attributes.column(name)[chosen], name=name, unit=about.unit, encoder=encoder.kind, **settings
    )


def _ranked(x: Values, y: Values, kind: ProbeKind) -> NDArray[np.int64]:
    """Return all features, the one closest to the attribute first."""
    targets = (y[:, None] == np.unique(y)).astype(np.float64) if kind == "categorical" else y[:, None]
    z, t = x - x.mean(0), targets - targets.mean(0)
    scale = np.linalg.norm(z, axis=0)[:, None] * np.linalg.norm(t, axis=0)
    correlation = np.abs(np.divide(z.T @ t, scale, out=np.zeros(scale.shape), where=scale > 1e-12)).max(1)
    order: NDArray[np.int64] = np.argsort(-correlation, kind="stable")
    return order


def _read(
    x: Values, y: Values, folds: Folds, kind: ProbeKind, name: str, chosen: Sequence[NDArray[np.int64]]
) -> Reading:
    levels, codes = np.unique(y, return_inverse=True)
    found: Values | None = None
    reference = np.zeros((len(y), 1))
    for k in range(folds.n):
        train, test = folds.split(k)
        some = x[:, chosen[k]]
        predicted = read_new(some[train], y[train], some[test], folds.subset(train), kind, levels, name)
        found = np.empty((len(y), predicted.shape[1])) if found is None else found
        found[test] = predicted
        reference[test] = y[train].mean()
    out = np.empty((0, 1)) if found is None else found
    if kind == "continuous":
        return Reading(kind, y[:, None], out, reference)
    return classified(kind, y, levels, codes.reshape(-1), out)
