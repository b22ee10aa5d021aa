"""What the words of an expression attend to, for a diffusion model of any kind but Stable Diffusion 1 and 2: one look.

Those two have a pass of their own (:mod:`refdiff_lite.unet_pass`), which follows the paper step by step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch

from .attention import AttentionMaps, Kind
from .config import RefDiffConfig
from .expression import Expression
from .look import look, painter_of
from .networks import Networks
from .networks.words import Text


class Reading(NamedTuple):
    """What a model made of one expression.

    Attributes:
        maps: attention of each kind, with a batch of one.
        tokens: places of the head word's pieces among the text's keys, for each text encoder that reads it.
        pieces: the text's tokens, as the first of these encoders has them. unread: what stands behind its last token.
    """

    maps: dict[Kind, AttentionMaps]
    tokens: list[list[int]]
    pieces: tuple[str, ...]
    unread: str


def check_reading(networks: Networks, config: RefDiffConfig) -> None:
    """Refuse a model that cannot begin with a picture, and constants that mean nothing in one look, before any work.

    Raises:
        ValueError: says which, and what to take instead.
    """
    painter_of(networks.sd)
    step = config.noise_step
    for wrong, told in {
        config.noise == "ddim": 'noise="ddim" inverts by DDIM, which is made for Stable Diffusion 1 and 2',
        config.guidance != 1: f"guidance={config.guidance:g}: a look reads the prompt alone, without guidance",
        config.denoise_steps
        != (step,): f"denoise_steps={config.denoise_steps}: a look is one pass at the noise itself, so "
        f"it is ({step},) with noise_step={step}",
    }.items():
        if wrong:
            raise ValueError(f"{told}. For {type(networks.sd).__name__} take RefDiffConfig.paper() or change this")


def read(
    networks: Networks,
    image: np.ndarray,
    expression: Expression,
    config: RefDiffConfig,
    kinds: Sequence[Kind] = ("cross",),
) -> Reading:
    """Attention over an image under one expression, mean over the noise draws.

    Args:
        image: (H, W, 3) uint8 RGB, already padded where the config says so.

    Raises:
        ValueError: the head word lies behind the last token of every text encoder.
    """
    prompt = expression.text + config.prompt_suffix
    found = {kind: maps_of(networks, image, prompt, config, kind) for kind in kinds}
    read_by = next(iter(found.values()))[1]
    texts = [t for t in read_by if t.keys(*expression.span)]
    if not texts:
        raise ValueError(
            f"the head word {expression.head!r} lies behind the last token that the text encoder reads; write less before it"
        )
    read_to = max((end for _, _, end in texts[0].tokens), default=0)
    return Reading(
        {kind: maps for kind, (maps, _) in found.items()},
        [t.keys(*expression.span) for t in texts],
        tuple(texts[0].text[a:b] for _, a, b in texts[0].tokens),
        expression.text[read_to:].strip(),
    )


def maps_of(
    networks: Networks,
    image: np.ndarray,
    prompt: str,
    config: RefDiffConfig,
    kind: Kind = "cross",
    over: Literal["all", "own"] = "all",
) -> tuple[AttentionMaps, list[Text]]:
    """Attention of one kind, mean over the noise draws, and the prompt as each text encoder read it.

    Args:
        over: keys that share in the softmax, as in :func:`attention.record_attention`.
    """
    cross = kind == "cross"
    scale = networks.side * config.side_factor / max(image.shape[:2])
    layers = config.layers or networks.layers if cross else networks.self_layers
    scores = config.scores if cross else "softmax"
    records = [
        look(
            networks.sd,
            image,
            prompt,
            noise=(config.noise_step + 1) / config.num_steps,
            steps=config.num_steps,
            seed=config.seed + draw,
            size=(round(image.shape[0] * scale), round(image.shape[1] * scale)),
            layers=layers or None,
            call=networks.call,
            kind=kind,
            scores=scores,
            over=over,
        )
        for draw in range(config.draws)
    ]
    means = {name: torch.stack([r.at("+", name, 0) for r in records]).mean(0) for name in records[0].layers}
    for maps in means.values():
        networks.check_finite("denoiser", maps)
    return AttentionMaps(kind, scores, means, len(records)), records[0].texts(0, False)
