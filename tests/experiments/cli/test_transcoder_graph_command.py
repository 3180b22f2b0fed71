"""``mechinterp transcoder-graph`` on a user's own ViT, and its circuit of heads: names, pictures, pages."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from circuits import find_circuit
from circuits.finding_config import FindConfig
from circuits.nodes import features, heads
from experiments.analysis.acting_runs import open_run
from experiments.analysis.circuit_pictures import InputPictures, circuit_pictures
from experiments.cli import entry
from experiments.run_directory import Run
from mechinterp import logit
from mechinterp.feature_encoder import Directions
from mechinterp.files import write_json
from sparse_autoencoders import Transcoder

MODEL = f"py:{Path(__file__).with_name('user_vit.py')}:build"


def run(*argv):
    return entry.run([str(a) for a in argv])


def transcoder(block, width=24):
    rng = torch.Generator().manual_seed(block)
    decoder = torch.nn.functional.normalize(torch.randn(width, 16, generator=rng), dim=1)
    return Transcoder(
        f"blocks.{block}.norm2", f"blocks.{block}.hook_mlp_out", "topk", torch.randn(16, width, generator=rng),
        torch.zeros(width), decoder, torch.zeros(16), k=6,
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trace")
    scans, store = folder / "scans", folder / "a" / "activations"
    assert (
        run(
            "phantoms",
            "fundus",
            "--patients",
            12,
            "--size-px",
            48,
            "--no-masks",
            "--images-per-patient",
            1,
            "--out",
            scans,
        )
        == 0
    )
    assert (
        run("capture", "--model", MODEL, "--images", scans, "--site", "blocks.1.hook_resid_post", "--out", store) == 0
    )
    for block in (0, 2):
        transcoder(block).save(folder / "a" / "transcoders" / f"block-{block}" / "seed-0")
    found = [{"id": k, "best": {"survives": k % 2 == 0, "attribute": "lesion_area", "unit": "mm²"}} for k in range(24)]
    weights = transcoder(0).weights_hash
    write_json(folder / "a" / "results.json", {"sae": {"weights_hash": weights}, "features": found})
    return folder / "a"


def test_an_answer_is_traced_back_with_names_units_and_pictures(made, capsys):
    capsys.readouterr()
    assert run("transcoder-graph", made, "--metric", "ill", "--features", 12, "--edges", 60, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert 0 < said["edges"] <= 60
    assert said["claim"]["transcoders"] == {f"blocks.{b}.hook_mlp_out": f"blocks.{b}.norm2" for b in (0, 2)}
    assert "transcoder-graph" in json.loads((made / "run.json").read_text())["stages"]
    page = Path(said["files"]["transcoder-graph.html"]).read_text()
    assert "lesion area [mm²]" in page
    assert "data:image/png;base64," in page
    assert "MLP of block 1, without a transcoder" in page
    assert (
        run("transcoder-graph", made, "--metric", "ill", "--transcoders", made / "transcoders" / "block-2" / "seed-0")
        == 0
    )
    assert "error of block 2's transcoder" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--transcoders", "nowhere"), "holds no transcoder"),
        (("--split", "tset"), "no image is of the split 'tset'"),
        (("--features", 0), "features is 0"),
    ],
)
def test_what_cannot_be_traced_is_said_in_one_line(made, capsys, argv, message):
    assert run("transcoder-graph", made, "--metric", "ill", *argv) == 2
    assert message in capsys.readouterr().err


def test_heads_and_errors_have_pictures_and_a_prefix_token_no_place(made):
    opened = open_run(Run.open(made), "blocks.1.hook_resid_post")
    x = torch.as_tensor(opened.prepared(opened.rows(None)))
    few = Directions("blocks.1.hook_resid_post", torch.eye(16)[:4], torch.zeros(16))
    circuit = find_circuit(
        opened.model, x, metric=logit("ill"), nodes=[heads(opened.model, "blocks.0.attn.hook_z"), features(few)],
        config=FindConfig(method="attribution", threshold=0.0, boot=100),
    )  # fmt: skip
    found = circuit_pictures(circuit, [f"case {i}" for i in range(len(x))], most=2)
    assert {"blocks.0.attn.hook_z:0", "blocks.1.hook_resid_post:4"} <= set(found)
    for pictures in found.values():
        assert 0 < len(pictures) <= 2
        for picture in pictures:
            assert picture.caption.startswith("case ")
            if picture.box is not None:
                top, left, bottom, right = picture.box
                assert (bottom - top, right - left) == pytest.approx((1 / 3, 1 / 3))
    drawn = InputPictures(x, opened.model.contract)
    values, tokens = np.zeros(len(x)), np.zeros(len(x), dtype=np.int64)
    values[:3], tokens[:3] = (3.0, 2.0, 1.0), (0, 1, 9)  # the class token, the first patch, the last
    site = opened.model.site("blocks.1.hook_resid_post")
    places = [p.box for p in drawn.strongest(site, values, tokens, 4)]
    assert places[0] is None
    assert places[1:] == [pytest.approx((0, 0, 1 / 3, 1 / 3)), pytest.approx((2 / 3, 2 / 3, 1, 1))]
