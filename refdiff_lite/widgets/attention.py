"""Where every word looks, and what every pixel listens to (lessons 3 and 4)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import traitlets
from einops import rearrange
from matplotlib.figure import Figure

from ..attention import min_max, record_attention, resize
from ..expression import find_words, parse, pieces, token_positions
from ..latents import add_noise
from ..scene import Scene
from ..viz import show_image, show_map
from .base import DATA_BYTES, Explorer, picture, quantise, view_module

MEAN = -1
"""The head that is no head: the mean over all of them."""
READ = "mean of layers read"
"""The layer that is no layer: the mean over those that the method reads, so that a head word's map is the method's own."""
VALUES = ("probabilities", "logits")
START, END = "start", "end"
"""The tokens around the text. The first drinks up most of the attention, so leaving it out would mislead."""
_SELF_CELLS = 32 * 32


class Slice(NamedTuple):
    """One choice of where to look; ``layer`` is a module's name, :data:`READ` or ``mean 16×16``."""

    layer: str
    head: int
    step: int
    values: str

    @property
    def key(self) -> str:
        return "/".join(map(str, self))


@dataclass(frozen=True)
class Attention:
    """Everything recorded for one sentence.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        words: the sentence's words between START and END.
        head: index of its head word.
        timesteps: of the diffusion process, one for each recorded step.
        cross: logits q k^T / sqrt(d) of each step and layer, (heads, h, w, tokens) float32.
        columns: the token that stands for each word (its last piece).
        self_maps: of each step, (h, w, h, w): how much pixel (y, x) listens to each pixel, mean over heads and layers.
        reads: the layers that the method itself reads.
    """

    image: np.ndarray
    words: tuple[str, ...]
    head: int
    timesteps: tuple[int, ...]
    cross: tuple[dict[str, np.ndarray], ...]
    columns: tuple[int, ...]
    self_maps: tuple[np.ndarray, ...]
    reads: tuple[str, ...] = ()


def collect(scene: Scene, sentence: str, steps: Sequence[int], layers: str = "") -> Attention:
    """Run the UNet over the noised image at each step and keep what attends to what.

    The noise is the first draw of the scene's seed, as :attr:`Scene.noised` takes it.

    Args:
        steps: indices into ``scene.timesteps``. layers: regular expression over names of attention layers; "" is all.

    Raises:
        ValueError: a step that does not exist, no such layer, a word behind the text encoder's last token.
    """
    nets, expression = scene.model.networks, parse(sentence)
    if not steps or not all(0 <= s < len(scene.timesteps) for s in steps):
        raise ValueError(f"steps={list(steps)} must name at least one of the {len(scene.timesteps)} steps, from 0")
    found = find_words(expression.text)
    tokenizer = nets.tokenizer
    columns = [token_positions(tokenizer, expression.text, w.span())[-1] for w in found]
    end = len(pieces(tokenizer, expression.text)) - 1
    text = scene.model.encode_prompt([expression.text])
    noise = torch.randn(scene.latents.shape, generator=torch.Generator().manual_seed(scene.config.seed))
    cross, self_maps = [], []
    unet = nets.use("unet")
    for step in steps:
        t = scene.timesteps[step]
        x = add_noise(nets.scheduler, scene.latents, noise.to(scene.latents), t)
        with torch.no_grad(), record_attention(unet, layers, "cross", "logits", heads="each") as words:
            unet(x, t, text)
        cross.append({name: m[0].cpu().numpy() for name, m in words.maps.items()})
        sizes = {n: m.shape[1] * m.shape[2] for n, m in cross[-1].items() if m.shape[1] * m.shape[2] <= _SELF_CELLS}
        if sizes:  # the finest grid whose square fits the page
            names = [n.replace(".", r"\.") for n, cells in sizes.items() if cells == max(sizes.values())]
            with torch.no_grad(), record_attention(unet, f"^({'|'.join(names)})$", "self") as pixels:
                unet(x, t, text)
            mean = torch.stack([m[0] for m in pixels.maps.values()]).mean(0).cpu()
            self_maps.append(rearrange(mean, "h w (y x) -> h w y x", y=mean.shape[0]).numpy())
    pattern = scene.config.layers or nets.layers
    return Attention(
        scene.image,
        (START, *(w.group() for w in found), END),
        1 + [w.span() for w in found].index(expression.span),
        tuple(scene.timesteps[s] for s in steps),
        tuple(cross),
        (0, *columns, end),
        tuple(self_maps),
        tuple(n for n in cross[0] if re.search(pattern, n)),
    )


def word_maps(attention: Attention, where: Slice) -> np.ndarray:
    """The maps of all words in one slice, (words, h, w) float32: probabilities over all tokens, or logits.

    Layers of several grids are brought to the finest before the mean.
    """
    recorded = attention.cross[where.step]
    names = choices(attention).get(where.layer)
    if names is None:
        raise ValueError(f"layer {where.layer!r} was not recorded; there are {', '.join(recorded)}")
    chosen = [recorded[n] for n in names]
    if where.head != MEAN:
        chosen = [m[where.head : where.head + 1] for m in chosen]
    if where.values == "probabilities":
        chosen = [torch.from_numpy(m).softmax(-1).numpy() for m in chosen]
    maps = [rearrange(m.mean(0)[..., list(attention.columns)], "h w words -> words h w") for m in chosen]
    grid = _grid(chosen)
    return np.mean([resize(torch.from_numpy(m), grid).numpy() if m.shape[1:] != grid else m for m in maps], axis=0)


def choices(attention: Attention) -> dict[str, list[str]]:
    """What ``layer`` may name, with the recorded layers that are meant: :data:`READ`, each grid's mean, each alone."""
    layers = attention.cross[0]
    grids: dict[str, list[str]] = {}
    for name, maps in layers.items():
        grids.setdefault(f"mean {maps.shape[1]}×{maps.shape[2]}", []).append(name)
    read = {READ: list(attention.reads)} if attention.reads else {}
    return read | grids | {name: [name] for name in layers}


def _grid(layers: Iterable[np.ndarray]) -> tuple[int, int]:
    """The finest grid among maps (heads, h, w, tokens)."""
    return max((m.shape[1:3] for m in layers), key=lambda size: size[0] * size[1])


def slices(attention: Attention) -> Iterator[tuple[Slice, int]]:
    """Every slice with its size in bytes, the most wanted first.

    Means over the heads come before single heads, the method's own before others, the first step before others,
    probabilities before logits, coarse grids before fine ones.
    """
    found = []
    for step, layers in enumerate(attention.cross):
        for name, members in choices(attention).items():
            rows, columns = _grid(layers[n] for n in members)
            for head in range(MEAN, min(len(layers[n]) for n in members)):
                for values in VALUES:
                    cells = rows * columns
                    order = (
                        head != MEAN,
                        step > 0 and head != MEAN,
                        name != READ,
                        step > 0,
                        values != VALUES[0],
                        cells,
                    )
                    found.append((order, Slice(name, head, step, values), cells * len(attention.words)))
    for _, where, size in sorted(found, key=lambda f: f[0]):
        yield where, size


def frames(attention: Attention, budget: int) -> dict[str, np.ndarray]:
    """What the view draws from: 256-level maps with their ranges, as many slices as fit into ``budget`` bytes."""
    arrays: dict[str, np.ndarray] = {}
    for step, maps in enumerate(attention.self_maps):
        size = maps.size + maps.shape[0] * maps.shape[1] * 8
        if size <= budget / 2:
            budget -= size
            arrays[f"self/{step}"], arrays[f"self-range/{step}"] = quantise(maps)
    for where, size in slices(attention):
        cost = size + 8 * len(attention.words) + 160  # two ranges, and the index
        if cost <= budget:
            budget -= cost
            arrays[where.key], arrays[f"range/{where.key}"] = quantise(word_maps(attention, where))
    return arrays


class AttentionExplorer(Explorer):
    """Hover a word to see where it looks, hover a pixel to see which words it listens to; click to pin.

    Keys: arrows walk over the words or, in a picture, over the pixels; Enter pins, Escape lets go.

    Attributes:
        pinned: indices into ``attention.words``, at most two, shown side by side.
        pixel: pinned place (row, column) as shares of the image in [0, 1), or empty.
        layer, head, step, values: the slice shown, at first the mean of the layers that the method reads; head -1 is the
            mean over heads.
        shared: one range for all words, rather than each map's own. smooth: bilinear rather than nearest.
        opacity: of the map over the image, in [0, 1].
    """

    _esm = view_module("attention")
    pinned = traitlets.List(traitlets.Int()).tag(sync=True)
    pixel = traitlets.List(traitlets.Float()).tag(sync=True)
    layer = traitlets.Unicode().tag(sync=True)
    head = traitlets.Int(MEAN).tag(sync=True)
    step = traitlets.Int(0).tag(sync=True)
    values = traitlets.Enum(VALUES, VALUES[0]).tag(sync=True)
    shared = traitlets.Bool(False).tag(sync=True)
    smooth = traitlets.Bool(True).tag(sync=True)
    opacity = traitlets.Float(0.75, min=0, max=1).tag(sync=True)

    def __init__(self, attention: Attention, **start: Any) -> None:
        """Show what was recorded; :meth:`from_scene` is the short way.

        Args:
            start: traits to start with, such as ``pinned=[2]``.
        """
        self.attention = attention
        super().__init__()
        image = picture(attention.image)
        layers, named = attention.cross[0], choices(attention)
        meta = {
            "title": f"Where every word looks: {' '.join(attention.words[1:-1])}",
            "words": list(attention.words),
            "head": attention.head,
            "size": list(attention.image.shape[:2]),
            "timesteps": list(attention.timesteps),
            "heads": {n: min(len(layers[m]) for m in members) for n, members in named.items()},
            "layers": {n: list(_grid(layers[m] for m in members)) for n, members in named.items()},
            "read": READ,
            "reads": list(attention.reads),
        }
        self.show(meta, {"image": image, **frames(attention, DATA_BYTES - len(image))})
        self.choose(**{"layer": next(iter(named)), **start})

    @classmethod
    def from_scene(
        cls, scene: Scene, sentence: str, steps: Iterable[int] | None = None, layers: str = "", **start: Any
    ) -> AttentionExplorer:
        """Record a sentence's attention over an image, and show it.

        Args:
            steps: indices into ``scene.timesteps`` (default: the config's, then noisier ones); the first is shown first.
            layers: regular expression; fewer layers leave room for more heads and steps in DATA_BYTES.
        """
        config = scene.config
        default = (config.denoise_steps[0], config.num_steps // 4, config.num_steps // 2)
        chosen = list(dict.fromkeys(default if steps is None else steps))
        return cls(collect(scene, sentence, chosen, layers), **start)

    @traitlets.validate("pinned")
    def _at_most_two(self, proposal: Any) -> list[int]:
        words = list(dict.fromkeys(proposal["value"]))[-2:]
        if not all(0 <= w < len(self.attention.words) for w in words):
            raise traitlets.TraitError(
                f"pinned={words}: the words have the numbers 0 to {len(self.attention.words) - 1}"
            )
        return words

    @property
    def slice(self) -> Slice:
        """The slice shown."""
        return Slice(self.layer, self.head, self.step, self.values)

    def maps(self) -> np.ndarray:
        """The words' maps as shown, (words, h, w) float32, exact to 1/255 of each one's range.

        Raises:
            ValueError: the slice did not fit into the explorer's data.
        """
        arrays = self.arrays()
        if self.slice.key not in arrays:
            raise ValueError(f"{self.slice} is not packed; make the explorer with fewer layers or steps")
        low, high = np.moveaxis(arrays[f"range/{self.slice.key}"], -1, 0)[..., None, None]
        return (low + arrays[self.slice.key] / np.float32(255) * (high - low)).astype(np.float32)

    def figure(self) -> Figure:
        image, size = self.attention.image, self.attention.image.shape[:2]
        pictures = [(m, w) for m, w in zip(self.maps(), self.attention.words, strict=True)]
        if self.values == VALUES[0]:
            pictures = [(m, f"{w}  {100 * m.min():.1f}–{100 * m.max():.1f} %") for m, w in pictures]
        if self.pixel and self.attention.self_maps:
            looks = self.attention.self_maps[min(self.step, len(self.attention.self_maps) - 1)]
            y, x = (int(share * n) for share, n in zip(self.pixel, looks.shape, strict=False))
            pictures.append((looks[y, x], "where this pixel looks"))
        columns = min(len(pictures) + 1, 5)
        rows = -(-(len(pictures) + 1) // columns)
        figure = Figure(figsize=(2.1 * columns, 2.35 * rows), dpi=90, layout="constrained")
        show_image(image, figure.add_subplot(rows, columns, 1), "image")
        for i, (m, title) in enumerate(pictures):
            ax = figure.add_subplot(rows, columns, i + 2)
            fine = min_max(resize(torch.from_numpy(np.ascontiguousarray(m)), size))
            show_map(fine.numpy(), image, ax, title)
        for ax in figure.axes:
            if self.pixel:
                ax.plot(self.pixel[1] * size[1], self.pixel[0] * size[0], "+", color="white", markersize=10, mew=2)
        return figure

    def __repr__(self) -> str:
        pins = ", ".join(self.attention.words[i] for i in self.pinned) or "nothing"
        return f"AttentionExplorer({' '.join(self.attention.words[1:-1])!r}, {self.layer}, pinned: {pins})"
