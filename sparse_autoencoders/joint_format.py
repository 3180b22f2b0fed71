"""Folders of transcoders and crosscoders: the three files of :mod:`.saved_format`, with what SAELens calls them where it has them.

SAELens reads ``transcoder``, ``skip_transcoder``, ``jumprelu_transcoder`` and ``jumprelu_skip_transcoder``. It has no TopK transcoder
and no crosscoder; those load here only.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from mechinterp.errors import ConfigError, DamagedFileError
from sparse_autoencoders.autoencoder import InferenceArchitecture, SparseAutoencoder
from sparse_autoencoders.crosscoder import Crosscoder
from sparse_autoencoders.saved_format import load, read_folder, write_folder
from sparse_autoencoders.transcoder import Transcoder

Trained = SparseAutoencoder | Transcoder | Crosscoder
_PREFIX: dict[InferenceArchitecture, str] = {"standard": "", "jumprelu": "jumprelu_", "topk": "topk_"}
_OF: dict[str, tuple[InferenceArchitecture, bool]] = {
    f"{prefix}{'skip_' if skip else ''}transcoder": (architecture, skip)
    for architecture, prefix in _PREFIX.items()
    for skip in (False, True)
}


def load_trained(folder: str | Path) -> Trained:
    """Load whatever a folder holds: an autoencoder, a transcoder or a crosscoder.

    Raises
    ------
    ConfigError, DamagedFileError
        If it holds none, or a file is damaged.

    """
    config, _, _ = read_folder(Path(folder))
    kind = str(config.get("architecture"))
    if kind in _OF:
        return load_transcoder(Path(folder))
    return load_crosscoder(Path(folder)) if kind == "crosscoder" else load(Path(folder))


def save_transcoder(made: Transcoder, folder: Path) -> Path:
    """Save a transcoder and return the folder.

    Raises
    ------
    DiskError
        If the disk is full or the folder cannot be written.

    """
    name = f"{_PREFIX[made.architecture]}{'' if made.W_skip is None else 'skip_'}transcoder"
    config = {
        "architecture": name, "d_in": made.d_in, "d_out": made.d_out, "d_sae": made.width, "apply_b_dec_to_input": False,
    }  # fmt: skip
    if made.k is not None:
        config["k"] = made.k
    ours = {
        "site": made.site, "to_site": made.to_site, "architecture": name, "d_in": made.d_in, "d_out": made.d_out,
        "width": made.width, "sae_weights_hash": made.weights_hash,
    }  # fmt: skip
    return write_folder(folder, made.tensors(), config, ours, made.provenance)


def load_transcoder(folder: Path) -> Transcoder:
    """Load a transcoder.

    Raises
    ------
    ConfigError
        If the folder holds something else, or does not say which sites.
    DamagedFileError
        If a file is cut short, altered, or lacks a part.

    """
    config, tensors, provenance = read_folder(folder)
    kind = str(config.get("architecture"))
    if kind not in _OF:
        raise ConfigError(f"{folder} holds no transcoder but a '{kind}'")
    architecture, skip = _OF[kind]
    metadata = config.get("metadata", {})
    site = provenance.get("site") or metadata.get("hook_name")
    to_site = provenance.get("to_site") or metadata.get("hook_name_out")
    if not site or not to_site:
        raise ConfigError(f"{folder} does not say which sites it reads and writes: hook_name and hook_name_out")
    if config.get("normalize_activations", "none") not in {"none", None}:
        raise ConfigError(
            f"{folder} has activations normalised: fold that into the weights with SAELens and save it again"
        )
    try:
        weights = {name: tensors[name].float() for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
        threshold = tensors["threshold"].float() if architecture == "jumprelu" else None
        if architecture != "topk":  # which features are the largest depends on the norms, so a TopK's stay as they are
            threshold = _made_unit(weights, threshold)
        return Transcoder(
            site=site,
            to_site=to_site,
            architecture=architecture,
            W_skip=tensors["W_skip"].float() if skip else None,
            k=int(config["k"]) if architecture == "topk" else None,
            threshold=threshold,
            provenance=provenance,
            **weights,
        )
    except KeyError as error:
        raise DamagedFileError(
            f"{folder} lacks {error}: it was cut short or is no transcoder of this format"
        ) from error


def _made_unit(weights: dict[str, Tensor], threshold: Tensor | None) -> Tensor | None:
    """Give decoder rows unit norm, the encoder taking it up; return the threshold that goes with it."""
    norms = weights["W_dec"].norm(dim=-1)
    if torch.allclose(norms, torch.ones_like(norms), atol=1e-5):
        return threshold
    norms = torch.where(norms > 0, norms, torch.ones_like(norms))
    weights["W_enc"] = weights["W_enc"] * norms
    weights["b_enc"] = weights["b_enc"] * norms
    weights["W_dec"] = weights["W_dec"] / norms.unsqueeze(-1)
    return None if threshold is None else threshold * norms


def save_crosscoder(made: Crosscoder, folder: Path) -> Path:
    """Save a crosscoder and return the folder.

    Raises
    ------
    DiskError
        If the disk is full or the folder cannot be written.

    """
    config = {
        "architecture": "crosscoder", "activation": made.architecture, "sites": list(made.sites),
        "widths": list(made.widths), "d_sae": made.width, "k": made.k,
    }  # fmt: skip
    ours = {
        "site": " + ".join(made.sites), "sites": list(made.sites), "architecture": "crosscoder", "width": made.width,
        "sae_weights_hash": made.weights_hash,
    }  # fmt: skip
    return write_folder(folder, made.tensors(), config, ours, made.provenance)


def load_crosscoder(folder: Path) -> Crosscoder:
    """Load a crosscoder.

    Raises
    ------
    ConfigError
        If the folder holds something else.
    DamagedFileError
        If a file is cut short, altered, or lacks a part.

    """
    config, tensors, provenance = read_folder(folder)
    if config.get("architecture") != "crosscoder":
        raise ConfigError(f"{folder} holds no crosscoder but a '{config.get('architecture')}'")
    try:
        return Crosscoder(
            sites=tuple(config["sites"]),
            widths=tuple(config["widths"]),
            architecture=config["activation"],
            k=config["k"],
            threshold=tensors.get("threshold"),
            provenance=provenance,
            **{name: tensors[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec", "scales")},
        )
    except KeyError as error:
        raise DamagedFileError(
            f"{folder} lacks {error}: it was cut short or is no crosscoder of this format"
        ) from error
