"""A small diffusion transformer of Stable Diffusion 3's class: words and pixels stand in one sequence.

It shares the toy UNet's VAE and tokenizer and is trained by rectified flow (:mod:`.train_dit`). SD3 reads captions twice:
word by word, and as one pooled vector. Here the pooled vector is zero, so words act through attention alone, where
they can be seen. SD3's two CLIP encoders are one and the same here, and there is no T5.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from ..files import data_dir
from .train_clip import tokens

LATENT = 16
"""Side of the latents."""
NO_T5 = {"max_sequence_length": 0}
"""What to give the pipeline's calls: without it, SD3's pipeline puts 256 zeros in the place of the missing T5's tokens."""


def make_dit(text_width: int = 128, layers: int = 6, patch: int = 2) -> SD3Transformer2DModel:
    """4 heads of 32; every block begins as the identity and the output as zero, as adaLN-Zero has it (DiT, 2212.09748)."""
    dit = SD3Transformer2DModel(
        sample_size=LATENT,
        patch_size=patch,
        in_channels=4,
        out_channels=4,
        num_layers=layers,
        attention_head_dim=32,
        num_attention_heads=4,
        caption_projection_dim=128,
        joint_attention_dim=2 * text_width,
        pooled_projection_dim=2 * text_width,
        pos_embed_max_size=LATENT // patch,
    )
    zero = [b.norm1.linear for b in dit.transformer_blocks] + [b.norm1_context.linear for b in dit.transformer_blocks]
    for module in (*zero, dit.norm_out.linear, dit.proj_out):
        torch.nn.init.zeros_(module.weight)
        torch.nn.init.zeros_(module.bias)
    return dit


def make_text(text: CLIPTextModel) -> CLIPTextModelWithProjection:
    """The text encoder with a pooled vector that is always zero."""
    made = CLIPTextModelWithProjection(text.config).float()
    made.text_model.load_state_dict(getattr(text, "text_model", text).state_dict())
    torch.nn.init.zeros_(made.text_projection.weight)
    return made


def learning(pipe: StableDiffusion3Pipeline) -> torch.nn.ModuleDict:
    """What training changes: the transformer, and the text encoder up to the last layer but one.

    SD3 reads words there; the last layer is only the pooled vector's.
    """
    both = torch.nn.ModuleDict({"dit": pipe.transformer, "text": pipe.text_encoder}).requires_grad_(True)
    text = pipe.text_encoder
    for unused in (text.text_projection, text.text_model.encoder.layers[-1], text.text_model.final_layer_norm):
        unused.requires_grad_(False)
    return both


def make_pipeline(
    dit: SD3Transformer2DModel, text: CLIPTextModelWithProjection, vae: AutoencoderKL, tokenizer: CLIPTokenizer
) -> StableDiffusion3Pipeline:
    """The parts as an ordinary Stable Diffusion 3 pipeline; call it with ``**NO_T5``."""
    return StableDiffusion3Pipeline(
        transformer=dit,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae,
        text_encoder=text,
        text_encoder_2=text,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        text_encoder_3=None,
        tokenizer_3=None,
    )


def start_pipeline(layers: int = 6, patch: int = 2) -> StableDiffusion3Pipeline:
    """An untrained transformer beside the bundled UNet's text encoder, VAE and tokenizer."""
    toy = data_dir() / "models" / "toy" / "sd"
    text = make_text(CLIPTextModel.from_pretrained(toy / "text_encoder").float())
    torch.manual_seed(0)
    return make_pipeline(make_dit(text.config.hidden_size, layers, patch), text, *_shared())


def _shared() -> tuple[AutoencoderKL, CLIPTokenizer]:
    toy = data_dir() / "models" / "toy" / "sd"
    vae = AutoencoderKL.from_pretrained(toy / "vae").float().eval().requires_grad_(False)
    vae.register_to_config(shift_factor=0.0)  # SD3's pipeline adds it; SD 1's VAEs have none
    return vae, CLIPTokenizer.from_pretrained(toy / "tokenizer")


def words(pipe: StableDiffusion3Pipeline, texts: list[str]) -> torch.Tensor:
    """(B, tokens, 256): each word as the transformer reads it, twice the same side by side for SD3's two encoders."""
    h = pipe.text_encoder(tokens(pipe.tokenizer, texts), output_hidden_states=True).hidden_states[-2]
    return torch.cat([h, h], -1)


def velocity(pipe: StableDiffusion3Pipeline, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """Where noise lies from here: the prediction of eps - x0, shaped as x.

    Args:
        x: (B, 4, h, w) latents (1 - t) x0 + t eps. t: (B,) in [0, 1]. text: of :func:`words`.
    """
    pooled = torch.zeros(len(x), pipe.transformer.config.pooled_projection_dim)
    return pipe.transformer(x, text, pooled, 1000 * t, return_dict=False)[0]


def save_dit(pipe: StableDiffusion3Pipeline, folder: Path) -> None:
    """Write what is not the UNet's: transformer, text encoder, scheduler and ``model_index.json``, in fp16."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    pipe.save_config(partial)
    for name in ("transformer", "text_encoder", "scheduler"):
        part = getattr(pipe, name)
        (part if name == "scheduler" else _half(part)).save_pretrained(partial / name)
    folder.mkdir(parents=True, exist_ok=True)
    for path in partial.iterdir():  # other files of the folder, such as its README, stay
        target = folder / path.name
        shutil.rmtree(target) if target.is_dir() else None
        os.replace(path, target)
    partial.rmdir()


def _half(model: Any) -> Any:
    copy = type(model).from_config(model.config) if hasattr(model, "from_config") else type(model)(model.config)
    copy.load_state_dict(model.state_dict())
    return copy.half()


def load_dit(folder: Path | None = None) -> StableDiffusion3Pipeline:
    """The bundled pipeline, or another that :func:`save_dit` wrote, in fp32, with the UNet's VAE and tokenizer.

    Raises:
        OSError: a file is missing or damaged.
    """
    folder = folder or data_dir() / "models" / "toy-dit"
    try:
        config = json.loads((folder / "transformer" / "config.json").read_text())
        dit = SD3Transformer2DModel.from_config(config)
        dit.load_state_dict(load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors"))
        text = CLIPTextModelWithProjection(CLIPTextConfig.from_pretrained(folder / "text_encoder"))
        text.load_state_dict(load_file(folder / "text_encoder" / "model.safetensors"))
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise OSError(
            f"{folder} holds no whole toy-dit ({str(error).split(chr(10))[0]}); install again, or train it by "
            "`python -m refdiff_lite.toy.train_dit`"
        ) from error
    return make_pipeline(dit.float().eval(), text.float().eval(), *_shared())
