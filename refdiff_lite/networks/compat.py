"""All that differs between versions of diffusers and transformers, and nothing else does."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from tempfile import TemporaryDirectory
from typing import Any

import torch
from diffusers.utils import logging as diffusers_logging
from packaging.version import Version
from transformers.utils import logging as transformers_logging

from .families import attention_modules

PACKAGES = ("torch", "torchvision", "diffusers", "transformers", "open_clip_torch", "numpy")


def versions(names: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Installed version of this package and of those that results depend on, or others; "missing" where there is none."""

    def one(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return "missing"

    return {name: one(name) for name in ("refdiff-lite", *names)}


def load_pipeline(source: str, dtype: torch.dtype, progress: bool, **kwargs: Any) -> Any:
    """``StableDiffusionPipeline.from_pretrained`` in a dtype that is checked, not hoped for."""
    from diffusers import StableDiffusionPipeline

    return _load(
        StableDiffusionPipeline,
        source,
        dtype,
        progress,
        safety_checker=None,
        requires_safety_checker=False,
        feature_extractor=None,  # only the safety checker looks at it
        **kwargs,
    )


def load_any_pipeline(source: str, dtype: torch.dtype, progress: bool, **kwargs: Any) -> Any:
    """A diffusers pipeline of any class, as its ``model_index.json`` says."""
    from diffusers import DiffusionPipeline

    return _load(DiffusionPipeline, source, dtype, progress, **kwargs)


def load_shared(source: str, other: str, dtype: torch.dtype) -> dict[str, Any]:
    """What the toy transformer's folder leaves out: the UNet's VAE and tokenizer, and its one text encoder, twice."""
    from diffusers import AutoencoderKL
    from transformers import CLIPTextModelWithProjection, CLIPTokenizer

    vae = AutoencoderKL.from_pretrained(f"{other}/vae").to(dtype)
    vae.register_to_config(shift_factor=0.0)  # SD3's pipeline adds it; SD 1's VAEs have none
    tokenizer = CLIPTokenizer.from_pretrained(f"{other}/tokenizer")
    text = CLIPTextModelWithProjection.from_pretrained(f"{source}/text_encoder").to(dtype)
    none = dict.fromkeys(("tokenizer_3", "text_encoder_3"))
    return {
        "vae": vae,
        "text_encoder": text,
        "text_encoder_2": text,
        "tokenizer": tokenizer,
        "tokenizer_2": tokenizer,
    } | none


def _load(kind: Any, source: str, dtype: torch.dtype, progress: bool, **kwargs: Any) -> Any:
    """From safetensors. The dtype's keyword was ``torch_dtype``, then ``dtype``; the wrong one is silently ignored."""
    for log in (diffusers_logging, transformers_logging):
        log.enable_progress_bar() if progress else log.disable_progress_bar()
    keyword = "dtype" if Version(version("diffusers")) >= Version("0.40") else "torch_dtype"
    pipe = kind.from_pretrained(source, **{keyword: dtype}, use_safetensors=True, **kwargs)
    denoiser = getattr(pipe, "transformer", None) or getattr(pipe, "unet", None)
    if denoiser is not None and denoiser.dtype != dtype:  # a release that knows the other keyword
        pipe = pipe.to(dtype)
        if denoiser.dtype != dtype:
            raise RuntimeError(f"diffusers {version('diffusers')} loaded {denoiser.dtype} where {dtype} was asked for")
    return pipe


def load_sam(source: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """transformers' mask generator for a SAM folder or hub id, from safetensors.

    Whatever the dtype, masks and scores leave the model in fp32: the generator's suppression of overlapping boxes
    fails on fp16 scores.
    """
    from transformers import pipeline

    def widen(model: Any, args: Any, output: Any) -> None:
        for name in ("pred_masks", "iou_scores"):
            output[name] = output[name].float()

    generator = pipeline(
        "mask-generation", model=source, device=device, dtype=dtype, model_kwargs={"use_safetensors": True}
    )
    generator.model.register_forward_hook(widen)
    return generator


BETAS = ("linear", "scaled_linear", "squaredcos_cap_v2")
"""Noise schedules that DDIM has."""


def ddim(scheduler: Any) -> Any:
    """A DDIM scheduler with the noise schedule of any other: timesteps from the start of each stride, nothing clipped.

    DDIM's own defaults and the settings of other samplers (PNDM's doubled step, Euler's spacing) would change which
    timesteps are visited.
    """
    from diffusers import DDIMScheduler

    return DDIMScheduler.from_config(scheduler.config, clip_sample=False, timestep_spacing="leading")


def fast_tokenizer(tokenizer: Any) -> Any:
    """The tokenizer in its fast form, which knows each token's place in the text; transformers 4 loads the slow one."""
    if tokenizer.is_fast:
        return tokenizer
    import transformers

    fast = getattr(transformers, type(tokenizer).__name__ + "Fast", None)
    fast = fast or transformers.CLIPTokenizerFast  # ty: ignore[missing-attribute]  # transformers 4 has it
    with TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return fast.from_pretrained(folder)


def execution_device(network: torch.nn.Module) -> torch.device | str | int:
    """Where a network computes: its weights' device, or under CPU offload the one that they are brought to."""
    hooks = (getattr(m, "_hf_hook", None) for m in network.modules())
    found = (getattr(hook, "execution_device", None) for hook in hooks)
    chosen = next((device for device in found if device is not None), None)
    return next(network.parameters()).device if chosen is None else chosen


def compiled(unet: torch.nn.Module) -> bool:
    """Whether torch.compile was applied to the UNet or to a part of it."""
    return any(hasattr(m, "_orig_mod") or getattr(m, "_compiled_call_impl", None) is not None for m in unet.modules())


def cross_attention_modules(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """Modules in which pixels look at words, by name; see :func:`families.attention_modules`."""
    return attention_modules(model, "cross")


def self_attention_modules(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """Modules in which pixels look at pixels, by name; see :func:`families.attention_modules`."""
    return attention_modules(model, "self")
