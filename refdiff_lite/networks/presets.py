"""The presets of networks: "toy" (bundled, offline, any CPU) and "sd15" (from the hub, for a GPU). A table, no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..config import CLIPS, SAMS


@dataclass(frozen=True)
class Preset:
    """Which networks a preset takes, and what suits them."""

    sd: str
    """Folder of the bundled pipeline, or a key of :data:`hub.WEIGHTS`."""
    clip: str
    sam: str | None
    side: int
    """Side in pixels to which the longer side of an image is resized for the diffusion model."""
    layers: str
    """Cross-attention layers to read when the config leaves the choice open."""
    self_layers: str = ""
    """Self-attention layers to read."""
    note: str = ""
    call: tuple[tuple[str, Any], ...] = ()
    """More arguments for each call of a pipeline that is not Stable Diffusion 1 or 2."""


PRESETS = {
    "toy": Preset(
        sd="models/toy/sd",
        clip="models/toy/clip",
        sam=None,
        side=128,
        layers=r"up_blocks\.0",
        note="The toy networks know only the 45 things of ToyRef; on other pictures their masks mean little.",
    ),
    "toy-dit": Preset(
        sd="models/toy-dit",
        clip="models/toy/clip",
        sam=None,
        side=128,
        layers="",  # all: no block or set of blocks that was better on val is better on test (studies/measure_dit.py)
        note="The toy networks know only the 45 things of ToyRef; on other pictures their masks mean little.",
        call=(
            ("max_sequence_length", 0),
        ),  # without it SD3's pipeline puts zeros in the place of the missing T5's tokens
    ),
    "sd15": Preset(
        sd="sd15",
        clip="openai",
        sam="sam-base",
        side=512,
        layers=r"(down_blocks\.2|up_blocks\.1)",  # the official code's: 32×32 at 1024 pixels
        self_layers=r"(down_blocks\.1|up_blocks\.2)",  # 32×32 at 512 pixels; finer ones cost 16 times the memory
    ),
}
CLIP_MODELS = {"openai": "ViT-B-16-quickgelu", "laion": "ViT-B-16"}
"""Architectures of the CLIP weights: OpenAI's were trained with the quick GELU, and are wrong without it."""


def check_preset(name: str, clip: str | None = None, sam: str | None = None) -> Preset:
    """The preset, if it is one and offers these choices of :func:`load`; checked before anything is loaded.

    Raises:
        ValueError: no such preset or choice.
    """
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}: choose one of {', '.join(PRESETS)}")
    if PRESETS[name].sam is None:
        if clip or sam:
            raise ValueError(f'the networks of "{name}" are fixed; a choice of clip and sam is for "sd15"')
    elif clip not in (None, *CLIPS) or sam not in (None, *SAMS):
        raise ValueError(f"clip={clip!r}, sam={sam!r}: choose {' or '.join(CLIPS)}, and {' or '.join(SAMS)}")
    return PRESETS[name]
