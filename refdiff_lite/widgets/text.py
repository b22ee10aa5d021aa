"""What the words of a sentence attend to among themselves, in a text encoder, before any picture (lesson 3)."""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np
import traitlets
from matplotlib.figure import Figure

from ..networks import Networks
from ..networks.text_attention import ENCODERS, MEAN, TextAttention, attend_text
from ..viz import CMAP
from .base import DATA_BYTES, Explorer, pack, palette, view_module

LIVE_BYTES = 600_000
"""What a live explorer sends at once; it asks its kernel for other layers."""
DIRECTIONS = ("looks", "seen")
FORMS = ("lines", "matrix")


class TextExplorer(Explorer):
    """Hover a token to see which tokens it looks at, or which look at it; click to pin.

    CLIP's text encoder is causal: a token looks at itself and at those before it. Most look at the start token, which means
    nothing; without it the rest is seen better.

    Attributes:
        token: the pinned one, an index into ``attention.tokens``, or -1.
        direction: where the token "looks", or where it is "seen" from.
        layer, head: the slice shown; -1 is the mean.
        start: count the start token; without it the shares of the others are stretched to 100 %.
        form: "lines" or "matrix".
    """

    _esm = view_module("ask", "keep", "sentence", "threads", "text")
    token = traitlets.Int(-1, min=-1).tag(sync=True)
    direction = traitlets.Enum(DIRECTIONS, DIRECTIONS[0]).tag(sync=True)
    layer = traitlets.Int(MEAN, min=MEAN).tag(sync=True)
    head = traitlets.Int(MEAN, min=MEAN).tag(sync=True)
    start = traitlets.Bool(True).tag(sync=True)
    form = traitlets.Enum(FORMS, FORMS[0]).tag(sync=True)
    _asks = traitlets.Bool(False).tag(sync=True)
    _error = traitlets.Unicode().tag(sync=True)

    def __init__(self, attention: TextAttention, **start: Any) -> None:
        """Show what was recorded; :meth:`from_networks` is the short way.

        Args:
            start: traits to start with, such as ``layer=1``.
        """
        self.networks: Networks | None = None
        super().__init__()
        self.on_msg(self._asked_a_sentence)
        self._take(attention)
        self.choose(**start)

    @classmethod
    def from_networks(cls, networks: Networks, text: str, encoder: str = ENCODERS[0], **start: Any) -> TextExplorer:
        """Run a text encoder on a text, and show what attends to what; ``model.networks`` are a model's networks.

        Args:
            encoder: "text_encoder", SDXL's and SD3's "text_encoder_2", or "clip", the tower that ranks proposals.

        Raises:
            ValueError: as :func:`attend_text` says.
        """
        explorer = cls(attend_text(networks, text, encoder), **start)
        explorer.networks, explorer._asks = networks, True
        return explorer

    def ask(self, text: str) -> None:
        """Record another text in the same encoder; the old recording is let go.

        Raises:
            ValueError: the explorer was not made by :meth:`from_networks`, or as :func:`attend_text` says.
        """
        if self.networks is None:
            raise ValueError("no networks to ask: make the explorer with TextExplorer.from_networks(networks, text)")
        found = attend_text(self.networks, text, self.attention.encoder)
        with self.hold_sync():
            self.token = MEAN
            self._take(found)

    def _asked_a_sentence(self, _: Any, content: Any, __: Any) -> None:
        """A view asks for a text; what was wrong with it goes back in words."""
        if not isinstance(content, dict) or not isinstance(content.get("sentence"), str):
            return
        self._error = ""
        try:
            self.ask(content["sentence"])
        except ValueError as error:
            self._error = str(error)

    def _take(self, attention: TextAttention) -> None:
        self.attention = attention
        self.show(self._about(), self._layers(LIVE_BYTES))

    def _about(self) -> dict[str, Any]:
        attention = self.attention
        return {
            "title": f"What looks at what in: {attention.text}",
            "text": attention.text,
            "tokens": list(attention.tokens),
            "heads": [len(m) for m in attention.maps],
            "encoder": attention.encoder,
            "unread": attention.unread,
            "left_out": "",
        }

    def _layers(self, room: int) -> dict[str, np.ndarray]:
        """The mean, the layer shown, and of the others what fits."""
        first = [MEAN] if self.layer == MEAN else [MEAN, self.layer]
        found: dict[str, np.ndarray] = {}
        for layer in dict.fromkeys([*first, *range(len(self.attention.maps))]):
            more = self.answer(f"layer/{layer}")
            room -= sum(a.nbytes + 160 for a in more.values())
            if room < 0 and layer not in first:
                break
            found |= more
        return found

    def answer(self, name: str) -> dict[str, np.ndarray]:
        kind, _, layer = name.partition("/")
        if kind != "layer" or int(layer) >= len(self.attention.maps):
            raise ValueError(f"there is nothing named {name!r}")
        return {name: self.attention.at()[None] if int(layer) == MEAN else self.attention.maps[int(layer)]}

    def kept(self) -> tuple[dict[str, Any], bytes]:
        """The page keeps the layer shown and of the others what fits; it says how many it leaves out."""
        arrays = self._layers(DATA_BYTES)
        lost = 1 + len(self.attention.maps) - len(arrays)
        index, block = pack({"palette": palette(), **arrays})
        told = f"This page leaves out {lost} of {len(self.attention.maps)} layers, for its size." if lost else ""
        return {**self._about(), "left_out": told, "index": index}, block

    @traitlets.validate("token", "layer")
    def _known(self, proposal: Any) -> int:
        name, value = proposal["trait"].name, proposal["value"]
        known = len(self.attention.tokens if name == "token" else self.attention.maps)
        if value >= known:
            raise traitlets.TraitError(f"{name}={value}: the {name}s have the numbers 0 to {known - 1}")
        return value

    def shares(self) -> np.ndarray:
        """What is shown, (tokens, tokens) float32: how much the token of a row looks at that of a column.

        Rows add up to 1; without the start token its row is 0.

        Raises:
            ValueError: no such layer or head.
        """
        m = self.attention.at(self.layer, self.head)
        if self.start:
            return m
        m = m.copy()
        m[:, 0] = 0
        return m / np.maximum(m.sum(1, keepdims=True), 1e-12)

    def to_csv(self) -> str:
        """The shares as a table, a line for each pair of tokens."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["from", "token", "to", "looks at", "share"])
        tokens = self.attention.tokens
        for (i, j), share in np.ndenumerate(self.shares()):
            writer.writerow([i, tokens[i], j, tokens[j], f"{share:.6g}"])
        return out.getvalue()

    def _where(self) -> str:
        layer = "mean of all layers" if self.layer == MEAN else f"layer {self.layer}"
        head = "" if self.layer == MEAN else ", mean of heads" if self.head == MEAN else f", head {self.head}"
        return f"{self.attention.encoder}, {layer}{head}{'' if self.start else ', without start'}"

    def figure(self) -> Figure:
        tokens, shares = self.attention.tokens, self.shares()
        side = max(3.4, 0.28 * len(tokens) + 1.4)
        figure = Figure(figsize=(side + 0.8, side), dpi=100, layout="constrained")
        ax = figure.add_subplot()
        drawn = ax.imshow(100 * shares, cmap=CMAP, vmin=0)
        ticks = range(len(tokens))
        ax.set_xticks(ticks, tokens, rotation=60, ha="right", rotation_mode="anchor", fontsize=8, parse_math=False)
        ax.set_yticks(ticks, tokens, fontsize=8, parse_math=False)
        ax.set_xlabel("is looked at", fontsize=9)
        ax.set_ylabel("looks", fontsize=9)
        ax.set_title(self._where(), fontsize=9, parse_math=False)
        figure.colorbar(drawn, ax=ax, shrink=0.8, label="%")
        return figure

    def __repr__(self) -> str:
        return f"TextExplorer({self.attention.text!r}, {self._where()})"
