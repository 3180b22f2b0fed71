"""Which autoencoders are the same but for the seed: only among those does what recurs say how stable features are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparse_autoencoders.autoencoder import SparseAutoencoder

_SAME = ("model", "preparation_hash", "store_hash", "training_images")
# where and in what portions it was computed
_NO_SETTING = {"seeds", "device", "checkpoint_minutes"}


def of_other_seeds(sae: SparseAutoencoder, others: Sequence[SparseAutoencoder]) -> list[SparseAutoencoder]:
    """Return those that were trained as one was, on the same tokens of the same site, but from other seeds.

    One of other settings finds other features for that reason alone; one of the same seed finds the same ones again. So neither
    counts, nor does one that does not say how it was trained. Of several of one seed the first is taken.

    Parameters
    ----------
    sae
        Whose features are asked about.
    others
        Autoencoders, itself among them or not.

    """
    seed = sae.provenance.get("seed")
    if seed is None:
        return []
    found: dict[Any, SparseAutoencoder] = {}
    for other in others:
        theirs = other.provenance.get("seed")
        if (
            theirs not in {None, seed}
            and (other.site, other.width) == (sae.site, sae.width)
            and _how(other) == _how(sae)
        ):
            found.setdefault(theirs, other)
    return list(found.values())


def _how(sae: SparseAutoencoder) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what an autoencoder was trained on, and with which settings."""
    config = sae.provenance.get("config", {})
    # a tuple is a list once it was saved
    settings = {
        name: str(list(v) if isinstance(v, tuple) else v) for name, v in config.items() if name not in _NO_SETTING
    }
    return {name: sae.provenance.get(name) for name in _SAME}, settings
