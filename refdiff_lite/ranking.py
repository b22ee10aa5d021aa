"""Lesson 6: CLIP's view of every proposal, as a masked crop and as a class token that sees only its mask."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.ops import masks_to_boxes

from .config import RefDiffConfig
from .networks import Networks, clip
from .proposals import Proposals

Branch = Literal["crop", "masked"]
SLIVER = 40
"""Longest side of a crop whose shape is kept, in multiples of the shorter. The official code knows no bound; on COCO's
pictures (at most 640 pixels) no mask of more than its 10000 pixels is that long, and a line of one pixel must not
become an image of 140000."""


def positional_bias(cues: tuple[str, ...], size: tuple[int, int], ramp: float = 1.0) -> Float[Tensor, "h w"]:
    """The soft ramp P that dims the side away from a cue: 1 at the cue's edge, 0 where the ramp ends.

    Args:
        cues: among left, right, top, bottom; several are multiplied, none gives ones.
        ramp: share of the axis over which P falls (paper: 1; official: 2/3, then 0); rounded down to whole pixels.

    Returns:
        P, (H, W) float32 in [0, 1].
    """
    height, width = size
    bias = torch.ones(height, width)
    for cue in cues:
        length = width if cue in ("left", "right") else height
        fall = (1 - torch.arange(length) / max(1, int(length * ramp) - 1)).clamp_min(0)
        fall = fall if cue in ("left", "top") else fall.flip(0)
        bias = bias * (fall[None, :] if cue in ("left", "right") else fall[:, None])
    return bias


def crops(
    pixels: Float[Tensor, "3 h w"],
    masks: Bool[Tensor, "n h w"],
    side: int,
    fit: Literal["square", "shorter"],
    fill: torch.Tensor | float = 0.0,
) -> list[Float[Tensor, "3 _ _"]]:
    """Each proposal cut out tightly, black outside its mask.

    Args:
        pixels: image in [0, 1], (3, H, W). masks: (N, H, W) bool, none empty.
        side: CLIP's input side.
        fit: "square" squashes the crop bicubically. "shorter" does as the official code: 256 levels (rounded down),
            then the shorter side resized to ``side`` bilinearly, the shape kept but for slivers (:data:`SLIVER`).
        fill: colour outside the mask, (3, 1, 1) or one number.

    Returns:
        N tensors (3, h, w) in [0, 1]; h = w = side for "square".
    """
    found = []
    for mask, (x0, y0, x1, y1) in zip(masks, masks_to_boxes(masks).int().tolist(), strict=True):
        box = np.s_[..., y0 : y1 + 1, x0 : x1 + 1]
        crop = torch.where(mask[box], pixels[box], fill)[None]
        if fit == "square":
            out = interpolate(crop, (side, side), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        else:
            size = [min(side * n // min(crop.shape[2:]), SLIVER * side) for n in crop.shape[2:]]
            levels = (crop * 255 + 1e-3).byte()  # k / 255 * 255 may lie a little under k
            out = interpolate(levels, size, mode="bilinear", antialias=True, align_corners=False) / 255
        found.append(out[0])
    return found


def branch_score(features: Float[Tensor, "n d"], text: Float[Tensor, "2 d"], noun_share: float) -> Float[Tensor, " n"]:
    """``v_i · r`` of one branch; r mixes sentence and noun (paper: their mean).

    Args:
        features: (N, D). text: (2, D), features of the sentence and of its noun. noun_share: 0 takes the sentence alone.

    Returns:
        (N,) float32 on the CPU.
    """
    features, text = features.float().cpu(), text.float().cpu()
    return features @ ((1 - noun_share) * text[0] + noun_share * text[1])


def discriminative_score(crop: Float[Tensor, " n"], masked: Float[Tensor, " n"], beta: float) -> Float[Tensor, " n"]:
    """``S_D = beta * masked + (1 - beta) * crop``, (N,), from the scores of the two branches (paper, section 3)."""
    return beta * masked + (1 - beta) * crop


def used_cues(branch: Branch, cues: tuple[str, ...], config: RefDiffConfig) -> tuple[str, ...]:
    """The cues whose ramp this branch gets: none where the config has P in the other branch."""
    if config.axes == "horizontal":
        cues = tuple(c for c in ("left", "right") if c in cues)[:1]  # the official code asks for left first
    return cues if config.positional_bias in (branch, "both") else ()


def biased(image: np.ndarray, cues: tuple[str, ...], ramp: float) -> Float[Tensor, "3 h w"]:
    """An (H, W, 3) uint8 image under the ramp of its cues, in [0, 1]."""
    pixels = rearrange(torch.tensor(image), "h w rgb -> rgb h w").float() / 255
    return pixels * positional_bias(cues, (image.shape[0], image.shape[1]), ramp)


def visual_features(
    networks: Networks, proposals: Proposals, branch: Branch, cues: tuple[str, ...], config: RefDiffConfig
) -> Float[Tensor, "n d"]:
    """CLIP features of the proposals in one branch, (N, D), each of length 1; the proposals keep them.

    Args:
        cues: directions whose ramp P dims the image, if the config has P in this branch.
    """
    cues = used_cues(branch, cues, config)
    key = (branch, cues, config)
    if key not in proposals.features:
        # Cut and resized on the CPU, where image and masks are, so that every device sees the same.
        size = (proposals.image.shape[0], proposals.image.shape[1])
        pixels = biased(proposals.image, cues, config.ramp)
        model, mean, std = networks.use("clip"), networks.clip_mean, networks.clip_std
        if branch == "crop":
            side, fit, place = model.visual.image_size[0], config.crop_resize, config.positions
            cut = (crops(pixels, part, side, fit) for part in proposals.masks.split(clip.IMAGES))
            features = torch.cat([clip.encode_images(model, part, mean, std, place) for part in cut])
        else:
            frame, rule = masked_frame(model.visual, size, config), config.masked_patches
            features = clip.encode_masks(model, pixels, proposals.masks, frame, mean, std, rule, config.positions)
        proposals.features[key] = networks.check_finite("clip", features)
    return proposals.features[key]


def masked_frame(visual: Any, size: tuple[int, int], config: RefDiffConfig) -> tuple[int, int]:
    """Size (h, w) in pixels at which the class tokens see an image of this size."""
    if config.masked_side == "clip":
        return (visual.image_size[0], visual.image_size[1])
    scale = min(1.0, config.masked_limit * max(visual.image_size) / max(size))
    patch = visual.patch_size[0]
    # The official code leaves out what fills no patch, "half" stretches the image to whole patches.
    step = 1 if config.masked_patches == "nearest" else patch
    height, width = (max(patch, step * round(n * scale / step)) for n in size)
    return (height, width)
