"""Figures. Each small function takes an ``ax`` (or makes one) and returns it; :func:`grid` makes a whole figure."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .files import write_whole

CMAP = "viridis"
CHOSEN, TRUTH = "#e6550d", "#0072b2"
"""A mask's rim, and that of the object which was meant: told apart by colour-blind readers too."""
_TOKENS_SHOWN = 16
Picture = tuple[np.ndarray, np.ndarray | None, str]
"""Image, mask or None, caption."""


def _axes(ax: Axes | None) -> Axes:
    if ax is None:
        import matplotlib.pyplot as plt

        ax = plt.subplots()[1]
    ax.set_axis_off()
    return ax


def show_image(image: np.ndarray, ax: Axes | None = None, title: str = "") -> Axes:
    """An (H, W, 3) uint8 image without axes."""
    ax = _axes(ax)
    ax.imshow(image)
    ax.set_title(title, fontsize=9)
    return ax


def show_map(word_map: np.ndarray, image: np.ndarray | None = None, ax: Axes | None = None, title: str = "") -> Axes:
    """An (H, W) map in [0, 1], laid over the image where one is given."""
    ax = _axes(ax)
    if image is not None:
        ax.imshow(image)
    ax.imshow(word_map, cmap=CMAP, vmin=0, vmax=1, alpha=1.0 if image is None else 0.7)
    ax.set_title(title, fontsize=9)
    return ax


def show_mask(
    mask: np.ndarray, image: np.ndarray, ax: Axes | None = None, title: str = "", truth: np.ndarray | None = None
) -> Axes:
    """An (H, W) bool mask: what is outside is dimmed, its rim is orange; the truth's, where it is given, blue."""
    ax = _axes(ax)
    ax.imshow(overlay(image, mask))
    for outline, colour in ((mask, CHOSEN), (truth, TRUTH)):
        if outline is not None and outline.any() and not outline.all():
            ax.contour(outline, levels=[0.5], colors=[colour], linewidths=1.2)
    ax.set_title(title, fontsize=9)
    return ax


def overlay(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image with everything outside the mask greyed and dimmed, (H, W, 3) uint8."""
    dimmed = (np.arange(3 * 255 + 1) / 3 * 0.35 + 40).astype(np.uint8)  # by the sum of the channels: no floats a pixel
    return np.where(mask[..., None], image, dimmed[image.sum(-1, dtype=np.uint16)][..., None])


def outlined(image: np.ndarray, mask: np.ndarray, truth: np.ndarray | None = None) -> np.ndarray:
    """:func:`overlay` with rims two pixels wide in the colours of :func:`show_mask`, (H, W, 3) uint8."""
    from skimage.segmentation import find_boundaries

    picture = overlay(image, mask)
    for outline, colour in ((mask, CHOSEN), (truth, TRUTH)):
        if outline is not None:
            picture[find_boundaries(outline, mode="thick")] = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return picture


def save_overlay(image: np.ndarray, mask: np.ndarray, path: Path) -> None:
    """Write :func:`outlined` as PNG."""
    from PIL import Image

    write_whole(path, Image.fromarray(outlined(image, mask)).save)


def show_tokens(pieces: Sequence[str], marked: int, note: str = "", ax: Axes | None = None) -> Axes:
    """A prompt's tokens as a line of text, the one at place ``marked`` in colour, and a note below."""
    ax = _axes(ax)
    shown, before = list(enumerate(pieces))[1:-1], None
    for i, piece in shown[:_TOKENS_SHOWN]:
        before = ax.annotate(
            piece,
            xy=(0, 0.5) if before is None else (1, 0.5),
            xycoords="axes fraction" if before is None else before,
            xytext=(8 if before is None else 14, 0),
            textcoords="offset points",
            va="center",
            fontsize=11,
            color="white" if i == marked else "black",
            parse_math=False,
            bbox={"boxstyle": "round,pad=0.3", "fc": CHOSEN if i == marked else "#e8e8e8", "ec": "none"},
        )
    if before is not None and len(shown) > _TOKENS_SHOWN:
        ax.annotate("…", xy=(1, 0.5), xycoords=before, xytext=(10, 0), textcoords="offset points", va="center")
    ax.text(0, -0.15, note, fontsize=9, color="#444444", transform=ax.transAxes, parse_math=False)
    ax.set(xlim=(0, 1), ylim=(0, 1))
    return ax


def grid(
    rows: list[list[Picture]],
    path: str | Path | None = None,
    titles: list[str] | None = None,
) -> Figure:
    """A table of pictures: rows of (image, mask or None, caption)."""
    height, width = len(rows), max(len(r) for r in rows)
    figure = Figure(figsize=(2.3 * width, 2.5 * height), dpi=100, layout="constrained")
    axes: Any = figure.subplots(height, width, squeeze=False)
    for r, row in enumerate(rows):
        for c, (image, mask, text) in enumerate(row):
            if mask is None:
                show_image(image, axes[r, c], textwrap.fill(text, 26))
            else:
                show_mask(mask, image, axes[r, c], text)
            if r == 0 and titles:
                axes[r, c].set_title(f"{titles[c]}\n{axes[r, c].get_title()}", fontsize=9)
    if path is not None:
        write_whole(Path(path), figure.savefig)
    return figure
