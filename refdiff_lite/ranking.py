"""Lesson 6: CLIP's view of every proposal, as a masked crop and as a class token that sees only its mask."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from einops import rearrange
from torch.nn.functional import interpolate
from torchvision.ops import masks_to_boxes

from .config import RefDiffConfig
from .networks import Networks, clip
from .proposals import Proposals

Branch = Literal["crop", "masked"]


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


def branch_score(features: torch.Tensor, text: torch.Tensor, noun_share: float) -> torch.Tensor:
    """``v_i · r`` of one branch; r mixes sentence and noun (paper: their mean).

    Args:
        features: (N, D). text: (2, D), features of the sentence and of its noun. noun_share: 0 takes the sentence alone.

    Returns:
        (N,) float32 on the CPU.
    """
    features, text = features.float().cpu(), text.float().cpu()
    return features @ ((1 - noun_share) * text[0] + noun_share * text[1])


def discriminative_score(crop: torch.Tensor, masked: torch.Tensor, beta: float) -> torch.Tensor:
    """``S_D = beta * masked + (1 - beta) * crop``, (N,), from the scores of the two branches (paper, section 3)."""
    return beta * masked + (1 - beta) * crop


def visual_features(
    networks: Networks, proposals: Proposals, branch: Branch, cues: tuple[str, ...], config: RefDiffConfig
) -> torch.Tensor:
    """CLIP features of the proposals in one branch, (N, D), each of length 1; the proposals keep them.

    Args:
        cues: directions whose ramp P dims the image, if the config has P in this branch.
    """
    if config.axes == "horizontal":
        cues = tuple(c for c in cues if c in ("left", "right"))[:1]
    cues = cues if config.positional_bias in (branch, "both") else ()
    key = (branch, cues, config)
    if key not in proposals.features:
        # Cut and resized on the CPU, where image and masks are, so that every device sees the same.
        size = proposals.image.shape[:2]
        pixels = rearrange(torch.tensor(proposals.image), "h w rgb -> rgb h w").float() / 255
        pixels = pixels * positional_bias(cues, (size[0], size[1]), config.ramp)
        model, mean, std = networks.use("clip"), networks.clip_mean, networks.clip_std
        side = model.visual.image_size[0]
        if branch == "crop":
            images = crops(pixels, proposals.masks, side, config.crop_resize)
            features = clip.encode_images(model, images, mean, std)
        else:
            patch = model.visual.patch_size[0]
            height, width = (patch * max(1, round(n / patch)) for n in size)
            frame = (height, width) if config.masked_side == "full" else (side, side)
            features = clip.encode_masks(model, pixels, proposals.masks, frame, mean, std)
        proposals.features[key] = networks.check_finite("clip", features)
    return proposals.features[key]
