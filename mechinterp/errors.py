"""Errors that are the user's to mend: one line, the input's name, the remedy.

Every class carries the exit code the command line ends with: 2 the input was wrong, 3 disk or data damage.
Anything that is not a :class:`MechinterpError` is a bug of ours and exits with 70.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MechinterpError(Exception):
    """Base of every error a user can mend."""

    exit_code = 2


class ModelError(MechinterpError):
    """A model that cannot be loaded, or whose parts are not what its description says."""


class WeightsError(ModelError):
    """Weights that are missing, or do not fit the model."""


class SiteError(MechinterpError):
    """A site the model does not have, or that cannot be used this way."""


class ImagesError(MechinterpError):
    """Images that cannot be read, or do not fit what is asked of them."""


class UnreadableImageError(ImagesError):
    """One image that cannot be read, where others of its set may be; `reason` names no path and no patient."""

    def __init__(self, name: object, reason: str) -> None:
        super().__init__(f"image {name} cannot be read ({reason}): replace it, or take it out of the set")
        self.name, self.reason = str(name), reason

    def __reduce__(self) -> tuple[type[UnreadableImageError], tuple[str, str]]:
        """Let the error travel between processes, which by default call the class with the message alone."""
        return type(self), (self.name, self.reason)


class AttributeTableError(MechinterpError):
    """An attribute that is not there, has no unit, or has too few values."""


class LeakageError(MechinterpError):
    """A group (patient) stands on both sides of a split."""


class ConfigError(MechinterpError):
    """A setting that cannot be meant; the message names it and what is allowed."""


class ShapeError(MechinterpError):
    """Two arrays that must share a shape do not."""


class HashMismatchError(MechinterpError):
    """Things that must come from the same model, preprocessing or images do not."""


class MissingDependencyError(MechinterpError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed: pip install 'mechinterp-vision[{extra}]'")
        self._arguments = (package, extra)

    def __reduce__(self) -> tuple[type[MissingDependencyError], tuple[str, str]]:
        """Let the error travel between processes, which by default call the class with the message alone."""
        return type(self), self._arguments


class DamagedFileError(MechinterpError):
    """A file is cut short, altered or not of the format its name promises."""

    exit_code = 3


class DiskError(MechinterpError):
    """The disk is full, or a folder cannot be written."""

    exit_code = 3


def nearest(name: str, valid: Iterable[str], limit: int = 3) -> str:
    """Return ``"did you mean 'a', 'b'?"`` with the valid names nearest to `name`.

    Parameters
    ----------
    name
        What the user typed.
    valid
        What would have been right.
    limit
        How many to propose at most.

    Returns
    -------
    str
        The proposal; the first valid names when none is near, and a sentence saying so when there are none.

    """
    names = list(valid)
    if not names:
        return "there are none"
    contained = [n for n in names if name.lower() in n.lower()]
    found = difflib.get_close_matches(name, names, n=limit, cutoff=0.4) or contained[:limit]
    if found:
        return "did you mean " + ", ".join(f"'{n}'" for n in found) + "?"
    shown = ", ".join(f"'{n}'" for n in names[:limit])
    return f"valid are {shown}" + (f" and {len(names) - limit} more" if len(names) > limit else "")
