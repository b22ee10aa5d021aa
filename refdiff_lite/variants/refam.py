"""RefAM (arXiv 2509.22650, 2025): the sentence's own attention, with what catches no object filtered out.

Words such as "the" and "of" draw attention that belongs to nothing in the image. Some more of them, the *magnets*, are
appended to the phrase; they draw the rest of it, and the maps of stop words and magnets are dropped. The maps that stay are
summed, and the brightest pixel is the answer. RefAM gives that point to SAM. No SAM is here, so the point chooses among the
proposals: those that hold it, and of these the one with the best S_G. Neither the paper's full text nor its code were at
hand: what is [I] is our reading of the project page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from ..attention import finest, min_max, resize
from ..expression import Expression, find_words, token_positions
from ..fusion import generative_score
from ..images import square_corner
from ..proposals import Proposals
from ..ranking import positional_bias
from ..reading import maps_of
from ..unet_pass import unet_pass
from .common import Scored

if TYPE_CHECKING:
    from ..scene import Scene


@dataclass(frozen=True)
class RefAM:
    """Constants of RefAM."""

    magnets: str = ". with to pink"
    """[F] Appended to the phrase; the page also shows ". a with" and ". with a the pink"."""
    stop_words: tuple[str, ...] = tuple(
        "a an the this that these those of on in at to from with by for and or is are was were it its which who".split()
    )
    """[P] "the", "a" and "of" are named as examples; [I] the rest of the list."""
    bias: bool = True
    """[P] A spatial bias where the phrase names a direction; [I] that it is Ref-Diff's ramp."""
    sink_share: float = 0.5
    """[I] A word is a global sink if it draws at least this share of the attention of all words and pixels ..."""
    sink_flat: float = 0.25
    """[I] ... and the deviation of its map over the pixels is at most this share of its mean. RefAM's rule is not known."""


def constants(preset: str) -> RefAM:
    """The page's for all networks: nothing was chosen on ToyRef."""
    return RefAM()


def score(scene: Scene, expression: Expression, proposals: Proposals, values: RefAM) -> Scored:
    """S of RefAM: :func:`point_score` of the filtered map."""
    c = filtered_map(scene, expression, values)
    s_g = generative_score(c, proposals.masks)
    return Scored(c, s_g, torch.zeros_like(s_g), point_score(c, proposals.masks, s_g))


def filtered_map(scene: Scene, expression: Expression, values: RefAM) -> Float[Tensor, "h w"]:
    """The map whose brightest pixel is the answer, in [0, 1] at the working size."""
    layers, words, read = attention(scene, f"{expression.text} {values.magnets}".strip())
    kept = [i for i, (word, start) in enumerate(words) if content(word, start, len(expression.text), values)]
    if not kept:  # a phrase of stop words alone
        kept = [i for i, (_, start) in enumerate(words) if start < len(expression.text)]
    grid = finest(layers)
    maps = torch.stack([resize(rearrange(m, "h w t -> t h w"), grid) for m in layers]).mean(0)
    each = torch.stack([maps[read[i]].sum(0) for i in range(len(words))])
    strong = [i for i in kept if not sinks(each, values)[i]] or kept
    frame = (max(scene.size), max(scene.size)) if scene.config.pad else scene.size
    c = resize(each[strong].sum(0), frame)
    if scene.config.pad:
        top, left = square_corner(scene.size)
        c = c[top : top + scene.size[0], left : left + scene.size[1]]
    c = min_max(c)
    return min_max(c * positional_bias(expression.cues, scene.size)) if values.bias else c


def content(word: str, start: int, end: int, values: RefAM) -> bool:
    """Whether a word at this place is kept: it stands in the phrase, not among the magnets, and is no stop word."""
    return start < end and word.lower() not in values.stop_words


def sinks(maps: Float[Tensor, "n h w"], values: RefAM) -> Bool[Tensor, " n"]:
    """Which words are global sinks: their maps, (N, h, w) over all words, are strong and flat."""
    mean = maps.mean((1, 2))
    share = mean / mean.sum().clamp_min(1e-12)
    flat = maps.std((1, 2), correction=0) <= values.sink_flat * mean
    return (share >= values.sink_share) & flat


def point_score(c: Float[Tensor, "h w"], masks: Bool[Tensor, "n h w"], s_g: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """S_G for masks that hold the brightest pixel; below -1, falling with their distance to it, for all others [I]."""
    h, w = c.shape
    y, x = divmod(int(c.argmax()), w)
    rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    away = ((rows - y) ** 2 + (columns - x) ** 2).float().sqrt() / float(h * h + w * w) ** 0.5
    nearest = torch.stack([away[m].min() if m.any() else away.new_tensor(1.0) for m in masks]) if len(masks) else s_g
    return torch.where(nearest == 0, s_g, -1 - nearest)


def attention(scene: Scene, prompt: str) -> tuple[Sequence[torch.Tensor], list[tuple[str, int]], list[list[int]]]:
    """Softmax across the text's tokens, per pixel: maps (h, w, tokens) of each layer; the words, and their tokens.

    In a UNet's cross-attention words are the only keys, so that this is its attention; elsewhere pixels are left out.
    Words behind the last token that the encoder reads are left out, too.
    """
    nets, config = scene.model.networks, scene.config.replace(scores="softmax")
    words = [(m.group(), m.start(), m.end()) for m in find_words(prompt)]
    if nets.own_pass:
        config = config.replace(guidance=1.0, attention_guidance=False)
        steps = [scene.timesteps[s] for s in config.denoise_steps]
        text, pattern = scene.model.encode_prompt([prompt]), nets.layers if config.layers is None else config.layers
        found = unet_pass(nets.use("unet"), nets.scheduler, scene.noised, steps, text, None, {"cross": pattern}, config)
        places = [_places(nets.tokenizer, prompt, (a, b)) for _, a, b in words]
        layers = found[0]["cross"].row(0)
    else:
        maps, texts = maps_of(nets, scene._framed, prompt, config, over="own")
        places = [[k for t in texts for k in t.keys(a, b)] for _, a, b in words]
        layers = maps.row(0)
    read = [(word, start, p) for (word, start, _), p in zip(words, places, strict=True) if p]
    return layers, [(word, start) for word, start, _ in read], [p for *_, p in read]


def _places(tokenizer: Any, prompt: str, span: tuple[int, int]) -> list[int]:
    try:
        return token_positions(tokenizer, prompt, span)
    except ValueError:  # behind the last token
        return []
