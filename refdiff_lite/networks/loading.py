"""The networks as one object, and how they are loaded.

The choice of device and dtype is made here and nowhere else; ids and revisions are in :mod:`refdiff_lite.networks.hub`.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import RLock
from typing import Any

import open_clip
import torch
from open_clip.transformer import VisionTransformer

from ..config import DTYPES
from ..files import data_dir
from . import hub
from .compat import BETAS, ddim, fast_tokenizer, load_any_pipeline, load_pipeline, load_sam
from .presets import CLIP_MODELS, PRESETS, Preset, check_preset


def device_and_dtype() -> tuple[torch.device, torch.dtype]:
    """CUDA in fp16 where there is a GPU, else Apple's MPS or the CPU in fp32."""
    if torch.cuda.is_available():
        return torch.device("cuda"), torch.float16
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu"), torch.float32


SMALL = 30_000_000
"""Parameters of a UNet below which one core is best: the toy's has 2.5 million, Stable Diffusion's 860."""


@dataclass
class Networks:
    """The networks that Ref-Diff reads: a Stable Diffusion pipeline, an open_clip model with its tokenizer, SAM.

    Attributes:
        sam_id: key of :data:`hub.WEIGHTS`, a local folder or a hub id.
        low_memory: hold one network at a time on ``target``, the others on the CPU.
        target: the device to compute on; None for the one that the pipeline is on.
    """

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
    self_layers: str = ""
    low_memory: bool = False
    target: torch.device | None = None
    _resident: str | None = field(default=None, repr=False)
    _lock: Any = field(default_factory=RLock, repr=False)

    @property
    def dtype(self) -> torch.dtype:
        return self.sd.unet.dtype

    @property
    def device(self) -> torch.device:
        return self.target or self.sd._execution_device  # diffusers knows where an offloaded network computes

    @property
    def factor(self) -> int:
        """Pixels per latent: 8 for Stable Diffusion."""
        return 2 ** (len(self.sd.vae.config.block_out_channels) - 1)

    @property
    def multiple(self) -> int:
        """The diffusion model's input sides must be multiples of this."""
        return self.factor * 2 ** (len(self.sd.unet.config.block_out_channels) - 1)

    @cached_property
    def scheduler(self) -> Any:
        """The pipeline's noise schedule as DDIM, whatever sampler it came with (SD 1.5 comes with PNDM)."""
        return ddim(self.sd.scheduler)

    @cached_property
    def tokenizer(self) -> Any:
        """The text encoder's tokenizer, of the kind that tells each token's place in the text."""
        return fast_tokenizer(self.sd.tokenizer)

    @cached_property
    def sam(self) -> Any:
        """SAM's mask generator, loaded when first asked for."""
        if self.sam_id is None:
            raise ValueError(
                f'no SAM comes with the preset "{self.name}"; use proposals "felzenszwalb", "self-attention" or '
                '"weak", or the preset "sd15"'
            )
        source = str(hub.fetch(self.sam_id)) if self.sam_id in hub.WEIGHTS else self.sam_id
        start = torch.device("cpu") if self.low_memory else self.device
        return load_sam(source, start, self.dtype)

    @contextmanager
    def at_work(self) -> Generator[None]:
        """Hold the networks for one caller, in evaluation mode; they come back in the modes that they had.

        Small networks compute on one core meanwhile: on a busy machine the threads of a second one would mostly wait
        for each other, and make them many times slower (``benchmarks/bench_threads.py``).
        """
        with self._lock:
            parts = (self.sd.vae, self.sd.unet, self.sd.text_encoder, self.clip)
            training = [m for part in parts for m in part.modules() if m.training]
            for module in training:
                module.training = False
            threads = torch.get_num_threads()
            if self.device.type == "cpu" and self._parameters < SMALL:
                torch.set_num_threads(1)
            try:
                yield
            finally:
                torch.set_num_threads(threads)
                for module in training:
                    module.training = True

    @cached_property
    def _parameters(self) -> int:
        return sum(p.numel() for p in self.sd.unet.parameters())

    def check_finite(self, part: str, x: torch.Tensor) -> torch.Tensor:
        """``x`` itself, if all of it are finite numbers; else no order of scores would mean anything.

        Raises:
            ValueError: says which network failed in which precision, and what to try.
        """
        if bool(torch.isfinite(x).all()):
            return x
        raise ValueError(
            f"the {part} gave numbers that are not finite, computing in {str(x.dtype).removeprefix('torch.')} on "
            f"{x.device}: half precision overflows on some GPUs and with some weights. Load the networks in full "
            'precision: RefDiff.from_preset(..., dtype="float32"), or --dtype float32'
        )

    def use(self, part: str) -> Any:
        """A network ("vae", "text_encoder", "unet", "clip" or "sam"), ready on the device.

        In low-memory mode the one used before leaves the device first.
        """
        network = self.clip if part == "clip" else self.sam if part == "sam" else getattr(self.sd, part)
        if self.low_memory and self._resident != part:
            if self._resident is not None:
                self._place(self._resident, torch.device("cpu"))
            self._place(part, self.device)
            self._resident = part
        return network

    def _place(self, part: str, device: torch.device) -> None:
        if part == "sam":
            self.sam.model.to(device)
            self.sam.device = device
        else:
            (self.clip if part == "clip" else getattr(self.sd, part)).to(device)


def check_networks(nets: Networks) -> None:
    """Refuse networks that Ref-Diff cannot read, by name and with what to take instead.

    Raises:
        ValueError: no noise-predicting Stable Diffusion 1.x or 2.x, or no CLIP whose image tower is a plain ViT.
    """
    takes = "Ref-Diff takes a StableDiffusionPipeline that predicts noise, such as SD 1.4, 1.5 or 2.1-base"
    name, scheduler = type(nets.sd).__name__, nets.sd.scheduler
    prediction = scheduler.config.get("prediction_type", "epsilon")
    if prediction != "epsilon":
        raise ValueError(f"the diffusion model predicts {prediction!r}, not noise ('epsilon'). {takes}")
    if getattr(nets.sd, "unet", None) is None:
        raise ValueError(f"{name} has no UNet (a diffusion transformer?), so no cross-attention to read. {takes}")
    if hasattr(nets.sd, "text_encoder_2") or nets.sd.unet.config.get("addition_embed_type"):
        raise ValueError(f"{name} is of the SDXL kind, with two text encoders. {takes}")
    if nets.sd.unet.config.get("encoder_hid_dim_type") is not None:
        raise ValueError(
            f"{name} has an IP-Adapter, which needs a picture to go by: unload_ip_adapter() first. {takes}"
        )
    betas = scheduler.config.get("beta_schedule") in BETAS or scheduler.config.get("trained_betas") is not None
    if not betas or scheduler.config.get("use_flow_sigmas"):
        raise ValueError(
            f"{type(scheduler).__name__} has no noise schedule that DDIM knows ({', '.join(BETAS)}): flow matching, or a "
            f"schedule of sigmas alone. {takes}"
        )
    channels, expected = nets.sd.unet.config.in_channels, nets.sd.vae.config.latent_channels
    if channels != expected:
        raise ValueError(f"{name}'s UNet takes {channels} channels, not {expected}: inpainting or depth? {takes}")
    visual = nets.clip.visual
    if not isinstance(visual, VisionTransformer) or visual.attn_pool is not None or visual.pool_type != "tok":
        raise ValueError(
            f"CLIP's image tower is a {type(visual).__name__} without a class token; masks need one for each proposal. "
            "Take an open_clip ViT such as ViT-B-16 or ViT-L-14"
        )


def from_networks(sd: Any, clip: Any, tokenizer: Any, preprocess: Any, side: int = 512, **more: Any) -> Networks:
    """Networks of your own: any StableDiffusionPipeline that predicts noise, any open_clip model with a ViT.

    Args:
        sd: the pipeline, on its device; CPU offload by diffusers is respected.
        clip, tokenizer, preprocess: as ``open_clip.create_model_and_transforms`` and ``get_tokenizer`` return them.
        side: side in pixels of the images that the pipeline was trained on.
        more: other fields of :class:`Networks`; ``layers`` and ``self_layers`` are those of SD 1.5 by default.
    """
    device = more.get("target") or sd._execution_device
    norm = preprocess.transforms[-1]
    mean, std = torch.tensor(norm.mean, device=device), torch.tensor(norm.std, device=device)
    suits: dict[str, Any] = {"layers": PRESETS["sd15"].layers, "self_layers": PRESETS["sd15"].self_layers}
    return Networks(sd, clip, tokenizer, mean, std, side, **suits | more)


def load(
    name: str = "toy",
    *,
    clip: str | None = None,
    sam: str | None = None,
    low_memory: bool = False,
    dtype: str | None = None,
) -> Networks:
    """Load the networks of a preset.

    Args:
        clip: for sd15, "openai" (the paper's) or "laion". sam: "base" or "huge" (the paper's).
        dtype: "float32" or "float16"; by default what suits the device.
        low_memory: one network at a time on the GPU, the others wait in the computer's memory.

    Raises:
        ValueError: no such preset or choice.
        OSError: its weights are not on this machine and cannot be fetched.
    """
    preset = check_preset(name, clip, sam)
    device, precision = device_and_dtype()
    if dtype is not None:
        if dtype not in DTYPES:
            raise ValueError(f"dtype={dtype!r}: choose {' or '.join(DTYPES)}")
        precision = getattr(torch, dtype)
    if preset.sam is None:
        pipe, parts = _bundled(preset, precision)
    else:
        clip = clip or preset.clip
        hub.check([preset.sd, clip])
        pipe = load_pipeline(str(hub.fetch(preset.sd)), precision, True, variant="fp16")
        weights = hub.fetch(clip) / "open_clip_model.safetensors"
        parts = _open_clip(CLIP_MODELS[clip], str(weights))
    start = torch.device("cpu") if low_memory else device
    for part in (pipe.vae, pipe.unet, pipe.text_encoder, parts[0]):
        part.eval().requires_grad_(False).to(start)
    parts[0].to(precision)
    pipe.set_progress_bar_config(disable=True)
    return from_networks(
        pipe,
        *parts,
        preset.side,
        layers=preset.layers,
        self_layers=preset.self_layers,
        sam_id=f"sam-{sam}" if sam else preset.sam,
        note=preset.note,
        name=name,
        low_memory=low_memory,
        target=device,
    )


def load_painter(source: str = "toy", dtype: str | None = None) -> Any:
    """A text-to-image pipeline to trace: "toy" (bundled), a folder or an id of the hub, on the device that is there.

    Raises:
        ValueError: no such dtype. OSError: no pipeline there.
    """
    device, precision = device_and_dtype()
    if dtype not in (None, "bfloat16", *DTYPES):
        raise ValueError(f"dtype={dtype!r}: choose bfloat16, {' or '.join(DTYPES)}")
    if precision != torch.float32:
        precision = torch.bfloat16  # whose range the transformers need
    precision = precision if dtype is None else getattr(torch, dtype)
    folder = str(data_dir() / PRESETS["toy"].sd) if source == "toy" else source
    pipe = load_any_pipeline(folder, precision, source != "toy").to(device)
    pipe.set_progress_bar_config(disable=source == "toy")
    return pipe


def _open_clip(name: str, pretrained: str | None = None) -> tuple[Any, Any, Any]:
    """Model, tokenizer and preprocessing."""
    model, _, preprocess = open_clip.create_model_and_transforms(name, pretrained=pretrained)
    return model, open_clip.get_tokenizer(name), preprocess


def _bundled(preset: Preset, dtype: torch.dtype) -> tuple[Any, tuple[Any, Any, Any]]:
    folder: Path = data_dir()
    sd = str(folder / preset.sd)
    if not os.path.isfile(os.path.join(sd, "model_index.json")):
        raise OSError(f"the bundled weights are missing at {sd}; install again or run `make train-toy`")
    return load_pipeline(sd, dtype, False), _open_clip(f"local-dir:{folder / preset.clip}")
