"""Change any set of features in some images, under one ablation, and see what the model answers: quickly, many sets at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from circuits.ablations import Ablation, Source, draw
from circuits.bands import Band
from circuits.running import RunsFromSite, logits_in_batches, slices
from mechinterp.errors import ImagesError
from mechinterp.feature_encoder import FeatureEncoder
from mechinterp.objectives import Objective


@dataclass(eq=False)
class Laboratory:
    """What all directions share.

    Parameters
    ----------
    run
        The model after the site.
    acts_bnd
        Activations of all images.
    x
        The images, where something bypasses the site.
    objective
        A resolved logit difference.
    batch
        Activations run at once.
    seed
        Of the draws.

    """

    run: RunsFromSite
    acts_bnd: Tensor
    x: Tensor | None
    objective: Objective
    batch: int
    seed: int

    def __post_init__(self) -> None:
        self.target, self.reference = (int(c) for c in self.objective.classes)
        self.logits = logits_in_batches(self.run, self.acts_bnd, self.batch, self.x)

    def require_answers(self, band: Band) -> None:
        """Refuse a band whose images the model answers otherwise; raises :class:`ImagesError` naming the image."""
        answers = self.logits.argmax(1)
        names = self.objective.class_names or tuple(str(c) for c in self.objective.classes)
        for images, wanted, name in ((band.target, self.target, names[0]), (band.reference, self.reference, names[1])):
            for i in images:
                if int(answers[i]) != wanted:
                    raise ImagesError(
                        f"image {i} of band '{band.name}' is not answered '{name}' by the model: "
                        "choose the bands by the model's own answers"
                    )


@dataclass(eq=False)
class Bench:
    """Images changed under one ablation, all their draws beside each other, ready for any set of features.

    Sets hold positions in `alive`.

    Parameters
    ----------
    lab
        Model and activations.
    encoder
        What reads the features.
    alive
        The features that sets are made of.
    ablation
        What is put in place.
    images
        Positions of the images that are changed.
    source
        Positions of the images that values are taken from.

    """

    lab: Laboratory
    encoder: FeatureEncoder
    alive: NDArray[np.int64]
    ablation: Ablation
    images: tuple[int, ...]
    source: tuple[int, ...]

    def __post_init__(self) -> None:
        acts = self.lab.acts_bnd
        self.directions = self.encoder.directions.detach().to(acts)[torch.from_numpy(self.alive).to(acts.device)]
        self.units = _single_units(self.directions)
        source = Source(self.encoder, acts[list(self.source)])
        picks = draw(self.ablation, len(self.images), len(self.source), self.lab.seed)
        self.draws = picks.shape[1] if self.ablation.puts == "image" else 1
        rows = np.repeat(np.asarray(self.images), self.draws)
        self.base_bnd, self.before = acts[rows], self.lab.logits[rows]
        self.x = None if self.lab.x is None else self.lab.x[rows]
        tokens = acts.shape[1]
        # one row per feature, so that the rows of a set are gathered in one go
        self.change_fr = acts.new_empty(len(self.alive), len(rows) * tokens)
        at = 0
        for i, drawn in zip(self.images, picks, strict=True):
            codes = self.encoder.encode(acts[i])
            for replaced in source.replacements(self.ablation, drawn, codes):
                self.change_fr[:, at : at + tokens] = (replaced - codes)[:, self.alive].T
                at += tokens
        # small benches hold several sets at once, so that a call's fixed cost is shared
        self.at_once = max(1, self.lab.batch // len(rows))
        self.buffer = acts.new_empty(self.at_once, len(rows) * tokens, acts.shape[2])

    def changed(
        self, sets: Int[NDArray[np.int64], "set member"], scales: Float[NDArray[np.float64], " set"] | None = None
    ) -> Float[Tensor, "set row token width"]:
        """Return the activations with the codes of each set replaced, or changed that way by a multiple.

        The tensor is reused by the next call.
        """
        index = torch.from_numpy(np.ascontiguousarray(sets)).to(self.change_fr.device)
        factors = None if scales is None else torch.from_numpy(scales).to(self.change_fr)
        out = self.buffer[: len(sets)]
        flat = self.base_bnd.flatten(0, 1).expand(len(sets), -1, -1)
        if self.units is not None:
            # features that are single units need no product with their directions
            out.copy_(flat)
            for k, members in enumerate(index):
                change = self.change_fr[members] if factors is None else self.change_fr[members] * factors[k]
                out[k].index_add_(1, self.units[members], change.T)
        else:
            added = self.directions[index]
            added = added if factors is None else added * factors[:, None, None]
            torch.baddbmm(flat, self.change_fr[index].transpose(1, 2), added, out=out)
        return out.reshape(len(sets), *self.base_bnd.shape)

    def logits(
        self, sets: Int[NDArray[np.int64], "set member"], scales: Float[NDArray[np.float64], " set"] | None = None
    ) -> Float[Tensor, "set row class"]:
        """Return the logits with the codes of each set replaced; see :meth:`changed`."""
        found = []
        for part in slices(len(sets), self.at_once):
            acts = self.changed(sets[part], None if scales is None else scales[part])
            x = None if self.x is None else self.x.repeat(len(acts), *[1] * (self.x.dim() - 1))
            after = logits_in_batches(self.lab.run, acts.flatten(0, 1), self.lab.batch, x)
            found.append(after.reshape(*acts.shape[:2], -1))
        return torch.cat(found)

    def flipped(self, after: Float[Tensor, "set row class"]) -> Float[NDArray[np.float64], " set"]:
        """Return the fraction of turned answers per set."""
        is_target = after.argmax(-1) == self.lab.target
        turned = is_target if self.ablation.opposite else ~is_target
        result: NDArray[np.float64] = turned.double().mean(1).cpu().numpy()
        return result

    def delta(self, after: Float[Tensor, "set row class"]) -> Float[NDArray[np.float64], " set"]:
        """Return the mean change of the logit difference per set."""
        change = self.lab.objective(after) - self.lab.objective(self.before)
        result: NDArray[np.float64] = change.double().mean(1).cpu().numpy()
        return result

    def probabilities(self, after: Float[Tensor, "row class"]) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return the target's probability per image before and after, averaged over draws."""
        softmax = self.lab.objective.activation == "softmax"
        both = [(t.softmax(1) if softmax else t.sigmoid())[:, self.lab.target] for t in (self.before, after)]
        before, after_ = (tuple(p.reshape(-1, self.draws).mean(1).tolist()) for p in both)
        return before, after_


def _single_units(directions: Float[Tensor, "feature width"]) -> Int[Tensor, " feature"] | None:
    """Return the unit that each feature is, where every direction is one unit's own; ``None`` otherwise."""
    units = directions.abs().argmax(1)
    alone = (directions != 0).sum(1) == 1
    one = directions.gather(1, units[:, None])[:, 0] == 1
    return units if bool((alone & one).all()) else None
