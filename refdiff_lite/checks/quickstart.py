"""Checks of lesson 0."""

import numpy as np
import torch

from ..evaluation import metrics
from . import Check


def _masks() -> list[tuple]:
    rng = np.random.default_rng(0)
    return [(rng.random((6, 8)) > 0.5, rng.random((6, 8)) > 0.3), (np.eye(4, dtype=bool), np.ones((4, 4), bool))]


check_iou = Check(
    metrics.iou,
    {
        "that is the share of the true mask that was found (recall): divide by the union instead": (
            lambda mask, truth: (mask & truth).sum() / truth.sum()
        ),
        "that is the share of equal pixels: background that both leave out must not count": (
            lambda mask, truth: (mask == truth).mean()
        ),
        "that is the intersection in pixels: divide it by the union": lambda mask, truth: float((mask & truth).sum()),
    },
    "IoU is right: 1 for the same mask, 0 for masks that do not meet",
    cases=_masks,
)

check_head = Check(
    {"head": "cup", "cues": ("right",)},
    {
        "the head is the thing that is named, not the thing that it stands near": {"head": "gift", "cues": ("right",)},
        '"left of the gift" places the cup against the gift: it is a relation, not a place in the picture': {
            "head": "cup",
            "cues": ("right", "left"),
        },
        "one of the two direction words is a cue: the one that is not followed by 'of'": {"head": "cup", "cues": ()},
    },
    "right: the head word is where attention is read, the cue tells CLIP where to look",
)


def _scores() -> list[tuple]:
    generator = torch.Generator().manual_seed(0)
    return [(*tuple(torch.rand(7, generator=generator) for _ in range(2)), alpha) for alpha in (0.0, 0.3, 0.6, 1.0)]


check_choose = Check(
    lambda s_g, s_d, alpha: int((alpha * s_g + (1 - alpha) * s_d).argmax()),
    {
        "alpha weighs S_G, and 1 - alpha weighs S_D: yours are exchanged": (
            lambda s_g, s_d, alpha: int((alpha * s_d + (1 - alpha) * s_g).argmax())
        ),
        "that is the worst proposal: take argmax": (
            lambda s_g, s_d, alpha: int((alpha * s_g + (1 - alpha) * s_d).argmin())
        ),
        "that is the best score; the index of its proposal is asked for": (
            lambda s_g, s_d, alpha: float((alpha * s_g + (1 - alpha) * s_d).max())
        ),
    },
    "that is Ref-Diff's last line: one weighted sum, one argmax",
    cases=_scores,
)
