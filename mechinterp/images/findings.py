"""What was found while images were read: files set aside with their reason, and images that may show who someone is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mechinterp.errors import ConfigError, ImagesError
from mechinterp.files import write_json

if TYPE_CHECKING:
    from mechinterp.images.image_set import ImageSet

FlagKind = Literal["burned-in text", "face"]


@dataclass(frozen=True)
class SetAside:
    """A file that is no image of its set.

    Parameters
    ----------
    name
        What it is called on screen and in files: its name without folders, or its number where names may be a
        patient's.
    reason
        Why, in one line without path or patient.
    damaged
        Whether it should have been an image; what never was one (a report, a plan) is not counted as bad.
    path
        Where it lies; for the user's own session, written nowhere.

    """

    name: str
    reason: str
    damaged: bool = True
    path: Path | None = field(default=None, repr=False, compare=False)

    def to_json(self) -> dict[str, str | bool]:
        """Return what may be written: everything but the path."""
        return {"name": self.name, "reason": self.reason, "damaged": self.damaged}


@dataclass(frozen=True)
class Flag:
    """An image that may show who its patient is. A flag warns; it never stops anything.

    Parameters
    ----------
    kind
        What was seen.
    image
        Id of the image.
    reason
        What speaks for it.

    """

    kind: FlagKind
    image: str
    reason: str

    def to_json(self) -> dict[str, str]:
        """Return it as plain JSON."""
        return {"kind": self.kind, "image": self.image, "reason": self.reason}


@dataclass(frozen=True)
class MaxBad:
    """How many damaged files are borne: a count, or a share of all that were met.

    Parameters
    ----------
    count, share
        One of them; a share allows at least one file, so that a small set is not stopped by its first.

    """

    count: int | None = None
    share: float | None = None

    @classmethod
    def parse(cls, said: MaxBad | str | float) -> MaxBad:
        """Understand ``3``, ``"3"``, ``"10%"`` or ``0.1``.

        Raises
        ------
        ConfigError
            If it is neither a whole number from 0 on nor a share from 0 to 1.

        """
        if isinstance(said, MaxBad):
            return said
        text = str(said).strip()
        try:
            percent = text.endswith("%")
            number = float(text.removesuffix("%")) / (100 if percent else 1)
        except ValueError:
            number = math.nan
        if percent or (0 <= number < 1 and ("." in text or "e" in text.lower())):
            if 0 <= number <= 1:
                return cls(share=number)
        elif math.isfinite(number) and number >= 0 and number == int(number):
            return cls(count=int(number))
        raise ConfigError(f"max-bad is '{said}': give a count of files as 3, or a share as 10% or 0.1")

    def __str__(self) -> str:
        return str(self.count) if self.share is None else f"{100 * self.share:g}%"

    def allowed(self, files: int) -> int:
        """Return how many of some files may be damaged."""
        if self.share is None:
            return self.count or 0
        return max(1, int(self.share * files)) if self.share > 0 else 0

    def check(self, set_aside: Sequence[SetAside], files: int, name: str) -> None:
        """Stop where too many are damaged.

        Raises
        ------
        ImagesError
            If more are damaged than allowed; the first is named with its reason.

        """
        damaged = [s for s in set_aside if s.damaged]
        if len(damaged) > self.allowed(files):
            raise ImagesError(
                f"{len(damaged)} of {files} images of '{name}' cannot be read, more than --max-bad {self} allows (first "
                f"{damaged[0].name}: {damaged[0].reason}): mend or remove them, or raise --max-bad"
            )


def write_set_aside(path: Path, images: ImageSet) -> bool:
    """Write which files were set aside and which images were flagged; nothing where there is neither.

    Returns
    -------
    bool
        Whether a file was written.

    """
    if not images.set_aside and not images.flags:
        return False
    write_json(
        path,
        {
            "images": images.name,
            "read": len(images),
            "set_aside": [s.to_json() for s in images.set_aside],
            "flags": [f.to_json() for f in images.flags],
        },
    )
    return True
