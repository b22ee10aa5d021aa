"""Six yardsticks that choose among the same proposals: three without a network, three with CLIP alone.

``random``, ``largest`` and ``oracle`` (the proposal that fits the truth best) bound what ranking can do. ``cropping``,
``region-token`` and ``global-local`` are the baselines that the paper compares with; their constants are fixed here,
whatever the config says, after the code of Yu et al. 2023 (Seonghoon-Yu/Zero-shot-RIS).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from einops import rearrange
from torch.nn.functional import adaptive_avg_pool2d, interpolate, normalize

from .. import ranking
from ..config import RefDiffConfig
from ..expression import Expression, find_words
from ..fusion import choose
from ..networks import Networks, clip
from ..proposals import Proposals
from ..scene import Scene

CONFIG = RefDiffConfig.paper(positional_bias="none")
"""Of the ranking's constants: crops squashed to CLIP's square, masked class tokens at CLIP's own side, no P."""
GLOBAL_SHARES = {"refcocog": 0.85}
"""Share of the global feature in Global-Local CLIP, by data set; on all others 0.95."""
MASKED_BLOCKS = 0.25
"""Share of CLIP's last blocks before which tokens outside the mask are zeroed: the last 3 of 12."""
_DETERMINERS = frozenset("a an the this that these those his her its their my your our two three four five".split())
_ENDS = frozenset("of on in at with to by for from near behind beside under over above below is are has and or".split())


def baseline(
    name: str,
    scene: Scene,
    expression: Expression,
    proposals: Proposals,
    sent_id: int,
    fits: Sequence[float],
    dataset: str = "",
) -> int | None:
    """Index of the proposal that a baseline chooses; None where there is none.

    Args:
        sent_id: seeds the random choice, so that order, shards and restarts do not matter.
        fits: IoU of each proposal with the truth, for "oracle" alone.
        dataset: key of :data:`GLOBAL_SHARES`, or any other.
    """
    if not len(proposals):
        return None
    if name == "random":
        return random_choice(len(proposals), scene.config.seed, sent_id)
    if name == "largest":
        return int(proposals.masks.flatten(1).sum(1).argmax())
    if name == "oracle":
        return int(np.argmax(fits))
    return choose(clip_scores(name, scene, expression, proposals, dataset))


def random_choice(count: int, seed: int, sent_id: int) -> int:
    """A proposal drawn for this sentence alone, so that order, shards and restarts do not matter."""
    return int(np.random.default_rng([seed, sent_id]).integers(count))


def noun_phrase(expression: Expression) -> str:
    """The head with what stands before it in its phrase: "a small cat" of "left of a small cat on a mat"."""
    start = expression.span[0]
    for word in reversed(find_words(expression.text[:start])):
        found = word.group().lower()
        if found in _ENDS or not expression.text[word.end() : start].isspace():
            break
        start = word.start()
        if found in _DETERMINERS:
            break
    return expression.text[start : expression.span[1]]


@torch.no_grad()
def global_features(networks: Networks, proposals: Proposals) -> torch.Tensor:
    """Global-Local CLIP's global branch: CLIP sees the whole image, its last blocks only the tokens inside the mask.

    Returns:
        (N, D), not of length 1.
    """
    visual = networks.use("clip").visual
    pixels = rearrange(torch.tensor(proposals.image), "h w rgb -> 1 rgb h w").float() / 255
    side = (visual.image_size[0], visual.image_size[1])
    x = interpolate(pixels, side, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    x = clip.standardise(x, networks.clip_mean, networks.clip_std, visual.conv1.weight)
    start, patches, grid = clip.embed(visual, x)
    whole = torch.cat([start, patches], 1)
    blocks = list(visual.transformer.resblocks)
    first = round(len(blocks) * (1 - MASKED_BLOCKS))
    for block in blocks[:first]:
        whole = block(whole)
    found = []
    for masks in proposals.masks.split(clip.IMAGES):
        inside = adaptive_avg_pool2d(masks[:, None].float(), grid).flatten(1)[..., None].to(x)
        hidden = whole.expand(len(masks), -1, -1)
        for block in blocks[first:]:
            hidden = block(torch.cat([hidden[:, :1], hidden[:, 1:] * inside], 1))
        found.append(clip.project(visual, hidden[:, 0]))
    return torch.cat(found)


def local_features(networks: Networks, proposals: Proposals) -> torch.Tensor:
    """Its local branch: square crops in which CLIP's mean colour surrounds the thing; (N, D), not of length 1."""
    model, mean, std = networks.use("clip"), networks.clip_mean, networks.clip_std
    pixels = rearrange(torch.tensor(proposals.image), "h w rgb -> rgb h w").float() / 255
    found = []
    for masks in proposals.masks.split(clip.IMAGES):
        cut = ranking.crops(pixels, masks, model.visual.image_size[0], "square", mean.cpu()[:, None, None])
        found.append(clip.encode_images(model, cut, mean, std, unit=False))
    return torch.cat(found)


def global_local(networks: Networks, proposals: Proposals, expression: Expression, share: float) -> torch.Tensor:
    """Scores of Global-Local CLIP, (N,): features are mixed first and brought to length 1 only then.

    Image: ``share`` of the global and the rest of the local feature. Text: half sentence, half the head's noun phrase.
    """
    if ("global-local",) not in proposals.features:
        both = torch.stack([global_features(networks, proposals), local_features(networks, proposals)])
        proposals.features["global-local",] = networks.check_finite("clip", both)
    whole, local = proposals.features["global-local",].float().cpu()
    model, tokenizer = networks.use("clip"), networks.clip_tokenizer
    text = clip.encode_text(model, tokenizer, expression.text, noun_phrase(expression), unit=False).float().cpu()
    networks.check_finite("clip", text)
    return normalize(share * whole + (1 - share) * local, dim=-1) @ normalize(text.mean(0), dim=-1)


def clip_scores(
    name: str, scene: Scene, expression: Expression, proposals: Proposals, dataset: str = ""
) -> torch.Tensor:
    """Score of every proposal by one of the three CLIP baselines, (N,) float32 on the CPU.

    "cropping" is the masked crop, "region-token" the class token that sees its mask alone, both with the sentence
    alone; "global-local" mixes whole image and crop, sentence and noun phrase (Yu et al. 2023).
    """
    networks = scene.model.networks
    with networks.at_work():
        if name == "global-local":
            return global_local(networks, proposals, expression, GLOBAL_SHARES.get(dataset, 0.95))
        branch: ranking.Branch = "masked" if name == "region-token" else "crop"
        features = ranking.visual_features(networks, proposals, branch, (), CONFIG)
        return ranking.branch_score(features, scene.text_features(expression), 0.0)
