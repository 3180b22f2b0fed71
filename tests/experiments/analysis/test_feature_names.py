"""What features follow is taken from both places that say so, and only where it was confirmed."""

from __future__ import annotations

import numpy as np

from experiments.analysis.feature_names import attribute_names, named
from experiments.analysis.thumbnails import shrunk, thumbnail, thumbnail_url
from mechinterp.feature_encoder import Neurons
from mechinterp.files import write_json
from mechinterp.images.image_set import MedicalImage


def test_names_come_from_attributes_and_from_results(tmp_path):
    sites = {f"of {site}": site for site in ("stages.2", "stages.3")}
    assert attribute_names(tmp_path, sites) == {}
    features = [{"feature": k, "attribute": "lesion_area", "unit": "mm²"} for k in range(3)]
    matrix = {"survivors": [1], "features": features}
    write_json(tmp_path / "saes" / "a" / "attributes.json", {"sae_weights_hash": "of stages.2", **matrix})
    for other in ("of another seed", ""):
        of_others = {**matrix, "survivors": [0, 2], "sae_weights_hash": other}
        write_json(tmp_path / "saes" / f"b{other}" / "attributes.json", of_others)
    best = {"survives": True, "attribute": "cup_to_disc_ratio", "unit": "1"}
    results = {"sae": {"weights_hash": "of stages.3"}, "features": [{"id": 0, "best": best}, {"id": 1, "best": None}]}
    write_json(tmp_path / "results.json", results)
    names = attribute_names(tmp_path, sites)
    assert names == {("stages.2", 1): ("lesion area", "mm²"), ("stages.3", 0): ("cup to disc ratio", "1")}
    assert named(1, "stages.2", names) == "feature 1: lesion area [mm²]"
    assert named(0, "stages.3", names) == "feature 0: cup to disc ratio"
    assert named(2, "stages.2", names) == "feature 2"
    assert attribute_names(tmp_path, {Neurons("stages.2", 4).weights_hash: "stages.2"}) == {}
    # a file that does not say of which autoencoder it is speaks of that of its folder
    write_json(tmp_path / "saes" / "b" / "mechinterp.json", {"sae_weights_hash": "of an older file"})
    assert set(attribute_names(tmp_path, {"of an older file": "stages.0"})) == {("stages.0", 0), ("stages.0", 2)}


def test_thumbnails_are_small_and_say_what_they_show():
    wide = shrunk(np.ones((40, 400, 1)))
    assert wide.shape == (18, 176)
    assert shrunk(np.zeros((5, 7, 3))).shape == (5, 7, 3)
    volume = MedicalImage("v", np.zeros((3, 8, 8), dtype=np.float32), axes=3)
    assert thumbnail_url(volume).startswith("data:image/png;base64,")
    item = thumbnail(MedicalImage("p1", np.zeros((8, 8), dtype=np.float32), label="ill"), "the case")
    assert item.children[0].attributes["alt"] == "the case: p1, labelled ill"
