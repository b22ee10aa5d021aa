"""HybridGL (CVPR 2025): CLIP's best masks, judged again by how they lie to each other and by a heat map.

Of the best three masks each gains from those to which the relation in the sentence holds; and the heat map, dimmed by
a ramp along the sentence's direction, should lie inside the mask. Two things are other here: the heat map is the diffusion
model's word map, for there is no GEM, and S_D's crop and masked class token take the place of HybridGL's features.

Bugs of the official code that are not copied: its "right" relation never fires; after one image with few masks, k stays small
for all that follow; "up" and "down" are switched off.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from jaxtyping import Bool, Float
from torch import Tensor

from ..expression import Expression, parse
from ..fusion import generative_score
from ..proposals import Proposals
from ..ranking import positional_bias
from .common import Scored, along

if TYPE_CHECKING:
    from ..scene import Scene


@dataclass(frozen=True)
class HybridGL:
    """Constants of HybridGL."""

    top: int = 3
    """[C] Masks that are judged again: the best by CLIP."""
    landmarks: int = 6
    """[C] Masks of another noun of the sentence that a relation may hold to."""
    inside: float = 1.8
    """[C] b: coherence is (2 - b) times the mean inside minus b times the mean outside."""
    relation_share: float = 0.4
    """[C] Weights 0.4 and 0.6; [I] that the smaller one is the relation's."""
    scale: float = 100.0
    """[I] CLIP's similarities are multiplied by this (CLIP's own logit scale) before they become shares."""


def constants(preset: str) -> HybridGL:
    """The code's for all networks: nothing was chosen on ToyRef."""
    return HybridGL()


def score(scene: Scene, expression: Expression, proposals: Proposals, values: HybridGL) -> Scored:
    """S of HybridGL; masks that are not among the best by CLIP stay below them, in CLIP's order."""
    c, masks = scene.word_map(expression), proposals.masks
    s_d = scene.discriminative_scores(replace(expression, cues=()), proposals)
    s_g = generative_score(c, masks)
    if not len(masks):
        return Scored(c, s_g, s_d, s_g)
    shares = (values.scale * s_d).softmax(0)
    top = shares.topk(min(values.top, len(masks))).indices
    relation, ordinal = expression.relation, expression.ordinal
    if relation is not None:
        mark = scene.discriminative_scores(parse(relation.landmark), proposals)
        theirs = (values.scale * mark).softmax(0)
        others = theirs.topk(min(values.landmarks, len(masks))).indices
        holds = further(along(masks[top], relation.direction), along(masks[others], relation.direction))
        related = relation_score(shares[top], theirs[others], holds & (top[:, None] != others))
    elif ordinal is not None and ordinal.by in ("largest", "smallest"):
        area = masks[top].flatten(1).sum(1).float() * (1 if ordinal.by == "largest" else -1)
        related = relation_score(shares[top], shares[top], further(area, area))
    else:
        related = shares[top].softmax(0)
    heat = c * positional_bias(expression.cues, scene.size)
    fits = coherence(heat, masks[top], values.inside)
    s = s_d - 1e3
    s[top] = values.relation_share * related + (1 - values.relation_share) * fits
    return Scored(c, s_g, s_d, s)


def further(mine: Float[Tensor, " k"], theirs: Float[Tensor, " m"]) -> Bool[Tensor, "k m"]:
    """Whether each of mine lies further along than each of theirs."""
    return mine[:, None] > theirs[None, :]


def relation_score(
    shares: Float[Tensor, " k"], others: Float[Tensor, " m"], holds: Bool[Tensor, "k m"]
) -> Float[Tensor, " k"]:
    """Softmax over i of ``sum_j s_i s_j [the relation holds from i to j]``."""
    return (shares[:, None] * others[None, :] * holds).sum(1).softmax(0)


def coherence(heat: Float[Tensor, "h w"], masks: Bool[Tensor, "k h w"], b: float) -> Float[Tensor, " k"]:
    """``(2 - b) mean inside - b mean outside`` of the heat over its mean, (k,)."""
    heat = heat / heat.mean().clamp_min(1e-8)
    inside = (heat * masks).sum((1, 2)) / masks.sum((1, 2)).clamp_min(1)
    outside = (heat * ~masks).sum((1, 2)) / (~masks).sum((1, 2)).clamp_min(1)
    return (2 - b) * inside - b * outside
