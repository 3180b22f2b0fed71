"""Masks from DICOM segmentations: which frame of which segment belongs to which image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mechinterp.errors import UnreadableImageError
from mechinterp.images.dicom.headers import UNREADABLE, functional_groups, pydicom, read_whole, word
from mechinterp.images.pseudonyms import Pseudonyms

SOP_CLASS = "1.2.840.10008.5.1.4.1.1.66.4"


@dataclass(frozen=True)
class SegmentFrame:
    """One frame of a segmentation: the mask of one segment in one image.

    Parameters
    ----------
    path
        The segmentation's file.
    frame, frames
        Which of its frames, from 0, of how many.
    segment
        Name of the segment.
    threshold
        Stored values from this on are inside.

    """

    path: Path
    frame: int
    frames: int
    segment: str
    threshold: float


def is_segmentation(header: Any) -> bool:
    """Say whether a header is of a segmentation, which belongs to other images and is none itself."""
    return word(header.get("SOPClassUID")) == SOP_CLASS or word(header.get("Modality")) == "SEG"


def segment_frames(path: Path, header: Any, pseudonyms: Pseudonyms) -> dict[tuple[str, int], list[SegmentFrame]]:
    """Return the frames of a segmentation by the image they belong to.

    An image is named by the hash of its instance UID and by its frame (DICOM PS3.3, C.8.20.2 and C.7.6.16.2.6).
    Fractional segmentations are inside from half of their largest value on.

    Parameters
    ----------
    path
        The file.
    header
        Its header.
    pseudonyms
        The key by which the images were named too.

    """
    names = _segment_names(header)
    fractional = word(header.get("SegmentationType")) == "FRACTIONAL"
    threshold = float(header.get("MaximumFractionalValue") or 255) / 2 if fractional else 0.5
    frames = int(header.get("NumberOfFrames") or 1)
    found: dict[tuple[str, int], list[SegmentFrame]] = {}
    for frame in range(frames):
        segment = next(
            (
                names.get(int(item.get("ReferencedSegmentNumber") or 0), "mask")
                for group in functional_groups(header, frame)
                for item in group.get("SegmentIdentificationSequence") or ()
            ),
            "mask",
        )
        for source in _sources(header, frame):
            instance = pseudonyms("instance", word(source.get("ReferencedSOPInstanceUID")))
            number = source.get("ReferencedFrameNumber")
            first = number[0] if hasattr(number, "__iter__") and not isinstance(number, str) else number
            key = instance, int(first) - 1 if first else 0
            found.setdefault(key, []).append(SegmentFrame(path, frame, frames, segment, threshold))
    return found


def read_segments(frames: Sequence[SegmentFrame], shape: tuple[int, int], name: str) -> Mapping[str, NDArray[np.bool_]]:
    """Read the masks of one image by the names of their segments; frames of the same segment are joined.

    Raises
    ------
    UnreadableImageError
        If a segmentation cannot be decoded, or is not of the image's size.

    """
    masks: dict[str, NDArray[np.bool_]] = {}
    for one in frames:
        try:
            source = one.path if one.frames > 1 else read_whole(one.path)
            index = one.frame if one.frames > 1 else None
            inside = np.asarray(pydicom().pixels.pixel_array(source, index=index)) >= one.threshold
        except UNREADABLE as error:
            raise UnreadableImageError(name, f"its segmentation cannot be decoded ({type(error).__name__})") from error
        if inside.shape != shape:
            raise UnreadableImageError(name, f"its segmentation is {inside.shape}, the image {shape}")
        masks[one.segment] = masks.get(one.segment, False) | inside
    return masks


def _segment_names(header: Any) -> dict[int, str]:
    """Return the segments' labels by number; labels that stand twice get their number behind them."""
    segments = header.get("SegmentSequence") or ()
    labels = [word(s.get("SegmentLabel")) or f"segment {int(s.SegmentNumber)}" for s in segments]
    return {
        int(s.SegmentNumber): label if labels.count(label) == 1 else f"{label} {int(s.SegmentNumber)}"
        for s, label in zip(segments, labels, strict=True)
    }


def _sources(header: Any, frame: int) -> list[Any]:
    return [
        source
        for group in functional_groups(header, frame)
        for derivation in group.get("DerivationImageSequence") or ()
        for source in derivation.get("SourceImageSequence") or ()
    ]
