import numpy as np
import pytest

from experiments.analysis.comparison import compared, pareto_page
from experiments.cli.commands.compare_saes import found_in
from mechinterp.errors import ConfigError
from mechinterp.store.reader import ActivationStore
from sparse_autoencoders import TrainSAEConfig, train_sweep
from sparse_autoencoders.figures import pareto_figure


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    import mechinterp as mi

    folder = tmp_path_factory.mktemp("compare")
    (folder / "net.py").write_text(
        "import torch\n"
        "def build():\n"
        "    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),\n"
        "        torch.nn.Flatten(), torch.nn.Linear(8, 2))\n"
    )
    model = mi.load_model(f"py:{folder / 'net.py'}:build", input_size=16)
    rng = np.random.default_rng(0)
    images = mi.ImageSet.from_arrays(rng.random((30, 16, 16)).astype(np.float32))
    return mi.capture(model, images, ["0"], out=folder / "activations")


def test_seeds_are_compared_with_each_other_and_with_baselines_at_their_sparsity(store, tmp_path):
    base = TrainSAEConfig(k=2, expansion=2, steps=30, seeds=(0, 1))
    sweep = {"k-2": base, "k-3": TrainSAEConfig(k=3, expansion=2, steps=30)}
    train_sweep(store, sweep, out=tmp_path)
    folders = found_in([tmp_path])
    assert list(folders) == ["k-2/seed-0", "k-2/seed-1", "k-3/seed-0"]
    from sparse_autoencoders import SparseAutoencoder

    saes = {name: SparseAutoencoder.load(folder) for name, folder in folders.items()}
    everything = np.arange(len(store))
    found = compared(saes, store, train=everything[:20], test=everything[20:])
    assert found.saes == tuple(folders)
    assert set(found.recurs) == {"k-2/seed-0", "k-2/seed-1"}
    assert found.recurs["k-2/seed-0"] == pytest.approx(found.recurs["k-2/seed-1"])
    assert {"frozen-random SAE, k 2", "frozen-random SAE, k 3", "PCA, first 2"} <= set(found.table.index)
    classical = {"ICA, largest 2", "NMF, largest 3", "k-means", "frozen encoder, trained decoder, k 3"}
    assert classical <= set(found.table.index)
    assert found.table.index.is_unique
    assert found.table.loc["k-3/seed-0", "l0"] == 3
    # every kind of control is drawn
    kinds = {trace.name for trace in pareto_figure(found.table, found.saes).data}
    assert {"ICA, largest", "NMF, largest", "k-means", "neurons, largest", "frozen encoder, trained decoder"} <= kinds
    page = pareto_page(found, tmp_path / "pareto.html").read_text()
    assert "of the features recur in every other seed" in page
    assert isinstance(store, ActivationStore)


def test_a_folder_without_any_and_two_folders_are_told_apart(tmp_path):
    with pytest.raises(ConfigError, match="holds no autoencoder"):
        found_in([tmp_path])
    for name in ("a", "b"):
        (tmp_path / name / "seed-0").mkdir(parents=True)
        (tmp_path / name / "seed-0" / "cfg.json").write_text("{}")
    assert list(found_in([tmp_path / "a", tmp_path / "b"])) == ["a/seed-0", "b/seed-0"]
    assert list(found_in([tmp_path / "a" / "seed-0"])) == ["seed-0"]
