"""What ratings say: whether people tell a feature's images from others, beside chance, planted controls and each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.dashboard.rating.agreement import Answers, krippendorff_alpha, pairwise_kappa
from experiments.dashboard.rating.answers import Rating
from experiments.dashboard.rating.rating_page import KEY_FOLDER
from experiments.dashboard.record import Record
from mechinterp.claims import Bound, Claim, Control
from mechinterp.errors import ConfigError
from mechinterp.files import read_json

ELEMENT = "visual recognizability"
TENTATIVE = 0.667
"""Krippendorff's alpha from which tentative conclusions are allowed; see :mod:`experiments.dashboard.rating.agreement`."""


@dataclass(frozen=True)
class RatedItem:
    """One item with what raters said of it.

    Parameters
    ----------
    item, kind, feature
        As in the key.
    right, seen
        Shares of its raters who chose the right candidate, and who said *yes*.
    names
        What raters called it, by rater; empty names left out.
    raters
        How many rated it.

    """

    item: str
    kind: str
    feature: int | None
    right: float
    seen: float
    names: dict[str, str]
    raters: int

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return vars(self)


@dataclass(frozen=True, eq=False)
class Scores:
    """What all ratings of one plan say together.

    Parameters
    ----------
    plan
        Which plan.
    raters
        Who rated.
    items
        Every rated item.
    chance
        Share of right choices that chance gives.
    accuracy
        Share of right choices for each kind of item, averaged over its items.
    seen
        Share of *yes* for each kind of item.
    interval
        Of the features' accuracy, over features; see :func:`accuracy_interval`.
    alpha_match
        Krippendorff's alpha of the candidates chosen for features. Planted galleries take no part: nothing is right there, so
        that the best raters agree by chance alone.
    alpha_seen
        Krippendorff's alpha of what was seen, over all items.
    kappa
        Cohen's kappa of the candidates chosen for features, of each pair of raters.
    unanswered
        How many answers to features are missing, over all raters.

    """

    plan: str
    raters: tuple[str, ...]
    items: tuple[RatedItem, ...]
    chance: float
    accuracy: dict[str, float]
    seen: dict[str, float]
    interval: tuple[float, float]
    alpha_match: float | None
    alpha_seen: float | None
    kappa: dict[tuple[str, str], float | None]
    unanswered: int

    def claim(self, *, trained: bool) -> Claim:
        """Return the claim that people recognise features, with its controls.

        Parameters
        ----------
        trained
            Whether the run's model was trained.

        """
        features = [item for item in self.items if item.kind == "feature"]
        value, n = self.accuracy["feature"], len(self.raters)
        statement = (
            f"{n} blinded rater{'s' if n > 1 else ''} chose the image that belongs to a feature's gallery in {value:.0%} of "
            f"{len(features)} features; chance gives {self.chance:.0%}."
            + (f" {self.unanswered} answers to features are missing and were left out." if self.unanswered else "")
        ).replace("%", " %")
        return Claim.measured(
            statement, "correlational", value, "1", Bound("at least", self.chance),
            "the share of right choices lies above chance, with its whole interval over features",
            controls=(
                self._guessed("galleries of random images", "random images"),
                self._guessed("features of a frozen-random autoencoder", "frozen-random feature"),
                self._imagined(),
                self._agreement(),
            ),
            interval=self.interval, interval_note="over features, not over patients", trained=trained,
            numbers={"chance": self.chance, "raters": n, "features": len(features), "missing answers": self.unanswered},
        )  # fmt: skip

    def to_json(self, *, trained: bool) -> dict[str, Any]:
        """Return everything as plain JSON, the claim too."""
        return {
            "format": 1,
            "plan": self.plan,
            "raters": list(self.raters),
            "chance": self.chance,
            "accuracy": self.accuracy,
            "seen": self.seen,
            "interval": list(self.interval),
            "unanswered": self.unanswered,
            "alpha_match": self.alpha_match,
            "alpha_seen": self.alpha_seen,
            "kappa": [{"raters": list(pair), "kappa": kappa} for pair, kappa in self.kappa.items()],
            "claim": self.claim(trained=trained).to_json(),
            "items": [item.to_json() for item in self.items],
        }

    def _guessed(self, name: str, kind: str) -> Control:
        """Return the control that planted galleries are known less well than the features."""
        found = self.accuracy.get(kind)
        if found is None:
            return Control(name, None, None, "no such gallery was rated")
        detail = f"right in {found:.0%}; it must lie below the features' interval".replace("%", " %")
        return Control(name, found, found < self.interval[0], detail)

    def _imagined(self) -> Control:
        """Return the control that less is seen where nothing is than where something is."""
        name, found = "something seen in galleries of random images", self.seen.get("random images")
        if found is None:
            return Control(name, None, None, "no such gallery was rated", measure="share of “yes”")
        detail = f"“yes” to {found:.0%} of them, to {self.seen['feature']:.0%} of the features".replace("%", " %")
        return Control(name, found, found < self.seen["feature"], detail, measure="share of “yes”")

    def _agreement(self) -> Control:
        name, measure = "agreement of raters", "Krippendorff's alpha of the choices for features"
        if self.alpha_match is None:
            return Control(name, None, None, "it takes two raters of the same items", measure=measure)
        return Control(
            name, self.alpha_match, detail=f"alpha {self.alpha_match:.2f}, at least {TENTATIVE} wanted",
            bound=Bound("at least", TENTATIVE), measure=measure,
        )  # fmt: skip


def read_key(run_dir: Path, plan: str) -> Record:
    """Return the key of a plan from the run it was made of.

    Raises
    ------
    ConfigError
        If the run has none.

    """
    known = sorted(path.stem.removeprefix("key-") for path in (run_dir / KEY_FOLDER).glob("key-*.json"))
    if plan not in known:
        raise ConfigError(
            f"{run_dir} has no key of the plan {plan[:16]}: give the run that `mechinterp rate` made the page from"
        )
    return Record(read_json(run_dir / KEY_FOLDER / f"key-{plan}.json"))


def accuracy_interval(rights: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Return the Clopper–Pearson interval of a share of right choices [1]_.

    Parameters
    ----------
    rights
        Of each feature, the share of its raters who were right. Choices of one feature are not independent, so a feature
        counts once; shares between 0 and 1 vary less than right and wrong do, which makes the interval wider than it need be.
    level
        Nominal cover.

    References
    ----------
    .. [1] Clopper, Pearson. The use of confidence or fiducial limits illustrated in the case of the binomial.
       Biometrika 26, 1934. Resampling features would call 20 of 20 certain; this gives 0.83 to 1.

    """
    from scipy.stats import beta

    n, k = len(rights), float(np.sum(rights))
    tail = (1 - level) / 2
    low = 0.0 if k <= 0 else float(beta.ppf(tail, k, n - k + 1))
    high = 1.0 if k >= n else float(beta.ppf(1 - tail, k + 1, n - k))
    return low, high


def score_ratings(ratings: Sequence[Rating], key: Record) -> Scores:
    """Hold raters' answers against their key.

    Parameters
    ----------
    ratings
        Of one plan.
    key
        See :func:`read_key`.

    Raises
    ------
    ConfigError
        If an answer belongs to no item of the key, or no feature was rated.

    """
    known = dict(key["items"].items())
    by_item: dict[str, list[tuple[str, Any]]] = {}
    for rating in ratings:
        for answer in rating.answers:
            if answer.item not in known:
                raise ConfigError(
                    f"the rater '{rating.rater}' answers an item that the key does not hold: another page?"
                )
            by_item.setdefault(answer.item, []).append((rating.rater, answer))
    items = tuple(_rated(name, known[name], by_item[name]) for name in known if name in by_item)
    kinds = sorted({item.kind for item in items})
    if "feature" not in kinds:
        raise ConfigError("no gallery of a feature was answered in full: rate at least one")
    rights = [item.right for item in items if item.kind == "feature"]
    features = {name for name, said in known.items() if said["kind"].text() == "feature"}
    matches: Answers = {r.rater: {a.item: a.match for a in r.answers if a.item in features} for r in ratings}
    seen: Answers = {r.rater: {a.item: a.seen for a in r.answers} for r in ratings}
    return Scores(
        plan=ratings[0].plan,
        raters=tuple(rating.rater for rating in ratings),
        items=items,
        chance=1 / max(2, key["config"]["candidates"].integer() or 2),
        accuracy={kind: float(np.mean([i.right for i in items if i.kind == kind])) for kind in kinds},
        seen={kind: float(np.mean([i.seen for i in items if i.kind == kind])) for kind in kinds},
        interval=accuracy_interval(rights),
        alpha_match=krippendorff_alpha(matches),
        alpha_seen=krippendorff_alpha(seen),
        kappa=pairwise_kappa(matches),
        unanswered=sum(len(features) - len(answered) for answered in matches.values()),
    )


def _rated(name: str, key: Record, said: Sequence[tuple[str, Any]]) -> RatedItem:
    right = key["right"].integer()
    return RatedItem(
        name, key["kind"].text(), key["feature"].integer(),
        float(np.mean([answer.match == right for _, answer in said])),
        float(np.mean([answer.seen == "yes" for _, answer in said])),
        {rater: answer.name for rater, answer in said if answer.name}, len(said),
    )  # fmt: skip
