"""Find a run's model, images and features again, when a reader first sits down at the desk."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from experiments.dashboard.run_view import RunView
from mechinterp.errors import ConfigError, HashMismatchError, MechinterpError

if TYPE_CHECKING:
    from experiments.dashboard.desk.desk import Desk
    from mechinterp.feature_encoder import FeatureEncoder


class DeskOfRun:
    """A run's desk, opened once and only when it is asked for: loading a model takes seconds.

    Parameters
    ----------
    view
        The run.

    """

    def __init__(self, view: RunView) -> None:
        self.view = view
        self._lock = threading.Lock()
        self._desk: Desk | None = None
        self._reason = ""

    @property
    def missing(self) -> str:
        """What the run's folder lacks for a desk; empty where nothing is seen to be missing before the model is loaded."""
        if not (self.view.run_dir / "activations" / "manifest.json").is_file():
            return "the run's folder holds no activation store, which says how the model and the images are loaded"
        if not any((self.view.run_dir / "saes").glob("*/cfg.json")):
            return "the run's folder holds no autoencoder"
        return ""

    def open(self) -> Desk:
        """Return the desk.

        Raises
        ------
        ConfigError
            If the model, the images or the autoencoder cannot be had; the message says why. It is not tried twice.

        """
        with self._lock:
            if self._desk is None and not self._reason:
                try:
                    self._desk = open_desk(self.view)
                except (MechinterpError, OSError, ImportError) as error:
                    self._reason = str(error)
            if self._desk is None:
                raise ConfigError(self._reason)
            return self._desk


def open_desk(view: RunView) -> Desk:
    """Load what a run was made from.

    Raises
    ------
    ConfigError
        If the run's folder lacks a part, or its results name no class that the model has.
    HashMismatchError
        If model, images or autoencoder are others now than when the run was made.

    """
    from experiments.analysis.circuit_runs import model_of_run
    from experiments.analysis.stagewise import images_of
    from experiments.dashboard.desk.desk import Desk
    from mechinterp.images.preparation import Preparation
    from mechinterp.store.reader import ActivationStore

    store = ActivationStore.open(view.run_dir / "activations")
    model, images = model_of_run(store), images_of(store)
    reference = view["target"]["reference"].text() or None
    if reference not in model.class_names:  # a single output is asked about against its absence
        reference = None
    return Desk(
        model, images, Preparation(**store.manifest.preparation), encoder_of_run(view),
        target=view["target"]["class"].text() or model.class_names[0], reference=reference,
    )  # fmt: skip


def encoder_of_run(view: RunView) -> FeatureEncoder:
    """Return the autoencoder whose features the run's pages show.

    Raises
    ------
    ConfigError
        If the run holds none.
    HashMismatchError
        If none of them is the one that the results were made with.

    """
    from sparse_autoencoders import SparseAutoencoder

    folders = [path.parent for path in sorted((view.run_dir / "saes").glob("*/cfg.json"))]
    if not folders:
        raise ConfigError(f"{view.run_dir} holds no autoencoder: mechinterp train-sae … --out {view.run_dir}/saes")
    wanted = view["sae"]["weights_hash"].text()
    for folder in folders:
        sae = SparseAutoencoder.load(folder)
        if not wanted or sae.weights_hash == wanted:
            return sae
    raise HashMismatchError(
        f"none of the autoencoders in {view.run_dir}/saes is the one its results were made with: analyse the run again"
    )
