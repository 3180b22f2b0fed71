"""What stands already where autoencoders shall be saved: the same training may be made again, another one is not overwritten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mechinterp.errors import ConfigError
from mechinterp.files import jsonable, read_json
from sparse_autoencoders.config import TrainSAEConfig
from sparse_autoencoders.metrics import training_images
from sparse_autoencoders.saved_format import OURS
from sparse_autoencoders.sparse_learner import ARCHITECTURES

if TYPE_CHECKING:
    from mechinterp.store.reader import ActivationStore

_DECIDE_NOTHING = {"seeds", "device", "checkpoint_minutes"}


def refuse_to_overwrite(
    out: Path,
    configs: Mapping[str, TrainSAEConfig],
    store: ActivationStore,
    sites: Sequence[str],
    images: NDArray[np.int64] | None,
) -> None:
    """Refuse a folder that holds autoencoders of other settings or data under the names that shall be written.

    Parameters
    ----------
    out, configs
        Folder, and what is trained by the name of its sub-folder; each seed has one below that.
    store, sites
        What is read, and written where that is another site.
    images
        Positions of the training images; by default those of split ``train``.

    Raises
    ------
    ConfigError
        If one is there. The same training made again writes the same bits, and is let pass.

    """
    for name, config in configs.items():
        for seed in config.seeds:
            folder = Path(out) / name / f"seed-{seed}"
            if not (folder / OURS).is_file():
                continue
            differs = _differences(read_json(folder / OURS), config, store, sites, images)
            if differs:
                raise ConfigError(
                    f"{folder} holds what another training made ({', '.join(differs)}): train into another --out, or remove it"
                )


def _differences(
    held: Mapping[str, Any],
    config: TrainSAEConfig,
    store: ActivationStore,
    sites: Sequence[str],
    images: NDArray[np.int64] | None,
) -> list[str]:
    """Say in what a finished training differs from one that is asked for."""
    wanted = jsonable(asdict(config))
    differs = [
        f"{name} {value}, here {wanted[name]}"
        for name, value in held.get("config", {}).items()
        if name in wanted and name not in _idle(config) and value != wanted[name]
    ]
    read = held.get("sites") or [held[name] for name in ("site", "to_site") if name in held]
    if read != list(sites):
        differs.append(f"of {' and '.join(read)}, here {' and '.join(sites)}")
    if held.get("store_hash") not in {None, store.hash}:
        differs.append("of other activations")
    else:
        chosen = training_images(store) if images is None else images
        ids = set(store.images["id"].iloc[chosen].astype(str))
        if not ids.issuperset(held.get("training_images", [])):
            differs.append("of other training images")
    return differs


def _idle(config: TrainSAEConfig) -> set[str]:
    """Return the settings that decide nothing; a saved one may hold another value of them."""
    if config.arch not in ARCHITECTURES:
        return _DECIDE_NOTHING | {"wake"}
    return _DECIDE_NOTHING | ({"aux", "restarts"} if config.wake else set())
