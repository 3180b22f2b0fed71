"""Curves in trackers: each point once, at its step; what is missing is one line."""

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import SimpleNamespace

import accelerate
import numpy as np
import pytest

from experiments.analysis import tracking
from experiments.analysis.tracking import Trackers
from mechinterp.errors import ConfigError
from sparse_autoencoders.training import TrainingStatus


class Logged:
    """Stands for accelerate's object; remembers what it was told."""

    def __init__(self):
        self.calls, self.ended = [], False

    def log(self, values, step):
        self.calls.append((step, values))

    def end_training(self):
        self.ended = True


def status(n):
    curve = {
        "step": [1, 5, 9][:n],
        **{what: [0.5, 0.25, 0.125][:n] for what in ("loss", "explained_variance", "l0", "dead")},
    }
    return TrainingStatus(
        n, 9, 1.0, {"seed-0": curve, "seed-1": curve}, {"seed-0": np.zeros(2)}, {"seed-0": np.zeros(2)}
    )


def test_every_point_is_logged_once_at_its_step_for_every_seed(tmp_path):
    trackers = Trackers(["wandb"], tmp_path, {"k": 4, "seeds": (0, 1)})
    trackers._accelerator = logged = Logged()
    trackers.write(status(2))
    trackers.write(status(2))
    trackers.write(status(3))
    trackers.__exit__(None, None, None)
    assert [step for step, _ in logged.calls] == [1, 5, 9]
    assert logged.calls[2][1]["seed-1/loss"] == 0.125
    assert len(logged.calls[0][1]) == 8
    assert logged.ended


def test_an_unknown_tracker_and_one_that_is_not_installed_are_one_line(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="no tracker 'wandbb': did you mean 'wandb'"):
        Trackers(["wandbb"], tmp_path, {})
    found = importlib.util.find_spec
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None if name == "mlflow" else found(name))
    with pytest.raises(ConfigError, match=r"mlflow is not installed.*pip install mlflow"):
        Trackers(["mlflow"], tmp_path, {})


@pytest.mark.parametrize("server", [None, "http://tracking.example"])
def test_mlflow_writes_to_the_folder_unless_a_server_is_named(tmp_path, monkeypatch, server):
    told = []
    monkeypatch.setitem(
        sys.modules, "mlflow", SimpleNamespace(__spec__=ModuleSpec("mlflow", None), set_tracking_uri=told.append)
    )
    monkeypatch.setattr(
        accelerate,
        "Accelerator",
        lambda **_: SimpleNamespace(init_trackers=lambda *_, **__: None, end_training=lambda: None),
    )
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    with Trackers(["mlflow"], tmp_path, {}):
        pass
    assert told == ([] if server else [f"sqlite:///{tmp_path.resolve()}/tracking/mlflow.db"])


@pytest.mark.slow
def test_weights_and_biases_writes_its_files_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_SILENT", "true")
    with Trackers(["wandb"], tmp_path, {"k": 4}) as trackers:
        trackers.write(status(3))
    (run,) = (tmp_path / "tracking" / "wandb").glob("offline-run-*")
    assert any(path.suffix == ".wandb" and path.stat().st_size > 0 for path in run.iterdir())


@pytest.mark.slow
def test_tensorboard_reads_back_every_point_at_its_step(tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with Trackers(["tensorboard"], tmp_path, {"k": 4}) as trackers:
        trackers.write(status(2))
        trackers.write(status(3))
    # the settings lie in a folder below, as TensorBoard wants hyperparameters
    (written,) = (
        found
        for run in {path.parent for path in (tmp_path / "tracking").rglob("events.out.tfevents.*")}
        if "seed-1/loss" in (found := event_accumulator.EventAccumulator(str(run)).Reload()).Tags()["scalars"]
    )
    assert [(at.step, at.value) for at in written.Scalars("seed-1/loss")] == [(1, 0.5), (5, 0.25), (9, 0.125)]
    assert len(written.Tags()["scalars"]) == 8
