"""CLIP as open_clip builds it, and its insides: a class token for each mask, images of any size, texts."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from torch.nn.functional import adaptive_avg_pool2d, interpolate, normalize

IMAGES = 64
"""Images that go through CLIP together."""


def embed(visual: Any, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, tuple[int, int]]:
    """Class token (B, 1, D), patch tokens (B, P, D) before the transformer, and the grid, for any image size.

    Position embeddings are interpolated (bicubic) where the grid is not the trained one.
    """
    patches = visual.conv1(pixels)
    grid = (patches.shape[2], patches.shape[3])
    position = visual.positional_embedding
    place = rearrange(position[1:], "(h w) d -> 1 d h w", h=visual.grid_size[0])
    if grid != tuple(visual.grid_size):
        place = interpolate(place.float(), grid, mode="bicubic", align_corners=False).to(place)
    patches = rearrange(patches + place, "b d h w -> b (h w) d")
    start = (visual.class_embedding + position[0]).expand(len(pixels), 1, -1)
    return visual.ln_pre(start), visual.ln_pre(patches), grid


def project(visual: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Class tokens (N, width) after the transformer as features (N, D), each of length 1."""
    return normalize(visual.ln_post(hidden) @ visual.proj, dim=-1)


@torch.no_grad()
def encode_images(clip: Any, images: list[torch.Tensor], mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Features of images (3, h, w) in [0, 1], (N, D), each of length 1.

    Images of one size go together, :data:`IMAGES` at a time; at another size than CLIP's the patches at the right and
    lower border that are not whole are left out.
    """
    weight = clip.visual.conv1.weight
    out: list[torch.Tensor] = [torch.empty(0)] * len(images)
    for size in {tuple(i.shape[1:]) for i in images}:
        rows = [n for n, i in enumerate(images) if tuple(i.shape[1:]) == size]
        for part in (rows[i : i + IMAGES] for i in range(0, len(rows), IMAGES)):
            start, patches, _ = embed(
                clip.visual, standardise(torch.stack([images[n] for n in part]), mean, std, weight)
            )
            hidden = clip.visual.transformer(torch.cat([start, patches], 1))[:, 0]
            for n, feature in zip(part, project(clip.visual, hidden), strict=True):
                out[n] = feature
    return torch.stack(out) if out else torch.zeros(0, clip.visual.proj.shape[1]).to(weight)


def standardise(pixels: torch.Tensor, mean: torch.Tensor, std: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Pixels in [0, 1] as CLIP was trained to see them, on the device and in the dtype of ``like``."""
    return ((pixels.to(mean.device) - mean[:, None, None]) / std[:, None, None]).to(like)


def mask_attention(patch_masks: torch.Tensor) -> torch.Tensor:
    """Additive attention mask for N class tokens in front of P patches, (N + P, N + P): 0 where attention may go.

    Each class token sees itself and its own patches; patches see all patches and no class token. It must be float
    with -inf: open_clip would add a bool mask as 0 and 1, which is silently wrong.
    """
    n, p = patch_masks.shape
    allowed = torch.zeros(n + p, n + p, dtype=torch.bool, device=patch_masks.device)
    allowed[:n, :n] = torch.eye(n, dtype=torch.bool, device=patch_masks.device)
    allowed[:n, n:] = patch_masks
    allowed[n:, n:] = True
    return torch.zeros(n + p, n + p, device=patch_masks.device).masked_fill(~allowed, float("-inf"))


@torch.no_grad()
def encode_masks(
    clip: Any, pixels: torch.Tensor, masks: torch.Tensor, side: tuple[int, int], mean: torch.Tensor, std: torch.Tensor
) -> torch.Tensor:
    """f_M of the paper: the class token of each mask may attend to that mask's patches alone, all N in one pass.

    Args:
        pixels: image in [0, 1], (3, H, W). masks: (N, H, W) bool. side: (h, w) to resize the image to.

    Returns:
        (N, D) features, each of length 1. A mask smaller than any patch keeps the patch that it covers most.
    """
    if not len(masks):
        return encode_images(clip, [], mean, std)
    weight = clip.visual.conv1.weight
    x = interpolate(pixels[None], side, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    start, patches, grid = embed(clip.visual, standardise(x, mean, std, weight))
    cover = torch.cat([adaptive_avg_pool2d(m.float(), grid) for m in masks.split(IMAGES)]).flatten(1)
    inside = cover >= cover.amax(1, keepdim=True).clamp_max(0.5)
    bias = mask_attention(inside.to(weight.device)).to(weight)
    hidden = torch.cat([start.expand(1, len(masks), -1), patches], 1)
    hidden = clip.visual.transformer(hidden, attn_mask=bias)[0, : len(masks)]
    return project(clip.visual, hidden)


@torch.no_grad()
def encode_text(clip: Any, tokenizer: Any, sentence: str, noun: str) -> torch.Tensor:
    """Features of the sentence and of its head noun, (2, D), each of length 1; no prompt template (both sources)."""
    tokens = tokenizer([sentence, noun]).to(clip.visual.conv1.weight.device)
    return clip.encode_text(tokens, normalize=True)
