"""What the set-up cell of every lesson imports: seeds, one style for all figures, claims that are checked as they are made."""

from __future__ import annotations

import random
import sys
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from cycler import cycler
from IPython.display import display
from matplotlib.figure import Figure

from . import __version__
from .networks import check_preset, device_and_dtype

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
"""Seven colours that colour-blind readers tell apart (Okabe and Ito 2008), in the order in which lines take them."""
BLUE, ORANGE, GREEN, PINK, SKY, RED, BLACK = PALETTE
DIVERGING = "RdBu_r"
"""Colour map for signed data; centre it on zero with ``vmin=-v, vmax=v``."""

STYLE = {
    "axes.prop_cycle": cycler(color=PALETTE),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "figure.dpi": 96,
    "figure.constrained_layout.use": True,
    "image.cmap": "viridis",
    "image.interpolation": "nearest",
}


_preset = "toy"


class Todo(NotImplementedError):
    """Raised by an exercise that is still to be solved, and so by whatever uses it. Shown in one line, too."""

    def _render_traceback_(self) -> list[str]:
        return ["✗ this needs your solution of the exercise above; when its check says ✓, run this cell again"]


def in_colab() -> bool:
    return "google.colab" in sys.modules


def upload() -> str:
    """In Colab, let a file be chosen and uploaded; its name, or "" where the choice was cancelled.

    Raises:
        ValueError: this is not Colab.
    """
    if not in_colab():
        raise ValueError('PHOTO = "upload" works in Colab; here, write the path of your photo')
    from google.colab import files  # ty: ignore[import-not-found]

    name = next(iter(files.upload() or {}), "")
    print(f"{name} is here" if name else "no file was chosen: a bundled picture is taken instead")
    return name


def start(preset: str = "toy", seed: int = 0) -> None:
    """Seed every generator, set the figures' style, and say on what the lesson will run. Safe to call again.

    Raises:
        ValueError: no such preset.
    """
    global _preset
    check_preset(preset)
    _preset = preset
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    mpl.rcParams.update(STYLE)  # ty: ignore[no-matching-overload]  # matplotlib names every key in its types
    device, dtype = device_and_dtype()
    print(f"refdiff-lite {__version__}, preset {preset}, {device} in {str(dtype).removeprefix('torch.')}")
    if preset != "toy" and device.type == "cpu":
        where = "Runtime > Change runtime type > GPU" if in_colab() else 'a GPU, or PRESET = "toy"'
        print(f"no GPU here: {preset} will take minutes for each picture. Better: {where}.")


def claim(sentence: str, holds: Any) -> None:
    """Print a sentence of the lesson beside the numbers that bear it out.

    The lessons were written with the toy networks, so there a claim that fails is an error in the lesson; with other
    networks it may fail, and that is worth knowing.

    Raises:
        AssertionError: it does not hold with the preset "toy".
    """
    if not holds and _preset == "toy":
        raise AssertionError(f"this claim of the lesson does not hold: {sentence}")
    print(f"✓ {sentence}" if holds else f"✗ not with {_preset}: {sentence}")


def show(alt: str, figure: Figure | None = None) -> None:
    """Show a figure (by default the current one) with a text for readers who cannot see it."""
    figure = figure or plt.gcf()
    display(figure, metadata={"image/png": {"alt": alt}, "image/jpeg": {"alt": alt}})
    plt.close(figure)
