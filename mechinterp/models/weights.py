"""Read a weights file and put it into a module, or say in one line why it does not fit."""

from __future__ import annotations

import argparse
import pickle
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from mechinterp.errors import WeightsError

StateDict = dict[str, Tensor]

# what training scripts put around a state dict, and in front of its names
WRAPPERS = ("state_dict", "model_state_dict", "model", "model_ema", "net", "teacher", "student")
PREFIXES = ("module.", "_orig_mod.", "backbone.", "model.", "encoder.", "net.")


def read_state_dict(file: str | Path) -> StateDict:
    """Read the tensors of a ``.safetensors`` file, or of a PyTorch checkpoint that holds nothing but tensors and numbers.

    Parameters
    ----------
    file
        The file. A checkpoint may wrap its state dict in one of `WRAPPERS`.

    Raises
    ------
    WeightsError
        If the file is missing, cut short, of another format, or holds Python objects (these are never unpickled).

    """
    path = Path(file)
    if path.is_dir():
        raise WeightsError(f"weights '{path}' is a folder: name the .safetensors file in it")
    if not path.is_file():
        raise WeightsError(f"there is no weights file '{path}'")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        # a Namespace holds the options a checkpoint was trained with, and nothing that runs
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            warnings.simplefilter("ignore")  # old pickle protocols load as well as they ever did
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError, AttributeError) as error:
        if "weights_only" in str(error):
            raise WeightsError(
                f"'{path}' holds Python objects, which are not unpickled for safety: "
                "save its state_dict alone, best as .safetensors"
            ) from None
        raise WeightsError(f"'{path}' is no readable weights file: {first_line(error)}") from None
    return _unwrap(content, path)


def load_into(module: nn.Module, state: Mapping[str, Tensor], origin: str) -> tuple[str, ...]:
    """Put a state dict into a module, stripping a prefix all names carry.

    Parameters
    ----------
    module
        The module.
    state
        Names and tensors.
    origin
        Where they came from, for messages.

    Returns
    -------
    tuple of str
        Notes: the prefix that was stripped, if any.

    Raises
    ------
    WeightsError
        If names or shapes differ: the first few of each are listed.

    """
    own = module.state_dict()
    fitted, prefix = without_prefix(state, own)
    # counters of batch norms are absent from many checkpoints and change nothing in evaluation
    missing = sorted(k for k in own.keys() - fitted.keys() if not k.endswith("num_batches_tracked"))
    unexpected = sorted(fitted.keys() - own.keys())
    reshaped = sorted(k for k in own.keys() & fitted.keys() if own[k].shape != fitted[k].shape)
    problems = []
    if missing:
        problems.append(f"{len(missing)} missing ({some(missing)})")
    if unexpected:
        problems.append(f"{len(unexpected)} unexpected ({some(unexpected)})")
    if reshaped:
        shapes = [f"{k} {tuple(fitted[k].shape)} for {tuple(own[k].shape)}" for k in reshaped]
        problems.append(f"{len(reshaped)} of another shape ({some(shapes)})")
    if problems:
        raise WeightsError(
            f"'{origin}' does not fit the model: {', '.join(problems)}: "
            f"of {len(own)} tensors in the model, {len(own.keys() & fitted.keys())} have a match by name"
        )
    module.load_state_dict(dict(fitted), strict=False)
    return (f"prefix '{prefix}' stripped from the names in {Path(origin).name}",) if prefix else ()


def without_prefix(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
    """Return the state dict with the prefix stripped that makes most names fit, and that prefix.

    Prefixes stack: ``module.model.`` is found as well.
    """
    best, best_prefix, prefix = state, "", ""
    current = dict(state)
    while current:
        found = next((p for p in PREFIXES if all(k.startswith(p) for k in current)), None)
        if found is None:
            break
        current = {k.removeprefix(found): v for k, v in current.items()}
        prefix += found
        if len(current.keys() & own.keys()) > len(best.keys() & own.keys()):
            best, best_prefix = current, prefix
    return best, best_prefix


def some(names: Sequence[str], limit: int = 3) -> str:
    """Return the first few names, with an ellipsis for the rest."""
    return ", ".join(names[:limit]) + (", …" if len(names) > limit else "")


def first_line(error: BaseException) -> str:
    """Return an error's message in one line of at most 200 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return text if len(text) <= 200 else text[:199] + "…"


def _read_safetensors(path: Path) -> StateDict:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"'{path}' is no readable safetensors file: {first_line(error)}") from None


def _unwrap(content: object, path: Path) -> StateDict:
    while isinstance(content, Mapping):
        tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
        inner = next((content[k] for k in WRAPPERS if isinstance(content.get(k), Mapping)), None)
        if inner is None:
            if tensors:
                return tensors
            break
        content = inner
    raise WeightsError(f"'{path}' holds no state dict: save model.state_dict(), best as .safetensors")
