"""The table: every method beside the baselines, with intervals over patients, flags, and what can be claimed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from circuits.localization.config import Level
from circuits.localization.estimates import Estimate
from circuits.localization.map_methods import BASELINES
from circuits.localization.maps import RelevanceMaps
from circuits.localization.randomisation import Randomisation, Stage, maps_unchanged
from mechinterp.claims import Bound, Claim, Control, Strength
from mechinterp.errors import ConfigError, nearest

if TYPE_CHECKING:
    import plotly.graph_objects as go

METHOD_WORDS = {
    "lrp": "LRP",
    "grad-cam": "Grad-CAM",
    "rollout": "attention rollout",
    "integrated-gradients": "integrated gradients",
}
BASELINE_WORDS = {"edges": "edge detector", "centre": "centre prior", "random": "random map"}
UNTRAINED = "the model is untrained"
UNCHANGED = "does not change when the weights are made random"
UNCHANGED_BY_LABELS = "does not change when the labels it learned from are shuffled"
TOO_FEW = "too few patients for an interval: nothing is told from the baselines"
NOT_FAITHFUL = "removing the pixels it names changes the answer no more than removing random ones"


@dataclass(frozen=True, eq=False)
class MethodRow:
    """One method on the confirmation patients.

    Parameters
    ----------
    method
        Its name.
    baseline
        Whether it knows nothing of the model.
    note
        What is part of the claim: site, reference, rules.
    scores
        Score → level → estimate: ``auprc`` and ``dice`` at every level; ``pointing``, ``distance`` and ``mass`` of pixels.
    discovery_auprc
        What it scored on discovery patients: what the best method is chosen by.
    threshold
        Share of a map's largest value from which on it calls lesion, chosen on discovery patients, by level.
    gains
        Baseline → by how much the pixel AUPRC is higher, patient by patient.
    faithfulness
        ``deletion``, ``insertion``, ``comprehensiveness``, ``sufficiency`` [logits], ``infidelity``, ``sensitivity``.
    deletion_gain
        By how much deletion is higher than in a random order, patient by patient.
    randomisation
        How alike maps stay when weights are made random.
    labels
        How alike they are to those of a model that learned shuffled labels.
    flags
        Why the method's maps should not be trusted; empty for none.

    """

    method: str
    baseline: bool
    note: str
    scores: Mapping[str, Mapping[Level, Estimate]]
    discovery_auprc: float | None
    threshold: Mapping[Level, float]
    gains: Mapping[str, Estimate] = field(default_factory=dict)
    faithfulness: Mapping[str, Estimate] = field(default_factory=dict)
    deletion_gain: Estimate | None = None
    randomisation: Randomisation | None = None
    labels: Stage | None = None
    flags: tuple[str, ...] = ()

    def score(self, name: str, level: Level = "pixel") -> Estimate:
        """Return a score at a level.

        Raises
        ------
        ConfigError
            If there is no such score, or not at this level.

        """
        if name not in self.scores:
            raise ConfigError(f"there is no score '{name}': {nearest(name, self.scores)}")
        if level not in self.scores[name]:
            raise ConfigError(f"'{name}' was not scored at level '{level}': {nearest(level, self.scores[name])}")
        return self.scores[name][level]

    def to_json(self) -> dict[str, Any]:
        """Return the row as plain JSON."""
        return {
            "method": self.method,
            "baseline": self.baseline,
            "note": self.note,
            "scores": {s: {lv: e.to_json() for lv, e in by.items()} for s, by in self.scores.items()},
            "discovery_auprc": self.discovery_auprc,
            "threshold": dict(self.threshold),
            "gains": {b: e.to_json() for b, e in self.gains.items()},
            "faithfulness": {n: e.to_json() for n, e in self.faithfulness.items()},
            "deletion_gain": None if self.deletion_gain is None else self.deletion_gain.to_json(),
            "randomisation": None if self.randomisation is None else self.randomisation.to_json(),
            "labels": None if self.labels is None else self.labels.to_json(),
            "flags": list(self.flags),
        }


@dataclass(frozen=True, eq=False)
class LocalizationTable:
    """What :func:`circuits.localization.localization_table` found.

    Parameters
    ----------
    model, metric, truth
        Whose maps of what, against which masks.
    rows
        One a method, the baselines last.
    images, patients
        How many of the confirmation set hold a lesion, and of how many patients; 0 where nobody named any, or all are of one.
    prevalence
        Share of lesion pixels in them: the AUPRC of noise.
    trained
        False for a model of random weights.
    ground_truth
        Whether masks are known by construction.
    maps
        Method → its maps of the confirmation images, for figures.

    """

    model: str
    metric: str
    truth: tuple[str, ...]
    rows: tuple[MethodRow, ...]
    images: int
    patients: int
    prevalence: float
    trained: bool
    ground_truth: bool
    maps: Mapping[str, RelevanceMaps] = field(default_factory=dict, repr=False)

    @property
    def best(self) -> str:
        """The method, no baseline, with the highest pixel AUPRC on the discovery patients."""
        return max((r for r in self.rows if not r.baseline), key=lambda r: r.discovery_auprc or 0.0).method

    def row(self, method: str) -> MethodRow:
        """Return one method's row.

        Raises
        ------
        ConfigError
            If it is not in the table.

        """
        for row in self.rows:
            if row.method == method:
                return row
        raise ConfigError(f"the table has no method '{method}': {nearest(method, [r.method for r in self.rows])}")

    def claims(self, *, test: str = "") -> list[Claim]:
        """Return one claim a method: that its maps find the lesions, better than every baseline, for the model's reasons.

        Parameters
        ----------
        test
            Name of the planned test that the claim of :attr:`best` answers; the others answer none.

        """
        return [
            self.claim(row.method, test=test if row.method == self.best else "")
            for row in self.rows
            if not row.baseline
        ]

    def claim(self, method: str, *, test: str = "") -> Claim:
        """Return the claim of one method; its controls' names are fixed, so that a plan can name them.

        The metric is the pixel AUPRC above the strongest baseline. Controls: ``edge detector``, ``centre prior`` and
        ``random map`` (lower end of the gain's interval), ``randomised weights`` (upper end of the likeness),
        ``random order of deletion`` (lower end of the gain), and ``shuffled labels`` where such a model was given.
        """
        row = self.row(method)
        strongest = min(row.gains, key=lambda b: row.gains[b].value or 0.0)
        gain, auprc = row.gains[strongest], row.score("auprc")
        controls = [
            Control(
                BASELINE_WORDS.get(name, name),
                _low(e),
                bound=Bound("at least", 0.0),
                detail=f"gain in AUPRC {e.text}",
                measure="gain, lower end",
            )
            for name, e in row.gains.items()
        ]
        if row.randomisation is not None:
            last = row.randomisation.cascade[-1].alike
            limit = Bound("at most", row.randomisation.limit)
            controls.append(
                Control(
                    "randomised weights",
                    _high(last),
                    bound=limit,
                    detail=f"rank correlation {last.text}",
                    measure="likeness, upper end",
                )
            )
        if row.labels is not None:
            limit = Bound("at most", row.randomisation.limit if row.randomisation else 0.5)
            at = row.labels.alike
            controls.append(
                Control(
                    "shuffled labels",
                    _high(at),
                    bound=limit,
                    detail=f"rank correlation {at.text}",
                    measure="likeness, upper end",
                )
            )
        if row.deletion_gain is not None:
            e = row.deletion_gain
            controls.append(
                Control(
                    "random order of deletion",
                    _low(e),
                    bound=Bound("at least", 0.0),
                    detail=f"gain {e.text} logits",
                    measure="gain in logits, lower end",
                )
            )
        strength: Strength = "interventional" if row.deletion_gain is not None else "correlational"
        return Claim.measured(
            f"Maps by {METHOD_WORDS.get(method, method)} of {self.metric} find {' and '.join(self.truth)}: AUPRC {auprc.text}, "
            f"{gain.text} above the {BASELINE_WORDS.get(strongest, strongest)}",
            "ground-truth-verified" if self.ground_truth else strength,
            gain.value,
            "AUPRC",
            Bound("at least", 0.0),
            "the AUPRC is higher than that of every baseline",
            controls=tuple(controls),
            interval=gain.interval.ends,
            interval_note=gain.interval.reason or gain.interval.warning,
            trained=self.trained,
            numbers={"auprc": auprc.value, "prevalence": self.prevalence} | _ends(auprc) | _named("gain", row.gains),
            test=test,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the table as plain JSON."""
        return {
            "model": self.model,
            "metric": self.metric,
            "truth": list(self.truth),
            "images": self.images,
            "patients": self.patients,
            "prevalence": self.prevalence,
            "trained": self.trained,
            "best": self.best,
            "rows": [row.to_json() for row in self.rows],
            "claims": [c.to_json() for c in self.claims()],
        }

    def markdown(self) -> str:
        """Return the main numbers as a Markdown table."""
        columns = [
            "method",
            "AUPRC",
            "tokens",
            "regions",
            "pointing",
            "Dice",
            "distance",
            "deletion",
            "likeness",
            "flags",
        ]
        lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
        for r in self.rows:
            last = "–" if r.randomisation is None else r.randomisation.cascade[-1].alike.text
            by = r.scores["auprc"]
            cells = [
                r.method, r.score("auprc").text, *(by[lv].text if lv in by else "–" for lv in ("token", "region")),
                r.score("pointing").text, r.score("dice").text, r.score("distance").text,
                r.faithfulness["deletion"].text if r.faithfulness else "–", last, "; ".join(r.flags) or "none",
            ]  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines)

    def figure(self) -> go.Figure:
        """Return the AUPRC of every method with its interval; see :func:`circuits.localization.figures.table_figure`."""
        from circuits.localization.figures import table_figure

        return table_figure(self)


def flags_of(
    *,
    trained: bool,
    gains: Mapping[str, Estimate],
    deletion_gain: Estimate | None,
    randomisation: Randomisation | None,
    labels: Stage | None,
    limit: float,
) -> tuple[str, ...]:
    """Return why maps should not be trusted: a pure function of the numbers."""
    found = [] if trained else [UNTRAINED]
    if any(e.interval.ends is None for e in gains.values()):
        found.append(TOO_FEW)
    found += [
        f"finds lesions no better than {BASELINE_WORDS.get(b, b)}" for b, e in gains.items() if _not_above_zero(e)
    ]
    if deletion_gain is not None and _not_above_zero(deletion_gain):
        found.append(NOT_FAITHFUL)
    if randomisation is not None and randomisation.unchanged:
        found.append(UNCHANGED)
    if labels is not None and maps_unchanged(labels.alike, limit):
        found.append(UNCHANGED_BY_LABELS)
    return tuple(found)


def _not_above_zero(e: Estimate) -> bool:
    low = _low(e)
    return (e.value or 0.0) <= 0 if low is None else low <= 0


def _low(e: Estimate) -> float | None:
    # without an interval a control counts as not run: a mean of a few patients decides nothing
    return None if e.interval.ends is None else e.interval.ends[0]


def _high(e: Estimate) -> float | None:
    return None if e.interval.ends is None else e.interval.ends[1]


def _ends(e: Estimate) -> dict[str, float | None]:
    low, high = e.interval.ends or (None, None)
    return {"auprc_low": low, "auprc_high": high}


def _named(what: str, estimates: Mapping[str, Estimate]) -> dict[str, float | None]:
    return {f"{what}_{name}": e.value for name, e in estimates.items()}


def ordered(rows: Mapping[str, MethodRow]) -> tuple[MethodRow, ...]:
    """Return rows with the baselines last."""
    return tuple(sorted(rows.values(), key=lambda r: (r.baseline, BASELINES.index(r.method) if r.baseline else 0)))
