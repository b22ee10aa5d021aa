"""Checks of lesson 6."""

import torch
from torchvision.ops import masks_to_boxes

from .. import ranking
from ..networks import clip
from . import Check


def _box(mask: torch.Tensor) -> tuple[int, int, int, int]:
    """Inclusive corners, as torchvision gives them: left, top, right, bottom."""
    left, top, right, bottom = masks_to_boxes(mask[None])[0].int().tolist()
    return left, top, right, bottom


def _right_box(mask: torch.Tensor) -> tuple[int, int, int, int]:
    left, top, right, bottom = _box(mask)
    return top, bottom + 1, left, right + 1


def _off_by_one(mask: torch.Tensor) -> tuple[int, int, int, int]:
    left, top, right, bottom = _box(mask)
    return top, bottom, left, right


def _exchanged(mask: torch.Tensor) -> tuple[int, int, int, int]:
    left, top, right, bottom = _box(mask)
    return left, right + 1, top, bottom + 1


def _masks() -> list[tuple]:
    masks = torch.zeros(3, 7, 9, dtype=torch.bool)
    masks[0, 2:4, 3:8] = masks[1, 6, 0] = masks[2, 0, 2] = masks[2, 5, 8] = True
    return [(m,) for m in masks]


check_box = Check(
    _right_box,
    {
        "the last row and column are cut off: a slice leaves its end out, so add 1": _off_by_one,
        "rows and columns are exchanged: mask.any(1) says which rows hold a pixel": _exchanged,
    },
    "a box as slices need it: nothing of the mask is lost, nothing empty is kept",
    cases=_masks,
)


def _patch_masks() -> list[tuple]:
    generator = torch.Generator().manual_seed(0)
    return [(torch.rand(n, p, generator=generator) > 0.5,) for n, p in ((2, 4), (3, 5), (2, 3))]


def _patches_see_tokens(patch_masks: torch.Tensor) -> torch.Tensor:
    bias = clip.mask_attention(patch_masks).clone()
    bias[len(patch_masks) :, : len(patch_masks)] = 0
    return bias


def _tokens_see_tokens(patch_masks: torch.Tensor) -> torch.Tensor:
    bias = clip.mask_attention(patch_masks).clone()
    bias[: len(patch_masks), : len(patch_masks)] = 0
    return bias


check_attention_mask = Check(
    clip.mask_attention,
    {
        "that is `allowed` itself: open_clip would add it as 1 and 0; make it float, 0 and -inf": (
            lambda patch_masks: clip.mask_attention(patch_masks) == 0
        ),
        "patches must not see the class tokens: their rows (the lower left block) are -inf": _patches_see_tokens,
        "a class token must not see other class tokens: the upper left block is a diagonal": _tokens_see_tokens,
        "that is transposed: rows are queries, who looks; columns are keys, what is looked at": (
            lambda patch_masks: clip.mask_attention(patch_masks).T
        ),
    },
    "N proposals in one pass, and no token knows of another",
    cases=_patch_masks,
)


def _ramp(cue: str, height: int, width: int) -> torch.Tensor:
    return ranking.positional_bias((cue,), (height, width))


_OPPOSITE = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}
_TURNED = {"left": "top", "right": "bottom", "top": "left", "bottom": "right"}

check_ramp = Check(
    _ramp,
    {
        "the wrong side is dimmed: P is 1 at the edge that the cue names": (
            lambda cue, height, width: _ramp(_OPPOSITE[cue], height, width)
        ),
        "the axes are exchanged: left and right run along the width, the second dimension": (
            lambda cue, height, width: _ramp(_TURNED[cue], height, width)
        ),
        "that is a hard half: P falls softly, linearly from edge to edge": (
            lambda cue, height, width: (_ramp(cue, height, width) >= 0.5).float()
        ),
    },
    "a ramp in the image, not in the score: CLIP decides what darkness means",
    cases=[(cue, 4, 6) for cue in _OPPOSITE],
)
