"""The two runs between which a circuit is found: images as they are, and what ablations make of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.ablations import Ablation, draw
from circuits.nodes import NodeSet, Parts
from circuits.wiring import State, Wiring
from mechinterp.capturing import run_with_cache
from mechinterp.errors import ImagesError, ShapeError


@dataclass(frozen=True, eq=False)
class Corrupted:
    """One batch in both runs.

    Parameters
    ----------
    clean
        The images as they are.
    replaced
        What every site's nodes are replaced with: noising takes values from here.
    run
        A consistent corrupted run: denoising puts clean values into it.
    rows
        Which images of the whole set these are.

    """

    clean: State
    replaced: State
    run: State
    rows: slice


def corrupted_batches(
    wiring: Wiring,
    x: Float[Tensor, "image channel height width"],
    reference: Float[Tensor, "reference channel height width"] | None,
    ablation: Ablation,
    *,
    batch: int = 32,
    seed: int = 0,
    consistent: bool = True,
) -> Iterator[Corrupted]:
    """Yield every batch of images in both runs, once per draw of the ablation.

    Parameters
    ----------
    wiring
        Model and nodes.
    x
        Prepared images.
    reference
        Images whose values are put in place; by default the images themselves, none for itself. A paired ablation
        takes the reference of the same number.
    ablation
        ``zero`` and ``mean`` replace each site's parts by themselves, and their corrupted run is the one with the first
        site replaced; ``resample`` and ``counterfactual`` take another image's run.
    batch
        Images at once.
    seed
        Of the draws.
    consistent
        Whether the corrupted run is needed: without it `zero` and `mean` save a forward pass.

    Raises
    ------
    ImagesError
        If there is no other image to take values from.
    ShapeError
        If a paired ablation is given another number of references.

    """
    partners = _partners(len(x), None if reference is None else len(reference), ablation, seed)
    pool = x if reference is None else reference
    fixed = None if ablation.puts == "image" else _fixed_parts(wiring, pool, ablation, batch)
    for start in range(0, len(x), batch):
        rows = slice(start, min(start + batch, len(x)))
        clean = wiring.state(x[rows], first=start)
        for d in range(ablation.draws if ablation.puts == "image" else 1):
            if fixed is None:
                other = wiring.state(pool[torch.from_numpy(partners[rows, d]).to(pool.device)], first=start)
                yield Corrupted(clean, other, other, rows)
            else:
                n = rows.stop - rows.start
                parts = {site: p.repeat(n) for site, p in fixed.items()}
                acts = {layer.site: joined(layer, parts[layer.site]) for layer in wiring.layers}
                replaced = replace(clean, acts=acts, parts=parts)
                run = wiring.state(x[rows], acts[wiring.sites[0]], first=start) if consistent else replaced
                yield Corrupted(clean, replaced, run, rows)


def joined(layer: NodeSet, parts: Parts) -> Float[Tensor, "batch token width"]:
    """Return the activation that parts make up."""
    whole = parts.codes if layer.complete else layer.encoder.decode(parts.codes)
    return whole if parts.error is None else whole + parts.error


def _partners(n: int, references: int | None, ablation: Ablation, seed: int) -> np.ndarray:
    if ablation.puts != "image":
        return np.zeros((n, 0), dtype=np.int64)
    if ablation.paired:
        if references != n:
            raise ShapeError(
                f"ablation '{ablation.name}' puts each image's own partner, but {references or 0} references are given "
                f"for {n} images: give one each"
            )
        return np.arange(n)[:, None]
    if references is not None:
        if references == 0:
            raise ImagesError("there is no reference image to take values from: give at least one")
        return draw(ablation, n, references, seed)
    if n < 2:
        raise ImagesError("one image alone has no other to take values from: give more images, or references")
    # a shift along a random cycle: no image is its own partner, and every image serves as often as any other
    order = np.random.default_rng([seed, n]).permutation(n)
    partners = np.empty((n, ablation.draws), dtype=np.int64)
    for d in range(ablation.draws):
        partners[order, d] = np.roll(order, d % (n - 1) + 1)
    return partners


def _fixed_parts(wiring: Wiring, x: Tensor, ablation: Ablation, batch: int) -> dict[str, Parts]:
    """Return what is put into every image's site: nothing, or the mean over images, summed in float64."""
    totals: dict[str, list[Tensor | None]] = {}
    with torch.no_grad():
        chunks: Sequence[slice] = [slice(0, 1)] if ablation.puts == "nothing" else [
            slice(s, s + batch) for s in range(0, len(x), batch)
        ]  # fmt: skip
        for rows in chunks:
            acts = run_with_cache(wiring.model, x[rows], list(wiring.sites))
            for layer in wiring.layers:
                parts = layer.split(acts[layer.site])
                sums = [None if t is None else t.double().sum(0, keepdim=True) for t in (parts.codes, parts.error)]
                before = totals.get(layer.site)
                totals[layer.site] = (
                    sums
                    if before is None
                    else [None if a is None or b is None else a + b for a, b in zip(before, sums, strict=True)]
                )
    factor = 0.0 if ablation.puts == "nothing" else 1 / len(x)
    like = x.dtype
    return {
        site: Parts((codes * factor).to(like), None if error is None else (error * factor).to(like))
        for site, (codes, error) in totals.items()
        if codes is not None
    }
