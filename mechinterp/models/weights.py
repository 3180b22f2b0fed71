"""Read the tensors of a weights file, or say in one line why it cannot be read."""

from __future__ import annotations

import argparse
import pickle
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from mechinterp.errors import WeightsError

StateDict = dict[str, Tensor]

# what training scripts put around a state dict
WRAPPERS = ("state_dict", "model_state_dict", "model", "model_ema", "net", "network_weights", "teacher", "student")


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


def some(names: Sequence[str], limit: int = 3) -> str:
    """Return the first few names, with an ellipsis for the rest."""
    return ", ".join(names[:limit]) + (", …" if len(names) > limit else "")


def first_line(error: BaseException) -> str:
    """Return an error's message in one line of at most 200 characters; where it announces the next line, that too."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[: 2 if lines[0].endswith(":") else 1]) if lines else type(error).__name__
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
