"""``mechinterp probe`` from the shell: levels, kinds, controls, its page, and inputs that cannot be meant."""

from __future__ import annotations

import html
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.cli import entry
from experiments.cli.commands.probe import _masks_of
from mechinterp.errors import ConfigError
from mechinterp.images.image_set import ImageSet

MODEL = f"py:{Path(__file__).with_name('user_net.py')}:build"


def run(*argv):
    return entry.run([str(a) for a in argv])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a run folder with a store and one of an untrained network, of squares whose masks are known."""
    folder = tmp_path_factory.mktemp("run")
    scans, rng = folder / "scans", np.random.default_rng(0)
    (scans / "images").mkdir(parents=True)
    (scans / "masks" / "square").mkdir(parents=True)
    rows = ["file_name,label,group,split,area,grade"]
    for i in range(40):
        pixels, mask = rng.integers(40, 60, (48, 48)).astype(np.uint8), np.zeros((48, 48), np.uint8)
        side = int(rng.integers(6, 24))
        row, column = rng.integers(0, 48 - side, 2)
        mask[row : row + side, column : column + side] = 255
        pixels[mask > 0] += 120
        Image.fromarray(pixels).convert("RGB").save(scans / "images" / f"{i:02d}.png")
        Image.fromarray(mask).save(scans / "masks" / "square" / f"{i:02d}.png")
        rows.append(f"images/{i:02d}.png,a,p{i // 2},{'train' if i < 28 else 'test'},{side * side * 0.25},{side // 8}")
    (scans / "metadata.csv").write_text("\n".join(rows) + "\n")
    (scans / "dataset.yaml").write_text(
        "name: squares\nspacing_mm: [0.5, 0.5]\nattributes:\n  area: {unit: mm²}\n  grade: {unit: '1', kind: ordinal}\n"
    )
    for name, weights in (("a", ()), ("b", ("--weights", "random"))):
        out = folder / name / "activations"
        sites = ("--site", "stages.1", "--site", "stages.2")
        assert run("capture", "--model", MODEL, "--images", scans, *sites, "--out", out, *weights) == 0
    return folder


def test_a_probe_writes_numbers_and_a_page_that_opens_without_a_network(made, capsys):
    store = made / "a" / "activations"
    assert run(
        "probe", "--activations", store, "--attribute", "area", "--untrained", made / "b" / "activations", "--shuffles", 19,
        "--learning-curve", "--json",
    ) == 0  # fmt: skip
    found = json.loads(capsys.readouterr().out)
    assert set(found["sites"]) == {"stages.1", "stages.2"}
    one = found["sites"]["stages.2"]
    assert one["unit"] == "mm²"
    assert {c["name"] for c in one["controls"]} >= {"pixel baseline", "untrained network", "control task"}
    assert found["learning_curve"]["patients"][-1] == 16
    page = Path(found["page"]).read_text(encoding="utf-8")
    assert '<html lang="en">' in page
    assert "Reading area [mm²]" in page
    assert "http://" not in page
    assert "https://" not in page
    assert Path(found["page"]).with_name("plotly.min.js").exists()
    assert json.loads(Path(found["result"]).read_text())["stages.2"]["calibration"]["count"]


def test_what_scores_cannot_know_of_whom_they_are_over_is_said(made, tmp_path, capsys):
    argv = ("--attribute", "area", "--site", "stages.2", "--shuffles", 0, "--json")
    assert run("probe", "--activations", made / "a" / "activations", *argv) == 0
    found = json.loads(capsys.readouterr().out)
    (said,) = found["cautions"]
    assert said.startswith("28 of 40 images are of the split train. If the model was trained on them")
    assert said in html.unescape(Path(found["page"]).read_text(encoding="utf-8"))
    assert run("probe", "--activations", made / "b" / "activations", *argv) == 0
    assert json.loads(capsys.readouterr().out)["cautions"] == []  # nobody trained it

    scans = Path(shutil.copytree(made / "scans", tmp_path / "scans"))
    rows = [line.split(",") for line in (scans / "metadata.csv").read_text().split()]
    (scans / "metadata.csv").write_text("\n".join(",".join(r[:2] + r[4:]) for r in rows) + "\n")
    store = tmp_path / "c" / "activations"
    assert run("capture", "--model", MODEL, "--images", scans, "--site", "stages.2", "--out", store) == 0
    capsys.readouterr()
    assert run("probe", "--activations", store, *argv) == 0
    unnamed = json.loads(capsys.readouterr().out)
    (said,) = unnamed["cautions"]
    assert said.startswith("Nobody said whose images these are: each counts as a patient of its own.")
    page = Path(unnamed["page"]).read_text(encoding="utf-8")
    assert "scores on images held out" in page
    assert "patients held out" not in page
    assert "scores on patients held out" in Path(found["page"]).read_text(encoding="utf-8")


def test_of_an_untrained_network_nothing_is_claimed(made, capsys):
    store = made / "b" / "activations"
    assert (
        run("probe", "--activations", store, "--attribute", "area", "--site", "stages.2", "--shuffles", 0, "--json")
        == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert found["trained"] is False
    assert found["sites"]["stages.2"]["verdict"] == "not met"
    assert "Untrained model" in Path(found["page"]).read_text(encoding="utf-8")


def test_regions_and_tokens_are_read_through_the_masks(made, capsys):
    store = made / "a" / "activations"
    common = ("probe", "--activations", store, "--site", "stages.1", "--shuffles", 0, "--json")
    assert run(*common, "--attribute", "area", "--level", "region", "--region", "square") == 0
    assert json.loads(capsys.readouterr().out)["level"] == "region"
    assert run(*common, "--attribute", "square", "--level", "token") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["sites"]["stages.1"]["unit"] == "mm²"
    assert found["sites"]["stages.1"]["score"] > 0.3
    assert Path(found["result"]).parent.name == "token"


def test_an_area_is_summed_over_tokens(made, capsys):
    store = made / "a" / "activations"
    common = ("probe", "--activations", store, "--level", "sum", "--region", "square", "--shuffles", 19, "--json")
    assert run(*common, "--attribute", "area", "--untrained", made / "b" / "activations") == 0
    found = json.loads(capsys.readouterr().out)
    one = found["sites"]["stages.1"]
    assert (one["unit"], found["level"]) == ("mm²", "sum")
    assert {c["name"] for c in one["controls"]} == {"shuffled attribute", "pixel baseline", "untrained network"}
    page = Path(found["page"]).read_text(encoding="utf-8")
    assert "summed over the image" in page
    assert Path(found["result"]).parent.name == "sum"


def test_sums_are_held_out_by_the_splits_of_the_images_that_have_a_value(made, capsys):
    run_folder = made / "a"
    table = made / "scans" / "metadata.csv"
    whole = table.read_text()
    lines = whole.splitlines()
    # four training images without an area: folds that were counted from the first image would start too early by four
    lines[1:5] = [",".join([*line.split(",")[:4], "", line.split(",")[5]]) for line in lines[1:5]]
    argv = (
        "--attribute",
        "area",
        "--level",
        "sum",
        "--region",
        "square",
        "--site",
        "stages.1",
        "--shuffles",
        0,
        "--json",
    )
    try:
        table.write_text("\n".join(lines) + "\n")
        assert run("probe", "--activations", run_folder / "activations", *argv, "--by", "split") == 0
    finally:
        table.write_text(whole)
    assert json.loads(capsys.readouterr().out)["sites"]["stages.1"]["fold"] == [0] * 24 + [1] * 12


def test_grades_are_read_as_levels(made, capsys):
    argv = ("--attribute", "grade", "--site", "stages.2", "--folds", 3, "--shuffles", 0)
    assert run("probe", "--activations", made / "a" / "activations", *argv) == 0
    out = capsys.readouterr().out
    assert "C-index" in out
    assert "levels" in out


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--attribute", "area", "--level", "imge"), "--level is 'imge': did you mean 'image'"),
        (("--attribute", "area", "--by", "patient"), "--by is 'patient'"),
        (("--attribute", "area", "--level", "region"), "--level region needs --region"),
        (("--attribute", "area", "--region", "square"), "--region square needs --level region"),
        (("--attribute", "area", "--level", "sum"), "which mask of the images 'area' is the area of"),
        (("--attribute", "area", "--level", "sum", "--region", "square,disc"), "no mask 'disc'"),
        (("--attribute", "grade", "--level", "sum", "--region", "square"), "'grade' is ordinal"),
        (("--attribute", "area", "--level", "sum", "--region", "square", "--kind", "binary"), "needs another level"),
        (("--attribute", "sqare", "--level", "token"), "no mask 'sqare': did you mean 'square'"),
        (("--attribute", "area", "--kind", "ordinl"), "kind is 'ordinl'"),
    ],
)
def test_what_cannot_be_meant_is_said_in_one_line(made, capsys, argv, said):
    assert run("probe", "--activations", made / "a" / "activations", *argv) == 2
    assert said in capsys.readouterr().err


def test_held_out_by_split_and_a_patient_on_both_sides_is_refused_by_the_splits_names(made, capsys):
    store = made / "a" / "activations"
    assert (
        run(
            "probe",
            "--activations",
            store,
            "--attribute",
            "area",
            "--site",
            "stages.2",
            "--by",
            "split",
            "--shuffles",
            0,
            "--json",
        )
        == 0
    )
    folds = json.loads(capsys.readouterr().out)["sites"]["stages.2"]["fold"]
    assert folds == [0] * 28 + [1] * 12


def test_measured_masks_confounders_and_few_features_come_with_the_page(made, capsys):
    run_folder = made / "a"
    store = run_folder / "activations"
    train = ("train-sae", "--activations", store, "--site", "stages.2", "--arch", "topk", "--k", 4, "--expansion", 2)
    assert run(*train, "--epochs", 1, "--out", made / "few" / "saes") == 0
    capsys.readouterr()
    sae = next((made / "few" / "saes").glob("*/cfg.json")).parent
    assert run(
        "probe", "--activations", store, "--attribute", "square_area", "--measure", "--confounder", "square_mean",
        "--confounder", "grade", "--sae", sae, "--shuffles", 0, "--site", "stages.2", "--json",
    ) == 0  # fmt: skip
    found = json.loads(capsys.readouterr().out)
    assert found["sites"]["stages.2"]["unit"] == "mm²"
    assert found["confounders"]["attributes"] == ["square area [mm²]", "square mean", "grade"]
    assert [p["encoder"] for p in found["few_features"]["sparse"]][1:] == ["neurons", "pca", "random"]
    page = Path(found["page"]).read_text()
    assert "<h2>Confounders</h2>" in page
    assert "<h2>How few features do</h2>" in page


@pytest.mark.parametrize(
    ("attribute", "argv", "said"),
    [
        ("area", ("--confounder", "area"), "is the attribute that is read"),
        ("grade", ("--confounder", "aera"), "no attribute 'aera': did you mean 'area'"),
        ("square", ("--level", "token", "--confounder", "grade"), "need another --level than token"),
    ],
)
def test_a_confounder_that_cannot_be_is_refused_before_anything_is_probed(made, capsys, attribute, argv, said):
    assert run("probe", "--activations", made / "a" / "activations", "--attribute", attribute, *argv) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_the_shell_takes_an_image_without_a_mask_as_one_without_the_structure(tmp_path):
    for name in ("images", "masks/lesion"):
        (tmp_path / name).mkdir(parents=True)
    for i in range(2):
        Image.fromarray(np.full((8, 10), i, dtype=np.uint8)).save(tmp_path / "images" / f"{i}.png")
    Image.fromarray(np.eye(8, 10, dtype=np.uint8)).save(tmp_path / "masks" / "lesion" / "1.png")
    images = ImageSet.from_folder(tmp_path)
    lesion = _masks_of(images, "sum", "lesion", "area")["lesion"]
    assert [int(lesion(i).sum()) for i in range(2)] == [0, 8]
    with pytest.raises(ConfigError, match="the images have no mask 'leison': did you mean 'lesion'"):
        _masks_of(images, "sum", "leison", "area")
