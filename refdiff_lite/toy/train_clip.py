"""Train the toy CLIP: a small ViT and text tower of open_clip, contrastively, on images and captions.

Half of every batch are close-ups of one thing, half whole scenes. Close-ups on black are cut tightly and enlarged,
as the crop of a proposal is; half of all close-ups are blurred to the sharpness of a small thing enlarged.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip import CLIPTextCfg, CLIPVisionCfg
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from .. import ranking
from ..networks.clip import encode_images
from .phrases import Phrase, caption
from .scenes import TINTS, ToyScene, categories, make_scene
from .tokenizer import CONTEXT, save_tokenizer
from .training import LOOKED_AT, load_scenes, to_tensor, train

SIDE, BATCH = 64, 128
MEAN = STD = (0.5, 0.5, 0.5)
TEXT: dict[str, Any] = {"context_length": CONTEXT, "width": 128, "heads": 4, "layers": 3, "hf_tokenizer_name": "toyref"}
VISION: dict[str, Any] = {"image_size": SIDE, "patch_size": 8, "width": 128, "layers": 4, "head_width": 32}


def make_clip(vocabulary: int) -> open_clip.CLIP:
    return open_clip.CLIP(128, CLIPVisionCfg(**VISION), CLIPTextCfg(**TEXT, vocab_size=vocabulary))


def tokens(tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    """(B, CONTEXT) token ids, cut or padded with the end token."""
    return tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids


def save_clip(clip: open_clip.CLIP, tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Write an open_clip local dir: config, fp16 weights, tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    model_cfg = {"embed_dim": 128, "vision_cfg": VISION, "text_cfg": TEXT | {"vocab_size": len(tokenizer)}}
    preprocess = {"size": [SIDE, SIDE], "mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "squash"}
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": model_cfg, "preprocess_cfg": preprocess}, indent=1)
    )
    weights = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in clip.state_dict().items()}
    save_file(weights, folder / "open_clip_model.partial")
    os.replace(folder / "open_clip_model.partial", folder / "open_clip_model.safetensors")


def text_encoder(clip: open_clip.CLIP, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """CLIP's text tower as the ``CLIPTextModel`` that Stable Diffusion is conditioned on: same weights, other names."""
    width, layers = TEXT["width"], TEXT["layers"]
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=128,
        num_hidden_layers=layers,
        num_attention_heads=TEXT["heads"],
        max_position_embeddings=CONTEXT,
        hidden_act="gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    theirs = clip.state_dict()
    ours = {
        "embeddings.token_embedding.weight": theirs["token_embedding.weight"],
        "embeddings.position_embedding.weight": theirs["positional_embedding"],
        **{f"final_layer_norm.{p}": theirs[f"ln_final.{p}"] for p in ("weight", "bias")},
    }
    names = {
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "attn.out_proj": "self_attn.out_proj",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
    }
    for i in range(layers):
        for p in ("weight", "bias"):
            block, layer = f"transformer.resblocks.{i}.", f"encoder.layers.{i}."
            for a, b in names.items():
                ours[f"{layer}{b}.{p}"] = theirs[f"{block}{a}.{p}"]
            qkv = theirs[f"{block}attn.in_proj_{p}"].chunk(3)
            for name, part in zip("qkv", qkv, strict=True):
                ours[f"{layer}self_attn.{name}_proj.{p}"] = part
    model = CLIPTextModel(config).eval()
    prefix = "text_model." if any(k.startswith("text_model.") for k in model.state_dict()) else ""
    model.load_state_dict({prefix + k: v.clone() for k, v in ours.items()})
    return model


def contrastive_loss(logits: torch.Tensor, texts: list[str]) -> torch.Tensor:
    """CLIP's loss: each image finds its caption and each caption its image, by cross-entropy over the batch (B, B).

    Captions that are equal to the letter are not wrong answers to each other: they share the target.
    """
    same = torch.tensor([[s == t for t in texts] for s in texts])
    target = same / same.sum(1, keepdim=True)
    cross = torch.nn.functional.cross_entropy
    return (cross(logits, target) + cross(logits.T, target)) / 2


def fill(closeup: np.ndarray) -> np.ndarray:
    """A close-up (H, W, 3) uint8; where it is on black, the thing fills the picture, as in a crop of a proposal."""
    seen = closeup.max(-1) > 16
    box = Image.fromarray(seen).getbbox()
    if box is None or seen.mean() > 0.99:
        return closeup
    return np.asarray(Image.fromarray(closeup).crop(box).resize(closeup.shape[1::-1], Image.Resampling.BICUBIC))


@torch.no_grad()
def crop_hits(
    clip: open_clip.CLIP, tokenize: Callable[[list[str]], torch.Tensor], scenes: list[ToyScene]
) -> list[tuple[int, bool]]:
    """(scene, right?) for every true crop: the right kind among all 45, the tint being given in every phrase."""
    found, device = [], clip.logit_scale.device
    mean, std = torch.tensor(MEAN).to(device), torch.tensor(STD).to(device)
    phrases = {
        tint: [Phrase(c, tint=tint).text(np.random.default_rng(0), "a") for c in categories()]
        for tint in (None, *TINTS)
    }
    text = {tint: clip.encode_text(tokenize(p).to(device), normalize=True) for tint, p in phrases.items()}
    for number, scene in enumerate(scenes):
        pixels = torch.from_numpy(scene.image).permute(2, 0, 1).float().to(device) / 255
        images = ranking.crops(pixels, torch.from_numpy(scene.masks).to(device), SIDE, "square")
        features = encode_images(clip, images, mean, std)
        for thing, feature in zip(scene.things, features, strict=True):
            found.append((number, categories()[int((text[thing.tint] @ feature).argmax())] == thing.category))
    return found


def train_clip(
    work: Path,
    *,
    steps: int = 4_200,
    scenes: int = 20_000,
    closeups: int = 40_000,
    stop_at: int | None = None,
    lr: float = 1e-3,
) -> tuple[open_clip.CLIP, CLIPTokenizer]:
    """Train, or go on training, in ``work/clip``; returns the model with averaged weights and its tokenizer."""
    torch.manual_seed(0)
    near, near_things = load_scenes(work / "scenes", "closeup", closeups, SIDE)
    far, far_things = load_scenes(work / "scenes", "train", scenes)
    tokenizer_dir = work / "tokenizer"
    tokenizer = (
        CLIPTokenizer.from_pretrained(tokenizer_dir) if tokenizer_dir.exists() else save_tokenizer(tokenizer_dir)
    )
    clip = make_clip(len(tokenizer))
    looked_at = [make_scene("val", i) for i in range(LOOKED_AT)]

    def loss(generator: torch.Generator, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        a, b = rng.integers(0, len(near), BATCH // 2), rng.integers(0, len(far), BATCH // 2)
        small = torch.nn.functional.avg_pool2d(to_tensor(far[np.sort(b)]), 2)
        sharp = to_tensor(np.stack([fill(image) for image in near[np.sort(a)]]))
        blurred = torch.nn.functional.avg_pool2d(sharp[::2], 2)
        sharp[::2] = torch.nn.functional.interpolate(blurred, size=SIDE, mode="bicubic")
        images = torch.cat([sharp, small])
        texts = [caption(near_things[i], rng) for i in np.sort(a)] + [
            caption(far_things[i], rng, 0.8) for i in np.sort(b)
        ]
        image, text, scale = clip(images, tokens(tokenizer, texts))
        logits = scale * image @ text.T
        value = contrastive_loss(logits, texts)
        return value, {"top1": (logits.argmax(1) == torch.arange(BATCH)).float().mean().item()}

    def report(model: torch.nn.Module) -> dict[str, float]:
        hits = crop_hits(clip, lambda texts: tokens(tokenizer, texts), looked_at)
        return {"crop_accuracy": float(np.mean([hit for _, hit in hits]))}

    for _ in train(
        clip, loss, work / "clip", steps=steps, lr=lr, stop_at=stop_at, every=250, weight_decay=0.05, report=report
    ):
        pass
    return clip, tokenizer
