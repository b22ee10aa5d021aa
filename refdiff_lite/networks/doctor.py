"""What is installed, on what device it runs, which presets are ready, and what to do about each gap."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from pathlib import Path

import torch
from huggingface_hub import constants

from ..files import data_dir
from .compat import PACKAGES, versions
from .hub import WEIGHTS, free_bytes
from .loading import device_and_dtype
from .presets import PRESETS

ROOMY = 8.0
"""GiB of GPU memory that hold all networks of sd15 at once (benchmarks/README.md); with less, low-memory mode."""


def report() -> Iterator[tuple[str, str]]:
    """What and how it is, line by line; behind ``<-`` stands what to do."""
    yield "python", platform.python_version()
    for name, number in versions((*PACKAGES, "ipywidgets", "anywidget")).items():
        yield name, number if number != "missing" else f"missing <- pip install {name}"
    device, dtype = device_and_dtype()
    yield "device", f"{device.type}, {str(dtype).removeprefix('torch.')}, {torch.get_num_threads()} threads"
    remark = "slow without a GPU"
    if device.type == "cuda":
        free, total = (n / 2**30 for n in torch.cuda.mem_get_info())
        remark = f"fits {torch.cuda.get_device_name()}" if free > ROOMY else "GPU memory is short <- --low-memory"
        yield "GPU memory", f"{free:.1f} of {total:.1f} GiB free"
    if hasattr(os, "sysconf"):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        yield "memory", f"{memory:.1f} GiB"
    cache = Path(constants.HF_HUB_CACHE)
    yield "disk", f"{free_bytes(cache) / 2**30:.1f} GiB free where downloaded weights are kept: {cache}"
    yield "preset toy", _toy()
    yield "preset sd15", f"{_sd15()}; {remark}"
    yield "its revisions", "as public projects pin them, not verified against the hub by us; the UNet is the EMA one"


def _toy() -> str:
    try:
        ready = (data_dir() / PRESETS["toy"].sd / "model_index.json").is_file()
    except OSError as error:
        return str(error)
    return "ready, offline" if ready else "weights are missing <- install again, or make train-toy"


def _sd15() -> str:
    preset = PRESETS["sd15"]
    parts = {"Stable Diffusion": preset.sd, "CLIP": preset.clip, "SAM": preset.sam or ""}
    lacking = {part: WEIGHTS[name] for part, name in parts.items() if WEIGHTS[name].missing()}
    if not lacking:
        return "ready, offline"
    size = sum(weights.to_download for weights in lacking.values()) / 1e9
    offline = "unset HF_HUB_OFFLINE, then " if constants.HF_HUB_OFFLINE else ""
    return (
        f"weights of {', '.join(lacking)} are missing or damaged, {size:.1f} GB <- {offline}refdiff-lite download sd15"
    )
