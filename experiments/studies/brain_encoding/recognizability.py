"""Visual recognizability: what the driving features show, in names that must hold on stimuli never seen, or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from experiments.report import ElementEvidence, PlannedTest
from experiments.studies.brain_encoding.bench import EncodingBench
from experiments.studies.brain_encoding.experiment import KnownVoxels
from experiments.studies.brain_encoding.features import Driving
from experiments.studies.naming_gain import precision_gain
from mechinterp.attributes.table import Attribute, AttributeTable
from mechinterp.claims import Bound, Claim, Control
from mechinterp.feature_encoder import FeatureEncoder
from mechinterp.phantoms.stimuli.parameters import SHOWN
from mechinterp.statistics.bootstrap import bootstrap_groups
from mechinterp.store.reader import ActivationStore
from sparse_autoencoders.concepts import concepts_of
from sparse_autoencoders.features import summarise_features
from sparse_autoencoders.naming import FeatureNames, name_features

Said = Float[NDArray[np.float64], "image name"]

ELEMENT = "visual recognizability"
NAMED = "names of the driving features hold"
LEAST = Bound("at least", 0.25)
FROZEN, ABSTAIN = "names of frozen-random features", "features that are given a name"
FEWEST_NAMED = Bound("at least", 0.5)
_CRITERION = "what a name says is there at least 0.25 oftener than by chance, over the whole interval"
_DRAWS = 500
ORIENTATIONS = ("horizontal", "rising", "vertical", "falling")


def planned(bench: EncodingBench) -> tuple[PlannedTest, ...]:
    """Return the test of this element: none where the stimuli come without labels and attributes."""
    if not concepts_of(*naming_table(bench), discovery=bench.experiment.explored):
        return ()
    return (
        PlannedTest(
            ELEMENT, NAMED,
            "each driving feature is named after the content or orientation it separates best on stimuli explored, or stays "
            "without a name; where it says its name on confirmation stimuli, that must be there",
            "mean precision of the names beyond the base rate", _CRITERION, (FROZEN, ABSTAIN), LEAST,
        ),
    )  # fmt: skip


def naming_table(bench: EncodingBench) -> tuple[AttributeTable, Sequence[str | None] | None]:
    """Return what features may be named after: of rendered stimuli content and orientation, of others what comes with them."""
    truth, images = bench.experiment.truth, bench.experiment.images
    return (images.attributes, images.labels) if truth is None else (_rendered_table(truth), None)


def confirm(
    bench: EncodingBench, store: ActivationStore, encoder: FeatureEncoder, found: Mapping[str, Driving],
    frozen: FeatureEncoder, of_frozen: Mapping[str, Driving],
) -> ElementEvidence:  # fmt: skip
    """Name the driving features of all regions, and test the names."""
    driven = np.unique(np.concatenate([d.features for d in found.values()])) if found else np.array([], dtype=np.int64)
    if not planned(bench) or not len(driven):
        why = "No feature drives a region, or the stimuli come without labels and attributes: nothing was named."
        return ElementEvidence(ELEMENT, (), (why,))
    rival = np.unique(np.concatenate([d.features for d in of_frozen.values()]))
    names, says, there = _named(bench, store, encoder, driven)
    _, random_says, random_there = _named(bench, store, frozen, rival)
    groups = bench.experiment.groups[bench.experiment.confirm]
    value = precision_gain(says, there)
    interval = bootstrap_groups(
        lambda i: precision_gain(says, there, i), groups, n_boot=500, seed=bench.config.seed, method="percentile"
    )
    by_frozen = precision_gain(random_says, random_there)
    reached = reached_by_chance(random_says, random_there, seed=bench.config.seed)
    share = len(names.named) / len(driven)
    said = sorted({n.name for n in names.holding if n.name})
    claim = Claim.measured(
        f"{len(names.named)} of {len(driven)} driving features have a name, {len(names.holding)} names hold "
        f"({', '.join(said) if said else 'none'}); where one says its name, that is there {value:.2f} oftener than by chance.",
        "correlational", value if np.isfinite(value) else None, "precision beyond the base rate", LEAST, _CRITERION,
        controls=(
            # where no feature of the frozen-random autoencoder deserves a name there is nothing to be better than
            Control(FROZEN, reached if np.isfinite(reached) else 0.0, None,
                    f"theirs: {by_frozen:.2f} oftener than by chance; were others drawn, 95 % of the means would stay below "
                    f"{reached:.2f}" if np.isfinite(reached) else "none has a name",
                    None if interval.low is None else Bound("at most", interval.low)),
            Control(ABSTAIN, share, None, f"{share:.0%} of them", FEWEST_NAMED, measure="share of the features"),
        ),
        test=NAMED, interval=interval.ends, interval_note=interval.reason or interval.warning, trained=bench.model.trained,
        numbers={"named": len(names.named), "driving": len(driven), "holding": len(names.holding),
                 "names of frozen-random features": by_frozen if np.isfinite(by_frozen) else None},
    )  # fmt: skip
    limits = tuple(
        f"The {region} region: {', '.join(_said(names, driven, f) for f in d.features[:5])}."
        for region, d in found.items()
    )
    return ElementEvidence(
        ELEMENT, (claim,), ("No person has looked at the features: names are made from attributes.", *limits)
    )


def reached_by_chance(says: Said, there: Said, *, seed: int) -> float:
    """Return what 95 % of the means over names stay below when as many names are drawn anew; NaN where there is none.

    One frozen-random autoencoder's features are a draw like any other: another's may be named better by luck.
    """
    random, n = np.random.default_rng(seed), says.shape[1]
    if not n:
        return float("nan")
    drawn = (random.integers(n, size=n) for _ in range(_DRAWS))
    return float(np.quantile([precision_gain(says[:, names], there[:, names]) for names in drawn], 0.95))


def _named(
    bench: EncodingBench, store: ActivationStore, encoder: FeatureEncoder, features: NDArray[np.int64]
) -> tuple[FeatureNames, Said, Said]:
    """Return names of some features, where each says its name among the stimuli confirmed on, and whether that is there."""
    experiment = bench.experiment
    order = np.concatenate([experiment.explored, experiment.confirm])
    table, labels = naming_table(bench)
    table = table.select(order)
    labels = None if labels is None else [labels[i] for i in order]
    values = summarise_features(encoder, store, progress=bench.progress).maximum[:, features]
    discovery, held = np.arange(len(experiment.explored)), np.arange(len(experiment.explored), len(order))
    names = name_features(
        values, table, experiment.groups[order], discovery=discovery, confirmation=held, labels=labels,
        n_permutations=bench.config.sizes.permutations, seed=bench.config.seed,
    )  # fmt: skip
    present = {c.name: c.present[held] for c in concepts_of(table, labels, discovery=discovery)}
    named = [(n.feature, n.threshold, n.name) for n in names.named if n.name]
    says = np.array([values[held, f] > threshold for f, threshold, _ in named], dtype=np.float64)
    there = np.array([present[name] for *_, name in named], dtype=np.float64)
    return names, says.reshape(-1, len(held)).T, there.reshape(-1, len(held)).T


def _said(names: FeatureNames, driven: NDArray[np.int64], feature: int) -> str:
    found = names.names[int(np.flatnonzero(driven == feature)[0])]
    return f"feature #{feature} “{found.name}”" if found.holds else f"feature #{feature} without a name that holds"


def _rendered_table(truth: KnownVoxels) -> AttributeTable:
    """Return content, and the orientation of gratings in four bands."""
    parameters = truth.phantoms.parameters
    content = np.array([SHOWN.index(p.shown) for p in parameters], dtype=np.float64)
    band = np.array([((p.orientation_deg + 22.5) % 180) // 45 for p in parameters])
    values: Float[NDArray[np.float64], "image attribute"] = np.stack(
        [content, np.where(content == 0, band, np.nan)], axis=1
    )
    return AttributeTable(
        (
            Attribute("content", "1", kind="categorical", measured="what was rendered"),
            Attribute("orientation", "1", kind="categorical", measured="bars of a grating, in bands of 45°"),
        ),
        values,
        {"content": SHOWN, "orientation": ORIENTATIONS},
    )
