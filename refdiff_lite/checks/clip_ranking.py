"""Checks of lesson 6."""

import numpy as np
import torch
from torchvision.ops import masks_to_boxes

from .. import ranking
from ..networks import clip
from . import Check, Guess


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
    """One block, one pixel, and two pixels apart, in pictures of three shapes."""
    block, pixel, apart = (torch.zeros(size, dtype=torch.bool) for size in ((7, 9), (8, 3), (6, 11)))
    block[2:4, 3:8] = pixel[6, 0] = apart[0, 2] = apart[5, 8] = True
    return [(block,), (pixel,), (apart,)]


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
        "that is the bool matrix itself: open_clip would add it as 1 and 0; make it float, 0 and -inf": (
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

guess_bool_mask = Guess("mean cosine between different proposals under the bool mask")


def _layers() -> list[tuple]:
    """Queries, keys, values and masks; some logits are far below zero, so that no finite number walls anything off."""
    generator = torch.Generator().manual_seed(0)
    cases = []
    for n, p, d, e, scale in ((2, 5, 3, 4, 1), (3, 4, 6, 2, 1), (2, 7, 5, 3, 30)):
        q, keys, values = (torch.randn(*s, generator=generator) for s in ((n, d), (p, d), (p, e)))
        inside = torch.rand(n, p, generator=generator) > 0.5
        inside[:, 1] = True
        inside[:, 2] = False
        cases.append((scale * q, keys, values, inside))
    return cases


def _logits(q: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    return q @ keys.T / q.shape[1] ** 0.5


def _masked_attention(q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    return _logits(q, keys).masked_fill(~inside, float("-inf")).softmax(-1) @ values


check_masked_attention = Check(
    _masked_attention,
    {
        "the weights of a token sum to less than 1: mask before the softmax, so that it shares out everything inside": (
            lambda q, keys, values, inside: (_logits(q, keys).softmax(-1) * inside) @ values
        ),
        "a bool that is added counts as 0 and 1: a nudge, no wall": (
            lambda q, keys, values, inside: (_logits(q, keys) + inside).softmax(-1) @ values
        ),
        "a logit of 0 is not forbidden, exp(0) is 1: use -inf": (
            lambda q, keys, values, inside: (_logits(q, keys) * inside).softmax(-1) @ values
        ),
        "that looks outside and nowhere else: ~inside is what must get -inf": (
            lambda q, keys, values, inside: _masked_attention(q, keys, values, ~inside)
        ),
        "the logits lost their scale: divide by the square root of d": (
            lambda q, keys, values, inside: _masked_attention(q * q.shape[1] ** 0.5, keys, values, inside)
        ),
    },
    "forbidden before the softmax: nothing leaks, and what is left sums to 1",
    cases=_layers,
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
    cases=[(cue, *size) for cue, size in zip(_OPPOSITE, ((4, 6), (5, 3), (7, 4), (3, 8)), strict=True)],
)

Scores = np.ndarray | torch.Tensor


def winning_range(masked: Scores, crop: Scores, k: int) -> tuple[float, ...]:
    """(low, high) of the beta in [0, 1] for which proposal k has the highest score, () where there is none."""
    low, high = 0.0, 1.0
    for i in range(len(crop)):
        start, end = float(crop[k] - crop[i]), float(masked[k] - masked[i])  # the lead over i at beta = 0 and 1
        if i != k and min(start, end) < 0:
            tie = start / (start - end) if start != end else 1.0
            low, high = (max(low, tie if end > 0 else 1.0), high) if start < 0 else (low, min(high, tie))
    return (low, high) if low < high else ()


def _nearest_rival(masked: Scores, crop: Scores, k: int) -> tuple[float, ...]:
    """Against the best of the others by the crop alone; the rest is forgotten."""
    rival = max((i for i in range(len(crop)) if i != k), key=lambda i: float(crop[i]))
    pair = [rival, k]
    return winning_range(masked[pair], crop[pair], 1)


def _unclipped(masked: Scores, crop: Scores, k: int) -> tuple[float, ...]:
    """Every tie taken as an upper end."""
    ties = []
    for i in range(len(crop)):
        start, end = float(crop[k] - crop[i]), float(masked[k] - masked[i])
        if i != k and start * end < 0:
            ties.append(start / (start - end))
    return (0.0, min([1.0, *ties]))


def _on_a_grid(masked: Scores, crop: Scores, k: int) -> tuple[float, ...]:
    won = [
        b for b in np.linspace(0, 1, 101) if int(np.argmax(b * np.asarray(masked) + (1 - b) * np.asarray(crop))) == k
    ]
    return (float(won[0]), float(won[-1])) if won else ()


def _sentences() -> list[tuple]:
    rng = np.random.default_rng(5)
    cases = []
    for n in (2, 3, 4, 6):
        masked, crop = rng.normal(size=n), rng.normal(size=n)
        cases += [(masked, crop, k) for k in range(n)]
    return cases


check_winning_range = Check(
    winning_range,
    {
        "beta weighs the masked branch: yours weighs the crop": lambda masked, crop, k: winning_range(crop, masked, k),
        "one rival is not enough: each of them may cut off a part of the interval": _nearest_rival,
        "where k is behind at beta = 0 the tie is where it starts to win, not where it stops": _unclipped,
        "that is the grid's step, not the tie: solve for the beta at which k and a rival are equal": _on_a_grid,
    },
    "straight lines: the upper envelope belongs to each proposal in one piece",
    cases=_sentences,
)
