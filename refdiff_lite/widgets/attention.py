"""Where every word looks, and what every pixel listens to (lessons 3 and 4)."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure
from PIL import Image

from ..attention import min_max, resize
from ..scene import Scene
from ..viz import show_image, show_map
from .base import DATA_BYTES, Explorer, pack, palette, picture, view_module
from .recording import Attention, collect
from .sheet import SIDE, over, sheet
from .slices import (
    MEAN,
    OWN,
    READ,
    VALUES,
    Slice,
    choices,
    frames,
    grids,
    has_looks,
    left_out,
    overview,
    packed,
    packed_self,
    self_map,
    word_maps,
)

LIVE_BYTES = 600_000
"""What a live explorer sends at once; it asks its kernel for everything else."""
SCALES = ("each", "shared", "zero")


class AttentionExplorer(Explorer):
    """Hover a word to see where it looks, hover a pixel to see which words it listens to; click to pin.

    Keys: arrows walk over the words or, in a picture, over the pixels; Enter pins, Escape lets go. In a notebook every
    layer, head and step is asked of the kernel when it is looked at; an exported page says what it leaves out.

    Attributes:
        pinned: indices into ``attention.names``, shown side by side. compare: the difference of the first two as well.
        pixel: pinned place (row, column) as shares of the image in [0, 1), or empty.
        box: region (top, left, bottom, right) as shares of the image, or empty: which words listen there?
        layer, head, step, values: the slice shown, at first the mean of the layers that the method reads; head -1 is the
            mean over heads.
        scale: each map between its own ends ("each"), all words on one range ("shared"), or from 0 ("zero").
        smooth: bilinear rather than nearest. opacity: of the map over the image, in [0, 1].
    """

    _esm = view_module("ask", "keep", "overview", "sentence", "attention")
    pinned = traitlets.List(traitlets.Int()).tag(sync=True)
    compare = traitlets.Bool(False).tag(sync=True)
    pixel = traitlets.List(traitlets.Float()).tag(sync=True)
    box = traitlets.List(traitlets.Float()).tag(sync=True)
    layer = traitlets.Unicode().tag(sync=True)
    head = traitlets.Int(MEAN).tag(sync=True)
    step = traitlets.Int(0).tag(sync=True)
    values = traitlets.Enum(VALUES, VALUES[0]).tag(sync=True)
    scale = traitlets.Enum(SCALES, SCALES[0]).tag(sync=True)
    smooth = traitlets.Bool(True).tag(sync=True)
    opacity = traitlets.Float(0.75, min=0, max=1).tag(sync=True)
    _asks = traitlets.Bool(False).tag(sync=True)
    _error = traitlets.Unicode().tag(sync=True)

    def __init__(self, attention: Attention, **start: Any) -> None:
        """Show what was recorded; :meth:`from_scene` is the short way.

        Args:
            start: traits to start with, such as ``pinned=[2]``.
        """
        self.scene: Scene | None = None
        super().__init__()
        self.on_msg(self._asked_a_sentence)
        self._take(attention)
        self.choose(**{"layer": next(iter(choices(attention))), **start})

    def _take(self, attention: Attention) -> None:
        self.attention = attention
        self._image = picture(attention.image)
        self.show(self._about(), {"image": self._image, **frames(attention, LIVE_BYTES)})

    def ask(self, sentence: str, head_word: str | None = None) -> None:
        """Record another sentence over the same image, at the same steps and layers; the old recording is let go.

        Raises:
            ValueError: the explorer was not made by :meth:`from_scene`, or as :func:`collect` says.
        """
        if self.scene is None:
            raise ValueError("no networks to ask: make the explorer with AttentionExplorer.from_scene(scene, sentence)")
        steps = [self.scene.timesteps.index(t) for t in self.attention.timesteps]
        layers = [f"^{re.escape(n)}$" for n in self.attention.cross[0]]
        found = collect(self.scene, sentence, steps, "|".join(layers), head_word)
        with self.hold_sync():
            self._take(found)
            self.pinned = []

    def _asked_a_sentence(self, _: Any, content: Any, __: Any) -> None:
        """A view asks for a sentence; what was wrong with it goes back in words."""
        if not isinstance(content, dict) or not isinstance(content.get("sentence"), str):
            return
        self._error = ""
        try:
            self.ask(content["sentence"])
        except ValueError as error:
            self._error = str(error)

    def _about(self) -> dict[str, Any]:
        attention, named, sizes = self.attention, choices(self.attention), grids(self.attention)
        layers, every = attention.cross[0], [*named] if attention.own is None else [OWN, *named]
        return {
            "title": f"Where every word looks: {' '.join(attention.words[1:-1])}",
            "words": list(attention.names),
            "spoken": len(attention.words),
            "pieces": [list(p) for p in attention.pieces],
            "unread": attention.unread,
            "head": attention.head,
            "size": list(attention.image.shape[:2]),
            "timesteps": list(attention.timesteps),
            "heads": {n: min((len(layers[m]) for m in named.get(n, [])), default=0) for n in every},
            "layers": {n: list(sizes[n]) for n in every},
            "selves": [n for n in named if has_looks(attention, n)],
            "each": list(layers),
            "own": OWN,
            "read": READ,
            "reads": list(attention.reads),
            "looks": bool(attention.self_maps),
            "left_out": "",
        }

    @classmethod
    def from_scene(
        cls,
        scene: Scene,
        sentence: str,
        steps: Iterable[int] | None = None,
        layers: str = "",
        head_word: str | None = None,
        **start: Any,
    ) -> AttentionExplorer:
        """Record a sentence's attention over an image, and show it.

        Args:
            steps: indices into ``scene.timesteps`` (default: the config's, then noisier ones); the first is shown first.
            layers: regular expression of the layers to record.
            head_word: the word to look for, where the rule's choice is wrong or is not read.

        Raises:
            ValueError: the model is neither Stable Diffusion 1 nor 2; says how to explore it.
        """
        config, nets = scene.config, scene.model.networks
        if not nets.own_pass:
            raise ValueError(
                f"from_scene reads Stable Diffusion 1 and 2; for {type(nets.sd).__name__} take "
                "AttentionExplorer(attention_of(look(pipe, image, sentence)))"
            )
        default = (config.denoise_steps[0], config.num_steps // 4, config.num_steps // 2)
        chosen = list(dict.fromkeys(default if steps is None else steps))
        explorer = cls(collect(scene, sentence, chosen, layers, head_word), **start)
        explorer.scene, explorer._asks = scene, True
        return explorer

    @traitlets.validate("pinned")
    def _known_words(self, proposal: Any) -> list[int]:
        words = list(dict.fromkeys(proposal["value"]))
        if not all(0 <= w < len(self.attention.names) for w in words):
            raise traitlets.TraitError(
                f"pinned={words}: the words have the numbers 0 to {len(self.attention.names) - 1}"
            )
        return words

    @property
    def slice(self) -> Slice:
        """The slice shown."""
        return Slice(self.layer, self.head, self.step, self.values)

    def maps(self) -> np.ndarray:
        """The maps as shown, of all of ``attention.names``: (names, h, w) float32.

        Raises:
            ValueError: the slice was not recorded.
        """
        return word_maps(self.attention, self.slice)

    def listening(self) -> dict[str, float]:
        """How much the pixels within :attr:`box` listen to each name: the mean of its map there.

        Raises:
            ValueError: no box is drawn.
        """
        if not self.box:
            raise ValueError(
                "box is empty: draw a region, or set box=[top, left, bottom, right] as shares of the image"
            )
        maps = self.maps()
        rows, columns = maps.shape[1:]
        top, left = int(self.box[0] * rows), int(self.box[1] * columns)
        bottom, right = max(top + 1, round(self.box[2] * rows)), max(left + 1, round(self.box[3] * columns))
        means = maps[:, top:bottom, left:right].mean((1, 2))
        return dict(zip(self.attention.names, map(float, means), strict=True))

    def to_csv(self) -> str:
        """The maps shown as a table: name, row, column, value; a line for each cell of what is pinned, or of the head word."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["word", "row", "column", "value"])
        maps = self.maps()
        for w in self.pinned or [self.attention.head]:
            for (row, column), value in np.ndenumerate(maps[w]):
                writer.writerow([self.attention.names[w], row, column, f"{value:.6g}"])
        return out.getvalue()

    def answer(self, name: str) -> dict[str, np.ndarray]:
        kind, _, rest = name.partition("/")
        if kind == "overview":
            word, step = map(int, rest.split("/"))
            mask = self._box_mask() if self.box else None
            return {f"{name}/{n}": a for n, a in overview(self.attention, word, step, mask).items()}
        if kind == "self":
            *layer, step = rest.split("/")
            if layer == ["mean"]:
                return packed_self(name, self.attention.self_maps[int(step)])
            return packed_self(name, self_map(self.attention, Slice(layer[0], int(layer[1]), int(step))))
        if name == OWN:
            return packed(self.attention, Slice(OWN))
        layer, head, step, values = name.split("/")
        return packed(self.attention, Slice(layer, int(head), int(step), values))

    def _box_mask(self) -> np.ndarray:
        height, width = self.attention.image.shape[:2]
        mask = np.zeros((height, width), bool)
        top, left, bottom, right = self.box
        mask[int(top * height) : round(bottom * height), int(left * width) : round(right * width)] = True
        return mask

    def kept(self) -> tuple[dict[str, Any], bytes]:
        """The page starts with what is shown and keeps what fits; it says what it leaves out."""
        shown = overview(self.attention, self.attention.head, self.step)
        small = {f"overview/{self.attention.head}/{self.step}/{n}": a for n, a in shown.items()}
        room = DATA_BYTES - len(self._image) - sum(a.nbytes + 160 for a in small.values())
        arrays = frames(self.attention, room, self.slice)
        index, block = pack({"palette": palette(), "image": self._image, **small, **arrays})
        return {**self._about(), "left_out": left_out(self.attention, arrays), "index": index}, block

    def _shown(self) -> list[tuple[str, np.ndarray]]:
        """Title and map of all that is pinned, or of everything, then the difference and where the pinned pixel looks."""
        found = self.maps()
        exact = self.values == VALUES[0] and self.layer != OWN
        named = zip(self.attention.names, found, strict=True)
        names = [f"{w}  {100 * m.min():.1f}–{100 * m.max():.1f} %" if exact else w for w, m in named]
        pictures = [(names[w], found[w]) for w in self.pinned or range(len(names))]
        if self.compare and len(self.pinned) > 1:
            pictures.append(("difference", found[self.pinned[0]] - found[self.pinned[1]]))
        if self.pixel and self.attention.self_maps:
            looks = self_map(self.attention, self.slice)
            y, x = (int(share * n) for share, n in zip(self.pixel, looks.shape, strict=False))
            pictures.append(("where this pixel looks", looks[y, x]))
        return pictures

    def still(self) -> bytes:
        small = Image.fromarray(self.attention.image)
        small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        image = np.asarray(small)
        drawn = [(title, over(image, m, self.smooth, self.opacity)) for title, m in self._shown()]
        return sheet([("image", image), *drawn], self.pixel)

    def figure(self) -> Figure:
        image, size, pictures = self.attention.image, self.attention.image.shape[:2], self._shown()
        columns = min(len(pictures) + 1, 5)
        rows = -(-(len(pictures) + 1) // columns)
        figure = Figure(figsize=(2.1 * columns, 2.35 * rows), dpi=90, layout="constrained")
        show_image(image, figure.add_subplot(rows, columns, 1), "image")
        for i, (title, m) in enumerate(pictures):
            ax = figure.add_subplot(rows, columns, i + 2)
            fine = min_max(resize(torch.from_numpy(np.ascontiguousarray(m)), size))
            show_map(fine.numpy(), image, ax, title)
        for ax in figure.axes:
            if self.pixel:
                ax.plot(self.pixel[1] * size[1], self.pixel[0] * size[0], "+", color="white", markersize=10, mew=2)
        return figure

    def __repr__(self) -> str:
        pins = ", ".join(self.attention.names[i] for i in self.pinned) or "nothing"
        return f"AttentionExplorer({' '.join(self.attention.words[1:-1])!r}, {self.layer}, pinned: {pins})"
