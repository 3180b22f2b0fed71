"""What SAELens, in a process of its own, measures of a saved SAE on held-out images is what our report says."""

import json
import subprocess
import sys

import pytest
from memory_store import MemoryStore, sparse_combinations
from safetensors.torch import save_file

from sparse_autoencoders.metrics import evaluate_sae
from sparse_autoencoders.training import train_saes

WITH_SAELENS = """
import json, sys, torch
from safetensors.torch import load_file
from sae_lens import SAE
x = load_file(sys.argv[2])["x"]
sae = SAE.load_from_disk(sys.argv[1])
with torch.no_grad():
    z = sae.encode(x)
    left = (sae.decode(z) - x).double().square().sum() / (x - x.mean(0)).double().square().sum()
assert not any(name.split(".")[0] in {"mechinterp", "sparse_autoencoders"} for name in sys.modules)
print(json.dumps({"l0": (z != 0).sum(-1).double().mean().item(), "explained_variance": 1 - left.item()}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["topk", "batchtopk"])
def test_held_out_l0_and_explained_variance_agree_to_two_per_cent(arch, tmp_path):
    store = MemoryStore(sparse_combinations(60, 20)[0], splits=["train"] * 40 + ["test"] * 20)
    sae = train_saes(store, arch=arch, k=3, expansion=2, epochs=8, batch_size=128, lr=3e-3, out=tmp_path / "saes")[0]
    ours = evaluate_sae(sae, store)
    assert ours.images == 20
    save_file({"x": store.rows("site", store.where("test")).contiguous()}, tmp_path / "x.safetensors")
    command = [sys.executable, "-c", WITH_SAELENS, str(tmp_path / "saes" / "seed-0"), str(tmp_path / "x.safetensors")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    theirs = json.loads(done.stdout.splitlines()[-1])
    assert theirs["l0"] == pytest.approx(ours.l0, rel=0.02)
    assert theirs["explained_variance"] == pytest.approx(ours.explained_variance, rel=0.02)
