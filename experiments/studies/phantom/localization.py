"""Localization: whether relevance maps find the lesions, better than what knows nothing of the model."""

from __future__ import annotations

from circuits.localization import LocalizationConfig, localization_table
from experiments.report import ElementEvidence, PlannedTest
from experiments.studies.phantom.bench import StudyBench
from experiments.studies.phantom.case import StudyCase
from mechinterp.claims import Bound

ELEMENT = "localization"
METHOD = "lrp"
FOUND = "relevance maps find the lesions"
BEYOND = Bound("at least", 0.0)
CONTROLS = ("edge detector", "centre prior", "random map", "randomised weights", "random order of deletion")


def planned(bench: StudyBench) -> tuple[PlannedTest, ...]:
    """Return the test of this element; none where the images have no masks."""
    if not bench.structures:
        return ()
    return (
        PlannedTest(
            ELEMENT, FOUND,
            f"layer-wise relevance propagation of the answer on confirmation images with a lesion, against the masks of "
            f"{' and '.join(bench.structures)}{_by_tiles(bench.case)}",
            "area under precision and recall over pixels, above the strongest baseline",
            "the whole interval above the strongest of edge detector, centre prior and random map", CONTROLS, BEYOND,
        ),
    )  # fmt: skip


def confirm(bench: StudyBench) -> ElementEvidence:
    """Score maps of confirmation images."""
    if not bench.structures:
        why = f"The images have no masks of {' and '.join(bench.case.structures)}: nothing was scored."
        return ElementEvidence(ELEMENT, (), (why,))
    sizes = bench.config.sizes
    table = localization_table(
        bench.model, bench.patients.discovery.images, bench.patients.confirmation.images, bench.objective,
        truth=bench.structures, methods=(METHOD,), ground_truth=bench.patients.truth_known, levels=("pixel",),
        config=LocalizationConfig(
            most_images=sizes.localized, faithful_images=sizes.localized, random_images=sizes.localized // 3,
            stages=3, tile_mm=bench.case.removed_mm, seed=bench.config.seed,
        ),
        thorough=False, progress=bench.progress,
    )  # fmt: skip
    limits = (
        f"One method ({METHOD.upper()}), named beforehand; `mechinterp localize` compares all of them.",
        "A map that lies on the lesions does not say by which quantity they act.",
    )
    return ElementEvidence(ELEMENT, (table.claim(METHOD, test=FOUND),), limits)


def _by_tiles(case: StudyCase) -> str:
    return "" if case.removed_mm is None else f"; deleted are tiles of {case.removed_mm:g} mm"
