"""CLIP as open_clip builds it, and its insides: a class token for each mask, images of any size, texts."""

from __future__ import annotations

from typing import Any, Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate, linear, normalize, scaled_dot_product_attention

IMAGES = 64
"""Images of CLIP's own size that go through it together; of larger ones fewer, so that memory stays the same."""


def embed(
    visual: Any, pixels: Float[Tensor, "b 3 h w"], positions: Literal["fitted", "dino"] = "fitted"
) -> tuple[Float[Tensor, "b 1 d"], Float[Tensor, "b patches d"], tuple[int, int]]:
    """Class token (B, 1, D), patch tokens (B, P, D) before the transformer, and the grid, for any image size.

    Position embeddings are stretched (bicubic) where the grid is not the trained one; pixels at the right and lower
    border that fill no patch are left out.

    Args:
        positions: see :attr:`RefDiffConfig.positions`.
    """
    patches = visual.conv1(pixels)
    grid = (patches.shape[2], patches.shape[3])
    place = rearrange(visual.positional_embedding[1:], "(h w) d -> 1 d h w", h=visual.grid_size[0])
    if positions == "fitted" and grid != tuple(visual.grid_size):
        place = interpolate(place.float(), grid, mode="bicubic", align_corners=False)
    elif positions == "dino" and (grid != tuple(visual.grid_size) or pixels.shape[2] != pixels.shape[3]):
        scale = [(n + 0.1) / trained for n, trained in zip(grid, visual.grid_size, strict=True)]
        place = interpolate(place.float(), scale_factor=scale, mode="bicubic", align_corners=False)
    patches = rearrange(patches + place.to(patches), "b d h w -> b (h w) d")
    start = (visual.class_embedding + visual.positional_embedding[0]).to(patches).expand(len(pixels), 1, -1)
    return visual.ln_pre(start), visual.ln_pre(patches), grid


def attend(
    visual: Any, hidden: Float[Tensor, "b t d"], allowed: Bool[Tensor, "n t"] | None = None
) -> Float[Tensor, "b t d"]:
    """Tokens (B, T, D) after the transformer: what open_clip computes, in memory that grows with T and not with T².

    Args:
        allowed: the first N tokens are class tokens that see what this says, (N, T) bool; the others see one another
            and no class token, and so need no mask. Without it every token sees every token.
    """
    n = 0 if allowed is None else len(allowed)
    for block in visual.transformer.resblocks:
        attention = block.attn
        x = linear(block.ln_1(hidden), attention.in_proj_weight, attention.in_proj_bias)
        q, k, v = rearrange(x, "b t (three heads d) -> three b heads t d", three=3, heads=attention.num_heads)
        seen = scaled_dot_product_attention(q[:, :, n:], k[:, :, n:], v[:, :, n:])
        if n:
            seen = torch.cat([scaled_dot_product_attention(q[:, :, :n], k, v, attn_mask=allowed), seen], 2)
        hidden = hidden + block.ls_1(attention.out_proj(rearrange(seen, "b heads t d -> b t (heads d)")))
        hidden = hidden + block.ls_2(block.mlp(block.ln_2(hidden)))
    return hidden


def project(visual: Any, hidden: Float[Tensor, "n width"]) -> Float[Tensor, "n d"]:
    """Class tokens (N, width) after the transformer as features (N, D), not yet of length 1."""
    return visual.ln_post(hidden) @ visual.proj


@torch.no_grad()
def encode_images(
    clip: Any,
    images: list[Float[Tensor, "3 _ _"]],
    mean: Float[Tensor, 3],
    std: Float[Tensor, 3],
    positions: Literal["fitted", "dino"] = "fitted",
    unit: bool = True,
) -> Float[Tensor, "n d"]:
    """Features of images (3, h, w) in [0, 1], (N, D), each of length 1 unless ``unit`` is off.

    Images of one size go together, :data:`IMAGES` at a time.
    """
    visual = clip.visual
    weight = visual.conv1.weight
    out: list[torch.Tensor] = [torch.empty(0)] * len(images)
    for size in {tuple(i.shape[1:]) for i in images}:
        rows = [n for n, i in enumerate(images) if tuple(i.shape[1:]) == size]
        own = visual.image_size[0] * visual.image_size[1]
        together = max(1, min(IMAGES, IMAGES * own // (size[0] * size[1])))
        for part in (rows[i : i + together] for i in range(0, len(rows), together)):
            pixels = standardise(torch.stack([images[n] for n in part]), mean, std, weight)
            start, patches, _ = embed(visual, pixels, positions)
            features = project(visual, attend(visual, torch.cat([start, patches], 1))[:, 0])
            for n, feature in zip(part, normalize(features, dim=-1) if unit else features, strict=True):
                out[n] = feature
    return torch.stack(out) if out else torch.zeros(0, visual.proj.shape[1]).to(weight)


def standardise(
    pixels: Float[Tensor, "b 3 h w"], mean: Float[Tensor, 3], std: Float[Tensor, 3], like: torch.Tensor
) -> Float[Tensor, "b 3 h w"]:
    """Pixels in [0, 1] as CLIP was trained to see them, on the device and in the dtype of ``like``."""
    return ((pixels.to(mean.device) - mean[:, None, None]) / std[:, None, None]).to(like)


def mask_attention(patch_masks: Bool[Tensor, "n p"]) -> Float[Tensor, "n+p n+p"]:
    """Additive attention mask for N class tokens in front of P patches, (N + P, N + P): 0 where attention may go.

    Each class token sees itself and its own patches; patches see all patches and no class token. This is what
    :func:`encode_masks` computes, as one matrix for open_clip's own transformer; it does without, for the matrix grows
    with P². It must be float with -inf: open_clip would add a bool mask as 0 and 1, which is silently wrong.
    """
    n, p = patch_masks.shape
    allowed = torch.zeros(n + p, n + p, dtype=torch.bool, device=patch_masks.device)
    allowed[:n, :n] = torch.eye(n, dtype=torch.bool, device=patch_masks.device)
    allowed[:n, n:] = patch_masks
    allowed[n:, n:] = True
    return torch.zeros(n + p, n + p, device=patch_masks.device).masked_fill(~allowed, float("-inf"))


def patches_of(
    masks: Bool[Tensor, "n h w"], grid: tuple[int, int], rule: Literal["half", "nearest"]
) -> Bool[Tensor, "n p"]:
    """Which patches of the grid belong to each mask, (N, P) bool, from masks (N, H, W) bool.

    Args:
        rule: "half" takes those that the mask covers by half; a mask smaller than any patch keeps the one that it covers
            most. "nearest" takes those whose first pixel it holds, so that a small mask may have none.
    """
    if rule == "nearest":
        return interpolate(masks.view(torch.uint8)[:, None], grid, mode="nearest").flatten(1).bool()
    # One by one: as floats all masks of a large image would be gigabytes.
    cover = torch.stack([adaptive_avg_pool2d(m[None].float(), grid)[0] for m in masks]).flatten(1)
    return cover >= cover.amax(1, keepdim=True).clamp_max(0.5)


@torch.no_grad()
def encode_masks(
    clip: Any,
    pixels: Float[Tensor, "3 h w"],
    masks: Bool[Tensor, "n h w"],
    side: tuple[int, int],
    mean: Float[Tensor, 3],
    std: Float[Tensor, 3],
    rule: Literal["half", "nearest"] = "half",
    positions: Literal["fitted", "dino"] = "fitted",
) -> Float[Tensor, "n d"]:
    """f_M of the paper: the class token of each mask may attend to that mask's patches alone, all N in one pass.

    Args:
        pixels: image in [0, 1], (3, H, W). masks: (N, H, W) bool. side: (h, w) to resize the image to.
        rule: see :func:`patches_of`. positions: see :func:`embed`.

    Returns:
        (N, D) features, each of length 1.
    """
    if not len(masks):
        return encode_images(clip, [], mean, std)
    visual = clip.visual
    x = interpolate(pixels[None], side, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    start, patches, grid = embed(visual, standardise(x, mean, std, visual.conv1.weight), positions)
    inside = patches_of(masks, grid, rule).to(patches.device)
    allowed = torch.cat([torch.eye(len(masks), dtype=torch.bool, device=inside.device), inside], 1)
    hidden = attend(visual, torch.cat([start.expand(1, len(masks), -1), patches], 1), allowed)
    return normalize(project(visual, hidden[0, : len(masks)]), dim=-1)


@torch.no_grad()
def encode_text(clip: Any, tokenizer: Any, sentence: str, noun: str, unit: bool = True) -> Float[Tensor, "2 d"]:
    """Features of the sentence and of its head noun, (2, D), each of length 1 unless ``unit`` is off.

    No prompt template (both sources).
    """
    tokens = tokenizer([sentence, noun]).to(clip.visual.conv1.weight.device)
    return clip.encode_text(tokens, normalize=unit)
