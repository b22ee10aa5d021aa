"""Six yardsticks that choose among the same proposals: three without a network, three with CLIP alone.

``random``, ``largest`` and ``oracle`` (the proposal that fits the truth best) bound what ranking can do;
``cropping``, ``region-token`` and ``global-local`` are the baselines that the paper compares with.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from einops import rearrange
from torch.nn.functional import adaptive_avg_pool2d, interpolate, normalize

from .. import ranking
from ..expression import Expression
from ..fusion import choose
from ..networks import Networks, clip
from ..pipeline import Scene
from ..proposals import Proposals

GLOBAL_SHARE = 0.95
"""Share of the global feature in Global-Local CLIP, as in its code for RefCOCO and RefCOCO+ (0.85 for RefCOCOg)."""
MASKED_BLOCKS = 0.25
"""Share of CLIP's last blocks before which tokens outside the mask are zeroed: the last 3 of 12 in its code."""


def baseline(
    name: str, scene: Scene, expression: Expression, proposals: Proposals, sent_id: int, fits: Sequence[float]
) -> int | None:
    """Index of the proposal that a baseline chooses; None where there is none.

    Args:
        sent_id: seeds the random choice, so that order, shards and restarts do not matter.
        fits: IoU of each proposal with the truth, for "oracle" alone.
    """
    if not len(proposals):
        return None
    if name == "random":
        return random_choice(len(proposals), scene.config.seed, sent_id)
    if name == "largest":
        return int(proposals.masks.flatten(1).sum(1).argmax())
    if name == "oracle":
        return int(np.argmax(fits))
    return choose(clip_scores(name, scene, expression, proposals))


def random_choice(count: int, seed: int, sent_id: int) -> int:
    """A proposal drawn for this sentence alone, so that order, shards and restarts do not matter."""
    return int(np.random.default_rng([seed, sent_id]).integers(count))


@torch.no_grad()
def global_features(networks: Networks, proposals: Proposals) -> torch.Tensor:
    """Global-Local CLIP's global branch: CLIP sees the whole image, its last blocks only the tokens inside the mask.

    Returns:
        (N, D), each of length 1; the proposals keep them.
    """
    if ("global",) not in proposals.features:
        visual = networks.use("clip").visual
        pixels = rearrange(torch.tensor(proposals.image), "h w rgb -> 1 rgb h w").float() / 255
        side = (visual.image_size[0], visual.image_size[1])
        x = interpolate(pixels, side, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        x = clip.standardise(x, networks.clip_mean, networks.clip_std, visual.conv1.weight)
        start, patches, grid = clip.embed(visual, x)
        inside = adaptive_avg_pool2d(proposals.masks[:, None].float(), grid).flatten(1)[..., None].to(x)
        hidden = torch.cat([start, patches], 1)
        blocks = visual.transformer.resblocks
        first = round(len(blocks) * (1 - MASKED_BLOCKS))
        for number, block in enumerate(blocks):
            if number >= first:
                hidden = hidden.expand(len(proposals), -1, -1)
                hidden = torch.cat([hidden[:, :1], hidden[:, 1:] * inside], 1)
            hidden = block(hidden)
        proposals.features["global",] = networks.check_finite("clip", clip.project(visual, hidden[:, 0]))
    return proposals.features["global",]


def clip_scores(name: str, scene: Scene, expression: Expression, proposals: Proposals) -> torch.Tensor:
    """Score of every proposal by one of the three CLIP baselines, (N,) float32 on the CPU.

    "cropping" is the masked crop, "region-token" the class token that sees its mask alone (no positional bias, the
    sentence alone), "global-local" mixes whole image and crop, and sentence and noun half and half (Yu et al. 2023).
    """
    networks, text = scene.model.networks, scene.text_features(expression)
    branch: ranking.Branch = "masked" if name == "region-token" else "crop"
    with networks.at_work():
        features = ranking.visual_features(networks, proposals, branch, (), scene.config)
        if name == "global-local":
            mixed = GLOBAL_SHARE * global_features(networks, proposals) + (1 - GLOBAL_SHARE) * features
            features = normalize(mixed, dim=-1)
    return ranking.branch_score(features, text, 0.5 if name == "global-local" else 0.0)
