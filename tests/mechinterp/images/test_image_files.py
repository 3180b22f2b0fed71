"""Every kind of file comes back as it was written; a broken one is named."""

import io

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mechinterp.errors import ImagesError
from mechinterp.images.image_files import is_image_file, read_image_file, recorded_shape, recorded_type

rng = np.random.default_rng(0)
GREY_8 = rng.integers(0, 256, (5, 7), dtype=np.uint8)
GREY_16 = rng.integers(0, 65536, (5, 7), dtype=np.uint16)
COLOUR_8 = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("grey.png", GREY_8),
        ("deep.png", GREY_16),
        ("colour.png", COLOUR_8),
        ("grey.tif", GREY_8),
        ("deep.tiff", GREY_16),
    ],
)
def test_lossless_files_come_back_bit_for_bit(tmp_path, name, pixels):
    Image.fromarray(pixels).save(tmp_path / name)
    read = read_image_file(tmp_path / name)
    np.testing.assert_array_equal(read, pixels)
    assert read.dtype == pixels.dtype == recorded_type(tmp_path / name)


@pytest.mark.parametrize(
    ("pixels", "settings"),
    [
        (GREY_16.astype(np.float32), {}),
        (GREY_16.astype(np.int16), {}),
        (np.stack([GREY_16] * 3, axis=-1), {"photometric": "rgb"}),
        (GREY_16, {"compression": "zlib"}),
    ],
)
def test_tiffs_of_every_depth_come_back_bit_for_bit(tmp_path, pixels, settings):
    tifffile.imwrite(tmp_path / "a.tif", pixels, **settings)
    read = read_image_file(tmp_path / "a.tif")
    np.testing.assert_array_equal(read, pixels)
    assert read.dtype == pixels.dtype == recorded_type(tmp_path / "a.tif")


@pytest.mark.parametrize("pixels", [GREY_8, GREY_16, COLOUR_8])
def test_a_tiff_packed_with_lzw_comes_back_bit_for_bit(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "a.tif", compression="tiff_lzw")
    np.testing.assert_array_equal(read_image_file(tmp_path / "a.tif"), pixels)


def test_a_header_that_asks_for_more_memory_than_there_is_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", GREY_8)
    whole = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        for tag in ("ImageWidth", "ImageLength"):
            where = file.pages[0].tags[tag].valueoffset
            whole[where : where + 4] = (2**28).to_bytes(4, "little")
    (tmp_path / "a.tif").write_bytes(bytes(whole))
    with pytest.raises(ImagesError, match=r"a\.tif cannot be read \(its header asks for"):
        read_image_file(tmp_path / "a.tif")


def test_a_tiff_with_a_plane_per_channel_has_its_channels_last(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.moveaxis(COLOUR_8, -1, 0), photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(read_image_file(tmp_path / "a.tif"), COLOUR_8)


def test_a_tiff_that_counts_from_white_is_turned_round(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", GREY_16, photometric="miniswhite")
    np.testing.assert_array_equal(read_image_file(tmp_path / "a.tif"), 65535 - GREY_16)


def test_a_palette_tiff_is_read_in_its_colours(tmp_path):
    Image.fromarray(GREY_8 // 32).convert("P").save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_image_file(tmp_path / "a.tif")[..., 0], GREY_8 // 32)


def test_jpeg_is_close_to_what_was_saved(tmp_path):
    smooth = np.linspace(0, 255, 64, dtype=np.uint8).reshape(1, -1).repeat(64, axis=0)
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)
    assert np.abs(read_image_file(tmp_path / "a.jpg").astype(int) - smooth).max() <= 3


def test_palettes_and_bits_become_what_they_show(tmp_path):
    palette = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), mode="P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_image_file(tmp_path / "p.png"), [[[10, 20, 30], [40, 50, 60]]])
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "b.png")
    np.testing.assert_array_equal(read_image_file(tmp_path / "b.png"), [[255, 0]])


def test_transparency_lies_over_black(tmp_path):
    clear = np.array([[[200, 100, 50, 255], [200, 100, 50, 0]]], dtype=np.uint8)
    for name in ("a.png", "a.tif"):
        Image.fromarray(clear).save(tmp_path / name)
        np.testing.assert_array_equal(read_image_file(tmp_path / name), [[[200, 100, 50], [0, 0, 0]]])
    Image.fromarray(np.array([[[90, 255], [90, 0]]], dtype=np.uint8), mode="LA").save(tmp_path / "la.png")
    np.testing.assert_array_equal(read_image_file(tmp_path / "la.png"), [[90, 0]])


@pytest.mark.parametrize(
    "name", ["a.png", "a.jpg", "a.tif", "a.npy", "turned.jpg", "half.jpg", "packed.tif", "grey.tif"]
)
def test_the_size_in_a_header_is_that_of_the_pixels(tmp_path, name):
    exif = Image.Exif()
    exif[0x0112] = {"turned.jpg": 8, "half.jpg": 3}.get(name, 1)
    picture = Image.fromarray(np.zeros((6, 10, 3) if name != "grey.tif" else (6, 10), dtype=np.uint8))
    if name == "a.npy":
        np.save(tmp_path / name, np.asarray(picture))
    else:
        picture.save(tmp_path / name, exif=exif, **({"compression": "tiff_lzw"} if name == "packed.tif" else {}))
    assert recorded_shape(tmp_path / name) == read_image_file(tmp_path / name).shape[:2]


def test_what_has_no_header_has_no_size(tmp_path):
    (tmp_path / "a.png").write_bytes(b"none")
    with pytest.raises(ImagesError, match=r"a\.png"):
        recorded_shape(tmp_path / "a.png")


def test_a_photograph_is_turned_as_its_exif_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90° to view
    Image.fromarray(COLOUR_8).save(tmp_path / "a.png", exif=exif)
    assert read_image_file(tmp_path / "a.png").shape == (7, 5, 3)


def test_deep_colour_png_is_refused_because_it_would_be_cut(tmp_path):
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    body = zlib.compress(b"\0" + bytes(12))
    (tmp_path / "deep.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )
    with pytest.raises(ImagesError, match=r"deep\.png is a PNG of 16-bit colour.*save it as TIFF"):
        read_image_file(tmp_path / "deep.png")


def test_a_stack_of_pages_is_no_image(tmp_path):
    stack = np.zeros((5, 8, 8), dtype=np.uint8)
    for metadata in ({"photometric": "minisblack"}, {"imagej": True}):
        tifffile.imwrite(tmp_path / "stack.tif", stack, **metadata)
        with pytest.raises(ImagesError, match=r"stack\.tif cannot be read \(it holds more than one picture"):
            read_image_file(tmp_path / "stack.tif")
    tifffile.imwrite(tmp_path / "two.tif", np.zeros((8, 8, 2), dtype=np.uint8), photometric="minisblack")
    with pytest.raises(ImagesError, match=r"two\.tif"):
        read_image_file(tmp_path / "two.tif")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_what_is_no_picture_is_named(tmp_path, name):
    for content in (b"", b"not a picture", b"II*\0" + bytes(20)):
        (tmp_path / name).write_bytes(content)
        for use in (read_image_file, recorded_type):
            with pytest.raises(ImagesError, match=rf"image .*{name} cannot be read"):
                use(tmp_path / name)


def _whole(kind):
    file = io.BytesIO()
    if kind == "tif":
        tifffile.imwrite(file, GREY_16, compression="zlib")
    else:
        Image.fromarray(COLOUR_8 if kind == "jpg" else GREY_16).save(file, {"jpg": "JPEG", "png": "PNG"}[kind])
    return file.getvalue()


WHOLE = {kind: _whole(kind) for kind in ("png", "jpg", "tif")}


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(sorted(WHOLE)), data=st.data())
def test_a_file_cut_or_altered_anywhere_never_ends_in_a_traceback_of_ours(tmp_path_factory, kind, data):
    whole = bytearray(WHOLE[kind])
    if data.draw(st.booleans()):
        whole = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.mktemp("cut") / f"a.{kind}"
    path.write_bytes(bytes(whole))
    try:
        message = f"{path} {read_image_file(path).shape}"
    except ImagesError as error:
        message = str(error)
    assert str(path) in message
    assert "\n" not in message


def test_only_pictures_are_image_files(tmp_path):
    names = ("a.png", "B.JPG", "c.tiff", ".hidden.png", "d.txt", "e.nii.gz")
    assert [is_image_file(tmp_path / n) for n in names] == [True, True, True, False, False, False]
