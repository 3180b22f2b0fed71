"""Read one PNG, JPEG, TIFF or NumPy file without losing what it recorded: 16 bits stay 16 bits."""

from __future__ import annotations

import io
import logging
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from mechinterp.errors import ImagesError, UnreadableImageError

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy")
_TIFF, _ARRAY = (".tif", ".tiff"), ".npy"
_TIFF_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Values of TIFF's PhotometricInterpretation and PlanarConfiguration (TIFF 6.0, sections 3 to 8).
_WHITE_IS_ZERO, _SEPARATE_PLANES = 0, 2
_PALETTE, _CMYK, _YCBCR = 3, 5, 6
# Compressions that tifffile undoes without further packages: none, deflate (two numbers), PackBits.
_PLAIN_COMPRESSIONS = {1, 8, 32946, 32773}
# No compression of TIFF shrinks further than this (deflate 1032 times, LZW about 1400), so a header that asks for more
# pixels than the file can hold was altered, and must not be believed: it may ask for more memory than there is.
_MOST_SHRUNK = 2000
_EXIF_ORIENTATION, _ON_ITS_SIDE = 0x0112, {5, 6, 7, 8}  # tag, and the values that swap rows and columns (Exif 2.32)
_BYTE_MODES = {"L", "RGB"}
_DEEP_MODES = {"I;16", "I;16B", "I;16L", "I", "F"}
# What Pillow and tifffile raise for files that are cut short, altered, too large or no pictures at all.
_UNREADABLE = (
    UnidentifiedImageError,
    OSError,
    ValueError,
    SyntaxError,
    KeyError,
    IndexError,
    TypeError,
    RuntimeError,
    ArithmeticError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def is_image_file(path: Path) -> bool:
    """Say whether a path looks like a picture that can be read; hidden files do not."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def recorded_type(path: Path) -> np.dtype[Any]:
    """Return the type of a file's pixels from its header, without reading any pixel.

    Raises
    ------
    ImagesError
        If the file is no picture.

    """
    try:
        if path.suffix.lower() == _ARRAY:
            kept: np.dtype[Any] = np.load(path, mmap_mode="r", allow_pickle=False).dtype
            return kept
        if path.suffix.lower() in _TIFF:
            with _quiet():
                return _tiff_header(path, path.stat().st_size).dtype
        with Image.open(path) as picture:
            return np.dtype({"F": np.float32}.get(picture.mode, np.uint16 if picture.mode in _DEEP_MODES else np.uint8))
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


def recorded_shape(path: Path) -> tuple[int, int]:
    """Return a file's height and width as :func:`read_image_file` gives them, from its header.

    Raises
    ------
    ImagesError
        If the file is no picture.

    """
    try:
        if path.suffix.lower() == _ARRAY:
            height, width = np.load(path, mmap_mode="r", allow_pickle=False).shape[:2]
            return int(height), int(width)
        if path.suffix.lower() in _TIFF:
            with _quiet():
                header = _tiff_header(path, path.stat().st_size)
            if not _read_by_pillow(header):
                return header.shape
        with Image.open(path) as picture:
            turned = picture.getexif().get(_EXIF_ORIENTATION, 1) in _ON_ITS_SIDE
            return (picture.width, picture.height) if turned else (picture.height, picture.width)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


def read_image_file(path: Path) -> NDArray[Any]:
    """Read the pixels of one file in the type they were recorded in.

    Palettes and CMYK become RGB, transparency is laid over black, and the orientation in a photograph's EXIF data is
    applied, so that rows and columns are those a viewer shows.

    Parameters
    ----------
    path
        A PNG, JPEG or TIFF file, or an array saved by NumPy (``.npy``).

    Returns
    -------
    pixels
        Height × width, or height × width × channel.

    Raises
    ------
    ImagesError
        If the file cannot be read, or only with a loss; it is named.

    """
    try:
        if path.suffix.lower() == _ARRAY:
            pixels = np.load(path, allow_pickle=False)
        elif path.suffix.lower() in _TIFF:
            pixels = _read_tiff(path, path.stat().st_size, path)
        else:
            pixels = _read_picture(path, path)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error
    return _checked(pixels, path)


def read_image_bytes(data: bytes, name: str) -> NDArray[Any]:
    """Read the pixels of a PNG, JPEG or TIFF that lies in memory; see :func:`read_image_file`.

    Raises
    ------
    ImagesError
        If the bytes cannot be read, or only with a loss; `name` is named.

    """
    file = io.BytesIO(data)
    try:
        pixels = _read_tiff(file, len(data), name) if data[:4] in _TIFF_MARKS else _read_picture(file, name)
    except _UNREADABLE as error:
        raise _unreadable(name, error) from error
    return _checked(pixels, name)


def _checked(pixels: NDArray[Any], path: Path | str) -> NDArray[Any]:
    if pixels.size == 0 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[-1] not in (1, 3)):
        raise ImagesError(f"image {path} has shape {pixels.shape}: only pictures of 1 or 3 channels can be read")
    return pixels


def _read_picture(file: Path | io.BytesIO, name: Path | str) -> NDArray[Any]:
    _refuse_deep_colour(file, name)
    with Image.open(file) as opened:
        picture = ImageOps.exif_transpose(opened)
        if picture.mode in _DEEP_MODES:
            deep = np.asarray(picture)
            return deep.astype(np.uint16) if deep.dtype == np.int32 and opened.format == "PNG" else deep
        if picture.mode == "1":
            return np.asarray(picture.convert("L"))
        if picture.mode in {"LA", "La", "PA", "RGBA", "RGBa"} or "transparency" in picture.info:
            grey = picture.mode in {"LA", "La"}
            shown = picture.convert("RGBA")
            over_black = Image.alpha_composite(Image.new("RGBA", shown.size, (0, 0, 0, 255)), shown)
            return np.asarray(over_black.convert("L" if grey else "RGB"))
        return np.asarray(picture if picture.mode in _BYTE_MODES else picture.convert("RGB"))


@dataclass(frozen=True)
class _TiffHeader:
    dtype: np.dtype[Any]
    photometric: int
    compression: int
    planar: bool
    shape: tuple[int, int]


def _tiff_header(file: Path | io.BytesIO, size: int) -> _TiffHeader:
    """Return how a TIFF of `size` bytes stores its one picture."""
    import tifffile

    with tifffile.TiffFile(file) as tiff:
        page: Any = tiff.pages[0]
        if page.dtype is None:
            raise ValueError("its header names no type of pixels")
        if page.nbytes > _MOST_SHRUNK * size:
            raise ValueError(f"its header asks for {page.nbytes} bytes, more than so small a file can hold")
        if len(tiff.series) > 1 or tiff.series[0].size != page.size:
            raise ValueError("it holds more than one picture; save each page as a file of its own")
        planar = int(page.planarconfig) == _SEPARATE_PLANES
        shape = int(page.imagelength), int(page.imagewidth)
        return _TiffHeader(np.dtype(page.dtype), int(page.photometric), int(page.compression), planar, shape)


def _read_by_pillow(header: _TiffHeader) -> bool:
    """Say whether Pillow reads a TIFF: it knows LZW and JPEG compression, and how other colours become RGB."""
    return header.photometric in {_PALETTE, _CMYK, _YCBCR} or header.compression not in _PLAIN_COMPRESSIONS


def _read_tiff(file: Path | io.BytesIO, size: int, name: Path | str) -> NDArray[Any]:
    import tifffile

    with _quiet():
        header = _tiff_header(file, size)
    dtype = header.dtype
    if isinstance(file, io.BytesIO):
        file.seek(0)  # tifffile reads on from where a file stands
    if _read_by_pillow(header):  # tifffile knows every depth
        return _read_picture(file, name)
    with _quiet():
        array: NDArray[Any] = tifffile.imread(file, key=0)
    if array.ndim == 3 and header.planar:
        array = np.moveaxis(array, 0, -1)
    whole = np.issubdtype(dtype, np.unsignedinteger)
    if array.ndim == 3 and array.shape[-1] == 4:  # red, green, blue and opacity: over black
        opacity = array[..., 3:] / (np.iinfo(dtype).max if whole else 1)
        over_black = array[..., :3] * opacity
        array = (over_black.round() if whole else over_black).astype(dtype)
    if header.photometric == _WHITE_IS_ZERO and whole:
        array = np.iinfo(dtype).max - array
    return array


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep tifffile from logging what the error says anyway."""
    logger = logging.getLogger("tifffile")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


def _unreadable(path: Path | str, error: Exception) -> UnreadableImageError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UnreadableImageError(path, reason.replace(repr(str(path)), "it").replace(str(path), "it"))


def _refuse_deep_colour(file: Path | io.BytesIO, name: Path | str) -> None:
    """Refuse PNGs of 16-bit colour: Pillow would silently cut them to 8 bits.

    A PNG file begins with 8 bytes of signature and the 8 of a chunk's length and name; width, height (4 bytes each),
    bit depth and colour type (one each; bit 1 means colour) follow (PNG specification, section 11.2.1).
    """
    if isinstance(file, Path):
        with file.open("rb") as opened:
            head = opened.read(26)
    else:
        head = file.getvalue()[:26]
    if head[:8] == b"\x89PNG\r\n\x1a\n" and len(head) == 26 and head[24] == 16 and head[25] & 2:
        raise ImagesError(f"image {name} is a PNG of 16-bit colour, which would be cut to 8 bits: save it as TIFF")
