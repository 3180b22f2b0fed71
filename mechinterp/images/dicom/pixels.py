"""From stored values to physics: one frame's pixels in HU, Gy, Bq/mL or whatever its header says they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mechinterp.errors import UnreadableImageError
from mechinterp.images.dicom.headers import UNREADABLE, numbers, of_frame, pydicom, read_header, read_whole, word

# Defined terms of RescaleType and Units whose meaning is a physical unit (DICOM PS3.3, C.11.1.1.2 and C.8.9.1.1.3).
_UNITS = {
    "HU": "HU",
    "OD": "10⁻³ OD",
    "MGML": "mg/mL",
    "BQML": "Bq/mL",
    "GML": "g/mL",
    "CNTS": "counts",
    "CPS": "counts/s",
    "GY": "Gy",
}
_COLOURS = ("Red", "Green", "Blue")
PALETTE_TAGS = tuple(f"{c}PaletteColorLookupTable{part}" for c in _COLOURS for part in ("Descriptor", "Data")) + tuple(
    f"Segmented{c}PaletteColorLookupTableData" for c in _COLOURS
)
_PIXEL_DATA = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


@dataclass(frozen=True)
class Scale:
    """What turns the stored values of a frame into physical ones.

    Parameters
    ----------
    slope, intercept
        Physical = slope × stored + intercept, where there is no table.
    has_table
        Whether the modality's look-up table goes before both.
    inverted
        Whether the smallest stored value is meant to be white (``MONOCHROME1``) and is turned round.
    unit
        Unit of the result; ``None`` where the header does not say, or turning round made it meaningless.
    colour
        Whether the frame has three channels.

    """

    slope: float
    intercept: float
    has_table: bool
    inverted: bool
    unit: str | None
    colour: bool


def scale_of(header: Any, frame: int = 0) -> Scale:
    """Read from a header how a frame's values are meant.

    CT values are HU wherever the header gives no other type (DICOM PS3.3, C.8.2.1.1.2), and stay HU even where the
    smallest is displayed white: dense is bright.

    Raises
    ------
    UnreadableImageError
        If the header lacks what an image needs.

    """
    photometric = word(header.get("PhotometricInterpretation"))
    if not photometric or not header.get("Rows") or not header.get("Columns"):
        raise UnreadableImageError("of a file", "it holds no image")
    macro = "PixelValueTransformationSequence"
    slope = next(iter(numbers(of_frame(header, frame, macro, "RescaleSlope"))), 1.0)
    intercept = next(iter(numbers(of_frame(header, frame, macro, "RescaleIntercept"))), 0.0)
    if not (np.isfinite([slope, intercept]).all() and slope != 0):
        raise UnreadableImageError("of a file", f"its rescale slope and intercept are {slope:g} and {intercept:g}")
    modality = word(header.get("Modality"))
    rescaled = any(of_frame(header, frame, macro, k) is not None for k in ("RescaleSlope", "RescaleIntercept"))
    said = word(of_frame(header, frame, macro, "RescaleType")) or ("HU" if modality == "CT" and rescaled else "")
    if modality == "PT":
        said = word(header.get("Units"))
    dose = next(iter(numbers(header.get("DoseGridScaling"))), 0.0)
    if modality == "RTDOSE" and dose > 0:
        slope, intercept, said = dose, 0.0, word(header.get("DoseUnits"))
    unit = _UNITS.get(said.upper())
    colour = int(header.get("SamplesPerPixel") or 1) == 3 or photometric == "PALETTE COLOR"
    inverted = photometric == "MONOCHROME1" and unit != "HU"
    has_table = bool(header.get("ModalityLUTSequence"))
    return Scale(slope, intercept, has_table, inverted, None if inverted or colour else unit, colour)


def stored_range(header: Any) -> tuple[int, int]:
    """Return the smallest and largest value that the stored bits can hold."""
    bits = int(header.get("BitsStored") or header.get("BitsAllocated") or 8)
    if int(header.get("PixelRepresentation") or 0):
        return -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    return 0, (1 << bits) - 1


def physical_range(header: Any, scale: Scale) -> tuple[float, float]:
    """Return the physical values of the smallest and largest stored ones, in rising order."""
    if scale.has_table:
        bits = int(numbers(header.ModalityLUTSequence[0].get("LUTDescriptor"))[2])
        return 0.0, float((1 << bits) - 1)
    ends = sorted(v * scale.slope + scale.intercept for v in stored_range(header))
    return ends[0], ends[1]


def shown_range(window: tuple[float, float], header: Any, scale: Scale) -> tuple[float, float]:
    """Return a header's window on the values that :func:`read_frame` returns: turned round where they are."""
    if not scale.inverted:
        return window
    low, high = physical_range(header, scale)
    return low + high - window[1], low + high - window[0]


def read_frame(path: Path, name: str, frame: int, frames: int, scale: Scale) -> NDArray[Any]:
    """Read one frame.

    Parameters
    ----------
    path
        The file.
    name
        What to call the image in an error.
    frame, frames
        Which frame, from 0, of how many.
    scale
        What its values mean.

    Returns
    -------
    ndarray
        Height × width float32 in physical units, bright where the recording is; or height × width × 3, in the depth it
        was stored in, RGB.

    Raises
    ------
    UnreadableImageError
        If the file has no pixel data, they are cut short, or cannot be decoded.

    """
    module = pydicom()
    header: Any = None
    try:
        header = read_whole(path) if frames == 1 else read_header(path, PALETTE_TAGS)
        if frames == 1:
            if not any(k in header for k in _PIXEL_DATA):
                raise UnreadableImageError(name, "it has no pixel data")
            stored = header.pixel_array
        else:  # one frame is read from the file, not all of them
            stored = module.pixels.pixel_array(path, index=frame)
        if word(header.get("PhotometricInterpretation")) == "PALETTE COLOR":
            return np.asarray(module.pixels.apply_color_lut(stored, header))
        if scale.colour:
            return np.asarray(stored)
        return _physical(module, stored, header, scale)
    except UnreadableImageError as error:
        raise UnreadableImageError(name, error.reason) from error
    except UNREADABLE as error:
        raise UnreadableImageError(name, _reason(error, header)) from error


def _physical(module: Any, stored: NDArray[Any], header: Any, scale: Scale) -> NDArray[np.float32]:
    if stored.ndim != 2:
        raise UnreadableImageError("of a file", f"its frame has {stored.ndim} axes")
    if scale.has_table:
        pixels = module.pixels.apply_modality_lut(stored, header).astype(np.float64)
    else:
        pixels = stored.astype(np.float64) * scale.slope + scale.intercept
    if scale.inverted:
        low, high = physical_range(header, scale)
        # What surrounds the picture is padded with the darkest value, which must not become the brightest.
        pixels = np.where(_padded(stored, header), low, low + high - pixels)
    result: NDArray[np.float32] = pixels.astype(np.float32)
    return result


def _padded(stored: NDArray[Any], header: Any) -> NDArray[np.bool_]:
    """Return which pixels are no part of the picture (DICOM PS3.3, C.7.5.1.1.2)."""
    ends = [n for k in ("PixelPaddingValue", "PixelPaddingRangeLimit") for n in numbers(header.get(k))]
    if not ends:
        return np.zeros(stored.shape, dtype=bool)
    return (stored >= min(ends)) & (stored <= max(ends))


def _reason(error: Exception, header: Any) -> str:
    """Say why pixels could not be read, in words of ours: a library's may quote the header."""
    syntax = None if header is None else header.file_meta.get("TransferSyntaxUID")
    if isinstance(error, ValueError) and "less than expected" in str(error):
        return "its pixel data are cut short"
    if syntax is not None and syntax.is_compressed:
        missing = isinstance(error, ImportError) or "additional dependencies" in str(error)
        what = "no installed package decodes" if missing else "damaged, or no decoder understands it:"
        return f"{what} {syntax.name}"
    return f"its pixels cannot be decoded ({type(error).__name__})"
