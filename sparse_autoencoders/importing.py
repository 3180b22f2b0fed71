"""Autoencoders of other libraries, read and written: SAELens, dictionary_learning and overcomplete.

Files of those libraries are PyTorch state dicts. They are read with ``weights_only=True``: a file that holds a pickled module
instead is refused, with what to save in its place.
"""

from __future__ import annotations

import io
import pickle  # for the error alone, which torch.load raises
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from mechinterp.errors import ConfigError, DamagedFileError, nearest
from mechinterp.files import read_json, write_bytes, write_json
from sparse_autoencoders.autoencoder import SparseAutoencoder

Library = Literal["saelens", "dictionary_learning", "overcomplete"]
LIBRARIES: tuple[Library, ...] = get_args(Library)
AE, AE_CONFIG = "ae.pt", "config.json"
_TOPK, _BATCH_TOPK, _RELU, _JUMPRELU = "AutoEncoderTopK", "BatchTopKSAE", "AutoEncoder", "JumpReluAutoEncoder"
_MATRYOSHKA = "MatryoshkaBatchTopKSAE"


def import_sae(
    source: str | Path, *, site: str | None = None, library: Library | None = None, k: int | None = None
) -> SparseAutoencoder:
    """Read an autoencoder of another library.

    Parameters
    ----------
    source
        A folder of SAELens (``cfg.json``), a folder of dictionary_learning (``ae.pt`` and ``config.json``), or a state dict
        of overcomplete (``torch.save(sae.state_dict(), FILE)``).
    site
        Name of the site it reads; needed where the source does not say.
    library
        ``saelens``, ``dictionary_learning`` or ``overcomplete``; told by the files if left out.
    k
        Active features, for a state dict of overcomplete's TopK, which does not hold it.

    Returns
    -------
    SparseAutoencoder
        With the source's codes, brought to decoder directions of unit length where that changes no selection.

    Raises
    ------
    ConfigError
        If there is no such file, its architecture or normalisation does not fold, or site or k is not known.
    DamagedFileError
        If a file is cut short or lacks a part.

    """
    path = Path(source)
    if not path.exists():
        raise ConfigError(f"{path} does not exist: give a folder or file of {', '.join(LIBRARIES)}")
    chosen = _told(path) if library is None else library
    if chosen not in LIBRARIES:
        raise ConfigError(f"no library '{chosen}': {nearest(chosen, LIBRARIES)}")
    if chosen == "saelens":
        return SparseAutoencoder.load(path, site=site)
    try:
        sae = (
            _from_dictionary_learning(path, site)
            if chosen == "dictionary_learning"
            else _from_overcomplete(path, site, k)
        )
    except KeyError as error:
        raise DamagedFileError(f"{path} lacks {error}: it was cut short or is no autoencoder of {chosen}") from error
    return sae


def export_sae(sae: SparseAutoencoder, out: str | Path, *, library: Library = "saelens") -> Path:
    """Write an autoencoder so that another library reads it.

    Parameters
    ----------
    sae
        What to write.
    out
        Folder for ``saelens`` and ``dictionary_learning``, file for ``overcomplete``.
    library
        For which library. overcomplete has no threshold per feature and no decoder bias: a ``topk`` or ``standard`` whose biases the
        encoder can take up is written, with the decoder's bias left to be added.

    Returns
    -------
    Path
        What was written.

    Raises
    ------
    ConfigError
        If that library has no such architecture.
    DiskError
        If the disk is full.

    """
    path = Path(out)
    if library not in LIBRARIES:
        raise ConfigError(f"no library '{library}': {nearest(library, LIBRARIES)}")
    if library == "saelens":
        return sae.save(path)
    if library == "overcomplete":
        return _to_overcomplete(sae, path)
    return _to_dictionary_learning(sae, path)


def _told(path: Path) -> Library:
    if (path / "cfg.json").is_file():
        return "saelens"
    if (path / AE).is_file() or path.name == AE:
        return "dictionary_learning"
    if path.is_file():
        return "overcomplete"
    raise ConfigError(f"{path} holds neither cfg.json (SAELens) nor {AE} (dictionary_learning): name the file itself")


def _from_dictionary_learning(path: Path, site: str | None) -> SparseAutoencoder:
    folder = path if path.is_dir() else path.parent
    state = _state(folder / AE)
    config = read_json(folder / AE_CONFIG)["trainer"] if (folder / AE_CONFIG).is_file() else {}
    where = site or config.get("submodule_name")
    kind = config.get("dict_class") or _kind_of(state)
    if "W_enc" in state:
        W_enc, b_enc, W_dec, b_dec = (state[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec"))
    else:
        W_enc, b_enc, W_dec = state["encoder.weight"].T, state["encoder.bias"], state["decoder.weight"].T
        b_dec = state["bias"] if "bias" in state else state["b_dec"]
    name = _site_or_refuse(where, folder)
    match kind:
        case "AutoEncoder":
            return _unit(name, "standard", W_enc, b_enc, W_dec, b_dec)
        case "AutoEncoderTopK":
            return _unit(name, "topk", W_enc, b_enc, W_dec, b_dec, k=int(state["k"]))
        case "BatchTopKSAE" | "MatryoshkaBatchTopKSAE" | "JumpReluAutoEncoder":
            if kind == _JUMPRELU:  # its input keeps the decoder's bias
                b_enc = b_enc + b_dec @ W_enc
            threshold = state["threshold"].expand(W_enc.shape[1])
            return _unit(name, "jumprelu", W_enc, b_enc, W_dec, b_dec, threshold=threshold.clamp_min(0))
    known = (_RELU, _TOPK, _BATCH_TOPK, _MATRYOSHKA, _JUMPRELU)
    raise ConfigError(
        f"{folder}: a {kind} of dictionary_learning does not fold into one of ours: {', '.join(known)} do"
    )


def _kind_of(state: Mapping[str, Tensor]) -> str:
    """Tell the class from the names in a state dict, where no config.json stands beside it."""
    if "W_enc" in state:
        return _MATRYOSHKA if "group_sizes" in state else _JUMPRELU
    if "bias" in state:
        return _RELU
    return "state dict that is a TopK or a BatchTopK, which config.json would say," if "k" in state else "state dict"


def _from_overcomplete(path: Path, site: str | None, k: int | None) -> SparseAutoencoder:
    state = _state(path)
    W_dec = state["dictionary._weights"] * state["dictionary.multiplier"].exp()
    blocks = "encoder.final_block.0"
    if any(key.startswith("encoder.mlp_blocks") for key in state) or f"{blocks}.weight" not in state:
        raise ConfigError(
            f"{path}: only a linear encoder of overcomplete folds into one of ours, this one has more layers"
        )
    W_enc, b_enc = state[f"{blocks}.weight"].T, state[f"{blocks}.bias"]
    norm = "encoder.final_block.1"
    if f"{norm}.running_var" in state:  # BatchNorm as it is at inference
        spread = (state[f"{norm}.running_var"] + 1e-5).sqrt()
        factor = state.get(f"{norm}.weight", torch.ones_like(spread)) / spread
        shift = state.get(f"{norm}.bias", torch.zeros_like(spread))
        W_enc, b_enc = W_enc * factor, (b_enc - state[f"{norm}.running_mean"]) * factor + shift
    elif f"{norm}.weight" in state:
        raise ConfigError(f"{path}: an encoder with a layer norm depends on the whole token and does not fold")
    b_dec = torch.zeros(W_enc.shape[0])
    name = _site_or_refuse(site, path)
    return _unit(name, "standard" if k is None else "topk", W_enc, b_enc, W_dec, b_dec, k=k)


def _to_dictionary_learning(sae: SparseAutoencoder, folder: Path) -> Path:
    b_enc, b_dec = sae.b_enc, sae.b_dec
    linear = {"encoder.weight": sae.W_enc.T, "encoder.bias": b_enc, "decoder.weight": sae.W_dec.T}
    state: dict[str, Tensor]
    match sae.architecture:
        case "topk":
            state = {
                **linear,
                "b_dec": b_dec,
                "k": torch.tensor(sae.k, dtype=torch.int32),
                "threshold": torch.tensor(-1.0),
            }
            kind = _TOPK
        case "standard":
            state, kind = {**linear, "bias": b_dec}, _RELU
        case "jumprelu":
            folded = b_enc - b_dec @ sae.W_enc
            threshold = sae.threshold if sae.threshold is not None else torch.zeros(sae.width)
            state = {"W_enc": sae.W_enc, "b_enc": folded, "W_dec": sae.W_dec, "b_dec": b_dec, "threshold": threshold}
            kind = _JUMPRELU
        case other:
            raise ConfigError(f"dictionary_learning has no '{other}': export it as saelens")
    _save(state, folder / AE)
    trainer = {
        "dict_class": kind,
        "activation_dim": sae.d_in,
        "dict_size": sae.width,
        "k": sae.k,
        "submodule_name": sae.site,
    }
    write_json(folder / AE_CONFIG, {"trainer": trainer})
    return folder


def _to_overcomplete(sae: SparseAutoencoder, file: Path) -> Path:
    norms = sae.W_dec.norm(dim=1)
    if sae.architecture == "matching_pursuit":
        raise ConfigError("overcomplete's matching pursuit is another class: export this one as saelens")
    if sae.architecture == "jumprelu":
        raise ConfigError(
            "overcomplete has no threshold for each feature: export this jumprelu as saelens or dictionary_learning"
        )
    if float(sae.b_dec.abs().max()) > 0:
        raise ConfigError(
            "overcomplete's dictionary has no bias, and this autoencoder has one: export it as saelens or dictionary_learning"
        )
    if not torch.allclose(norms, torch.ones_like(norms), atol=1e-5):
        raise ConfigError(
            "overcomplete's dictionary has rows of unit length, and this one has not: export it as saelens"
        )
    state = {
        "encoder.final_block.0.weight": sae.W_enc.T,
        "encoder.final_block.0.bias": sae.b_enc,
        "dictionary._weights": sae.W_dec,
        "dictionary.multiplier": torch.tensor(0.0),
    }
    _save(state, file)
    return file


def _unit(
    site: str,
    architecture: Literal["topk", "jumprelu", "standard"],
    W_enc: Tensor,
    b_enc: Tensor,
    W_dec: Tensor,
    b_dec: Tensor,
    *,
    k: int | None = None,
    threshold: Tensor | None = None,
) -> SparseAutoencoder:
    """Bring decoder rows to unit length; those of a TopK stay, since which codes are largest depends on them."""
    parts = [t.detach().float().contiguous() for t in (W_enc, b_enc, W_dec, b_dec)]
    W_enc, b_enc, W_dec, b_dec = parts
    if architecture != "topk":
        norms = W_dec.norm(dim=1)
        norms = torch.where(norms > 0, norms, torch.ones_like(norms))
        W_enc, b_enc, W_dec = W_enc * norms, b_enc * norms, W_dec / norms[:, None]
        threshold = None if threshold is None else threshold.float() * norms
    return SparseAutoencoder(site, architecture, W_enc, b_enc, W_dec, b_dec, k=k, threshold=threshold)


def _site_or_refuse(site: str | None, path: Path) -> str:
    if not site:
        raise ConfigError(f"{path} does not say which site it reads: name it (--site)")
    return site


def _state(file: Path) -> dict[str, Tensor]:
    try:
        state: Any = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ConfigError(f"{file} does not exist: give the folder or file of an autoencoder") from None
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f"{file} holds a pickled module: save torch.save(sae.state_dict(), FILE) and give that"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise DamagedFileError(
            f"{file} is not a PyTorch file: {' '.join(str(error).split())[:200] or 'it is empty'}"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ConfigError(f"{file} holds no state dict: save torch.save(sae.state_dict(), FILE) and give that")
    return state


def _save(state: Mapping[str, Tensor], file: Path) -> None:
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    buffer = io.BytesIO()  # torch's own writer does not say that a disk is full
    torch.save(plain, buffer)
    write_bytes(file, buffer.getvalue())
