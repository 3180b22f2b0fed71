"""Is a model what its description says? Two cheap forward passes at load time instead of a wrong result later."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    """Check that every site resolves with the shape it states, that looking changes nothing, and that answers are repeatable.

    Parameters
    ----------
    model
        The model with its sites.
    expected
        What the module returns for :func:`~mechinterp.models.tracing.probe_input`'s batch of two images; computed if not given.

    Raises
    ------
    ModelError
        If a site is missing or has another shape; if a copy of a site's activation in its place changes a bit of the output;
        if the output is not finite, differs from run to run, or depends on the other images of the batch.

    """
    x = probe_input(model.contract)
    with torch.inference_mode():
        if expected is None:
            expected = _run(model, x)
        alone = _run(model, x[:1])
        if not bool(alone.isfinite().all()):
            raise ModelError(f"'{model.spec}' returns NaN or infinity for a random image: check its weights")
        copied = _run_with_copies(model, x[:1], model.sites)
        if not copied.equal(alone):
            _check_repeatable(model, x, alone)
            _name_what_changes(model, x[:1], alone)
        difference = _relative_difference(alone, expected[:1])
        if not difference <= TOLERANCE:
            _check_repeatable(model, x, alone)
            raise ModelError(
                f"'{model.spec}' answers differently when the same image is run again ({difference:.0%} off): it mixes the "
                "images of a batch, like a batch norm without running statistics"
            )


def _run(model: VisionModel, x: Tensor) -> Tensor:
    x = x.to(model.device)
    output = first_tensor(model.module(x.movedim(1, -1) if model.contract.layout == "NHWC" else x))
    assert output is not None  # the probe has seen to that
    return output


def _run_with_copies(model: VisionModel, x: Tensor, sites: Mapping[str, Site]) -> Tensor:
    """Run the module with copies in place of the sites' activations, comparing their shapes with what the sites state."""
    wrong: list[str] = []
    reached: set[str] = set()

    def copy(site: Site) -> Callable[[Tensor], Tensor | None]:
        def visit(raw: Tensor) -> Tensor | None:
            reached.add(site.name)
            acts_bnd = site.to_tokens(raw)
            shape, stated = tuple(acts_bnd.shape), (len(x), site.tokens, site.width)
            if shape != stated:
                wrong.append(f"{site.name}: {shape}, not {stated}")
            # what is inside an attention is put back by other arithmetic than its kernel's: it is looked at only
            looked_at_only = site.take in {"pattern", "result"} or site.weight or site.bypassed
            return None if looked_at_only else _copy(site, acts_bnd, raw)

        return visit

    with ExitStack() as undo:
        # what heads add is computed from what they put out, and hooked after it
        for site in sorted(sites.values(), key=lambda s: s.take == "result"):
            undo.callback(hook_site(model.module, site, copy(site)).remove)
        output = _run(model, x)
    wrong += [f"{name}: not reached" for name in sites if name not in reached]
    if wrong:
        raise ModelError(f"'{model.spec}': {len(wrong)} sites are not as described ({some(wrong)})")
    return output


def _copy(site: Site, acts_bnd: Tensor, raw: Tensor) -> Tensor:
    """Return a site's activation in memory of its own, by way of its tokens."""
    # in the order in memory that it had, so that the same kernels run after it
    return torch.empty_like(raw).copy_(site.from_tokens(acts_bnd.clone(), raw))


def _check_repeatable(model: VisionModel, x: Tensor, alone: Tensor) -> None:
    difference = _relative_difference(_run(model, x[:1]), alone)
    if not difference <= TOLERANCE:
        raise ModelError(
            f"'{model.spec}' answers differently when the same image is run again ({difference:.0%} off): something in it is "
            "random even in evaluation mode, like a functional dropout"
        )


def _name_what_changes(model: VisionModel, x: Tensor, alone: Tensor) -> None:
    """Name the sites where a copy changes the answer; none where runs differ by rounding anyhow, as on some GPUs."""
    if not _run(model, x).equal(alone):
        return
    sites = {name: s for name, s in model.sites.items() if not _run_with_copies(model, x, {name: s}).equal(alone)}
    raise ModelError(
        f"'{model.spec}': a copy in the place of an activation changes the answer, so that nothing can be said of what is put "
        f"there ({some(list(sites)) or 'several sites together'}): its modules work in place on what they are handed"
    )


def _relative_difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max().clamp_min(1e-12))
