"""The tests that a run's claims answer: named, with their criterion and controls, before anything is measured."""

from __future__ import annotations

from experiments.report.plan import PlannedTest
from mechinterp.claims import Bound

LEAST_POSITIVE = 5
"""Fewer false answers are not worth a study."""

FALSE_ANSWER_CRITERION = f"at least {LEAST_POSITIVE} images"
FALSE_ANSWER = Bound("at least", LEAST_POSITIVE)

DECOMPOSITION = PlannedTest(
    "model transparency",
    "features that hold the activation",
    "a sparse autoencoder, trained on the training images, reconstructs the site on held-out ones",
    "share of variance",
    "at least half of the variance of held-out images",
    ("frozen-random SAE",),
    Bound("at least", 0.5),
)
ENCODES = PlannedTest(
    "physical attribution",
    "a quantity named beforehand can be read off",
    "a linear probe on the site, cross-validated by patient (by contiguous blocks for one volume)",
    "R², AUROC or another score of the probe",
    "a score of at least 0.5, and p ≤ 0.05",
    ("shuffled attribute", "pixel baseline"),
    Bound("at least", 0.5),
    largest_p=0.05,
)
FOLLOWS = PlannedTest(
    "physical attribution",
    "features that follow a quantity",
    "every feature against every attribute: paired on some images, tested on held-out ones, corrected for all pairs that are tested",
    "features",
    "at least one pair with p ≤ 0.05 on held-out images, corrected for all pairs that are tested",
    ("shuffled attributes", "neurons", "pca", "random"),
    Bound("at least", 1),
    largest_p=0.05,
)
DRIVES = PlannedTest(
    "model transparency",
    "a small set drives the answer",
    "the set experiment: features chosen on one band of images, replaced by reference values on the other, both ways",
    "share of images turned, under the weaker of both replacements, in the weaker direction",
    "one small set, chosen on one band, turns at least half of the other band under mean and under resampled replacement, "
    "both ways, more than random sets of the same norm (Holm-corrected p ≤ 0.05), and leaves reference images their answer",
    ("random sets of the same norm, and reference images", "random directions through the same experiment"),
    Bound("at least", 0.5),
)

EXPLORATION = (ENCODES, FOLLOWS, DECOMPOSITION)
"""What needs no question."""
STUDY = (*EXPLORATION, DRIVES)
"""What the brain study tests."""
