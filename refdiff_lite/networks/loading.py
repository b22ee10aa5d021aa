"""How networks are loaded, or put together from a user's own; what Ref-Diff cannot read is refused by name.

The choice of device and dtype is made here and nowhere else; ids and revisions are in :mod:`refdiff_lite.networks.hub`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.transformer import VisionTransformer

from ..config import DTYPES
from ..files import data_dir
from . import hub
from .compat import BETAS, load_any_pipeline, load_pipeline, load_shared
from .networks import Networks
from .presets import CLIP_MODELS, PRESETS, Preset, check_preset
from .words import model_of


def device_and_dtype() -> tuple[torch.device, torch.dtype]:
    """CUDA in fp16 where there is a GPU, else Apple's MPS or the CPU in fp32."""
    if torch.cuda.is_available():
        return torch.device("cuda"), torch.float16
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu"), torch.float32


def check_networks(nets: Networks) -> None:
    """Refuse networks that Ref-Diff cannot read, by name and with what to take instead.

    Raises:
        ValueError: a diffusion model that is none of :data:`families.FAMILIES`; one of Stable Diffusion 1 or 2's kind that
            predicts no noise; a CLIP whose image tower is no plain ViT.
    """
    if nets.own_pass:
        _check_stable_diffusion(nets)
    else:
        model_of(nets.sd)
        if nets.low_memory:
            raise ValueError(
                f"low_memory is for Stable Diffusion 1 and 2; for {type(nets.sd).__name__} call enable_model_cpu_offload()"
            )
    visual = nets.clip.visual
    if not isinstance(visual, VisionTransformer) or visual.attn_pool is not None or visual.pool_type != "tok":
        raise ValueError(
            f"CLIP's image tower is a {type(visual).__name__} without a class token; masks need one for each proposal. "
            "Take an open_clip ViT such as ViT-B-16 or ViT-L-14"
        )


def _check_stable_diffusion(nets: Networks) -> None:
    takes = "Of Stable Diffusion 1 and 2, Ref-Diff takes those that predict noise, such as SD 1.4, 1.5 or 2.1-base"
    name, scheduler = type(nets.sd).__name__, nets.sd.scheduler
    prediction = scheduler.config.get("prediction_type", "epsilon")
    if prediction != "epsilon":
        raise ValueError(f"the diffusion model predicts {prediction!r}, not noise ('epsilon'). {takes}")
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


def from_networks(
    sd: Any, clip: Any, tokenizer: Any, preprocess: Any, side: int | None = None, **more: Any
) -> Networks:
    """Networks of your own: a diffusion pipeline that can begin with a picture, any open_clip model with a ViT.

    Args:
        sd: the pipeline, on its device: Stable Diffusion 1 to 3.5, SDXL, FLUX.1, Qwen-Image, Z-Image; CPU offload by
            diffusers is respected.
        clip, tokenizer, preprocess: as ``open_clip.create_model_and_transforms`` and ``get_tokenizer`` return them.
        side: side in pixels of the images that the pipeline was trained on; by default 512 for Stable Diffusion 1 and 2,
            for others what the pipeline says.
        more: other fields of :class:`Networks`; ``layers`` and ``self_layers`` are by default those that suit the family.
    """
    device = more.get("target") or sd._execution_device
    norm = preprocess.transforms[-1]
    mean, std = torch.tensor(norm.mean, device=device), torch.tensor(norm.std, device=device)
    made = Networks(sd, clip, tokenizer, mean, std, side or 512, **more)
    if made.own_pass:
        suits = PRESETS["sd15"]
        made.layers, made.self_layers = more.get("layers", suits.layers), more.get("self_layers", suits.self_layers)
    elif side is None:
        made.side = trained_side(sd)
    return made


def trained_side(pipe: Any) -> int:
    """Side in pixels of the images that a pipeline was trained on, as its parts tell it; 1024 where they do not."""
    latents = getattr(pipe, "default_sample_size", None) or model_of(pipe).config.get("sample_size")
    return int(latents * pipe.vae_scale_factor) if isinstance(latents, int) else 1024


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
    for part in (*(p for p in pipe.components.values() if isinstance(p, torch.nn.Module)), parts[0]):
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
        call=dict(preset.call),
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
    parts = load_shared(sd, str(folder / PRESETS["toy"].sd), dtype) if preset.call else {}
    load_one = load_any_pipeline if preset.call else load_pipeline
    return load_one(sd, dtype, False, **parts), _open_clip(f"local-dir:{folder / preset.clip}")
