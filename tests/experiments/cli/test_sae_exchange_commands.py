"""``import-sae`` and ``export-sae``: there and back, and one line where it cannot be."""

import json
import resource

import pytest
import torch

from experiments.cli.entry import run
from sparse_autoencoders.autoencoder import SparseAutoencoder


def sae():
    g = torch.Generator().manual_seed(0)
    W_dec = torch.nn.functional.normalize(torch.randn(12, 4, generator=g), dim=1)
    return SparseAutoencoder(
        "stages.2", "topk", torch.randn(4, 12, generator=g), torch.zeros(12), W_dec, torch.ones(4), k=2
    )


@pytest.mark.parametrize("library", ["saelens", "dictionary_learning"])
def test_out_and_in_again_gives_the_same_codes(library, tmp_path, capsys):
    sae().save(tmp_path / "ours")
    theirs, back = str(tmp_path / "theirs"), str(tmp_path / "back")
    assert run(["export-sae", str(tmp_path / "ours"), "--format", library, "--out", theirs]) == 0
    assert f"written for {library}" in capsys.readouterr().out
    assert run(["import-sae", theirs, "--out", back, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {"sae": back, "architecture": "topk", "site": "stages.2", "d_in": 4, "features": 12}
    x = torch.randn(30, 4)
    assert torch.allclose(SparseAutoencoder.load(back).encode(x), sae().encode(x), atol=1e-5)


def test_what_is_not_there_is_one_line_and_exit_2(tmp_path, capsys):
    assert run(["import-sae", str(tmp_path / "none"), "--out", str(tmp_path / "o")]) == 2
    error = capsys.readouterr().err.strip()
    assert "does not exist" in error
    assert "\n" not in error


@pytest.mark.parametrize("library", ["saelens", "dictionary_learning"])
def test_what_the_disk_does_not_take_is_one_line_and_exit_3(library, tmp_path, capsys):
    sae().save(tmp_path / "ours")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        out = str(tmp_path / "theirs")
        assert run(["export-sae", str(tmp_path / "ours"), "--format", library, "--out", out]) == 3
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    error = capsys.readouterr().err.strip()
    assert error.startswith("mechinterp: cannot write ")
    assert error.endswith("File too large")
    assert not [path for path in tmp_path.glob("theirs/*") if path.is_file()]
