"""The Hugging Face hub without surprises: the local cache first, the network only when it was allowed.

A look-up without a network takes the hub's client 30 s and more to fail, so that is decided here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mechinterp.errors import WeightsError
from mechinterp.models.weights import first_line

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")


def cached_file(repository: str, file: str) -> Path | None:
    """Return a hub file's place in the local cache, or ``None``; asks no network."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(repository, file)
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None


def cached_weights(repository: str) -> Path | None:
    """Return the weights of a hub repository in the local cache, or ``None``."""
    return next((path for file in WEIGHT_FILES if (path := cached_file(repository, file))), None)


def cache_folder(repository: str) -> str:
    """Return where the local cache would hold a repository, the home folder written as ``~``."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    home = Path.home()
    return f"~/{folder.relative_to(home)}" if folder.is_relative_to(home) else str(folder)


@contextmanager
def offline() -> Iterator[None]:
    """Keep the hub's client from the network."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def download_weights(repository: str, spec: str) -> Path:
    """Fetch the weights of a repository into the local cache.

    Raises
    ------
    WeightsError
        If the hub cannot be reached or has no such file.

    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    for file in WEIGHT_FILES:
        try:
            return Path(hf_hub_download(repository, file))
        except EntryNotFoundError:
            continue
        except (OSError, ValueError, RuntimeError) as error:
            raise WeightsError(
                f"'{spec}' cannot be downloaded from the hub's {repository}: {first_line(error)}"
            ) from None
    raise WeightsError(f"'{spec}': the hub's {repository} has none of {', '.join(WEIGHT_FILES)}")
