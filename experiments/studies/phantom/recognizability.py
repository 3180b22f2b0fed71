"""Visual recognizability: features named on some patients, their names tested on others, their pictures on the page.

What a feature stands for is told by the attribute or label that it separates best; a feature that separates none abstains.
The trained autoencoder's names stand beside those of a frozen-random one, and beside names from shuffled attributes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

from experiments.report import ElementEvidence, PlannedTest, ReportFigure
from experiments.studies.naming_gain import precision_gain
from experiments.studies.phantom.bench import StudyBench
from experiments.studies.phantom.gallery import RANDOM, STRONGEST, gallery_figure
from experiments.studies.phantom.patients import Side
from experiments.studies.phantom.transparency import frozen_sae, site_sae
from mechinterp.attributes.table import AttributeTable
from mechinterp.claims import Bound, Claim, Control
from mechinterp.feature_encoder import FeatureEncoder
from mechinterp.statistics.bootstrap import bootstrap_groups
from mechinterp.store.reader import ActivationStore
from sparse_autoencoders import FeatureName, FeatureNames, SparseAutoencoder, choose_examples, name_features
from sparse_autoencoders.concepts import concepts_of
from sparse_autoencoders.metrics import image_blocks

ELEMENT = "visual recognizability"
NAMED = "a feature's name tells its images from others"
LEAST = Bound("at least", 0.2)
SHUFFLED, FROZEN = "names from shuffled attributes", "names of a frozen-random autoencoder's features"
MOST_SHUFFLED = 0.05
"""Share of the names that may still be given, and hold, when attributes are those of other patients."""
SHOWN = 4
_OTHER_SEED, _PERMUTATIONS = 1000, 500
_CRITERION = "on average at least 20 percentage points above the concept's base rate, over the whole interval"


def planned(bench: StudyBench) -> tuple[PlannedTest, ...]:
    """Return the test of this element."""
    return (
        PlannedTest(
            ELEMENT, NAMED,
            f"every feature of {bench.sites[0]} is named by the label or attribute that it separates best on discovery patients, "
            "or has no name; each name is tested on confirmation patients",
            "share of the images of which a feature says its name that have it, beyond the share of all images; mean over names",
            _CRITERION, (SHUFFLED, FROZEN), LEAST,
        ),
    )  # fmt: skip


@dataclass(frozen=True)
class NamedFeatures:
    """An autoencoder's features with their names, and what the names say of every confirmation image.

    Parameters
    ----------
    names
        Of all features.
    says, there
        Confirmation image × name: whether the feature says it, and whether it is there (NaN where unknown).

    """

    names: FeatureNames
    says: Float[NDArray[np.float64], "image name"]
    there: Float[NDArray[np.float64], "image name"]

    def gain(self, images: NDArray[np.int64]) -> float:
        """Return the mean over names of the precision beyond the base rate, on some images."""
        return precision_gain(self.says, self.there, images)

    @property
    def all_gain(self) -> float:
        """The same over all confirmation images."""
        return precision_gain(self.says, self.there)


def choose(bench: StudyBench, store: ActivationStore) -> SparseAutoencoder:
    """Train the autoencoder whose features are named, on the discovery patients."""
    return site_sae(bench, store, bench.sites[0])


def confirm(
    bench: StudyBench, explored: ActivationStore, confirmed: ActivationStore, sae: SparseAutoencoder
) -> ElementEvidence:
    """Name on discovery patients, test the names on confirmation patients, and show the best of them."""
    sides = bench.patients.discovery, bench.patients.confirmation
    seed, classes = bench.config.seed, (bench.case.reference, bench.case.target)
    found = named(sae, (explored, confirmed), sides, classes, seed)
    frozen = frozen_sae(bench, explored, bench.sites[0], seed + _OTHER_SEED)
    rival = named(frozen, (explored, confirmed), sides, classes, seed)
    shuffled = named(sae, (explored, confirmed), sides, classes, seed, shuffle=True)
    names, side = found.names, bench.patients.confirmation
    value = found.all_gain
    interval = bootstrap_groups(found.gain, side.groups, seed=seed)
    low = interval.ends[0] if interval.ends is not None else None
    of_frozen = rival.all_gain
    distinct = len({n.name for n in names.named})
    claim = Claim.measured(
        f"{len(names.named)} of {len(names.names)} features of {sae.site} have a name, of {distinct} kinds; on other patients "
        f"{len(names.holding)} names hold, and an image of which a feature says its name has it {value:.2f} more often than any image."
        if names.named
        else f"None of {len(names.names)} features of {sae.site} follows a label or an attribute: no feature is named.",
        "correlational", value if np.isfinite(value) else None, "precision beyond the base rate", LEAST, _CRITERION,
        controls=(
            Control(
                SHUFFLED, float(len(shuffled.names.holding)), bound=Bound("at most", MOST_SHUFFLED * len(names.holding)),
                detail="names that are given, and hold, when labels and attributes are those of other patients",
                measure="names that hold",
            ),
            _below(of_frozen, low, len(rival.names.named), len(rival.names.holding)),
        ),
        test=NAMED, interval=interval.ends, interval_note=interval.reason or interval.warning, trained=bench.model.trained,
        numbers={
            "features": len(names.names), "named": len(names.named), "kinds of names": distinct,
            "names that hold": len(names.holding), "frozen features named": len(rival.names.named),
            "frozen names that hold": len(rival.names.holding),
        },
    )  # fmt: skip
    limits = (
        "A name says which attribute goes along with a feature, not that the feature is used.",
        "Nobody rated the pictures: whether a person recognises the same in them was not asked.",
    )
    return ElementEvidence(ELEMENT, (claim,), limits, galleries(bench, confirmed, sae, names))


def named(
    encoder: FeatureEncoder, stores: tuple[ActivationStore, ActivationStore], sides: tuple[Side, Side],
    classes: tuple[str, str], seed: int, *, shuffle: bool = False,
) -> NamedFeatures:  # fmt: skip
    """Name an encoder's features on the first side and let the names speak on the second.

    Parameters
    ----------
    encoder
        SAE or any other.
    stores, sides
        Activations and images of the patients that names are chosen on, and tested on.
    classes
        What images without and with the condition are called.
    seed
        Of permutations and of the shuffle.
    shuffle
        Give every image labels and attributes of another image of the same side.

    """
    values = np.concatenate([largest_codes(encoder, store) for store in stores])
    n = len(sides[0].positive)
    order = np.arange(len(values))
    if shuffle:
        random = np.random.default_rng([seed, 9])
        order = np.concatenate([random.permutation(n), n + random.permutation(len(values) - n)])
    tables = [side.images.attributes for side in sides]
    table = AttributeTable(
        tables[0].attributes, np.concatenate([t.values for t in tables])[order], tables[0].categories
    )
    ill = np.concatenate([side.positive for side in sides])[order]
    labels = [classes[int(p)] for p in ill.tolist()]
    first, second = np.arange(n), np.arange(n, len(values))
    groups = np.concatenate([np.asarray(side.groups, dtype=object) for side in sides])
    names = name_features(
        values, table, groups, discovery=first, confirmation=second, labels=labels, n_permutations=_PERMUTATIONS,
        seed=seed,
    )  # fmt: skip
    present = {c.name: c.present for c in concepts_of(table, labels, discovery=first)}
    some = [n for n in names.named if n.name is not None]
    says = np.array([values[second, n.feature] > n.threshold for n in some], dtype=np.float64)
    there = np.array([present[str(n.name)][second] for n in some], dtype=np.float64)
    shape = (len(some), len(second))
    return NamedFeatures(names, says.reshape(shape).T, there.reshape(shape).T)


@torch.no_grad()
def largest_codes(encoder: FeatureEncoder, store: ActivationStore) -> Float[NDArray[np.float32], "image feature"]:
    """Return each feature's largest code in every image of a store."""
    every = np.arange(len(store.images))
    found: NDArray[np.float32] = torch.cat(
        [encoder.encode(acts_bnd).amax(1) for acts_bnd in image_blocks(store, encoder, every)]
    ).numpy()
    return found


def galleries(
    bench: StudyBench, store: ActivationStore, sae: SparseAutoencoder, names: FeatureNames
) -> tuple[ReportFigure, ...]:
    """Return pictures of the features that separate their concept best on discovery patients, one for each concept."""
    best: dict[str, FeatureName] = {}
    for n in sorted(names.named, key=lambda n: (-n.auroc, n.feature)):
        best.setdefault(n.source, n)
    if not best:
        return ()
    gallery = choose_examples(sae, store, top=STRONGEST, per_quantile=1, quantiles=RANDOM, seed=bench.config.seed)
    text = "Images of confirmation patients; bright cells are where the feature is active. {} Under each, its largest value."
    return tuple(
        gallery_figure(
            bench.model, bench.patients.confirmation.images, store, sae, gallery, n.feature,
            f"Feature {n.feature}: {n.name}", text.format(n.text + "."),
        )
        for n in list(best.values())[:SHOWN]
    )  # fmt: skip


def _below(frozen: float, low: float | None, n_named: int, n_holding: int) -> Control:
    """Return the control that names of frozen-random features tell less than the lower end of the interval."""
    if low is None:
        return Control(FROZEN, frozen if np.isfinite(frozen) else None, None, "not measured")
    value = frozen if np.isfinite(frozen) else 0.0
    said = f"{n_named} of them have a name, {n_holding} hold; {value:.2f} beyond the base rate, the trained ones at least {low:.2f}"
    return Control(FROZEN, value, detail=said, bound=Bound("at most", low))
