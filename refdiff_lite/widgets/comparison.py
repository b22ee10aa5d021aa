"""Two recordings beside each other: two prompts, seeds, layers, pictures or models, and what is different (lesson 3)."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from textwrap import fill
from typing import Any, NamedTuple

import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure

from ..attention import resize
from ..scene import Scene
from ..viz import show_image
from .attention import AttentionExplorer
from .base import DATA_BYTES, Explorer, pack, palette, picture, quantise, view_module
from .recording import Attention
from .slices import MEAN, VALUES, Slice, choices, word_maps


class Pair(NamedTuple):
    """One word of two sentences: its number in the names of each, or None where it stands in the other alone."""

    text: str
    first: int | None
    second: int | None


def pair_words(first: Sequence[str], second: Sequence[str]) -> list[Pair]:
    """Which words of two sentences belong together: equal ones in their order, and one that replaces another.

    "a red car" and "a blue car": a, red → blue, car.
    """
    a, b = ([w.lower() for w in words] for words in (first, second))
    found = []
    for what, i0, i1, j0, j1 in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        both = min(i1 - i0, j1 - j0) if what in ("equal", "replace") else 0
        for i, j in zip(range(i0, i0 + both), range(j0, j0 + both), strict=True):
            found.append(Pair(first[i] if a[i] == b[j] else f"{first[i]} → {second[j]}", i, j))
        found += [Pair(f"{first[i]} → ∅", i, None) for i in range(i0 + both, i1)]
        found += [Pair(f"∅ → {second[j]}", None, j) for j in range(j0 + both, j1)]
    return found


class AttentionComparison(Explorer):
    """Two recordings of attention, one word at a time: both maps on linked controls, and their difference.

    Attributes:
        word: index into :attr:`pairs`.
        layer, other: the layers shown of the first and of the second recording. Choosing ``layer`` takes the other along where
            both had the same.
        head, step, values, pixel: as in :class:`AttentionExplorer`, for both.
        shared: both maps on one range, so that the brighter one is the larger one.
        smooth: bilinear rather than nearest. opacity: of the maps over the pictures, in [0, 1].
    """

    _esm = view_module("ask", "keep", "comparison")
    word = traitlets.Int(0, min=0).tag(sync=True)
    layer = traitlets.Unicode().tag(sync=True)
    other = traitlets.Unicode().tag(sync=True)
    head = traitlets.Int(MEAN).tag(sync=True)
    step = traitlets.Int(0, min=0).tag(sync=True)
    values = traitlets.Enum(VALUES, VALUES[0]).tag(sync=True)
    pixel = traitlets.List(traitlets.Float()).tag(sync=True)
    shared = traitlets.Bool(True).tag(sync=True)
    smooth = traitlets.Bool(True).tag(sync=True)
    opacity = traitlets.Float(0.75, min=0, max=1).tag(sync=True)

    def __init__(
        self, first: Attention, second: Attention, names: tuple[str, str] = ("first", "second"), **start: Any
    ) -> None:
        """Compare what was recorded; :meth:`from_scenes` is the short way.

        Args:
            first, second: of :func:`recording.collect` or, for a generation, :func:`traced.attention_of`.
            names: what to call them. start: traits to start with, such as ``layer="mean 16×16"``.
        """
        self.both, self.names = (first, second), names
        self.pairs = pair_words(first.names, second.names)
        self._layers = tuple(list(choices(a)) for a in self.both)
        super().__init__()
        common = next((n for n in self._layers[0] if n in self._layers[1]), None)
        default = {
            "layer": common or self._layers[0][0],
            "other": common or self._layers[1][0],
            "word": next(i for i, p in enumerate(self.pairs) if p.first == first.head or p.second == second.head),
        }
        if "layer" in start and "other" not in start and start["layer"] in self._layers[1]:
            start["other"] = start["layer"]
        self.choose(**default | start)
        self._small = {f"image/{i}": picture(a.image) for i, a in enumerate(self.both)}
        self.show(self._about(), {**self._small, **self.packed(self.key)})

    @classmethod
    def from_scenes(
        cls,
        first: tuple[Scene, str],
        second: tuple[Scene, str],
        names: tuple[str, str] | None = None,
        **start: Any,
    ) -> AttentionComparison:
        """Record and compare two sentences over two scenes.

        The same scene with two sentences compares prompts; scenes of configs with two seeds compare noise; scenes of two
        models compare weights.
        """
        found = [AttentionExplorer.from_scene(scene, sentence).attention for scene, sentence in (first, second)]
        told = (first[1], second[1]) if first[1] != second[1] else ("first", "second")
        return cls(found[0], found[1], names or told, **start)

    def _about(self) -> dict[str, Any]:
        first, second = self.both
        return {
            "title": f"“{self.names[0]}” beside “{self.names[1]}”",
            "names": list(self.names),
            "words": [p.text for p in self.pairs],
            "alone": [None if None not in p[1:] else int(p.first is None) for p in self.pairs],
            "sizes": [list(a.image.shape[:2]) for a in self.both],
            "layers": [list(names) for names in self._layers],
            "timesteps": [list(a.timesteps) for a in self.both],
            "heads": [{n: min(len(a.cross[0][m]) for m in choices(a)[n]) for n in choices(a)} for a in self.both],
            "steps": min(len(first.cross), len(second.cross)),
        }

    @property
    def key(self) -> str:
        """The name of what is shown, as views ask for it."""
        return f"pair/{self.word}/{self.layer}/{self.other}/{self.head}/{self.step}/{self.values}"

    def maps(self) -> tuple[np.ndarray | None, np.ndarray | None]:
        """The two maps shown, (h, w) float32 on one grid, the finer one; None for a sentence that lacks the word."""
        return self._maps(self.key)

    def difference(self) -> np.ndarray:
        """First minus second, (h, w) float32; zeros where only one has the word."""
        first, second = self.maps()
        known = first if first is not None else second
        assert known is not None
        return first - second if first is not None and second is not None else np.zeros_like(known)

    def _maps(self, key: str) -> tuple[np.ndarray | None, np.ndarray | None]:
        _, word, layer, other, head, step, values = key.split("/")
        pair, found = self.pairs[int(word)], []
        for attention, number, name in zip(self.both, pair[1:], (layer, other), strict=True):
            where = Slice(name, int(head), int(step), values)
            found.append(None if number is None else torch.from_numpy(word_maps(attention, where)[number]))
        grid = max((m.shape for m in found if m is not None), key=lambda s: s[0] * s[1])
        both = [None if m is None else resize(m, (grid[0], grid[1])).numpy() for m in found]
        return both[0], both[1]

    def packed(self, key: str) -> dict[str, np.ndarray]:
        """Both maps and their difference as the view draws them: 256 levels, and the ends of each."""
        maps = self._maps(key)
        there = next(m for m in maps if m is not None)
        both = np.stack([np.zeros_like(there) if m is None else m for m in maps])
        change = both[0] - both[1] if all(m is not None for m in maps) else 0 * both[0]
        most = max(float(np.abs(change).max()), 1e-12)
        levels, ranges = quantise(both)
        signed = np.round(127.5 + change / most * 127.5).astype(np.uint8)
        return {
            key: np.concatenate([levels, signed[None]]),
            f"range/{key}": np.append(ranges, [[-most, most]], 0).astype(np.float32),
        }

    def answer(self, name: str) -> dict[str, np.ndarray]:
        return self.packed(name) if name.startswith("pair/") else super().answer(name)

    def kept(self) -> tuple[dict[str, Any], bytes]:
        """What is shown, then every word in each common layer and step, as far as there is room."""
        keys = [self.key]
        common = [n for n in self._layers[0] if n in self._layers[1]]
        for step in range(self._meta["steps"]):
            for name in common:
                keys += [f"pair/{w}/{name}/{name}/{MEAN}/{step}/{VALUES[0]}" for w in range(len(self.pairs))]
        keys += [
            f"pair/{w}/{self.layer}/{self.other}/{self.head}/{self.step}/{self.values}" for w in range(len(self.pairs))
        ]
        arrays, room = dict(self._small), DATA_BYTES - sum(a.nbytes for a in self._small.values())
        for key in dict.fromkeys(keys):
            found = self.packed(key)
            room -= sum(a.nbytes + 160 for a in found.values())
            if room < 0:
                break
            arrays |= found
        index, block = pack({"palette": palette(), **arrays})
        return {**self._meta, "index": index}, block

    def figure(self) -> Figure:
        maps, change = self.maps(), self.difference()
        figure = Figure(figsize=(9, 3.3), dpi=90, layout="constrained")
        axes = figure.subplots(1, 3)
        top = max(float(m.max()) for m in maps if m is not None)
        for ax, m, name, attention in zip(axes, maps, self.names, self.both, strict=False):
            height, width = attention.image.shape[:2]
            show_image(attention.image, ax, fill(name if m is not None else f"{name}: no such word", 34))
            if m is not None:
                drawn = ax.imshow(
                    m, vmin=0 if self.values == VALUES[0] else None, vmax=top, alpha=0.7, extent=(0, width, height, 0)
                )
        figure.colorbar(drawn, ax=axes[:2], shrink=0.75)
        most = max(float(np.abs(change).max()), 1e-12)
        signed = axes[2].imshow(change, cmap="RdBu_r", vmin=-most, vmax=most)
        axes[2].set_title("difference", fontsize=9)
        axes[2].set_axis_off()
        figure.colorbar(signed, ax=axes[2], shrink=0.75)
        for ax, colour in zip(axes, ("white", "white", "black"), strict=True):
            if self.pixel:
                ax.plot(
                    self.pixel[1], 1 - self.pixel[0], "+", color=colour, markersize=10, mew=2, transform=ax.transAxes
                )
        figure.suptitle(self.pairs[self.word].text, fontsize=11, parse_math=False)
        return figure

    def __repr__(self) -> str:
        return f"AttentionComparison({self.names[0]!r}, {self.names[1]!r}, {self.pairs[self.word].text!r})"
