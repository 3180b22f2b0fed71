"""Is a model what its description says? One cheap forward pass at load time instead of a wrong result later."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import torch
from torch import Tensor

from mechinterp.errors import ModelError
from mechinterp.hooks import hook_site
from mechinterp.models.tracing import first_tensor, probe_input
from mechinterp.models.vision_model import VisionModel
from mechinterp.models.weights import some
from mechinterp.sites import Site

TOLERANCE = 1e-3  # of the largest output; batches of other sizes differ by rounding only, near 1e-6


def check_model(model: VisionModel, expected: Tensor | None = None) -> None:
    """Check that every site resolves with the shape it states, and that an image's output is its own.

    Parameters
    ----------
    model
        The model with its sites.
    expected
        What the module returns for :func:`~mechinterp.models.tracing.probe_input`'s batch of two images; computed if not given.

    Raises
    ------
    ModelError
        If a site is missing or has another shape, or the output is not finite, differs from run to run, or depends on the
        other images of the batch.

    """
    x = probe_input(model.contract)
    with torch.inference_mode():
        if expected is None:
            expected = _run(model, x)
        alone = _run_with_sites(model, x[:1])
        if not bool(alone.isfinite().all()):
            raise ModelError(f"'{model.spec}' returns NaN or infinity for a random image: check its weights")
        difference = _relative_difference(alone, expected[:1])
        if not difference <= TOLERANCE:
            repeatable = _relative_difference(_run(model, x[:1]), alone) <= TOLERANCE
            why = (
                "it mixes the images of a batch, like a batch norm without running statistics"
                if repeatable
                else "something in it is random even in evaluation mode, like a functional dropout"
            )
            raise ModelError(
                f"'{model.spec}' answers differently when the same image is run again ({difference:.0%} off): {why}"
            )


def _run(model: VisionModel, x: Tensor) -> Tensor:
    x = x.to(model.device)
    output = first_tensor(model.module(x.movedim(1, -1) if model.contract.layout == "NHWC" else x))
    assert output is not None  # the probe has seen to that
    return output


def _run_with_sites(model: VisionModel, x: Tensor) -> Tensor:
    """Run the module, comparing what every site hands over with what its description states."""
    wrong: list[str] = []
    reached: set[str] = set()

    def compare(site: Site) -> Callable[[Tensor], None]:
        def visit(raw: Tensor) -> None:
            reached.add(site.name)
            shape, stated = tuple(site.to_tokens(raw).shape), (len(x), site.tokens, site.width)
            if shape != stated:
                wrong.append(f"{site.name}: {shape}, not {stated}")

        return visit

    with ExitStack() as undo:
        for site in model.sites.values():
            undo.callback(hook_site(model.module, site, compare(site)).remove)
        output = _run(model, x)
    wrong += [f"{name}: not reached" for name in model.sites if name not in reached]
    if wrong:
        raise ModelError(f"'{model.spec}': {len(wrong)} sites are not as described ({some(wrong)})")
    return output


def _relative_difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max().clamp_min(1e-12))
