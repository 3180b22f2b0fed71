"""A model that starts at one of its sites: what comes before is computed once per image, not once per run.

A circuit of late sites needs hundreds of forward passes of the same few images. Where nothing bypasses an earlier site, these
can begin there: images become what that site holds, and everything later runs, is hooked and is differentiated as before.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.running import slices
from mechinterp.capturing import run_with_cache
from mechinterp.errors import SiteError
from mechinterp.models.vision_model import VisionModel
from mechinterp.tails import Tail


@dataclass
class LateStart(VisionModel):
    """A model whose inputs are the tokens of one of its sites; see :func:`starting_at`.

    Parameters
    ----------
    tail
        What the model computes after that site.

    """

    tail: Tail = field(kw_only=True)

    def run(self, x: Float[Tensor, "batch token width"]) -> Tensor:
        """Return the logits; sites that lie after the start are reached as in a whole forward pass."""
        return self.tail.logits(x.to(self.device))

    def inputs(
        self, x: Float[Tensor, "image channel height width"], batch: int = 8
    ) -> Float[Tensor, "image token width"]:
        """Return images as this model takes them: what they leave at the start.

        Parameters
        ----------
        x
            Prepared images.
        batch
            Images at once.

        """
        site = self.tail.site.name
        with torch.no_grad():
            return torch.cat([run_with_cache(self.tail.model, x[part], site)[site] for part in slices(len(x), batch)])


def starting_at(model: VisionModel, site: str, x: Float[Tensor, "image channel height width"]) -> LateStart:
    """Return a model that takes a site's tokens in the place of images.

    Parameters
    ----------
    model
        The model; its weights and modules are shared, not copied.
    site
        Where to start: before every site that is looked at.
    x
        Two images or more, on which it is checked that the rest gives what the whole model gives.

    Raises
    ------
    SiteError
        If something bypasses the site, so that the rest needs the images.

    """
    tail = Tail(model, site, x)
    if not tail.exact:
        raise SiteError(f"something bypasses site '{site}' of '{model.spec}': start at an earlier one")
    same = {f.name: getattr(model, f.name) for f in fields(model)}
    # what runs gives logits already
    return LateStart(**{**same, "output": "logits", "logits_module": None}, tail=tail)
