"""Pictures: reading every kind as RGB, padding them to a square, writing masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .files import write_whole

MAX_PIXELS = 50_000_000
MIN_SIDE = 8


def load_image(source: str | Path | Image.Image | np.ndarray) -> np.ndarray:
    """Any picture as (H, W, 3) uint8 RGB: turned upright after EXIF, alpha laid on white, 16 bit brought to 8.

    Args:
        source: a path, a PIL image, or an array (H, W), (H, W, 3) or (H, W, 4) of uint8.

    Raises:
        FileNotFoundError, ValueError: with one line that says what is wrong and what to do.
    """
    if isinstance(source, np.ndarray):
        if (
            source.dtype != np.uint8
            or source.ndim not in (2, 3)
            or (source.ndim == 3 and source.shape[2] not in (3, 4))
        ):
            raise ValueError(
                f"an image array must be (H, W, 3) uint8 RGB, not {source.shape} {source.dtype}; "
                "scale floats by 255 and convert with .astype('uint8')"
            )
        return _rgb(Image.fromarray(source), "the array")
    if isinstance(source, Image.Image):
        return _rgb(source, "the image")
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"no image file at {path}; check the path")
    try:
        with Image.open(path) as image:
            return _rgb(image, str(path))
    except UnidentifiedImageError as error:
        raise ValueError(f"{path} is not an image that Pillow can read; save it as PNG or JPEG") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path} is far too large ({error}); shrink it below 50 megapixels") from error
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path} is damaged or cut short ({error}); copy or download it again") from error


def _rgb(image: Image.Image, name: str) -> np.ndarray:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ValueError(f"{name} has {width * height / 1e6:.0f} megapixels; shrink it below {MAX_PIXELS // 1_000_000}")
    if min(width, height) < MIN_SIDE:
        raise ValueError(
            f"{name} is {width}×{height} pixels; at least {MIN_SIDE}×{MIN_SIDE} are needed to see anything"
        )
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):  # 16 or 32 bit grey
        grey = np.asarray(image, dtype=np.float64)
        top = 65535.0 if grey.max() > 255 else 255.0
        return np.repeat((grey.clip(0, top) / top * 255).astype(np.uint8)[..., None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return np.array(image.convert("RGB"))


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
