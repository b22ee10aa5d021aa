"""Pictures. Each small function takes an ``ax`` (or makes one) and returns it; figures are made by panel and grid."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .files import write_whole

if TYPE_CHECKING:
    from .pipeline import Result

CMAP = "viridis"
CHOSEN, OUTLINE = "#e6550d", "#ffffff"
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


def show_mask(mask: np.ndarray, image: np.ndarray, ax: Axes | None = None, title: str = "") -> Axes:
    """An (H, W) bool mask: what is outside is dimmed, its rim is drawn."""
    ax = _axes(ax)
    ax.imshow(overlay(image, mask))
    if mask.any() and not mask.all():
        ax.contour(mask, levels=[0.5], colors=[CHOSEN], linewidths=1.2)
    ax.set_title(title, fontsize=9)
    return ax


def overlay(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image with everything outside the mask greyed and dimmed, (H, W, 3) uint8."""
    grey = image.mean(-1, keepdims=True) * 0.35 + 40
    return np.where(mask[..., None], image, grey).astype(np.uint8)


def save_overlay(image: np.ndarray, mask: np.ndarray, path: Path) -> None:
    """Write :func:`overlay` as PNG with an orange rim two pixels wide."""
    from PIL import Image
    from skimage.segmentation import find_boundaries

    picture = overlay(image, mask)
    picture[find_boundaries(mask, mode="thick")] = [int(CHOSEN[i : i + 2], 16) for i in (1, 3, 5)]
    write_whole(path, Image.fromarray(picture).save)


def show_tokens(result: Result, ax: Axes | None = None) -> Axes:
    """The prompt's tokens as a line of text, the one whose attention is read marked."""
    ax = _axes(ax)
    words = result.pieces[1:-1]
    shown, before = list(enumerate(words[:_TOKENS_SHOWN], start=1)), None
    for i, piece in shown:
        head = i == result.tokens[-1]
        before = ax.annotate(
            piece,
            xy=(0, 0.5) if before is None else (1, 0.5),
            xycoords="axes fraction" if before is None else before,
            xytext=(8 if before is None else 14, 0),
            textcoords="offset points",
            va="center",
            fontsize=11,
            color="white" if head else "black",
            parse_math=False,
            bbox={"boxstyle": "round,pad=0.3", "fc": CHOSEN if head else "#e8e8e8", "ec": "none"},
        )
    if before is not None and len(words) > len(shown):
        ax.annotate("…", xy=(1, 0.5), xycoords=before, xytext=(10, 0), textcoords="offset points", va="center")
    cues = ", ".join(result.expression.cues) or "none"
    ax.text(
        0,
        -0.15,
        f"head word: {result.expression.head}   direction cues: {cues}",
        fontsize=9,
        color="#444444",
        transform=ax.transAxes,
        parse_math=False,
    )
    ax.set(xlim=(0, 1), ylim=(0, 1))
    return ax


def panel(result: Result, path: str | Path | None = None, best: int = 5) -> Figure:
    """Image, tokens, word map, the best proposals with S_G, S_D and S, and the mask, in one figure."""
    image, scores = result.image, result.scores
    order = scores["S"].argsort(descending=True).tolist()[:best]
    figure = Figure(figsize=(12, 6.4), dpi=100, layout="constrained")
    grid = figure.add_gridspec(3, best * 3, height_ratios=[0.5, 3, 2.2])
    show_tokens(result, figure.add_subplot(grid[0, :]))
    third = best
    show_image(image, figure.add_subplot(grid[1, :third]), "image")
    show_map(
        result.word_map,
        image,
        figure.add_subplot(grid[1, third : 2 * third]),
        f'word map c of "{result.expression.head}"',
    )
    chosen = result.proposals[result.best] if result.best is not None else np.zeros(image.shape[:2], bool)
    name = textwrap.shorten(result.expression.text, 60)
    show_mask(chosen, image, figure.add_subplot(grid[1, 2 * third :]), f"mask ({result.variant}, {result.generator})")
    for place, i in enumerate(order):
        ax = figure.add_subplot(grid[2, place * 3 : place * 3 + 3])
        numbers = f"S {float(scores['S'][i]):+.3f}\nS_G {float(scores['S_G'][i]):+.3f}"
        if scores["S_D"].any():
            numbers += f"   S_D {float(scores['S_D'][i]):+.3f}"
        show_mask(result.proposals[i], image, ax, numbers)
        if place == 0:
            ax.set_title(ax.get_title(), fontsize=9, color=CHOSEN, fontweight="bold")
    if not order:
        figure.add_subplot(grid[2, :]).set_axis_off()
        figure.text(0.5, 0.2, "no proposal was found", ha="center", color="#444444")
    figure.suptitle(f'"{name}"', fontsize=13, parse_math=False)
    if path is not None:
        write_whole(Path(path), figure.savefig)
    return figure


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
