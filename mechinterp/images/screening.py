"""Read every image of a set once: set aside what cannot be read, flag what may show who someone is, warn of copies."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from mechinterp.errors import ImagesError
from mechinterp.images.findings import Flag, MaxBad, SetAside
from mechinterp.images.image_set import ImageSet, MedicalImage
from mechinterp.progress import SILENT, Progress

_READERS = 4
_AT_ONCE = 64  # images on their way at a time: memory stays bounded
_MOST_LOOKED_AT = 200  # for flags, spread evenly over the set
_NAMED = 3


@dataclass(frozen=True)
class _Seen:
    set_aside: SetAside | None = None
    flags: tuple[Flag, ...] = ()
    pixels: bytes = b""
    """A digest of them; empty where all are alike, as in an empty slice."""


def screened(
    images: ImageSet, *, max_bad: MaxBad | str | float = "10%", look: bool = True, progress: Progress = SILENT
) -> ImageSet:
    """Return the set without the images that cannot be read, with flags and notes.

    Equal pixels under two patients' names are noted: such patients are on both sides of a split, whatever their names.

    Parameters
    ----------
    images
        Any set.
    max_bad
        How many damaged files are borne, with those that the reader set aside; see
        :class:`mechinterp.images.findings.MaxBad`.
    look
        Look for burned-in text and faces, in at most 200 images, spread evenly.
    progress
        Sees one step per image.

    Returns
    -------
    ImageSet
        It can be opened again where `images` can, without those set aside.

    Raises
    ------
    ImagesError
        If more are damaged than `max_bad` allows, or all.

    """
    limit = MaxBad.parse(max_bad)
    looked_at = set(
        np.linspace(0, len(images) - 1, min(len(images), _MOST_LOOKED_AT)).astype(int).tolist() if look else ()
    )
    seen = list(progress.track(_seen(images, looked_at), "reading every image once", total=len(images)))
    bad = {images.ids[i]: s.set_aside for i, s in enumerate(seen) if s.set_aside is not None}
    set_aside = (*images.set_aside, *bad.values())
    limit.check(set_aside, len(images) + sum(s.damaged for s in images.set_aside), images.name)
    if len(bad) == len(images):
        first = next(iter(bad.values()))
        raise ImagesError(f"no image of '{images.name}' can be read (first {first.name}: {first.reason})")
    flags = tuple(dict.fromkeys((*images.flags, *(f for s in seen for f in s.flags))))
    kept = images.without(bad)
    return replace(
        kept, set_aside=set_aside, flags=flags,
        notes=(*images.notes, *_notes(set_aside, flags, images, looked_at), *_copies(images, [s.pixels for s in seen])),
    )  # fmt: skip


def _seen(images: ImageSet, looked_at: set[int]) -> Iterator[_Seen]:
    with ThreadPoolExecutor(max_workers=_READERS) as readers:
        for start in range(0, len(images), _AT_ONCE):
            chunk = range(start, min(start + _AT_ONCE, len(images)))
            yield from readers.map(lambda i: _look(images, i, i in looked_at), chunk)


def _look(images: ImageSet, i: int, look: bool) -> _Seen:
    try:
        image = images[i]
    except ImagesError as error:
        return _Seen(SetAside(images.ids[i], getattr(error, "reason", str(error))))
    if not np.isfinite(image.pixels).any():
        return _Seen(SetAside(images.ids[i], "none of its pixels is a number"))
    plain = bool((image.pixels == image.pixels.flat[0]).all())
    digest = b"" if plain else hashlib.sha256(repr(image.pixels.shape).encode() + image.pixels.tobytes()).digest()
    return _Seen(flags=tuple(flags_of(image)) if look else (), pixels=digest)


def _copies(images: ImageSet, pixels: Sequence[bytes]) -> Iterator[str]:
    """Say which images have the very pixels of another patient's; blocks of one subject are no patients."""
    if not images.units_are_patients:
        return
    alike: dict[bytes, list[int]] = {}
    for i, digest in enumerate(pixels):
        if digest:
            alike.setdefault(digest, []).append(i)
    whose = images.groups or images.ids
    shared = [same for same in alike.values() if len({whose[i] for i in same}) > 1]
    if shared:
        names = [", ".join(f"'{images.ids[i]}'" for i in same[:_NAMED]) for same in shared]
        more = f", and {len(names) - _NAMED} more such sets" if len(names) > _NAMED else ""
        yield (
            f"WARNING: {sum(map(len, shared))} images have the pixels of another patient's ({'; '.join(names[:_NAMED])}{more}): "
            "held out is not held out there; leave copies out, or give them one group"
        )


def flags_of(image: MedicalImage) -> list[Flag]:
    """Look for text and faces in one image; see :mod:`mechinterp.images.flags` for what is seen and what is not."""
    from mechinterp.images.flags.burned_in_text import text_lines
    from mechinterp.images.flags.head_volumes import has_face
    from mechinterp.images.flags.photographs import faces

    found: list[Flag] = []
    if image.axes == 3:
        if image.spacing_mm is not None and has_face(*upright(image)):
            found.append(Flag("face", image.id, "the profile of a head goes on below its forehead"))
        return found
    shown = np.nan_to_num(image.scaled())
    lines = text_lines(shown.mean(axis=-1) if shown.ndim == 3 else shown)
    if lines:
        top, left, bottom, right = lines[0].box
        where = f"rows {top} to {bottom}, columns {left} to {right}"
        found.append(Flag("burned-in text", image.id, f"{len(lines)} rows of glyphs, the longest at {where}"))
    if shown.ndim == 3 and faces(shown):
        found.append(Flag("face", image.id, "a frontal face in a photograph"))
    return found


def upright(
    image: MedicalImage,
) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.float32]], tuple[float, float, float]]:
    """Return a volume's voxels with axes along x, back to front and upwards, and their size in millimetres."""
    z, y, x = image.spacing_mm or (1.0, 1.0, 1.0)
    return image.pixels.transpose(2, 1, 0)[:, ::-1], (x, y, z)


def _notes(
    set_aside: tuple[SetAside, ...], flags: tuple[Flag, ...], images: ImageSet, looked_at: set[int]
) -> Iterator[str]:
    damaged = sum(s.damaged for s in set_aside)
    if damaged:
        yield f"{damaged} damaged file{'' if damaged == 1 else 's'} set aside"
    others = len(set_aside) - damaged
    if others:
        yield f"{others} file{'' if others == 1 else 's'} without an image of this set passed over"
    for kind, warning in (
        ("burned-in text", "may show text that was burned in"),
        ("face", "may show a face that can be recognised"),
    ):
        flagged = len({f.image for f in flags if f.kind == kind})
        if flagged:
            yield (
                f"WARNING: {flagged} of {len(looked_at) or len(images)} images {warning}: look at "
                "them before anything is shared"
            )
    if 0 < len(looked_at) < len(images):
        yield f"text and faces were looked for in {len(looked_at)} of {len(images)} images"
