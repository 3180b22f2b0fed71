"""Does a screening model call a mammogram suspicious for the mass and the calcifications that make it so?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from experiments.studies.phantom.case import ChangedQuantity, CircuitSize, StudyCase
from experiments.studies.phantom.config import Architecture
from mechinterp.phantoms.mammogram.parameters import CLUSTER_WITHIN_MM
from mechinterp.phantoms.mammogram.population import MammogramStudy
from mechinterp.phantoms.planted_shortcut import Shortcut
from mechinterp.progress import Progress
from mechinterp.reference.mammograms import MammogramRecipe, train_mammogram_reference
from mechinterp.reference.radiographs import RadiographRecipe, train_radiograph_reference
from mechinterp.reference.recipes import Recipe
from mechinterp.reference.training import TrainedReference

IMAGES: dict[str, Any] = {
    "size_px": 192, "extent_mm": 180.0, "densest_percent": 25.0, "conspicuity": 1.5, "mark_share": 0.5,
}  # fmt: skip
"""What the reference model was trained on: breasts of little dense tissue, findings of high contrast, and each burnt-in mark
on half of the images, whatever they show."""

QUICK_IMAGES: dict[str, Any] = {
    **IMAGES, "densest_percent": 10.0, "least_spiculation": 0.65, "finest_mm": 0.8, "fewest_clustered": 12,
}  # fmt: skip
"""Fatty breasts without borderline findings, which show at once: what a network learns in a minute."""

_PATIENTS: dict[str, Any] = {"images_per_patient": 1, "validation_share": 0.05, "test_share": 0.15, "seed": 3}

_BATCHES: dict[str, Any] = {"batch_size": 8, "learning_rate": 1.5e-3}

FULL_RECIPE = MammogramRecipe(
    study=MammogramStudy(patients=4000, **_PATIENTS, **IMAGES),
    crop_epochs=20,
    training=Recipe(epochs=6, token_loss=10.0, **_BATCHES),
)
"""Should take a core five to eight minutes, by what the quick recipe takes."""

QUICK_RECIPE = MammogramRecipe(
    study=MammogramStudy(patients=2000, **_PATIENTS, **QUICK_IMAGES),
    crop_epochs=20,
    # many small steps: with 32 images a step the margin of a mass is not learnt in the same time
    training=Recipe(epochs=4, token_loss=10.0, **_BATCHES),
)
"""Takes a core two to three minutes, a third of it for rendering."""

SHORTCUT_RECIPE = MammogramRecipe(
    study=MammogramStudy(
        patients=800, **_PATIENTS, **QUICK_IMAGES, shortcut=Shortcut(mark="view_marker", train=0.9, test=0.0)
    ),
    crop_epochs=10,
    training=Recipe(epochs=5, token_loss=10.0, **_BATCHES),
)
"""A clinic that burns laterality and view into nine of ten suspicious mammograms: whole images show the marker beside the finding."""


def trained_reference(architecture: Architecture, shortcut: bool, quick: bool, progress: Progress) -> TrainedReference:
    """Return the mammogram reference model, one of a quick recipe, or one trained where the marker goes with the label."""
    recipe = SHORTCUT_RECIPE if shortcut else QUICK_RECIPE if quick else FULL_RECIPE
    if architecture == "cnn":
        return train_mammogram_reference(recipe, progress=progress)
    for_vit = RadiographRecipe(study=recipe.study, training=replace(recipe.training, epochs=14, batch_size=32))
    return train_radiograph_reference("mammogram", architecture, recipe=for_vit, progress=progress)


BREAST_CANCER = StudyCase(
    name="breast-cancer",
    title="Suspicious mammograms: does the model look at the finding?",
    question=(
        "The model calls a mammogram suspicious or not. Does it do so for the margin of a mass and for calcifications, and not for "
        "dense tissue or the marker that says which breast and view it is?"
    ),
    task="A mammogram is answered with “not suspicious” or “suspicious” (BI-RADS 4 or 5).",
    intended_user="Whoever runs a screening programme and must decide whether the model may read beside its radiologists.",
    decision="Whether the model may choose which mammograms a second radiologist reads.",
    goals=(
        "know that the answer follows the finding, in mm, and neither density nor the marker",
        "know how the answer comes about",
        "hand over the mammograms that the model is unsure of",
    ),
    needs=("localization", "physical attribution", "model transparency", "actionability"),
    phantom="mammogram",
    target="suspicious",
    reference="not suspicious",
    primary="mass_diameter_mm",
    quantities=(
        ChangedQuantity(
            parameter="mass_spiculation",
            label="length of the spicules over the mass's diameter",
            steps=(0.15, 0.3, 0.45),
            unit="",
            where="mass_diameter_mm",
            structure="spicules",
        ),
        ChangedQuantity(
            parameter="calcification_count",
            label=f"number of calcifications within {CLUSTER_WITHIN_MM:g} mm",
            steps=(5, 10, 15),
            unit="",
            margin=0.02,
            where="calcification_count",
            # spread wider they are no cluster, and more of them are no more suspicious
            within=("calcification_extent_mm", 0.0, CLUSTER_WITHIN_MM),
            structure="calcifications",
        ),
    ),
    bystander=ChangedQuantity(
        parameter="density_percent", label="breast density", steps=(3.0,), unit="%", margin=0.02
    ),
    # ten restore half of the answer; with thirty, features or neurons, there is nothing left to tell them apart by. With eight features a
    # channel one finding is split over several, and 42 passes over 108 cells are the steps of ten over the finer site's 456
    circuit=CircuitSize(units="features", edges=14, expansion=2, passes=4.2),
    structures=("mass", "spicules", "calcifications"),
    # single pixels taken away here and there leave a speckle, and calcifications are specks: in random order it raised the answer
    removed_mm=8.0,
    marks=("view_marker", "site_tag", "skin_marker"),
    sites={"cnn": ("stages.2", "stages.3"), "vit": ("blocks.2.hook_resid_post", "blocks.3.hook_resid_post")},
    trained=trained_reference,
    study_settings=IMAGES,
    quick_settings=QUICK_IMAGES,
    folder_layout=(
        "give metadata.csv with the columns file_name, label, group (the patient) and mass_diameter_mm, as docs/studies.md shows "
        "for CBIS-DDSM and VinDr-Mammo"
    ),
)  # fmt: skip
