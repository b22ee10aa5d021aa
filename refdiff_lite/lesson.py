"""What the set-up cell of every lesson imports: seeds, one style for all figures, a word about the machine."""

from __future__ import annotations

import random
import sys

import matplotlib as mpl
import numpy as np
import torch
from cycler import cycler

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


def in_colab() -> bool:
    return "google.colab" in sys.modules


def start(preset: str = "toy", seed: int = 0) -> None:
    """Seed every generator, set the figures' style, and say on what the lesson will run. Safe to call again.

    Raises:
        ValueError: no such preset.
    """
    check_preset(preset)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    mpl.rcParams.update(STYLE)  # ty: ignore[no-matching-overload]  # matplotlib names every key in its types
    device, dtype = device_and_dtype()
    print(f"refdiff-lite {__version__}, preset {preset}, {device} in {str(dtype).removeprefix('torch.')}")
    if preset != "toy" and device.type == "cpu":
        where = "Runtime > Change runtime type > GPU" if in_colab() else 'a GPU, or PRESET = "toy"'
        print(f"no GPU here: {preset} will take minutes for each picture. Better: {where}.")
