"""All that differs between versions of diffusers and transformers, and nothing else does."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from diffusers.utils import logging as diffusers_logging
from packaging.version import Version
from transformers.utils import logging as transformers_logging

PACKAGES = ("torch", "torchvision", "diffusers", "transformers", "open_clip_torch", "numpy")


def versions() -> dict[str, str]:
    """Installed version of each package that results depend on; "missing" where there is none."""

    def one(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return "missing"

    return {name: one(name) for name in ("refdiff-lite", *PACKAGES)}


def load_pipeline(source: str, dtype: torch.dtype, progress: bool, **kwargs: Any) -> Any:
    """``StableDiffusionPipeline.from_pretrained`` in a dtype that is checked, not hoped for.

    The keyword was ``torch_dtype``, then ``dtype``; the wrong one is silently ignored or warned about.
    """
    from diffusers import StableDiffusionPipeline

    for log in (diffusers_logging, transformers_logging):
        log.enable_progress_bar() if progress else log.disable_progress_bar()
    keyword = "dtype" if Version(version("diffusers")) >= Version("0.40") else "torch_dtype"
    pipe = StableDiffusionPipeline.from_pretrained(
        source, **{keyword: dtype}, safety_checker=None, requires_safety_checker=False, **kwargs
    )
    if pipe.unet.dtype != dtype:  # a release that knows the other keyword
        pipe = pipe.to(dtype)
    if pipe.unet.dtype != dtype:
        raise RuntimeError(f"diffusers {version('diffusers')} loaded {pipe.unet.dtype} where {dtype} was asked for")
    return pipe


def cross_attention_modules(unet: torch.nn.Module) -> dict[str, Attention]:
    """Cross-attention modules (``attn2``) of a UNet by name, ``down_blocks.0.attentions.0`` and so on.

    Raises:
        RuntimeError: none found, so this version of diffusers names or builds them otherwise.
    """
    return _attention(unet, "attn2")


def self_attention_modules(unet: torch.nn.Module) -> dict[str, Attention]:
    """Self-attention modules (``attn1``) of a UNet by name; see :func:`cross_attention_modules`."""
    return _attention(unet, "attn1")


def _attention(unet: torch.nn.Module, last: str) -> dict[str, Attention]:
    found = {
        name.split(".transformer_blocks")[0]: module
        for name, module in unet.named_modules()
        if isinstance(module, Attention) and name.endswith(f".{last}")
    }
    if not found:
        raise RuntimeError(
            f"no {last} attention modules in {type(unet).__name__} under diffusers {version('diffusers')}; "
            "Ref-Diff needs a UNet2DConditionModel such as Stable Diffusion 1.x or 2.x"
        )
    return found
