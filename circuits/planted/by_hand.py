"""Two circuits wired by hand that hold every kind of gate: the first thing to try a finder on.

The rule: *a blob with a vertical edge, or a ring, or a strong diagonal edge, speaks for the class, unless there is a tag;
and the ring has a backup*. A horizontal edge and a texture are detected by every layer and used by none.
"""

from __future__ import annotations

from circuits.planted.cnn import planted_cnn
from circuits.planted.model import PlantedModel
from circuits.planted.pictures import pattern_names
from circuits.planted.plan import (
    CircuitPlan,
    Gate,
    and_gate,
    backup_gate,
    inhibit_gate,
    nor_gate,
    sum_gate,
    threshold_gate,
)
from circuits.planted.vit import planted_vit


def hand_made_cnn() -> PlantedModel:
    """Return the CNN: what a later layer needs of an earlier one is carried."""
    gates = (
        and_gate("blob and edge", 1, ["blob", "vertical edge"]),
        sum_gate("ring again", 1, {"ring": 1.0}),
        threshold_gate("strong diagonal", 1, "diagonal edge", 0.5),
        sum_gate("tag again", 1, {"tag": 1.0}),
        Gate("decoy 1", "distractor", 1, {"horizontal edge": 1.0, "texture 1": 1.0}),
        nor_gate("no lesion", 2, ["blob and edge", "ring again"]),
        inhibit_gate("diagonal without tag", 2, "strong diagonal", "tag again"),
        sum_gate("tag once more", 2, {"tag again": 1.0}),
        Gate("decoy 2", "distractor", 2, {"decoy 1": 1.0}),
    )
    readout = {"no lesion": -2.0, "diagonal without tag": 1.0, "tag once more": -0.7}
    return planted_cnn(CircuitPlan(pattern_names(7), gates, readout, 1.0))


def hand_made_vit(*, sharpness: float = 8.0) -> PlantedModel:
    """Return the ViT: a head gathers the patch with the tag into CLS, and the ring's gate has a backup.

    Parameters
    ----------
    sharpness
        Of that head's attention: at 8 nearly all of it lies on the patch with the tag.

    """
    gates = (
        and_gate("blob and edge", 1, ["blob", "vertical edge"]),
        sum_gate("ring seen", 1, {"ring": 1.0}),
        threshold_gate("strong diagonal", 1, "diagonal edge", 0.5),
        Gate("decoy 1", "distractor", 1, {"horizontal edge": 1.0, "texture 1": 1.0}),
        backup_gate("ring seen again", 2, "ring", "ring seen"),
        nor_gate("no lesion", 2, ["blob and edge", "ring seen"]),
        inhibit_gate("diagonal without tag", 2, "strong diagonal", "tag"),
    )
    readout = {
        "no lesion": -2.0,
        "diagonal without tag": 1.0,
        "ring seen": 0.8,
        "ring seen again": 0.8,
        "tag": -0.7,
    }
    return planted_vit(CircuitPlan(pattern_names(7), gates, readout, 1.0), seek={"tag": sharpness})
