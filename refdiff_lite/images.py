"""Pictures: reading every kind as RGB, padding them to a square, writing masks."""

from __future__ import annotations

import os
import warnings
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from .files import MAX_PIXELS, write_whole

MIN_SIDE = 8
_STRIP = 256
"""Rows that are converted at a time: a photo of 48 megapixels must not take gigabytes."""
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def load_image(source: Any, *, upright: bool = True) -> np.ndarray:
    """Any picture as (H, W, 3) uint8 RGB; alpha is laid on white.

    Whole numbers up to 255 are levels of 8 bits. Deeper ones are scaled by the depth that the file names, else by the
    least of 10, 12, 14 and 16 bits that holds them all, with a warning unless that is 16. Floats are scaled from
    [0, 1]. What could mean several things is refused.

    Args:
        source: a path; an encoded picture as bytes or as a file open for reading; a PIL image; an array or nested lists
            (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); a torch tensor, whose channels may come first.
        upright: turn the picture as EXIF says. False keeps the pixels as stored: COCO's masks belong to those.

    Raises:
        FileNotFoundError, ValueError: with one line that says what is wrong and what to do.
    """
    if isinstance(source, Image.Image):
        return _rgb(source, "the image", upright)
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        try:
            there = path.is_file()
        except OSError as error:
            raise ValueError(f"cannot look at {str(path)[:100]} ({error.strerror}); check the path") from None
        if not there:
            raise FileNotFoundError(f"no image file at {path}; check the path")
        return _opened(path, str(path), upright)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _opened(BytesIO(source), "the picture in memory", upright)
    if hasattr(source, "read"):
        return _opened(source, "the open file", upright)
    return _from_array(source)


_HEIF = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
"""Brands of High Efficiency Image files, as iPhones take them."""


def _open_heif(file: Any, name: str) -> None:
    """Let Pillow read HEIC by pillow-heif, where the file is one."""
    if isinstance(file, Path):
        with file.open("rb") as opened:
            start = opened.read(12)
    else:
        start = file.read(12)
        file.seek(0)
    if start[4:8] != b"ftyp" or start[8:12] not in _HEIF:
        return
    try:
        from pillow_heif import register_heif_opener  # ty: ignore[import-not-found]
    except ImportError:
        raise ValueError(
            f"{name} is HEIC, as iPhones take pictures: `pip install pillow-heif`, or save it as JPEG (on the iPhone: Settings, "
            "Camera, Formats, Most Compatible)"
        ) from None
    register_heif_opener()


def _opened(file: Any, name: str, upright: bool) -> np.ndarray:
    with suppress(OSError, AttributeError, TypeError):  # what cannot be read is told below, by Pillow's own attempt
        _open_heif(file, name)
    try:
        image = Image.open(file)
    except UnidentifiedImageError:
        raise ValueError(f"{name} is not an image that Pillow can read; save it as PNG or JPEG") from None
    except Image.DecompressionBombError as error:
        raise ValueError(f"{name} is far too large ({error}); shrink it below 50 megapixels") from None
    except Exception as error:  # Pillow's readers let out whatever they stumble over
        raise ValueError(f"{name} is damaged or cut short ({_told(error)}); copy or download it again") from None
    with image:
        return _rgb(image, name, upright)


def _told(error: Exception) -> str:
    """What an error says, if it says it to people: no address in memory."""
    return type(error).__name__ if " at 0x" in str(error) or not str(error) else str(error)[:200]


def _check_size(width: int, height: int, name: str) -> None:
    if width * height > MAX_PIXELS:
        raise ValueError(f"{name} has {width * height / 1e6:.0f} megapixels; shrink it below {MAX_PIXELS // 1_000_000}")
    if min(width, height) < MIN_SIDE:
        raise ValueError(
            f"{name} is {width}×{height} pixels; at least {MIN_SIDE}×{MIN_SIDE} are needed to see anything"
        )


def _rgb(image: Image.Image, name: str, upright: bool) -> np.ndarray:
    _check_size(*image.size, name)
    if image.format == "EPS":
        raise ValueError(f"{name} is an EPS drawing, which only a PostScript program can draw; save it as PNG")
    tags = dict(getattr(image, "tag_v2", {}))  # of a TIFF
    deep = any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))
    try:
        image.load()
        image = _upright(image) if upright else _as_stored(image, tags.get(_ORIENTATION))
        if not image.mode.startswith(("I", "F")):
            top = max(high for _, high in _bands(image)[:3])
            pixels = _strips(image)
    except Exception as error:
        raise ValueError(f"{name} is damaged or cut short ({_told(error)}); copy or download it again") from None
    if image.mode.startswith(("I", "F")):
        grey = _levels(np.asarray(image), name, _depth(image, tags))
        return np.repeat((255 - grey if tags.get(262) == 0 else grey)[..., None], 3, axis=2)
    if deep and top < 64:  # Pillow keeps the upper eight bits of 16-bit colours
        raise ValueError(f"{name} has 16-bit colours that use the lower bits alone; scale them, or save it with 8 bits")
    if image.mode == "L" and tags.get(339) == (2,):
        raise ValueError(f"{name} holds signed 8-bit numbers, which are no levels of grey; save it as PNG")
    return pixels


def _bands(image: Image.Image) -> list[tuple[int, int]]:
    """Least and greatest value of every channel."""
    found: Any = image.getextrema()  # a pair, or one for each channel
    return [found] if isinstance(found[0], (int, float)) else list(found)


def _upright(image: Image.Image) -> Image.Image:
    """The picture turned as its EXIF says; EXIF that cannot be read counts as absent."""
    method = _TURNS.get(_orientation(image))
    return image if method is None else image.transpose(method)


def _as_stored(image: Image.Image, orientation: Any) -> Image.Image:
    """Undo the turn that Pillow gives to a TIFF, and to no other format, while it loads."""
    if orientation not in _TURNS or _orientation(image) == orientation:
        return image
    return image.transpose(_TURNS[{6: 8, 8: 6}.get(orientation, orientation)])


def _orientation(image: Image.Image) -> Any:
    try:
        return image.getexif().get(_ORIENTATION)
    except Exception:  # struct.error, SyntaxError, TypeError, ... by the kind of junk
        return None


def _strips(image: Image.Image) -> np.ndarray:
    (width, height), alpha = image.size, image.has_transparency_data
    pixels = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, _STRIP):
        strip = image.crop((0, top, width, min(height, top + _STRIP)))
        if alpha:
            rgba = strip.convert("RGBA")
            strip = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
        pixels[top : top + _STRIP] = np.asarray(strip.convert("RGB"))
    return pixels


def _depth(image: Image.Image, tags: dict[int, Any]) -> int | None:
    """The greatest level that a grey picture of more than 8 bits can hold, if the file tells."""
    if image.format == "PPM":
        return 65535 if image.mode == "I" else None  # Pillow has scaled it
    bits = tags.get(258)
    told = tags.get(281, (2 ** bits[0] - 1,) if bits in ((10,), (12,), (14,)) else None)
    return told[0] if isinstance(told, tuple) and isinstance(told[0], int) and 255 < told[0] < 65536 else None


def _levels(values: np.ndarray, name: str, top: float | None = None) -> np.ndarray:
    """Numbers of any type as levels 0 to 255; ``top`` is what becomes 255, if that is known."""
    if values.dtype == np.uint8:
        return values
    low, high = float(values.min()), float(values.max())
    floats = values.dtype.kind == "f"
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(f"{name} holds numbers that are not finite; replace them, for example by numpy.nan_to_num")
    if values.dtype == bool or (floats and low >= 0 and high <= 1):
        top = 1
    elif low < 0 or high > 65535 or high == 1 or (floats and any((row != np.rint(row)).any() for row in values)):
        raise ValueError(
            f"{name} holds numbers from {low:.4g} to {high:.4g}: neither levels of 8 or 16 bits nor floats in [0, 1], "
            "so what is black and what is white? Scale them to [0, 1]; what lies in [-1, 1] by (x + 1) / 2"
        )
    elif top is None or high > top:
        top = next(2**bits - 1 for bits in (8, 10, 12, 14, 16) if high < 2**bits)
        if 255 < top < 65535:
            warnings.warn(f"{name}: its greatest level is {high:.0f}, so it is read as {top:.0f} = white", stacklevel=4)
    levels = np.empty(values.shape, np.uint8)
    for start in range(0, len(values), _STRIP):
        strip = slice(start, start + _STRIP)
        levels[strip] = values[strip] * (255 / top) + 0.5
    return levels


def _from_array(source: Any) -> np.ndarray:
    if first := hasattr(source, "detach"):  # a torch tensor, whose channels come first by custom
        source = source.detach().cpu()
        source = (source.float() if source.is_floating_point() else source).numpy()
    array: Any = np.zeros(0, object)
    with suppress(ValueError, TypeError):  # lists of unequal length
        array = np.asarray(source)
    if first and array.ndim == 3 and array.shape[2] not in (1, 3, 4):
        array = np.moveaxis(array, 0, 2)
    if (
        array.ndim not in (2, 3)
        or (array.ndim == 3 and array.shape[2] not in (1, 3, 4))
        or array.dtype.kind not in "buif"
    ):
        raise ValueError(
            f"an image array must be (H, W, 3) uint8 RGB, not {array.shape} {array.dtype} from a "
            f"{type(source).__name__}; or give a path, a PIL image, or an encoded picture as bytes"
        )
    _check_size(array.shape[1], array.shape[0], "the array")
    levels = _levels(array, "the array")
    if levels.ndim == 3 and levels.shape[2] == 4:
        return _strips(Image.fromarray(levels))
    return np.array(np.broadcast_to(levels if levels.ndim == 3 else levels[..., None], (*levels.shape[:2], 3)))


def square_corner(size: tuple[int, int]) -> tuple[int, int]:
    """Row and column of an (H, W) image's corner in the middle of the square around it."""
    return (max(size) - size[0]) // 2, (max(size) - size[1]) // 2


def pad_to_square(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) in the middle of a black square."""
    height, width = image.shape[:2]
    top, left = square_corner((height, width))
    square = np.zeros((max(height, width),) * 2 + (3,), np.uint8)
    square[top : top + height, left : left + width] = image
    return square


def save_mask(mask: np.ndarray, path: Path) -> None:
    """(H, W) bool to a PNG of 0 and 255."""
    write_whole(path, Image.fromarray(mask.astype(np.uint8) * 255).save)
