"""What matching features with attributes found: every pair, the chosen ones, which survive, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from mechinterp.attributes.table import Attribute
from mechinterp.claims import Control
from mechinterp.files import jsonable
from mechinterp.statistics.bootstrap import Interval
from mechinterp.statistics.permutation import MaxStatisticResult
from probes.pair_measures import PairMeasures


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
        Of the held-out correlation, corrected for all pairs tested by the highest of all; NaN where there was no test.
    verdict
        In words, by that correction.
    q
        The held-out correlation's p-value corrected for the share of false discoveries instead; NaN where it was not
        tested.
    information, auroc, r2
        Held out: mutual information in bits, AUROC of a binary attribute, and R² of the attribute as a line of the
        feature that was fitted on the discovery images; NaN where there is none.
    interval, interval_note
        95 % interval of `rho_confirmation` over patients, for survivors; or why there is none.

    """

    feature: int
    attribute: str
    unit: str
    rho_discovery: float
    rho_confirmation: float
    p_corrected: float
    verdict: str
    q: float = float("nan")
    information: float = float("nan")
    auroc: float = float("nan")
    r2: float = float("nan")
    interval: tuple[float, float] | None = None
    interval_note: str = ""


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
    measures
        What else was measured of every pair on the confirmation images; ``None`` where it was not asked for.
    intervals
        Of the survivors' held-out correlation, by feature; the strongest only, where there are very many.
    supervised
        The same matrix for directions that were taken from the attributes themselves on the discovery images: what
        labels would have given. No control: features may well stay below it.

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
    measures: PairMeasures | None = None
    intervals: Mapping[int, Interval] = field(default_factory=dict)
    supervised: AttributeMatrix | None = None

    def __len__(self) -> int:
        return len(self.best)

    def __getitem__(self, feature: int) -> FeatureAttribute:
        j = int(self.best[feature])
        if j < 0:
            return FeatureAttribute(feature, "", "", np.nan, np.nan, np.nan, "does not vary on the discovery images")
        rho, p = float(self.rho_confirmation[feature, j]), float(self.test.p_corrected[feature, j])
        interval = self.intervals.get(feature)
        more = {} if self.measures is None else self.measures.of(feature, j)
        return FeatureAttribute(
            feature, self.attributes[j].name, self.attributes[j].unit,
            float(self.rho_discovery[feature, j]), rho, p, self._verdict(feature, j, p),
            interval=None if interval is None else interval.ends,
            interval_note="" if interval is None else interval.reason or interval.warning,
            **more,
        )  # fmt: skip

    @property
    def surviving(self) -> Bool[NDArray[np.bool_], " feature"]:
        """Which features keep their attribute, with its sign, on the confirmation images.

        Corrected for the share of false discoveries among the chosen pairs; for the slices of one volume, where single
        pairs have no p-value of their own, by the highest of all pairs, as :attr:`findings`.
        """
        rows = np.flatnonzero(self.best >= 0)
        pairs = rows, self.best[rows]
        kept = np.zeros(len(self), dtype=bool)
        with np.errstate(invalid="ignore"):
            if self.measures is None or np.isnan(self.measures.q[pairs]).all():
                found = self.test.findings[pairs]
            else:
                found = self.measures.q[pairs] <= self.test.alpha
            kept[rows] = found & (self.rho_confirmation[pairs] * self.rho_discovery[pairs] > 0)
        return kept

    @property
    def survivors(self) -> tuple[FeatureAttribute, ...]:
        """The features of :attr:`surviving`, the closest first."""
        return tuple(
            sorted((self[int(i)] for i in np.flatnonzero(self.surviving)), key=lambda f: -abs(f.rho_confirmation))
        )

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
                "survivors": np.flatnonzero(self.surviving),
                "controls": {name: other.to_json() for name, other in self.controls.items()},
                "supervised": None if self.supervised is None else self.supervised.to_json(),
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
