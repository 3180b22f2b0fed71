"""What stands in a spec: source, name, and the keyword arguments its model is built with.

``timm:vit_large_patch16_224?init_values=1e-5&dynamic_img_size=true`` asks the source ``timm`` for the model
``vit_large_patch16_224``, built with ``init_values=1e-5, dynamic_img_size=True``. So a spec alone says how a model is built, on the
command line, in Python and in what a run recorded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeAlias

from mechinterp.errors import ConfigError

Scalar: TypeAlias = bool | int | float | str | None
Option: TypeAlias = Scalar | tuple[Scalar, ...]

WORDS: Mapping[str, Scalar] = {"true": True, "false": False, "none": None}
# a file's name may hold a question mark; options are words, each with a value
_OPTIONS = re.compile(r"\?(?=[A-Za-z_]\w*=)")


def split_spec(spec: str) -> tuple[str, str, dict[str, Option]]:
    """Return source, name and options of a spec.

    Parameters
    ----------
    spec
        ``SOURCE:NAME`` or ``SOURCE:NAME?OPTION=VALUE&OPTION=VALUE``.

    Raises
    ------
    ConfigError
        If an option has no name, or is given twice.

    Examples
    --------
    >>> split_spec("monai:ViT?img_size=96,96,96&classification=true")
    ('monai', 'ViT', {'img_size': (96, 96, 96), 'classification': True})

    """
    kind, _, rest = spec.partition(":")
    *before, last = _OPTIONS.split(rest)
    name, written = ("?".join(before), last) if before else (rest, "")
    options: dict[str, Option] = {}
    for part in written.split("&") if written else ():
        key, separator, value = part.partition("=")
        if not key.isidentifier() or not separator:
            raise ConfigError(f"'{spec}': '{part}' is no option: write ?NAME=VALUE&NAME=VALUE behind the model")
        if key in options:
            raise ConfigError(f"'{spec}': option '{key}' is given twice")
        options[key] = parse_option(value)
    return kind, name, options


def parse_option(text: str) -> Option:
    """Return what an option's text means: a number, ``true``, ``false``, ``none``, a list with commas, or a word (maybe empty)."""
    if "," in text:
        return tuple(_scalar(part) for part in text.split(",") if part)
    return _scalar(text)


def _scalar(text: str) -> Scalar:
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
