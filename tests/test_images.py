import io
import struct
import subprocess
import sys
import warnings
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from refdiff_lite.files import check_folder, write_text, write_whole
from refdiff_lite.images import MAX_PIXELS, load_image, save_mask


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def test_path_image_and_array_give_the_same_pixels(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "a.png")
    for source in (tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(pixels), pixels):
        np.testing.assert_array_equal(load_image(source), pixels)


def test_grey_and_black_and_white(pixels):
    grey = pixels[..., 0]
    for source in (grey, Image.fromarray(grey)):
        np.testing.assert_array_equal(load_image(source), np.repeat(grey[..., None], 3, 2))
    binary = load_image(Image.fromarray(grey > 127))
    assert set(np.unique(binary)) == {0, 255}


def test_alpha_is_laid_on_white(tmp_path):
    rgba = np.zeros((10, 12, 4), np.uint8)
    rgba[:5] = (200, 0, 0, 255)  # opaque red above, transparent black below
    rgba[5] = (0, 0, 0, 128)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    for source in (rgba, tmp_path / "a.png"):
        out = load_image(source)
        assert out.shape == (10, 12, 3)
        assert (out[:5] == (200, 0, 0)).all()
        assert np.allclose(out[5], 127, atol=1)
        assert (out[6:] == 255).all()


def test_palette_with_a_transparent_colour(tmp_path):
    image = Image.new("P", (12, 10), 1)
    image.putpalette([0, 0, 0, 0, 0, 255] + [0] * 750)
    image.paste(0, (0, 0, 12, 5))
    image.save(tmp_path / "a.png", transparency=0)
    out = load_image(tmp_path / "a.png")
    assert (out[:5] == 255).all()
    assert (out[5:] == (0, 0, 255)).all()


def test_grey_with_alpha():
    out = load_image(Image.merge("LA", [Image.new("L", (9, 9), 10), Image.new("L", (9, 9), 0)]))
    assert (out == 255).all()


def test_16_bit_grey(tmp_path):
    grey = np.linspace(0, 65535, 200).reshape(10, 20).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "a.png")
    out = load_image(tmp_path / "a.png")
    assert out.dtype == np.uint8
    np.testing.assert_allclose(out[..., 0], grey / 65535 * 255, atol=1)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_exif_rotation(tmp_path, orientation):
    upright = np.zeros((40, 24, 3), np.uint8)
    upright[:20, :12] = 255  # a white quarter, above on the left
    turns = {3: 2, 6: 1, 8: 3}[orientation]  # how the camera was held
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.rot90(upright, turns)).save(tmp_path / "a.jpg", exif=exif, quality=95)
    out = load_image(tmp_path / "a.jpg")
    assert out.shape == upright.shape
    assert np.abs(out.astype(int) - upright).mean() < 5


def test_cmyk_jpeg(tmp_path):
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg")
    assert np.allclose(load_image(tmp_path / "a.jpg"), (255, 0, 0), atol=5)


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "none.png", tmp_path):
        with pytest.raises(FileNotFoundError, match="no image file at"):
            load_image(path)


@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "tiff"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_truncated_file(tmp_path, pixels, kind, share):
    path = tmp_path / f"a.{kind}"
    Image.fromarray(pixels).resize((200, 200)).save(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"damaged or cut short|not an image") as error:
        load_image(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"hello, I am no image\n", b""])
def test_text_named_png(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match="not an image that Pillow can read"):
        load_image(tmp_path / "a.png")


def test_too_small_and_just_large_enough():
    for size in ((1, 1), (7, 100), (100, 7)):
        with pytest.raises(ValueError, match=f"{size[0]}×{size[1]} pixels; at least 8×8"):
            load_image(Image.new("RGB", size))
    assert load_image(Image.new("RGB", (8, 8))).shape == (8, 8, 3)


@pytest.mark.parametrize("side", [7_100, 14_000])  # above our limit; above Pillow's as well
def test_too_many_pixels(tmp_path, side):
    assert side**2 > MAX_PIXELS
    Image.new("1", (side, side)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"shrink it below 50"):
        load_image(tmp_path / "a.png")


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((9, 9, 2), np.uint8),
        np.zeros((3, 9, 9), np.uint8),
        np.zeros((1, 9, 9, 3), np.uint8),
        np.zeros(9, np.uint8),
        np.zeros((9, 9, 3), complex),
        [["a"] * 9] * 9,
        [[1, 2], [3]],
        None,
        {},
        5,
        torch.zeros(2, 3, 9, 9),
    ],
)
def test_arrays_of_another_shape_or_type(array):
    with pytest.raises(ValueError, match=r"must be \(H, W, 3\) uint8"):
        load_image(array)


GREY = np.arange(4096).reshape(64, 64)


def png16(colour, rows):
    """A PNG of 16 bits a channel, which Pillow does not write in colour."""
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), 16, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(raw)), (b"IEND", b""))
    body = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def tiff(array, **tags):
    tifffile = pytest.importorskip("tifffile")
    out = io.BytesIO()
    tifffile.imwrite(out, array, **tags)
    return out.getvalue()


def ramp_of(image, expected=GREY / 4095 * 255):
    """Is it the ramp, in all three channels?"""
    np.testing.assert_allclose(image, np.repeat(expected[..., None], 3, 2), atol=1)


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_fewer_bits_in_16_are_told_and_not_nearly_black(bits):
    levels = (GREY / 4095 * (2**bits - 1)).astype(np.uint16)
    for source in (levels, Image.fromarray(levels), tiff(levels), png16(0, levels), tiff(levels.astype(np.float32))):
        with pytest.warns(UserWarning, match=f"greatest level is {2**bits - 1}"):
            ramp_of(load_image(source))


def test_a_depth_that_the_file_tells_is_taken():
    dark = (GREY // 8).astype(np.uint16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for source in (
            tiff(dark, extratags=[(281, "H", 1, 4095, True)]),
            b"P5 64 64 4095\n" + dark.astype(">u2").tobytes(),
        ):
            ramp_of(load_image(source), dark / 4095 * 255)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_from_0_to_1_are_scaled(dtype):
    ramp = (GREY / 4095).astype(dtype)
    sources = [ramp, ramp.tolist(), torch.from_numpy(ramp)]
    for source in sources + ([tiff(ramp), Image.fromarray(ramp)] if dtype == np.float32 else []):
        ramp_of(load_image(source))


@pytest.mark.parametrize(
    "values",
    [
        GREY / 4095 * 2 - 1,
        GREY / 4095 * 300,
        GREY * 1000,
        GREY.astype(np.int16) - 100,
        GREY % 2,
        np.full((64, 64), np.nan),
        np.full((64, 64), np.inf),
    ],
)
def test_numbers_that_could_mean_several_things_are_refused(values):
    small = values.astype(np.float32) if values.dtype.kind == "f" else values.astype(np.int32)
    for source in (values, small, tiff(small), torch.from_numpy(small)):
        with pytest.raises(ValueError, match=r"Scale them to \[0, 1\]|not finite"):
            load_image(source)


def test_white_may_be_zero_and_bytes_may_be_signed():
    ramp_of(load_image(tiff((GREY * 16).astype(np.uint16), photometric="miniswhite")), 255 - GREY / 4095 * 255)
    with pytest.raises(ValueError, match="signed 8-bit"):
        load_image(tiff((GREY // 16 - 128).astype(np.int8)))


def test_colours_of_16_bits_that_use_the_lower_ones_are_refused():
    colours = np.repeat(GREY[..., None], 3, 2).astype(np.uint16)
    ramp_of(load_image(png16(2, (colours * 16).reshape(64, -1).reshape(64, 64, 3))))
    for source in (png16(2, colours), tiff(colours, photometric="rgb"), tiff(colours // 16, photometric="rgb")):
        with pytest.raises(ValueError, match="use the lower bits alone"):
            load_image(source)


def test_bytes_open_files_tensors_and_lists(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    sources = [content, bytearray(content), memoryview(content), io.BytesIO(content), pixels.tolist()]
    tensor = torch.from_numpy(pixels)
    sources += [tensor, tensor.permute(2, 0, 1), tensor.permute(2, 0, 1) / 255, tensor.long()]
    for source in sources:
        np.testing.assert_array_equal(load_image(source), pixels)
    with (tmp_path / "a.png").open("rb") as file:
        np.testing.assert_array_equal(load_image(file), pixels)
    np.testing.assert_array_equal(load_image(tensor[None, ..., 0]), np.repeat(pixels[..., :1], 3, 2))


@pytest.mark.parametrize("source", [b"", b"hello", io.BytesIO(b"\x89PNG"), io.StringIO("text"), "x" * 5000, "a\0b"])
def test_what_is_no_picture_is_one_line_without_an_address(source):
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        load_image(source)
    assert len(str(error.value)) < 250
    assert "0x" not in str(error.value)


@pytest.mark.parametrize(
    "junk",
    [
        b"junk",
        b"II*\0\x08\0\0\0\xff\xff",
        b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x0c\xff\xff\xff\xff\0\0\0\0",
        b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x63\0\0\0\0\0\0",
        b"",
    ],
)
def test_junk_in_exif_counts_as_absent(pixels, junk):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", exif=b"Exif\0\0" + junk)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_array_equal(load_image(out), pixels)


@pytest.mark.parametrize("kind", ["TIFF", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pixels_as_stored(pixels, kind, orientation):
    exif, out = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(out, kind, exif=exif, lossless=True)
    np.testing.assert_array_equal(load_image(out, upright=False), pixels)
    assert load_image(out).shape[:2] == ((20, 30) if orientation < 5 else (30, 20))


def test_a_drawing_is_no_picture(pixels):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "EPS")
    with pytest.raises(ValueError, match="EPS drawing"):
        load_image(out)


@pytest.mark.slow
def test_48_megapixels_stay_under_a_gigabyte(tmp_path):
    resource = pytest.importorskip("resource")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8000, 6000), "red").save(tmp_path / "a.jpg", exif=exif)
    program = (
        "import resource, sys\nfrom refdiff_lite.images import load_image\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        f"before = peak(); assert load_image({str(tmp_path / 'a.jpg')!r}).shape == (8000, 6000, 3)\nprint(peak() - before)"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert resource
    assert int(found.stdout) < 700


def test_check_folder(tmp_path):
    assert check_folder(tmp_path / "a" / "b").is_dir()
    assert not list((tmp_path / "a" / "b").iterdir())
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match="cannot write to the folder"):
            check_folder(folder)


def test_write_whole_replaces_or_leaves_everything_as_it_was(tmp_path):
    path = tmp_path / "a.txt"

    def fail(partial):
        partial.write_text("half")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        write_whole(path, fail)
    assert not list(tmp_path.iterdir())
    write_text(path, "é")
    with pytest.raises(RuntimeError, match="disk full"):
        write_whole(path, fail)
    assert path.read_bytes() == "é".encode()
    write_text(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_write_whole_keeps_the_suffix_and_hides_the_partial_file(tmp_path):
    seen = []
    write_whole(tmp_path / "a.png", lambda p: (seen.append(p), p.touch()))
    assert seen[0].parent == tmp_path
    assert seen[0].suffix == ".png"
    assert seen[0] != tmp_path / "a.png"


def test_saved_mask(tmp_path):
    mask = np.random.default_rng(0).random((20, 30)) > 0.5
    save_mask(mask, tmp_path / "m.png")
    image = Image.open(tmp_path / "m.png")
    assert image.mode == "L"
    np.testing.assert_array_equal(np.array(image), mask * np.uint8(255))


@pytest.mark.parametrize("as_bytes", [True, False])
def test_an_iphones_picture_is_read_or_refused_with_words(tmp_path, monkeypatch, as_bytes):
    """Without pillow-heif a line says what to do; with it (here: a stand-in) Pillow is told of it and goes on."""
    content = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
    source = content if as_bytes else tmp_path / "photo.heic"
    if not as_bytes:
        source.write_bytes(content)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ValueError, match=r"is HEIC, as iPhones take pictures.*pillow-heif"):
        load_image(source)
    called = []
    monkeypatch.setitem(sys.modules, "pillow_heif", SimpleNamespace(register_heif_opener=lambda: called.append(1)))
    with pytest.raises(ValueError, match=r"not an image that Pillow can read|damaged"):
        load_image(source)
    assert called == [1]
