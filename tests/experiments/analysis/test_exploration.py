"""An autoencoder of an earlier run is taken over only if it is the one that was trained with these settings."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from experiments.analysis import exploration
from experiments.analysis.exploration import ExplorationConfig
from mechinterp.progress import SILENT


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Train or take over; the folder holds what stands under ``here``, and ``times`` counts trainings."""
    state = SimpleNamespace(here=None, times=0)

    def train(*_args, **_settings):
        state.times += 1
        state.here = SimpleNamespace(weights_hash=f"training {state.times}")
        return [state.here]

    monkeypatch.setattr(exploration, "train_saes", train)
    monkeypatch.setattr(exploration, "SparseAutoencoder", SimpleNamespace(load=lambda _folder: state.here))

    def again(store="s", **settings):
        config = ExplorationConfig(**settings)
        return exploration._trained(
            SimpleNamespace(folder=tmp_path), SimpleNamespace(hash=store), "stages.2", config, SILENT
        )

    again()
    return state, again


def test_the_same_settings_take_it_over(trained):
    state, again = trained
    assert again() is state.here
    assert state.times == 1


@pytest.mark.parametrize("changed", [{"k": 8}, {"epochs": 2}, {"seed": 1}, {"store": "t"}])
def test_other_settings_train_anew(trained, changed):
    state, again = trained
    assert again(**changed).weights_hash == "training 2"
    assert state.times == 2


def test_another_that_was_trained_into_the_folder_since_is_not_taken_for_it(trained):
    state, again = trained
    state.here = SimpleNamespace(weights_hash="by hand")
    assert again().weights_hash == "training 2"
