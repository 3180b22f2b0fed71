"""Training curves for TensorBoard, Weights & Biases and MLflow, written by ``accelerate``; off unless asked for."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechinterp.errors import ConfigError, nearest

if TYPE_CHECKING:
    from types import TracebackType

    from sparse_autoencoders.training import TrainingStatus

TRACKERS = ("tensorboard", "wandb", "mlflow")
PROJECT = "mechinterp"
_CURVES = ("loss", "explained_variance", "l0", "dead")


class Trackers:
    """Hands the curves of a training to trackers; its :meth:`write` is what watches the training, inside a ``with``.

    Files lie below ``FOLDER/tracking``. Weights & Biases stays offline unless the environment says ``WANDB_MODE=online``, and MLflow
    writes to a database there unless ``MLFLOW_TRACKING_URI`` names a server: settings and curves of a hospital's data leave the
    machine only when that is asked for.

    Parameters
    ----------
    names
        Which trackers.
    folder
        The autoencoders' folder.
    settings
        What is trained, shown beside the curves.

    Raises
    ------
    ConfigError
        If there is no such tracker, or its package is not installed.

    """

    def __init__(self, names: Sequence[str], folder: str | Path, settings: Mapping[str, Any]) -> None:
        for name in names:
            if name not in TRACKERS:
                raise ConfigError(f"no tracker '{name}': {nearest(name, TRACKERS)}")
        for package in ("accelerate", *names):
            if importlib.util.find_spec(package) is None:
                raise ConfigError(
                    f"{package} is not installed, and tracking by {', '.join(names)} wants it: pip install {package}"
                )
        self._names = tuple(names)
        self._folder = Path(folder) / "tracking"
        self._settings = {
            name: value if isinstance(value, (int, float, bool)) else str(value) for name, value in settings.items()
        }
        self._written: dict[str, int] = {}
        self._accelerator: Any = None

    def __enter__(self) -> Trackers:
        """Begin a run in every tracker."""
        accelerate = importlib.import_module("accelerate")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._accelerator = accelerate.Accelerator(cpu=True, log_with=list(self._names), project_dir=str(self._folder))
        wandb = {"dir": str(self._folder), "mode": os.environ.get("WANDB_MODE", "offline")}
        mlflow = {"logging_dir": (self._folder / "mlruns").resolve().as_uri()}
        if "mlflow" in self._names and not os.environ.get("MLFLOW_TRACKING_URI"):
            # of its own accord MLflow writes to the folder that the command was started in
            importlib.import_module("mlflow").set_tracking_uri(f"sqlite:///{self._folder.resolve() / 'mlflow.db'}")
        kwargs = {name: given for name, given in (("wandb", wandb), ("mlflow", mlflow)) if name in self._names}
        self._accelerator.init_trackers(PROJECT, config=self._settings, init_kwargs=kwargs)
        return self

    def write(self, status: TrainingStatus) -> None:
        """Log the points of the curves that were not logged yet, each at its own step."""
        points: dict[int, dict[str, float]] = {}
        for name, curve in status.curves.items():
            for at in range(self._written.get(name, 0), len(curve["step"])):
                here = points.setdefault(int(curve["step"][at]), {})
                here |= {f"{name}/{what}": float(curve[what][at]) for what in _CURVES}
            self._written[name] = len(curve["step"])
        for step, values in sorted(points.items()):
            self._accelerator.log(values, step=step)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the runs, after errors too."""
        self._accelerator.end_training()
