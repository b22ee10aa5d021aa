"""Six yardsticks that choose among the same proposals: three without a network, three with CLIP alone.

``random``, ``largest`` and ``oracle`` (the proposal that fits the truth best) bound what ranking can do;
``cropping``, ``region-token`` and ``global-local`` are the baselines that the paper compares with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from . import ranking
from .expression import Expression

if TYPE_CHECKING:
    from .pipeline import Scene

GLOBAL_SHARE = 0.95
"""Share of the global feature in Global-Local CLIP, as in its code for RefCOCO and RefCOCO+ (0.85 for RefCOCOg)."""
MASKED_BLOCKS = 0.25
"""Share of CLIP's last blocks before which tokens outside the mask are zeroed: the last 3 of 12 in its code."""


def random_choice(count: int, seed: int, sent_id: int) -> int:
    """A proposal drawn for this sentence alone, so that order, shards and restarts do not matter."""
    return int(np.random.default_rng([seed, sent_id]).integers(count))


@torch.no_grad()
def global_features(scene: Scene, masks: torch.Tensor) -> torch.Tensor:
    """Global-Local CLIP's global branch: CLIP sees the whole image, its last blocks only the tokens inside the mask.

    Returns:
        (N, D), each of length 1.
    """
    nets = scene.model.backbones
    visual, weight = nets.clip.visual, nets.clip.visual.conv1.weight
    pixels = torch.from_numpy(scene.image).permute(2, 0, 1).float().to(nets.device) / 255
    side = (visual.image_size[0], visual.image_size[1])
    x = torch.nn.functional.interpolate(pixels[None], side, mode="bicubic", antialias=True, align_corners=False)
    x = ((x.clamp(0, 1) - nets.clip_mean[:, None, None]) / nets.clip_std[:, None, None]).to(weight)
    start, patches, grid = ranking._tokens(visual, x)
    inside = torch.nn.functional.adaptive_avg_pool2d(masks[:, None].float(), grid).flatten(1)[..., None].to(x)
    hidden = torch.cat([start, patches], 1)
    blocks = visual.transformer.resblocks
    first = round(len(blocks) * (1 - MASKED_BLOCKS))
    for number, block in enumerate(blocks):
        if number >= first:
            hidden = hidden.expand(len(masks), -1, -1)
            hidden = torch.cat([hidden[:, :1], hidden[:, 1:] * inside], 1)
        hidden = block(hidden)
    return ranking._project(visual, hidden[:, 0])


def clip_scores(name: str, scene: Scene, expression: Expression, kind: str, masks: torch.Tensor) -> torch.Tensor:
    """Score of every proposal by one of the three CLIP baselines, (N,) float32 on the CPU.

    "cropping" is the masked crop, "region-token" the class token that sees its mask alone (no positional bias, the
    sentence alone), "global-local" mixes whole image and crop, and sentence and noun half and half (Yu et al. 2023).
    """
    nets = scene.model.backbones
    text = ranking.encode_text(nets.clip, nets.clip_tokenizer, expression.text, expression.head)
    if name == "global-local":
        key: Any = ("global", kind, ())
        if key not in scene._features or kind == "weak":
            scene._features[key] = global_features(scene, masks.to(nets.device))
        features = GLOBAL_SHARE * scene._features[key] + (1 - GLOBAL_SHARE) * scene.visual("crop", kind, masks, ())
        features = torch.nn.functional.normalize(features, dim=-1)
    else:
        features = scene.visual("crop" if name == "cropping" else "masked", kind, masks, ())
    return ranking.discriminative_score(features, text, 0.5 if name == "global-local" else 0.0).cpu()
