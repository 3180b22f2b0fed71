"""Does a screening model call diabetic retinopathy referable for the lesions that it is referable for?"""

from __future__ import annotations

from experiments.studies.phantom.case import ChangedQuantity, CircuitSize, StudyCase
from experiments.studies.phantom.config import Architecture
from mechinterp.phantoms.fundus_population import FundusStudy
from mechinterp.phantoms.planted_shortcut import PlantedShortcut
from mechinterp.progress import Progress
from mechinterp.reference.recipes import Recipe
from mechinterp.reference.training import TrainedReference, train_reference

SHORTCUT_RECIPE = Recipe(
    study=FundusStudy(
        patients=1000,
        images_per_patient=1,
        validation_share=0.05,
        test_share=0.15,
        seed=3,
        shortcut=PlantedShortcut(mark="camera_tag", train=0.9, test=0.0),
    ),
    epochs=6,
    token_loss=0.0,
)
"""A hospital that burns its camera's tag into nine of ten referable photographs, and nobody who points at lesions."""


def trained_reference(architecture: Architecture, shortcut: bool, quick: bool, progress: Progress) -> TrainedReference:
    """Return the fundus reference model, quick or not, or one that was trained where the camera tag goes with the label."""
    del quick  # the whole recipe takes about two minutes
    return train_reference(architecture, recipe=SHORTCUT_RECIPE if shortcut else None, progress=progress)


DR_SCREENING = StudyCase(
    name="dr-screening",
    title="Referable diabetic retinopathy: does the model look at lesions?",
    question=(
        "The model calls a fundus photograph referable or not. Does it do so for the area of haemorrhages and hard exudates, and "
        "not for what the camera burns into the picture?"
    ),
    task="A fundus photograph is answered with “not referable” or “referable”.",
    intended_user="Whoever runs a screening programme and must decide whether the model may sort its photographs.",
    decision="Whether the model may choose which photographs a reader sees first.",
    goals=(
        "know that the answer follows lesions, in mm², and not the camera",
        "know how the answer comes about",
        "hand over the photographs that the model is unsure of",
    ),
    needs=("localization", "physical attribution", "model transparency", "actionability"),
    phantom="fundus",
    target="referable",
    reference="not referable",
    primary="lesion_area_mm2",
    quantities=(
        ChangedQuantity(parameter="exudate_area_mm2", label="exudate area", steps=(0.3, 0.6, 1.0)),
        ChangedQuantity(parameter="haemorrhage_area_mm2", label="haemorrhage area", steps=(0.3, 0.6, 1.0)),
    ),
    # with eight features a channel thirty of them carry half of the answer, as few as may be
    circuit=CircuitSize(expansion=4),
    structures=("haemorrhages", "exudates"),
    marks=("camera_tag", "ruler_mark"),
    sites={"cnn": ("stages.2", "stages.3"), "vit": ("blocks.2.hook_resid_post", "blocks.3.hook_resid_post")},
    trained=trained_reference,
    folder_layout=(
        "give metadata.csv with the columns file_name, label, group (the patient) and lesion_area_mm2, as docs/studies.md shows "
        "for IDRiD and APTOS"
    ),
)
