"""Ours: a parsed relation or place in an order is checked on the proposals' geometry, after HybridGL's idea.

The full method scores the thing without its relation ("the cup"), which says how surely each proposal is one. "Left of the
dog": each proposal's chance to be a cup, times the chance that what is the dog lies to its right. "Second from the left": its
chance to be a cup, times the chance that exactly one other cup lies further to the left. Expressions that hold neither are
answered by the full method.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..expression import Expression, parse
from ..proposals import Proposals
from .common import Scored, along, full

if TYPE_CHECKING:
    from ..scene import Scene


@dataclass(frozen=True)
class Relations:
    """Constants of the relations."""

    weight: float = 4.0
    """[V] S = S of the full method + weight * the chance."""
    margin: float = 0.2
    """[V] A proposal this far below the best one's S is as likely one of the named things as not."""
    temperature: float = 0.05
    """[V] How fast that chance falls with S; also of the softmax over landmarks."""
    width: float = 0.05
    """[I] Lead in shares of the side at which a relation is as good as certain."""
    overlap: float = 0.5
    """[I] Proposals that share more of the smaller one than this are one thing; the better one stays."""


def constants(preset: str) -> Relations:
    """Chosen on ToyRef val with the toy networks (``python -m studies.successors --choose``), used for all."""
    return Relations()


def score(scene: Scene, expression: Expression, proposals: Proposals, values: Relations) -> Scored:
    """S of the full method plus the weighted chance that relation and order hold."""
    found = full(scene, expression, proposals)
    chance = torch.zeros_like(found.s)
    if (evidence := gather(scene, expression, proposals)) is not None:
        chance = chances(expression, proposals.masks, *evidence, values)
    return found._replace(s=found.s + values.weight * chance)


def gather(scene: Scene, expression: Expression, proposals: Proposals) -> tuple[torch.Tensor, torch.Tensor] | None:
    """S of the thing without its relation and of the landmark, each (N,); None where the expression has no relation."""
    link = expression.ordinal or expression.relation
    if link is None or not len(proposals):
        return None
    none = torch.zeros(len(proposals))
    own = full(scene, parse(link.core), proposals).s if link.core else none
    mark = getattr(link, "landmark", "")
    return own, full(scene, parse(mark), proposals).s if mark else none


def chances(
    expression: Expression,
    masks: Bool[Tensor, "n h w"],
    own: Float[Tensor, " n"],
    mark: Float[Tensor, " n"],
    values: Relations,
) -> Float[Tensor, " n"]:
    """The chance of each proposal to be what the relation or the order names, (N,) in [0, 1].

    Args:
        own: S of the thing without its relation. mark: S of the landmark.
    """
    ordinal, relation = expression.ordinal, expression.relation
    link = ordinal or relation
    assert link is not None
    member = (
        torch.sigmoid((own - own.max() + values.margin) / values.temperature) if link.core else torch.ones_like(own)
    )
    kept = distinct(masks, own if link.core else masks.flatten(1).sum(1).float(), values.overlap)
    if ordinal is not None:
        return in_order(member * kept, measure(masks, ordinal.by), ordinal.number)
    assert relation is not None
    place = along(masks, relation.direction)
    holds = torch.sigmoid((place[:, None] - place[None, :]) / values.width)
    there = (mark / values.temperature).softmax(0)
    return member * (holds * there * ~torch.eye(len(masks), dtype=torch.bool)).sum(1)


def measure(masks: Bool[Tensor, "n h w"], by: str) -> Float[Tensor, " n"]:
    """What an order goes by, (N,): the first has the most of it."""
    if by in ("largest", "smallest"):
        size = masks.flatten(1).sum(1).float()
    elif by in ("tallest", "shortest"):
        size = masks.any(2).sum(1).float()
    else:
        return along(masks, by)
    return size if by in ("largest", "tallest") else -size


def in_order(member: Float[Tensor, " n"], amount: Float[Tensor, " n"], number: int) -> Float[Tensor, " n"]:
    """Chance that proposal i is a member and exactly ``number - 1`` other members have more of the amount, (N,)."""
    found = []
    for i in range(len(member)):
        ahead = member[amount > amount[i]]
        exactly = torch.zeros(len(member) + number + 1)
        exactly[0] = 1.0
        for p in ahead:  # one more candidate: the count stays, or grows by one
            exactly = exactly * (1 - p) + exactly.roll(1) * p
        found.append(member[i] * exactly[number - 1])
    return torch.stack(found)


def distinct(masks: Bool[Tensor, "n h w"], best: Float[Tensor, " n"], overlap: float) -> Bool[Tensor, " n"]:
    """Which proposals stay when each thing counts once, (N,): from the best down, those that overlap none before."""
    flat = masks.flatten(1).float()
    area = flat.sum(1).clamp_min(1)
    shared = (flat @ flat.T) / torch.minimum(area[:, None], area[None, :])
    kept = torch.zeros(len(masks), dtype=torch.bool)
    for i in best.argsort(descending=True, stable=True):
        kept[i] = not bool((shared[i] > overlap)[kept].any())
    return kept
