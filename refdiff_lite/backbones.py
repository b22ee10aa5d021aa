"""The three networks by preset name: "toy" (bundled, offline, any CPU) and "sd15" (from the hub, for a GPU).

One table holds every id and revision; the choice of device and dtype is made here and nowhere else.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import open_clip
import torch

from .compat import load_pipeline
from .config import RefDiffConfig
from .paths import data_dir


@dataclass(frozen=True)
class Preset:
    """Where the networks of a preset come from, and what suits them."""

    sd: str
    clip: str
    pretrained: str | None
    sam: str | None
    side: int
    """Side in pixels to which the longer side of an image is resized for the diffusion model."""
    layers: str
    """Cross-attention layers to read when the config leaves the choice open."""
    note: str
    revision: str | None = None


PRESETS = {
    "toy": Preset(
        sd="models/toy/sd",
        clip="models/toy/clip",
        pretrained=None,
        sam=None,
        side=128,
        layers=r"up_blocks\.0",
        note="The toy networks know only the 45 things of ToyRef; on other pictures their masks mean little.",
    ),
    "sd15": Preset(
        sd="stable-diffusion-v1-5/stable-diffusion-v1-5",
        clip="ViT-B-16-quickgelu",
        pretrained="openai",
        sam="facebook/sam-vit-base",
        side=512,
        layers=r"(down_blocks\.2|up_blocks\.1)",
        note="",
    ),
}


def device_and_dtype() -> tuple[torch.device, torch.dtype]:
    """CUDA in fp16 where there is a GPU, else Apple's MPS or the CPU in fp32."""
    if torch.cuda.is_available():
        return torch.device("cuda"), torch.float16
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu"), torch.float32


@dataclass
class Backbones:
    """The networks that Ref-Diff reads: a Stable Diffusion pipeline, an open_clip model with its tokenizer, SAM."""

    sd: Any
    clip: Any
    clip_tokenizer: Any
    clip_mean: torch.Tensor
    clip_std: torch.Tensor
    side: int
    layers: str = ""
    sam_id: str | None = None
    note: str = ""
    name: str = "custom"

    @property
    def device(self) -> torch.device:
        return self.sd.unet.device

    @property
    def factor(self) -> int:
        """Pixels per latent: 8 for Stable Diffusion."""
        return 2 ** (len(self.sd.vae.config.block_out_channels) - 1)

    @property
    def multiple(self) -> int:
        """The diffusion model's input sides must be multiples of this."""
        return self.factor * 2 ** (len(self.sd.unet.config.block_out_channels) - 1)

    @cached_property
    def sam(self) -> Any:
        """SAM's mask generator, loaded when first asked for."""
        if self.sam_id is None:
            raise ValueError(
                f'no SAM comes with the preset "{self.name}"; use proposals "felzenszwalb", "self-attention" or '
                '"weak", or the preset "sd15"'
            )
        from transformers import pipeline

        return pipeline("mask-generation", model=self.sam_id, device=self.device)


def default_config(preset: str) -> RefDiffConfig:
    """The constants that suit a preset of networks: the paper's, or those chosen on ToyRef val for the toy."""
    return RefDiffConfig.toy() if preset == "toy" else RefDiffConfig.paper()


def check_preset(name: str) -> Preset:
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}: choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


def load(name: str = "toy") -> Backbones:
    """Load the networks of a preset.

    Raises:
        ValueError: no such preset.
        OSError: its weights are not on this machine and cannot be fetched.
    """
    preset = check_preset(name)
    device, dtype = device_and_dtype()
    bundled = preset.pretrained is None
    sd = str(data_dir() / preset.sd) if bundled else preset.sd
    clip_name = f"local-dir:{data_dir() / preset.clip}" if bundled else preset.clip
    if bundled and not os.path.isfile(os.path.join(sd, "model_index.json")):
        raise OSError(f"the bundled weights are missing at {sd}; install again or run `make train-toy`")
    try:
        pipe = load_pipeline(sd, dtype, not bundled, revision=preset.revision, use_safetensors=True)
        clip, _, preprocess = open_clip.create_model_and_transforms(clip_name, pretrained=preset.pretrained)
        tokenizer = open_clip.get_tokenizer(clip_name)
    except OSError as error:
        raise OSError(
            f'the weights of preset "{name}" are not on this machine and the hub was not reached ({error}). '
            'Go online once to download them, or use the offline preset "toy".'
        ) from error
    pipe.set_progress_bar_config(disable=True)
    for part in (pipe.vae, pipe.unet, pipe.text_encoder, clip):
        part.to(device).eval().requires_grad_(False)
    clip.to(dtype)
    norm = preprocess.transforms[-1]
    mean, std = torch.tensor(norm.mean, device=device), torch.tensor(norm.std, device=device)
    return Backbones(pipe, clip, tokenizer, mean, std, preset.side, preset.layers, preset.sam, preset.note, name)
