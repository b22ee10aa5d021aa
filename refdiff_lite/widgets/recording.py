"""What the attention explorer shows: everything that one sentence's words and one image's pixels attend to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from einops import rearrange

from ..attention import record_attention
from ..expression import cut_text, find_words, parse, pieces, token_positions
from ..images import pad_to_square, square_corner
from ..networks import recorder
from ..networks.scores import Wanted
from ..scene import Scene

START, END = "start", "end"
"""The tokens around the text. The first drinks up most of the attention, so leaving it out would mislead."""
OTHER, PADDING, ELSEWHERE = "other pieces", "padding", "other encoder"
"""Tokens that no word shows: commas and the first pieces of long words; those behind the end token; another encoder's."""
SELF_CELLS = 32 * 32
"""Self-attention is kept of grids of at most so many cells: the square of their number fills the memory."""


class Looks(NamedTuple):
    """One layer's self-attention before the product: (heads, h * w, d) queries, already scaled, and keys, on a grid (h, w)."""

    query: np.ndarray
    key: np.ndarray
    grid: tuple[int, int]


@dataclass(frozen=True)
class Attention:
    """Everything recorded for one sentence.

    Attributes:
        image: (H, W, 3) uint8 RGB, as the UNet saw it: with ``config.pad`` in its black square.
        words: the sentence's words between START and END, as far as the text encoder reads them.
        head: index of its head word.
        timesteps: of the diffusion process, one for each recorded step.
        cross: logits q k^T / sqrt(d) of each step and layer, (heads, h, w, tokens) float32.
        columns: the token that stands for each word: its last piece, which the method reads.
        self_maps: of each step, (h, w, h, w): how much pixel (y, x) listens to each pixel, mean over heads and layers.
        reads: the layers that the method itself reads.
        pieces: the text of each word's pieces; empty where it is not known.
        looks: self-attention of each step and layer, heads apart.
        own: the method's own map of every one of :attr:`names`, (names, H, W) float32 in [0, 1]; None where there is no method.
        unread: the end of the sentence, which the text encoder does not read.
        reach: how many of the tokens are this text encoder's, the first ones; None if all are.
    """

    image: np.ndarray
    words: tuple[str, ...]
    head: int
    timesteps: tuple[int, ...]
    cross: tuple[dict[str, np.ndarray], ...]
    columns: tuple[int, ...]
    self_maps: tuple[np.ndarray, ...]
    reads: tuple[str, ...] = ()
    pieces: tuple[tuple[str, ...], ...] = ()
    looks: tuple[dict[str, Looks], ...] = ()
    own: np.ndarray | None = None
    unread: str = ""
    reach: int | None = None

    @property
    def groups(self) -> dict[str, list[list[int]]]:
        """The tokens of everything shown, each token once, as :func:`token_groups` has them."""
        tokens = next(iter(self.cross[0].values())).shape[-1]
        return token_groups(self.columns, tokens, self.reach)

    @property
    def names(self) -> tuple[str, ...]:
        """What is shown, in order: the words, and names of the groups of tokens that belong to no word."""
        return (*self.words, *(name for name in self.groups if name))


def token_groups(columns: Sequence[int], tokens: int, reach: int | None = None) -> dict[str, list[list[int]]]:
    """Tokens by what shows them: under "" one list for each word, then OTHER, PADDING and ELSEWHERE if there are such."""
    end, reach = columns[-1], tokens if reach is None else reach
    groups = {
        OTHER: sorted(set(range(end)) - set(columns)),
        PADDING: list(range(end + 1, reach)),
        ELSEWHERE: list(range(reach, tokens)),
    }
    return {"": [[c] for c in columns]} | {name: [group] for name, group in groups.items() if group}


def collect(scene: Scene, sentence: str, steps: Sequence[int], layers: str = "", head: str | None = None) -> Attention:
    """Run the UNet over the noised image at each step and keep what attends to what.

    The noise is the method's own (of several draws the first), the prompt too; the maps of ``own`` come from
    :meth:`Scene.unet_pass` and :meth:`Scene.map_of`, as in :meth:`Scene.word_map`.

    Args:
        steps: indices into ``scene.timesteps``. layers: regular expression over names of attention layers; "" is all.
        head: the head word, where the rule's choice is wrong or is not read.

    Raises:
        ValueError: a step that does not exist, no such layer, the head lies behind the text encoder's last token.
    """
    nets, config, expression = scene.model.networks, scene.config, parse(sentence, head)
    if not steps or not all(0 <= s < len(scene.timesteps) for s in steps):
        raise ValueError(f"steps={list(steps)} must name at least one of the {len(scene.timesteps)} steps, from 0")
    prompt = expression.text + config.prompt_suffix
    token_positions(nets.tokenizer, prompt, expression.span)  # refuses a head that is not read
    spans, places = [], []
    for word in find_words(expression.text):
        try:
            places.append(token_positions(nets.tokenizer, prompt, word.span()))
            spans.append(word.span())
        except ValueError:  # behind the last token that the text encoder reads
            break
    read = pieces(nets.tokenizer, prompt)
    columns = (0, *(p[-1] for p in places), len(read) - 1)
    with nets.at_work(), torch.no_grad():
        text = scene.model.encode_prompt([prompt])
        passes = [_record(scene, step, text, layers) for step in steps]
        own = scene.unet_pass([prompt], ("cross", "self") if config.propagate else ("cross",))[0]
        shown = [g for groups in token_groups(columns, text.shape[1]).values() for g in groups]
        maps = torch.stack([scene.map_of(own, [tokens]) for tokens in shown]).numpy()
    cross = tuple(p[0] for p in passes)
    pattern = config.layers or nets.layers
    return Attention(
        pad_to_square(scene.image) if config.pad else scene.image,
        (START, *(expression.text[a:b] for a, b in spans), END),
        1 + spans.index(expression.span),
        tuple(scene.timesteps[s] for s in steps),
        cross,
        columns,
        tuple(mean_looks(p[1]) for p in passes if p[1]),
        tuple(n for n in cross[0] if re.search(pattern, n)),
        ((), *(tuple(read[i] for i in p) for p in places), ()),
        tuple(p[1] for p in passes),
        _in_square(maps) if config.pad else maps,
        cut_text(nets.tokenizer, expression.text),
    )


def _record(scene: Scene, step: int, text: torch.Tensor, layers: str) -> tuple[dict[str, np.ndarray], dict[str, Looks]]:
    """One pass of the UNet: logits of cross-attention, heads apart, and queries and keys of coarse self-attention."""
    unet, x = scene.model.networks.use("unet"), scene.noised_at(step)[0]
    looks: dict[str, Looks] = {}

    def keep(call: Any, name: str, seen: Any, layout: Any) -> None:
        if layout.grid[0] * layout.grid[1] <= SELF_CELLS:
            query, key = (m[0].float().cpu().numpy() for m in (seen.query * seen.scale, seen.key))
            looks[name] = Looks(query, key, layout.grid)

    with (
        recorder.record(unet, Wanted("self"), "", keep),
        record_attention(unet, layers, "cross", "logits", heads="each") as words,
    ):
        unet(x, scene.timesteps[step], text)
    return {name: m[0].cpu().numpy() for name, m in words.maps.items()}, looks


def look(layer: Looks, head: int | None = None) -> np.ndarray:
    """Self-attention of one head, or the mean over all: (h, w, h, w) float32, where pixel (y, x) looks."""
    heads = range(len(layer.query)) if head is None else [head]
    each = [torch.from_numpy(layer.query[i] @ layer.key[i].T).softmax(-1) for i in heads]
    mean = each[0] if len(each) == 1 else torch.stack(each).mean(0)
    h = layer.grid[0]
    return rearrange(mean.numpy(), "(h w) (y x) -> h w y x", h=h, y=h)


def mean_looks(layers: dict[str, Looks]) -> np.ndarray:
    """Mean over the layers of the finest grid and over their heads, (h, w, h, w)."""
    most = max(m.grid[0] * m.grid[1] for m in layers.values())
    chosen = [m for m in layers.values() if m.grid[0] * m.grid[1] == most]
    return np.mean([look(m) for m in chosen], axis=0)


def _in_square(maps: np.ndarray) -> np.ndarray:
    """Maps (N, H, W) in the middle of a square of zeros, as the image was padded."""
    height, width = maps.shape[1:]
    (top, left), side = square_corner((height, width)), max(height, width)
    square = np.zeros((len(maps), side, side), np.float32)
    square[:, top : top + height, left : left + width] = maps
    return square
