"""``mechinterp heads`` from the shell: numbers, its page, what serves as a concept, and inputs that cannot be meant."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.analysis.head_runs import _concepts
from experiments.cli import entry
from mechinterp.attributes.table import Attribute, AttributeTable

MODEL = f"py:{Path(__file__).with_name('user_net.py')}:build"


def run(*argv):
    return entry.run([str(a) for a in argv])


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Return a store of squares, large or small, bright or dim."""
    folder = tmp_path_factory.mktemp("heads")
    scans, rng = folder / "scans", np.random.default_rng(0)
    (scans / "images").mkdir(parents=True)
    rows = ["file_name,label,group,area,brightness,depth,same,one"]
    for i in range(80):
        pixels = rng.integers(40, 60, (48, 48)).astype(np.uint8)
        side, bright = int(rng.integers(6, 24)), int(rng.integers(60, 180))
        row, column = rng.integers(0, 48 - side, 2)
        pixels[row : row + side, column : column + side] += np.uint8(bright)
        Image.fromarray(pixels).convert("RGB").save(scans / "images" / f"{i:02d}.png")
        large = side > 14
        depth = "" if i % 2 else f"{i}"
        rows.append(
            f"images/{i:02d}.png,{'large' if large else 'small'},p{i // 2},{side * side + 20 * rng.normal():.3f},{bright},{depth},"
            f"{int(large)},{int(i % 3 == 0)}"
        )
    (scans / "metadata.csv").write_text("\n".join(rows) + "\n")
    (scans / "dataset.yaml").write_text(
        "name: squares\nattributes:\n  area: {unit: mm²}\n  same: {kind: binary}\n  one: {kind: binary}\n"
    )
    out = folder / "run" / "activations"
    assert run("capture", "--model", MODEL, "--images", scans, "--site", "stages.2", "--out", out) == 0
    return out


def test_heads_write_numbers_and_a_page_that_opens_without_a_network(store, capsys):
    assert run("heads", "--activations", store, "--prototypes", 3, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["classes"] == ["large", "small"]
    assert found["concepts"] == ["area", "brightness", "one"]
    notes = " ".join(found["notes"])
    assert "depth: left out" in notes
    assert "same alone would tell the classes of training patients apart" in notes
    assert [h["name"] for h in found["heads"]][1:] == [
        "concept bottleneck", "additive model of concepts", "prototypes", "Nadaraya–Watson",
    ]  # fmt: skip
    assert json.loads(Path(found["result"]).read_text())["leakage"]["text"]
    page = Path(found["page"]).read_text(encoding="utf-8")
    assert "Interpretable heads at stages.2" in page
    assert page.count("<img") == 6


def test_the_label_in_disguise_is_told_by_training_patients_alone():
    y, train = np.array([0, 0, 1, 1, 0, 1]), np.arange(4)
    columns = {
        "same": [1, 2, 3, 4, 1, 4],
        "same to them": [1, 2, 3, 4, 4, 1],
        "same to others": [1, 3, 2, 4, 1, 4],
        "other": [1, 3, 2, 4, 4, 1],
    }
    table = AttributeTable.from_columns([(Attribute(name, "mm"), values) for name, values in columns.items()])
    names, notes = _concepts(table, "label", y, train)
    assert names == ("same to others", "other")
    assert notes[0].startswith("same, same to them alone")


def test_one_head_of_a_binary_attribute_and_named_concepts(store, capsys):
    assert run(
        "heads", "--activations", store, "--label", "one", "--concepts", "area, brightness", "--head", "kernel", "--held-out", 0.5
    ) == 0  # fmt: skip
    said = capsys.readouterr()
    assert "Heads at stages.2: one or not one" in said.out
    assert "20 of 40 patients" in said.err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--head", "tree"), "--head is 'tree'"),
        (("--site", "stages.9"), "no site 'stages.9'"),
        (("--label", "area"), "'area' is not binary"),
        (("--concepts", "aera"), "no attribute 'aera'"),
        (("--concepts", "depth", "--held-out", "1.5"), "--held-out is 1.5"),
    ],
)
def test_flags_that_cannot_be_meant_get_one_line(store, capsys, flags, words):
    assert run("heads", "--activations", store, *flags) == 2
    said = capsys.readouterr().err.strip()
    assert words in said.replace("\n", " ")
