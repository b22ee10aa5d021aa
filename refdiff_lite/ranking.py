"""Lesson 6: CLIP's view of every proposal, as a masked crop and as a class token that sees only its mask."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from einops import rearrange
from torch.nn.functional import adaptive_avg_pool2d, interpolate, normalize
from torchvision.ops import masks_to_boxes

IMAGES = 64
"""Crops that go through CLIP together."""


def positional_bias(cues: tuple[str, ...], size: tuple[int, int], ramp: float = 1.0) -> torch.Tensor:
    """The soft ramp P that dims the side away from a cue: 1 at the cue's edge, 0 where the ramp ends.

    Args:
        cues: among left, right, top, bottom; several are multiplied, none gives ones.
        ramp: share of the axis over which P falls (paper: 1; official: 2/3, then 0).

    Returns:
        P, (H, W) float32 in [0, 1].
    """
    height, width = size
    bias = torch.ones(height, width)
    for cue in cues:
        length = width if cue in ("left", "right") else height
        fall = (1 - torch.arange(length) / max(1, length - 1) / ramp).clamp_min(0)
        fall = fall if cue in ("left", "top") else fall.flip(0)
        bias = bias * (fall[None, :] if cue in ("left", "right") else fall[:, None])
    return bias


def crops(
    pixels: torch.Tensor, masks: torch.Tensor, side: int, fit: Literal["square", "shorter"], multiple: int = 1
) -> list[torch.Tensor]:
    """Each proposal cut out tightly, black outside its mask.

    Args:
        pixels: image in [0, 1], (3, H, W). masks: (N, H, W) bool, none empty.
        side: CLIP's input side. multiple: the other side is rounded down to a multiple of this.
        fit: "square" squashes the crop, "shorter" fits its shorter side and keeps its shape.

    Returns:
        N tensors (3, h, w) in [0, 1]; h = w = side for "square".
    """
    found = []
    for mask, (x0, y0, x1, y1) in zip(masks, masks_to_boxes(masks).int().tolist(), strict=True):
        box = np.s_[..., y0 : y1 + 1, x0 : x1 + 1]
        crop = pixels[box] * mask[box]
        h, w = crop.shape[1:]
        size = (side, side)
        if fit == "shorter":
            # A sliver would become endless: at most four times as long as wide.
            h, w = (min(side * n // min(h, w), 4 * side) // multiple * multiple for n in (h, w))
            size = (h, w)
        out = interpolate(crop[None], size, mode="bicubic", antialias=True, align_corners=False)
        found.append(out[0].clamp(0, 1))
    return found


def _tokens(visual: Any, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, tuple[int, int]]:
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


def _project(visual: Any, hidden: torch.Tensor) -> torch.Tensor:
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
            start, patches, _ = _tokens(
                clip.visual, _normalise(torch.stack([images[n] for n in part]), mean, std, weight)
            )
            hidden = clip.visual.transformer(torch.cat([start, patches], 1))[:, 0]
            for n, feature in zip(part, _project(clip.visual, hidden), strict=True):
                out[n] = feature
    return torch.stack(out) if out else torch.zeros(0, clip.visual.proj.shape[1]).to(weight)


def _normalise(pixels: torch.Tensor, mean: torch.Tensor, std: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
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
    start, patches, grid = _tokens(clip.visual, _normalise(x, mean, std, weight))
    cover = torch.cat([adaptive_avg_pool2d(m.float(), grid) for m in masks.split(IMAGES)]).flatten(1)
    inside = cover >= cover.amax(1, keepdim=True).clamp_max(0.5)
    bias = mask_attention(inside.to(weight.device)).to(weight)
    hidden = torch.cat([start.expand(1, len(masks), -1), patches], 1)
    hidden = clip.visual.transformer(hidden, attn_mask=bias)[0, : len(masks)]
    return _project(clip.visual, hidden)


@torch.no_grad()
def encode_text(clip: Any, tokenizer: Any, sentence: str, noun: str) -> torch.Tensor:
    """Features of the sentence and of its head noun, (2, D), each of length 1; no prompt template (both sources)."""
    tokens = tokenizer([sentence, noun]).to(clip.visual.conv1.weight.device)
    return clip.encode_text(tokens, normalize=True)


def discriminative_score(features: torch.Tensor, text: torch.Tensor, noun_share: float) -> torch.Tensor:
    """``S_D(i) = v_i · r`` of one branch; r mixes sentence and noun (paper: their mean).

    Args:
        features: (N, D). text: (2, D) from :func:`encode_text`. noun_share: 0 takes the sentence alone.

    Returns:
        (N,) float32.
    """
    r = (1 - noun_share) * text[0] + noun_share * text[1]
    return (features @ r).float()
