"""What several successors share."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .. import fusion
from ..expression import Expression
from ..proposals import Proposals

if TYPE_CHECKING:
    from ..scene import Scene


class Scored(NamedTuple):
    """What a variant makes of the proposals.

    Attributes:
        word_map: the map that it reads, (H, W) float32 in [0, 1].
        s_g, s_d: generative and discriminative score, each (N,); zeros where they are not asked for.
        s: what decides, (N,).
    """

    word_map: Float[Tensor, "h w"]
    s_g: Float[Tensor, " n"]
    s_d: Float[Tensor, " n"]
    s: Float[Tensor, " n"]


def full(scene: Scene, expression: Expression, proposals: Proposals) -> Scored:
    """The paper's full method."""
    c, config = scene.word_map(expression), scene.config
    s_g = fusion.generative_score(c, proposals.masks)
    s_d = scene.discriminative_scores(expression, proposals)
    return Scored(c, s_g, s_d, fusion.fuse(s_g, s_d, config.weight_g, config.weight_d))


def centres(masks: Bool[Tensor, "n h w"]) -> Float[Tensor, "n 2"]:
    """(x, y) of each mask's mean pixel, as shares of width and height."""
    h, w = masks.shape[1:]
    area = masks.sum((1, 2)).clamp_min(1)
    x = (masks.sum(1) * (torch.arange(w) + 0.5)).sum(1) / area / w
    y = (masks.sum(2) * (torch.arange(h) + 0.5)).sum(1) / area / h
    return torch.stack([x, y], 1).float()


def along(masks: Bool[Tensor, "n h w"], direction: str) -> Float[Tensor, " n"]:
    """How far each mask lies to the left, right, top or bottom, in shares of the side; larger is further."""
    axis, sign = {"left": (0, -1), "right": (0, 1), "top": (1, -1), "bottom": (1, 1)}[direction]
    return sign * centres(masks)[:, axis]
