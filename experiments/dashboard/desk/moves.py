"""A reader's moves: which feature or channel of a site is set to what, and what that makes of an activation."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.errors import ConfigError
from mechinterp.feature_encoder import FeatureEncoder

How = Literal["scale", "set-active", "set"]
HOWS: dict[How, str] = {
    "scale": "multiply by",
    "set-active": "where active, set to",
    "set": "everywhere, set to",
}
"""What a move does, in the words of its button."""

Kind = Literal["feature", "channel"]
MOST_MOVES = 12
_UNIT = re.compile(r"(feature|channel) (\d{1,9})")


@dataclass(frozen=True)
class Move:
    """One feature or channel and what is done to it.

    Parameters
    ----------
    kind
        ``feature`` of the run's encoder, or ``channel``: one unit of the site itself.
    index
        Which.
    how
        ``scale`` multiplies its values, ``set-active`` puts `value` where it is not zero, ``set`` puts it at every cell (prefix
        tokens are left alone).
    value
        A factor, or a value in the unit's own scale.

    """

    kind: Kind
    index: int
    how: How
    value: float

    @property
    def unit(self) -> str:
        """What it is called: ``feature 12``."""
        return f"{self.kind} {self.index}"

    def apply(self, values: Float[Tensor, "batch token"], prefix_tokens: int) -> Float[Tensor, "batch token"]:
        """Return the unit's values after the move."""
        if self.how == "scale":
            return values * self.value
        moved = values.clone()
        if self.how == "set":
            moved[:, prefix_tokens:] = self.value
            return moved
        return torch.where(values != 0, torch.full_like(values, self.value), values)


def parse_moves(asked: Any, features: int, channels: int) -> tuple[Move, ...]:
    """Return moves from what a page sent.

    Parameters
    ----------
    asked
        A list of objects with ``unit`` (``feature 12`` or ``channel 3``), ``how`` and ``value``.
    features, channels
        How many there are of each.

    Raises
    ------
    ConfigError
        If it is no such list, names a unit twice or one that is not there, or asks for a value that is no number.

    """
    if not isinstance(asked, list) or len(asked) > MOST_MOVES:
        raise ConfigError(f"moves are a list of at most {MOST_MOVES}: move fewer features at once")
    moves: list[Move] = []
    for entry in asked:
        entry = entry if isinstance(entry, dict) else {}
        kind, index = parse_unit(str(entry.get("unit")), features, channels)
        how, value = entry.get("how"), entry.get("value")
        if how not in HOWS:
            raise ConfigError(f"a move '{how}' is not known: it is one of {', '.join(HOWS)}")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ConfigError(f"{kind} {index} cannot be set to '{value}': give a number")
        moves.append(Move(kind, index, how, float(value)))
    if len({move.unit for move in moves}) < len(moves):
        raise ConfigError("a feature or channel is moved twice: give each one move")
    return tuple(moves)


def parse_unit(text: str, features: int, channels: int) -> tuple[Kind, int]:
    """Return kind and number of a unit's name, ``feature 12`` or ``channel 3``.

    Raises
    ------
    ConfigError
        If it names none.

    """
    match = _UNIT.fullmatch(text)
    if match is None:
        raise ConfigError(f"'{text[:40]}' names no unit: write 'feature 12' or 'channel 3'")
    kind: Kind = "feature" if match[1] == "feature" else "channel"
    index, there = int(match[2]), features if match[1] == "feature" else channels
    if index >= there:
        raise ConfigError(f"there is no {kind} {index}: the site has {there}, counted from 0")
    return kind, index


def moved_activation(
    acts_btd: Float[Tensor, "batch token width"],
    codes_btf: Float[Tensor, "batch token feature"],
    encoder: FeatureEncoder,
    moves: Sequence[Move],
    prefix_tokens: int = 0,
) -> Float[Tensor, "batch token width"]:
    """Return a site's activation after moves.

    A feature that changes from ``z`` to ``z'`` adds ``(z' - z)`` times its direction, so what the encoder did not reconstruct
    stays. Channels are moved last and so end where they were put.

    Parameters
    ----------
    acts_btd
        The site's tokens.
    codes_btf
        What the encoder says of them.
    encoder
        Whose directions are added.
    moves
        Any number.
    prefix_tokens
        Tokens in front that are no place in the image.

    """
    moved = acts_btd.clone()
    for move in moves:
        if move.kind == "feature":
            z = codes_btf[..., move.index]
            change = move.apply(z, prefix_tokens) - z
            moved += change[..., None] * encoder.directions[move.index].to(acts_btd)
    for move in moves:
        if move.kind == "channel":
            moved[..., move.index] = move.apply(moved[..., move.index], prefix_tokens)
    return moved
