"""The folder of a saved SAE: SAELens' two files, and ours beside them.

``sae_weights.safetensors`` and ``cfg.json`` are what ``sae_lens.SAE.load_from_disk`` reads, architectures ``topk``,
``jumprelu``, ``standard`` and ``matching_pursuit``, with every normalisation folded in: codes are computed from the site's raw activations.
``mechinterp.json`` says where it comes from; written last, with checksums of the other two, it also says that the folder is
whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mechinterp.errors import ConfigError, DamagedFileError
from mechinterp.files import read_json, sha256_file, write_atomically, write_json
from sparse_autoencoders.autoencoder import InferenceArchitecture, SparseAutoencoder

WEIGHTS = "sae_weights.safetensors"
CONFIG = "cfg.json"
OURS = "mechinterp.json"
FORMAT_VERSION = 1


def save(sae: SparseAutoencoder, folder: Path) -> Path:
    """Save an SAE.

    Parameters
    ----------
    sae
        What to save.
    folder
        Where; what stood there of an older one is replaced file by file.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    DiskError
        If the disk is full or the folder cannot be written.

    """
    config: dict[str, Any] = {
        "architecture": sae.architecture,
        "d_in": sae.d_in,
        "d_sae": sae.width,
        "apply_b_dec_to_input": True,
    }
    if sae.architecture == "topk":
        config |= {"k": sae.k, "rescale_acts_by_decoder_norm": False}
    tensors = sae._tensors()
    if sae.architecture == "matching_pursuit":
        config |= {"max_iterations": sae.k, "residual_threshold": 0.0, "stop_on_duplicate_support": False}
        tensors = {name: tensors[name] for name in ("W_dec", "b_dec")}  # the encoder is the decoder
    ours = {
        "site": sae.site,
        "architecture": sae.architecture,
        "d_in": sae.d_in,
        "width": sae.width,
        "sae_weights_hash": sae.weights_hash,
    }
    return write_folder(folder, tensors, config, ours, sae.provenance)


def write_folder(
    folder: Path,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    ours: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> Path:
    """Write the three files, ours last.

    Parameters
    ----------
    folder
        Where.
    tensors
        Weights, by the names that SAELens gives them.
    config
        What SAELens wants to know beside what holds of all that is saved here.
    ours
        What the weights are, for our own reading; its ``site`` is SAELens' ``hook_name``.
    provenance
        Where they come from.

    """
    plain = {name: t.detach().cpu().float().contiguous() for name, t in tensors.items()}
    write_atomically(folder / WEIGHTS, lambda path: save_file(plain, path))
    common = {
        "dtype": "float32",
        "device": "cpu",
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "model_name": provenance.get("model", {}).get("spec"),
            "hook_name": ours["site"],
            "sae_lens_training_version": provenance.get("versions", {}).get("sae-lens"),
        },
    }
    write_json(folder / CONFIG, {**common, **config})
    files = {name: sha256_file(folder / name) for name in (WEIGHTS, CONFIG)}
    write_json(folder / OURS, {**provenance, "format_version": FORMAT_VERSION, **ours, "files": files})
    return folder


def load(folder: Path, *, site: str | None = None) -> SparseAutoencoder:
    """Load an SAE saved here or by SAELens.

    Parameters
    ----------
    folder
        With ``sae_weights.safetensors`` and ``cfg.json``.
    site
        Name of the site it reads; by default what the folder says.

    Raises
    ------
    ConfigError
        If the folder holds no SAE, one of an architecture or normalisation that does not fold, or no site is known.
    DamagedFileError
        If a file is cut short, altered, or lacks a part.

    """
    config, tensors, provenance = read_folder(folder)
    name = site or provenance.get("site") or config.get("metadata", {}).get("hook_name") or config.get("hook_name")
    if not name:
        raise ConfigError(f"{folder} does not say which site it reads: name it with site=")
    try:
        return _folded(name, config, tensors, provenance)
    except KeyError as error:
        raise DamagedFileError(f"{folder} lacks {error}: it was cut short or is no SAE of this format") from error


def read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Any]]:
    """Return a folder's config, weights and provenance, checked against the checksums where it has some.

    Raises
    ------
    ConfigError
        If the folder holds nothing of the kind.
    DamagedFileError
        If a file is cut short or altered.

    """
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise ConfigError(
                f"{folder} holds no SAE ({name} is missing): give a folder written by `mechinterp train-sae`"
            )
    config = read_json(folder / CONFIG)
    provenance = read_json(folder / OURS) if (folder / OURS).is_file() else {}
    for name, expected in provenance.get("files", {}).items():
        if sha256_file(folder / name) != expected:
            raise DamagedFileError(
                f"{folder / name} does not match its checksum: it was altered; train or copy it again"
            )
    try:
        tensors = load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise DamagedFileError(f"{folder / WEIGHTS} is not a safetensors file: {error}") from error
    return config, tensors, provenance


def _folded(
    site: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor], provenance: Mapping[str, Any]
) -> SparseAutoencoder:
    """Bring SAELens' variants to one form: bias taken off the input, unit decoder rows."""
    architecture = config["architecture"]
    if architecture.endswith(("transcoder", "crosscoder")):
        raise ConfigError(f"a saved {architecture.replace('_', ' ')} is no SAE of one site: evaluate-sae reads it")
    if architecture not in get_args(InferenceArchitecture):
        raise ConfigError(
            f"a saved SAE of architecture '{architecture}' cannot be read: save it as topk, jumprelu or standard"
        )
    for key in ("normalize_activations", "reshape_activations"):
        if config.get(key, "none") not in {"none", None}:
            raise ConfigError(
                f"the SAE has {key} '{config[key]}': fold it into the weights with SAELens and save it again"
            )
    if architecture == "matching_pursuit":
        return _pursuing(site, config, tensors, provenance)
    W_enc, b_enc, W_dec, b_dec = (tensors[name].float() for name in ("W_enc", "b_enc", "W_dec", "b_dec"))
    threshold = tensors["threshold"].float() if architecture == "jumprelu" else None
    if not config.get("apply_b_dec_to_input", True):
        b_enc = b_enc + b_dec @ W_enc
    norms = W_dec.norm(dim=-1)
    if not torch.allclose(norms, torch.ones_like(norms), atol=1e-5):
        if architecture == "topk" and not config.get("rescale_acts_by_decoder_norm", False):
            # which latents are kept depends on the norms here, so they stay as they are
            norms = torch.ones_like(norms)
        norms = torch.where(norms > 0, norms, torch.ones_like(norms))
        W_enc, b_enc, W_dec = W_enc * norms, b_enc * norms, W_dec / norms.unsqueeze(-1)
        threshold = None if threshold is None else threshold * norms
    k = int(config["k"]) if architecture == "topk" else None
    return SparseAutoencoder(site, architecture, W_enc, b_enc, W_dec, b_dec, k, threshold, provenance)


def _pursuing(
    site: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor], provenance: Mapping[str, Any]
) -> SparseAutoencoder:
    W_dec, b_dec = tensors["W_dec"].float(), tensors["b_dec"].float()
    if not torch.allclose(W_dec.norm(dim=-1), torch.ones(len(W_dec)), atol=1e-4):
        raise ConfigError("a matching pursuit whose directions have no unit norm chooses otherwise: train one here")
    if config.get("residual_threshold", 1e-2) > 0 or config.get("stop_on_duplicate_support", True):
        raise ConfigError(
            "a matching pursuit that stops early has no fixed k: set residual_threshold 0 and stop_on_duplicate_support false "
            "in its cfg.json if max_iterations alone shall decide"
        )
    k = int(config.get("max_iterations") or W_dec.shape[1])
    W_enc, b_enc = W_dec.t().contiguous(), torch.zeros(len(W_dec))
    if not config.get("apply_b_dec_to_input", True):
        b_dec = torch.zeros_like(b_dec)  # SAELens then adds it nowhere
    return SparseAutoencoder(site, "matching_pursuit", W_enc, b_enc, W_dec, b_dec, k, None, provenance)
