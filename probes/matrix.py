"""Every feature against every attribute: chosen on some patients, tested on others, nothing hidden."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from mechinterp.attributes.table import Attribute, AttributeTable
from mechinterp.claims import Control
from mechinterp.errors import AttributeTableError, ConfigError, LeakageError, ShapeError
from mechinterp.feature_encoder import FeatureEncoder
from mechinterp.files import jsonable
from mechinterp.progress import SILENT, Progress
from mechinterp.statistics.permutation import MaxStatisticResult, max_statistic_test, unit_means
from mechinterp.statistics.rank import spearman
from mechinterp.statistics.shifts import Bound
from probes.controls import baseline_encoders
from probes.pooling import Pooling, TokenStore, patients_of, pooled_features

Images = Sequence[int] | NDArray[np.int64]


@dataclass(frozen=True)
class FeatureAttribute:
    """A feature and the attribute that it followed most closely on the discovery images.

    Parameters
    ----------
    feature
        Its number.
    attribute, unit
        The attribute chosen on the discovery images, and its unit; empty where nothing varied.
    rho_discovery, rho_confirmation
        Spearman's rho on the images it was chosen on, and on the others.
    p_corrected
        Of the held-out correlation, corrected for all pairs tested; NaN where there was no test.
    verdict
        In words.

    """

    feature: int
    attribute: str
    unit: str
    rho_discovery: float
    rho_confirmation: float
    p_corrected: float
    verdict: str


@dataclass(frozen=True)
class AttributeMatrix:
    """Correlations of all features with all attributes, on discovery and on confirmation images.

    Parameters
    ----------
    attributes
        The columns.
    rho_discovery, rho_confirmation
        Feature × attribute: Spearman's rho over units (patients, or the slices of one volume).
    best
        Attribute chosen for each feature on the discovery images; -1 where nothing varied.
    test
        The test on the confirmation images: of the chosen pairs, or of all pairs where the images are slices of one
        volume; its `rho` rests on the slices that were compared.
    kind
        What the features are: ``sae``, ``neurons``, ``pca``, ``random`` …
    pooling
        How the tokens of an image became one value.
    left_out
        Attributes that have no order (categories), which no rank correlation can describe.
    controls
        The same matrix for what the features have to beat.

    """

    attributes: tuple[Attribute, ...]
    rho_discovery: Float[NDArray[np.float64], "feature attribute"]
    rho_confirmation: Float[NDArray[np.float64], "feature attribute"]
    best: Int[NDArray[np.int64], " feature"]
    test: MaxStatisticResult
    kind: str = "features"
    pooling: str = ""
    left_out: tuple[str, ...] = ()
    controls: Mapping[str, AttributeMatrix] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.best)

    def __getitem__(self, feature: int) -> FeatureAttribute:
        j = int(self.best[feature])
        if j < 0:
            return FeatureAttribute(feature, "", "", np.nan, np.nan, np.nan, "does not vary on the discovery images")
        rho, p = float(self.rho_confirmation[feature, j]), float(self.test.p_corrected[feature, j])
        return FeatureAttribute(
            feature, self.attributes[j].name, self.attributes[j].unit,
            float(self.rho_discovery[feature, j]), rho, p, self._verdict(feature, j, p),
        )  # fmt: skip

    @property
    def findings(self) -> tuple[FeatureAttribute, ...]:
        """Features whose attribute was confirmed, the closest first."""
        rows = np.flatnonzero(self.best >= 0)
        found = [self[int(i)] for i in rows[self.test.findings[rows, self.best[rows]]]]
        confirmed = [f for f in found if f.verdict.startswith("confirmed")]
        return tuple(sorted(confirmed, key=lambda f: -abs(f.rho_confirmation)))

    @property
    def text(self) -> str:
        """One sentence: how many features were confirmed, of how many, or that none can be."""
        if not self.test.can_be_significant:
            return self.test.text
        return f"{len(self.findings)} of {len(self)} {self.kind} follow an attribute on held-out images ({self.test.scheme})"

    def chance(self, level: float = 0.95) -> float:
        """Return the highest |rho| that shuffled attributes stay below with this probability; NaN where none were made."""
        null = self.test.null_max
        return float(np.quantile(null.max(1), level)) if len(null) else float("nan")

    def highest(self) -> float:
        """Return the highest held-out |rho| of a feature with its chosen attribute; NaN when there is none."""
        rows = np.flatnonzero(self.best >= 0)
        values = np.abs(self.rho_confirmation[rows, self.best[rows]])
        return float(np.nanmax(values)) if np.isfinite(values).any() else float("nan")

    def as_controls(self) -> tuple[Control, ...]:
        """Return what stands beside the claim that features follow attributes: shuffled attributes and other encoders.

        The first passes where a feature was confirmed; the others where no more of theirs were, as a share, than of
        the features.
        """
        share = len(self.findings) / max(1, len(self))
        shuffled = Control("shuffled attributes", self.chance(), bool(self.findings), self.test.text)
        return (
            shuffled,
            *(
                Control(
                    name, other.highest(), len(other.findings) / max(1, len(other)) <= share,
                    f"{other.text}; highest held-out |rho| {other.highest():.2f} against {self.highest():.2f}",
                )
                for name, other in self.controls.items()
            ),
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Return everything, all pairs included, as plain JSON."""
        found: dict[str, Any] = jsonable(
            {
                "kind": self.kind,
                "pooling": self.pooling,
                "attributes": [{"name": a.name, "unit": a.unit, "measured": a.measured} for a in self.attributes],
                "left_out": self.left_out,
                "rho_discovery": self.rho_discovery,
                "rho_confirmation": self.rho_confirmation,
                "features": [vars(self[i]) for i in range(len(self))],
                "test": self.test.to_json(),
                "text": self.text,
                "controls": {name: other.to_json() for name, other in self.controls.items()},
            }
        )
        return found

    def _verdict(self, feature: int, attribute: int, p: float) -> str:
        if np.isnan(p):
            return "does not vary on the held-out images"
        if not self.test.can_be_significant:
            return f"cannot be significant with {self.test.n_units} units"
        if not self.test.findings[feature, attribute]:
            return f"not confirmed on held-out images (p {p:.2g})"
        if self.test.rho[feature, attribute] * self.rho_discovery[feature, attribute] < 0:
            return f"not confirmed: the sign turned on held-out images (p {p:.2g})"
        return f"confirmed on held-out images (p {p:.2g})"


def match_attributes(
    features: Float[NDArray[Any], "image feature"],
    attributes: AttributeTable,
    discovery: Images,
    confirmation: Images,
    *,
    groups: Sequence[Any] | NDArray[Any] | None = None,
    order: Sequence[int] | NDArray[Any] | None = None,
    n_permutations: int = 1000,
    bound: Bound = "guaranteed",
    kind: str = "features",
    pooling: str = "",
    seed: int = 0,
) -> AttributeMatrix:
    """Choose each feature's closest attribute on the discovery images, and test it on the confirmation images.

    Parameters
    ----------
    features
        Image × feature, for all images.
    attributes
        Of the same images.
    discovery, confirmation
        Positions of the images to choose on, and of those to test on.
    groups
        Patient of each image. What is compared is patients.
    order
        Instead, for one volume: position of each image. The attributes of all images lend themselves to the shifts, so
        a confirmation block in the middle of the volume is tested in full.
    n_permutations
        Permutations of patients.
    bound
        How p-values of shifts are computed: see :func:`~mechinterp.statistics.shifts.plan_shifts`.
    kind, pooling
        For texts.
    seed
        Of the permutations.

    Returns
    -------
    AttributeMatrix
        With all pairs, those that were not chosen too.

    Raises
    ------
    LeakageError
        If an image or a group stands on both sides.
    AttributeTableError
        If no attribute has an order.
    ShapeError
        If features and attributes are not of the same images.

    """
    features = np.asarray(features)
    if features.ndim != 2 or len(features) != len(attributes):
        raise ShapeError(
            f"features have shape {features.shape}, attributes {len(attributes)} images: one row per image"
        )
    ordered = [a.kind != "categorical" or len(attributes.categories.get(a.name, ())) == 2 for a in attributes]
    if not any(ordered):
        raise AttributeTableError("no attribute to compare with: add a continuous, ordinal or binary one")
    values = attributes.values[:, ordered]
    chosen, held_out = np.asarray(discovery, dtype=np.int64), np.asarray(confirmation, dtype=np.int64)
    # blocks of one volume are no patients: there the images between discovery and confirmation keep them apart
    _check_sides(chosen, held_out, None if order is not None else groups)
    # blocks of one volume are no patients: averaging them would leave a handful of values to choose by
    units = None if order is not None else groups
    rho_discovery = _over_units(features, values, chosen, units)
    strength = np.nan_to_num(np.abs(rho_discovery), nan=-1.0)
    best = np.where(strength.max(1) >= 0, strength.argmax(1), -1)
    # Patients are independent, so a choice made on some is no choice for others and only the chosen pairs are tested. Slices
    # are not: a pair that agrees at the edge of the held-out block agrees a little inside it, so all pairs are tested.
    tested = np.full(rho_discovery.shape, order is not None)
    tested[np.flatnonzero(best >= 0), best[best >= 0]] = True
    within = np.zeros(len(features), dtype=bool)
    within[held_out] = True
    test = max_statistic_test(
        features, values, groups=None if order is not None else groups, order=order, within=within, tested=tested,
        n_permutations=n_permutations, bound=bound, seed=seed,
    )  # fmt: skip
    return AttributeMatrix(
        tuple(a for a, kept in zip(attributes, ordered, strict=True) if kept),
        rho_discovery,
        _over_units(features, values, held_out, units),
        best,
        test,
        kind,
        pooling,
        tuple(a.name for a, kept in zip(attributes, ordered, strict=True) if not kept),
    )


def attribute_matrix(
    encoder: FeatureEncoder,
    store: TokenStore,
    attributes: AttributeTable,
    *,
    discovery: Images | str | None = None,
    confirmation: Images | str | None = None,
    order: Sequence[int] | NDArray[Any] | None = None,
    pooling: Pooling = "mean",
    controls: Mapping[str, FeatureEncoder] | None = None,
    n_permutations: int = 1000,
    bound: Bound = "guaranteed",
    seed: int = 0,
    progress: Progress = SILENT,
) -> AttributeMatrix:
    """Match an encoder's features with the attributes of a store's images, beside neurons, PCA and random directions.

    Parameters
    ----------
    encoder
        The features: an SAE, or any other encoder of one of the store's sites.
    store
        Activations of the images.
    attributes
        Of the same images, in the store's order.
    discovery, confirmation
        Images, or the name of their split; by default those that are not in the split ``test``, and those that are.
    order
        Position of each image along the volume, where the store's groups are parts of one subject; the order of its
        images by default.
    pooling
        The image-level value, named beforehand: ``mean``, ``max`` or ``active``.
    controls
        What the features have to beat; by default the site's neurons, PCA of the discovery images, and as many random
        directions as there are features.
    n_permutations, bound, seed
        See :func:`match_attributes`.
    progress
        Where progress goes.

    Returns
    -------
    AttributeMatrix
        With its controls.

    Raises
    ------
    ConfigError
        If the images have no splits and none are given.
    ShapeError
        If the attributes are of other images.

    """
    if len(attributes) != len(store.images):
        raise ShapeError(
            f"the store has {len(store.images)} images, the attributes {len(attributes)}: take one image set"
        )
    splits = store.images["split"].to_numpy(dtype=object)
    held_out = _images_of(confirmation if confirmation is not None else "test", splits)
    chosen = (
        _images_of(discovery, splits)
        if discovery is not None
        else np.array([i for i, s in enumerate(splits) if isinstance(s, str) and s != "test"], dtype=np.int64)
    )
    groups, are_patients = patients_of(store)
    if order is None and not are_patients:
        order = np.arange(len(splits))
    others = (
        baseline_encoders(store, encoder.site, encoder.width, images=chosen, seed=seed)
        if controls is None
        else controls
    )
    matrices = {}
    for name, each in {"": encoder, **others}.items():
        values = pooled_features(each, store, progress=progress).take(pooling)
        matrices[name] = match_attributes(
            values, attributes, chosen, held_out, groups=groups, order=order, n_permutations=n_permutations,
            bound=bound, kind=each.kind, pooling=pooling, seed=seed,
        )  # fmt: skip
    return replace(matrices.pop(""), controls=matrices)


def _over_units(
    features: NDArray[Any], values: NDArray[np.float64], images: NDArray[np.int64], groups: Any
) -> NDArray[np.float64]:
    f, a = features[images], values[images]
    if groups is None:
        return spearman(f, a)
    units = np.asarray(groups, dtype=object)[images]
    return spearman(unit_means(f, units), unit_means(a, units))


def _check_sides(chosen: NDArray[np.int64], held_out: NDArray[np.int64], groups: Any) -> None:
    if np.intersect1d(chosen, held_out).size:
        raise LeakageError("an image is both for discovery and for confirmation: take disjoint sets")
    if groups is not None:
        sides = np.asarray(groups, dtype=object)
        if set(sides[chosen].tolist()) & set(sides[held_out].tolist()):
            raise LeakageError(
                "a group is both for discovery and for confirmation: put all images of a patient on one side"
            )


def _images_of(images: Images | str, splits: NDArray[Any]) -> NDArray[np.int64]:
    if not isinstance(images, str):
        return np.asarray(images, dtype=np.int64)
    found = np.flatnonzero(splits == images)
    if not len(found):
        known = sorted({s for s in splits if isinstance(s, str)})
        raise ConfigError(
            f"no image of split '{images}' (splits: {', '.join(known) or 'none'}): give discovery and confirmation"
        )
    return found
