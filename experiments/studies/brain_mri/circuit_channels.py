"""Which measured quantity the channels of the drawn circuit follow: chosen on some slices, tested on others, or none.

Only channels that were drawn are tested, those of all stages as one family: they were chosen by their effect on the answer, on
which the quantities have no bearing. All slices are of one head, so the attributes are shifted along the volume and the
highest correlation of the family sets the bar (see :mod:`mechinterp.statistics.shifts`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

from mechinterp.errors import AttributeTableError
from mechinterp.progress import SILENT, Progress

if TYPE_CHECKING:
    from circuits.circuit import Place
    from experiments.analysis.circuit_runs import Opened

Closest = Mapping[str, Any]
"""``attribute``, ``unit``, ``rho_discovery``, ``rho_confirmation``, ``p_corrected`` and ``survives``, as a feature's ``best``."""


def channel_attributes(
    opened: Opened, channels: Sequence[Place], *, batch: int = 8, seed: int = 0, progress: Progress = SILENT
) -> dict[Place, Closest]:
    """Return the closest attribute of every channel, and whether held-out slices confirmed it.

    Parameters
    ----------
    opened
        The run's model and slices, in their order along the volume.
    channels
        (site, channel) of what was drawn.
    batch
        Slices at once.
    seed
        Of the test.
    progress
        Told of every batch.

    Returns
    -------
    dict
        Empty where the slices have no attribute with an order. A channel that does not vary has no attribute.

    """
    from experiments.analysis.measurements import middle_of_volume
    from probes import match_attributes

    if not channels or not opened.images.attributes.attributes:
        return {}
    values = np.concatenate(list(_means(opened, channels, batch, progress)))
    chosen, held_out = middle_of_volume(len(values))
    try:
        matrix = match_attributes(
            values, opened.images.attributes, chosen, held_out, order=np.arange(len(values)), kind="channels",
            pooling="mean", measures=False, seed=seed,
        )  # fmt: skip
    except AttributeTableError as error:
        progress.note(f"channels not matched: {error}")
        return {}
    return {
        channel: {
            "attribute": pair.attribute or None,
            "unit": pair.unit,
            "rho_discovery": pair.rho_discovery,
            "rho_confirmation": pair.rho_confirmation,
            "p_corrected": pair.p_corrected,
            "survives": pair.verdict.startswith("confirmed"),
        }
        for channel, pair in ((c, matrix[k]) for k, c in enumerate(channels))
    }


def _means(
    opened: Opened, channels: Sequence[Place], batch: int, progress: Progress
) -> Iterator[Float[NDArray[np.float64], "slice channel"]]:
    """Yield every batch's mean of each channel over its map."""
    from mechinterp.capturing import run_with_cache

    sites = list(dict.fromkeys(site for site, _ in channels))
    starts = range(0, len(opened.images), batch)
    for start in progress.track(starts, "channels of all slices", len(starts)):
        rows = range(start, min(start + batch, len(opened.images)))
        with torch.no_grad():
            acts = run_with_cache(opened.model, opened.batch(list(rows)).x, sites)
        yield np.stack([acts[site][..., channel].mean(1).double().cpu().numpy() for site, channel in channels], axis=1)
