"""One record per frame of a folder's DICOM files: all that is known of it before a pixel is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mechinterp.attributes.acquisition import TAGS, acquisition_of
from mechinterp.errors import UnreadableImageError
from mechinterp.images.dicom.headers import UNREADABLE, Found, numbers, read_header, word
from mechinterp.images.dicom.identity import Identity, identity_of, names_its_patient
from mechinterp.images.dicom.pixels import Scale, physical_range, scale_of, shown_range, stored_range
from mechinterp.images.dicom.placing import Spacing, has_square_pixels, orientation, position_mm, spacing_of
from mechinterp.images.dicom.segmentation import SegmentFrame, is_segmentation, segment_frames
from mechinterp.images.dicom.voi import header_window
from mechinterp.images.findings import SetAside
from mechinterp.images.pseudonyms import Pseudonyms
from mechinterp.progress import SILENT, Progress

_MOST_AT_ONCE = 512
_BYTE = 255


@dataclass(frozen=True)
class Frame:
    """One frame of a DICOM file.

    Parameters
    ----------
    path, frame, frames
        The file, and which of its frames, from 0, of how many.
    shape
        Height and width.
    scale
        What its values mean.
    identity
        Whose it is, as keyed hashes; `patient_known` is false where the group stands for a study.
    spacing
        Millimetres per pixel with their source; without them `square` says whether pixels are as high as they are wide.
    position_mm, orientation
        Along the normal of its plane, and the plane's directions; ``None`` and empty where the header does not say.
    number
        Its number in the series, for those without a position.
    window
        Black and white by the header; ``None`` where it has none.
    type_range
        Black and white by the type: colour and 8 bits; ``None`` where only the pixels can tell.
    acquisition
        How it was acquired, see :mod:`mechinterp.attributes.acquisition`.
    text_said, face_said
        Whether the header says that the pixels hold annotations, or a recognisable face.

    """

    path: Path
    frame: int
    frames: int
    shape: tuple[int, int]
    scale: Scale
    identity: Identity
    patient_known: bool
    spacing: Spacing | None
    position_mm: float | None
    orientation: tuple[float, ...]
    number: float
    window: tuple[float, float] | None
    type_range: tuple[float, float] | None
    acquisition: dict[str, float | str] = field(repr=False)
    text_said: bool = False
    face_said: bool = False
    square: bool = True

    @property
    def series(self) -> tuple[str, tuple[float, ...], tuple[int, int]]:
        """What frames share that can be stacked: series, plane and size."""
        return self.identity.series or str(self.path), self.orientation, self.shape


@dataclass(frozen=True)
class Listing:
    """What the headers of a folder say.

    Parameters
    ----------
    frames
        In order: by patient, examination, series, position.
    segments
        Frames of segmentations by the image's (instance, frame).
    set_aside
        Files that hold no image.

    """

    frames: tuple[Frame, ...]
    segments: dict[tuple[str, int], list[SegmentFrame]]
    set_aside: tuple[SetAside, ...]


def list_frames(found: Found, names: Pseudonyms, progress: Progress = SILENT) -> Listing:
    """Read all headers; files without an image are set aside with the reason.

    Two files with the same instance UID are the same image: the second is set aside, or a patient's picture would be
    counted, and weighed, twice.
    """
    frames: list[Frame] = []
    segments: dict[tuple[str, int], list[SegmentFrame]] = {}
    set_aside: list[SetAside] = []
    seen: set[str] = set()
    for paths in _chunks(progress.track(found.files, "reading headers", total=len(found.files))):
        with ThreadPoolExecutor(max_workers=4) as readers:
            results = list(readers.map(lambda path: _of_file(path, names), paths))
        for path, result in zip(paths, results, strict=True):
            name = found.number(path)
            if isinstance(result, dict):
                for key, ours in result.items():
                    segments.setdefault(key, []).extend(ours)
            elif isinstance(result, SetAside):
                set_aside.append(SetAside(name, result.reason, result.damaged, path))
            elif result[0].identity.instance and result[0].identity.instance in seen:
                set_aside.append(SetAside(name, "it is the same image as an earlier file", False, path))
            else:
                seen.add(result[0].identity.instance)
                frames += result
    return Listing(tuple(sorted(frames, key=_order)), segments, tuple(set_aside))


def _chunks(paths: Iterable[Path]) -> Iterator[list[Path]]:
    chunk: list[Path] = []
    for item in paths:
        chunk.append(item)
        if len(chunk) == _MOST_AT_ONCE:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _order(frame: Frame) -> tuple[Any, ...]:
    who = frame.identity
    place = (0, frame.position_mm) if frame.position_mm is not None else (1, frame.number)
    return (
        who.group or "",
        who.case or "",
        who.series,
        frame.orientation,
        *place,
        frame.number,
        frame.frame,
        str(frame.path),
    )


def _of_file(path: Path, names: Pseudonyms) -> Sequence[Frame] | SetAside | dict[tuple[str, int], list[SegmentFrame]]:
    """Return a file's frames, or what it segments, or why it holds neither."""
    try:
        header = read_header(path, TAGS)
        if is_segmentation(header):
            return segment_frames(path, header, names) or SetAside("", "a segmentation that names no images", False)
        if not header.get("Rows") and not header.get("PhotometricInterpretation"):
            return SetAside("", f"it holds no pixels{_kind(header)}", damaged=False)
        frames = int(header.get("NumberOfFrames") or 1)
        if frames < 1:
            raise UnreadableImageError(path.name, f"its header says it has {frames} frames")
        return [_frame(path, header, i, frames, names) for i in range(frames)]
    except UnreadableImageError as error:
        return SetAside("", error.reason)
    except UNREADABLE as error:
        return SetAside("", f"its DICOM header is damaged ({type(error).__name__})")


def _kind(header: Any) -> str:
    """Say what a file without an image is, in the standard's words, where it knows some."""
    uid = header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID")
    name = getattr(uid, "name", "")
    known = name and not name.replace(".", "").isdigit()  # an unknown UID's name is its number
    return f" (DICOM class '{name.removesuffix(' Storage')}')" if known else ""


def _frame(path: Path, header: Any, frame: int, frames: int, names: Pseudonyms) -> Frame:
    scale = scale_of(header, frame)
    spacing = spacing_of(header, frame)
    position = position_mm(header, frame)
    acquisition = acquisition_of(header, frame)
    if position is not None:
        acquisition["slice_position"] = position
    if spacing is not None:
        acquisition["spacing_from"] = spacing.source
    window = header_window(header, frame)
    return Frame(
        path=path,
        frame=frame,
        frames=frames,
        shape=(int(header.Rows), int(header.Columns)),
        scale=scale,
        identity=identity_of(header, names),
        patient_known=names_its_patient(header),
        spacing=spacing,
        position_mm=position,
        orientation=orientation(header, frame),
        number=next(iter(numbers(header.get("InstanceNumber"))), 0.0),
        window=None if window is None or scale.colour else shown_range(window, header, scale),
        type_range=_type_range(header, scale),
        acquisition=acquisition,
        text_said=word(header.get("BurnedInAnnotation")) == "YES",
        face_said=word(header.get("RecognizableVisualFeatures")) == "YES",
        square=has_square_pixels(header),
    )


def _type_range(header: Any, scale: Scale) -> tuple[float, float] | None:
    if scale.colour:
        palette = numbers(header.get("RedPaletteColorLookupTableDescriptor"))
        return 0.0, float((1 << int(palette[2])) - 1 if len(palette) == 3 else stored_range(header)[1])
    if stored_range(header) == (0, _BYTE):
        return physical_range(header, scale)
    return None
