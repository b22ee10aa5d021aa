"""A still picture of maps over an image, quickly: a figure of many axes takes longer than the explorer itself."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .base import palette

SIDE, GAP, TITLE = 190, 14, 22


@cache
def _font() -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), 12)


def over(image: np.ndarray, values: np.ndarray, smooth: bool = True, opacity: float = 0.75) -> np.ndarray:
    """A map in the palette's colours over an image that shows where the map is low, (h, w, 3) uint8, as the view draws it.

    Args:
        image: (h, w, 3) uint8. values: (rows, columns), stretched between its ends.
    """
    low, high = values.min(), values.max()
    levels = Image.fromarray(np.round((values - low) / max(high - low, 1e-12) * 255).astype(np.uint8))
    method = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    fine = np.asarray(levels.resize(image.shape[1::-1], method))
    alpha = opacity * (0.25 + 0.75 * fine[..., None] / 255)
    return (image * (1 - alpha) + palette()[fine] * alpha).astype(np.uint8)


def sheet(panels: Sequence[tuple[str, np.ndarray]], place: Sequence[float] = ()) -> bytes:
    """Pictures of one size with their titles in rows of five, as PNG.

    Args:
        panels: title and (h, w, 3) uint8. place: (row, column) as shares, marked in every picture.
    """
    height, width = panels[0][1].shape[:2]
    columns = min(len(panels), 5)
    rows = -(-len(panels) // columns)
    page = Image.new("RGB", (columns * (width + GAP) + GAP, rows * (height + TITLE + GAP) + GAP), "white")
    draw = ImageDraw.Draw(page)
    for i, (name, picture) in enumerate(panels):
        title = " ".join(name.split())
        x, y = GAP + i % columns * (width + GAP), GAP + i // columns * (height + TITLE + GAP)
        while title and draw.textlength(title, font=_font()) > width:
            title = title[:-2] + "…" if len(title) > 2 else ""
        draw.text((x, y), title, "black", _font())
        page.paste(Image.fromarray(picture), (x, y + TITLE))
        if place:
            top, left = y + TITLE + place[0] * height, x + place[1] * width
            draw.rectangle((left - 4, top - 4, left + 4, top + 4), outline="white", width=2)
    out = io.BytesIO()
    page.save(out, "PNG", compress_level=3)
    return out.getvalue()
