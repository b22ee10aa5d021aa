"""What was attended to while pictures were painted: maps of words by step, layer and head; to be kept, and shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from matplotlib.figure import Figure

from .attention import min_max, resize
from .expression import find_words
from .files import write_whole
from .networks.words import Text
from .viz import show_image, show_map

FORMAT = "refdiff-lite record 1"
Pieces = Literal["mean", "last", "sum"]


@dataclass
class Record:
    """Attention of one generation.

    Attributes:
        model: class of the denoiser. kind, scores, over: what was recorded, as :func:`attention.record_attention` has it.
        heads: numbers of the heads kept apart, "each", or "mean".
        tokens: places among the text's keys that were kept; None if all were.
        timesteps: of the diffusion process, as the model was told them, one for each step.
        steps: those that were kept apart; the maps are otherwise a mean over all steps.
        prompts, negatives: of each image, as each text encoder read them.
        maps: (images, h, w, tokens) float32 or (images, heads, h, w, tokens) by sign ("+" the prompt's, "-" the negative
            prompt's), layer and step (-1 the mean over steps).
        images: of each image (H, W, 3) uint8 RGB; empty if the pipeline gave none.
    """

    model: str
    kind: str = "cross"
    scores: str = "softmax"
    over: str = "all"
    heads: str | list[int] = "mean"
    tokens: list[int] | None = None
    timesteps: list[float] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    prompts: list[list[Text]] = field(default_factory=list)
    negatives: list[list[Text]] = field(default_factory=list)
    maps: dict[tuple[str, str, int], torch.Tensor] = field(default_factory=dict)
    images: list[np.ndarray] = field(default_factory=list)

    @property
    def layers(self) -> list[str]:
        """Names of the recorded layers, in the order in which they run."""
        return list(dict.fromkeys(layer for _, layer, _ in self.maps))

    def words(self, image: int | None = None, *, negative: bool = False) -> list[str]:
        """The words of an image's prompt, of all its encoders."""
        texts = dict.fromkeys(t.text for t in self.texts(image, negative))
        return list(dict.fromkeys(w.group() for text in texts for w in find_words(text)))

    def keys(
        self, word: str, image: int | None = None, *, negative: bool = False, encoder: str | None = None, nth: int = 0
    ) -> dict[str, list[int]]:
        """Places of a word's pieces among the text's keys, for each encoder that reads it.

        Args:
            word: a word of the prompt, or any part of it, such as "black cat". nth: which, if it comes more than once.

        Raises:
            ValueError: not in the prompt, cut off by the encoder, several images and none named, no such encoder.
        """
        texts = self.texts(image, negative)
        if not texts:
            raise ValueError("no prompt is known, only its encoding: give the pipeline a prompt, not prompt_embeds")
        if encoder not in (None, *(t.encoder for t in texts)):
            raise ValueError(f"encoder={encoder!r}: choose one of {', '.join(t.encoder for t in texts)}")
        found, cut = {}, False
        for text in texts:
            spans = occurrences(text.text, word)
            if encoder in (None, text.encoder) and len(spans) > nth:
                places = text.keys(*spans[nth])
                found |= {text.encoder: places} if places else {}
                cut = cut or not places
        if not found:
            why = "lies behind the last token that the text encoder reads" if cut else "is not there"
            times = f" {nth + 1} times" if nth else ""
            raise ValueError(f"{word!r} is not{times} in {texts[0].text!r}: it {why}")
        return found

    def scores_of(
        self,
        word: str,
        image: int | None = None,
        *,
        step: int | None = None,
        layer: str | Sequence[str] | None = None,
        head: int | None = None,
        negative: bool = False,
        pieces: Pieces = "mean",
        encoder: str | None = None,
        nth: int = 0,
    ) -> np.ndarray:
        """Scores of a word as recorded, (h, w) float32 on the finest grid of the layers: probabilities or logits.

        Args:
            step, layer, head: one of those kept apart, or None for the mean over all. layer: also several names.
            pieces: how a word of several tokens is read: their "mean", "sum", or the "last", which has seen the others.
            encoder: one of several text encoders (SD3: "clip", "t5"); None is the mean over them.
        """
        if self.kind not in ("cross", "reverse", "output"):
            raise ValueError(f"{self.kind}-attention was recorded, which has no words")
        row, sign = self.row(image), "-" if negative else "+"
        places = self.keys(word, row, negative=negative, encoder=encoder, nth=nth).values()
        layers = self._layers(layer)
        chosen = [self.at(sign, name, step)[row] for name in layers]
        if head is not None:
            chosen = [m[self._head(head, m)] for m in chosen]
        chosen = [m.mean(0) if m.ndim == 4 else m for m in chosen]
        maps = []
        for m in chosen:
            each = [_combine(m[..., [self._kept(k, word) for k in keys]], pieces) for keys in places]
            maps.append(torch.stack(each).mean(0))
        grid = max(((m.shape[0], m.shape[1]) for m in maps), key=lambda s: s[0] * s[1])
        return torch.stack([resize(m, grid) if m.shape != grid else m for m in maps]).mean(0).numpy()

    def word_map(
        self, word: str, image: int | None = None, *, size: tuple[int, int] | None = None, **which: Any
    ) -> np.ndarray:
        """The map of a word: its scores, enlarged to the image and stretched to [0, 1]; (H, W) float32.

        Args:
            size: (H, W), by default that of the image. which: as :meth:`scores_of` takes them.
        """
        found = torch.from_numpy(self.scores_of(word, image, **which))
        own = self.images[self.row(image)] if self.images else found
        return min_max(resize(found, size or (own.shape[0], own.shape[1]))).numpy()

    def plot(
        self,
        words: Sequence[str] | None = None,
        image: int | None = None,
        by: Literal["step", "layer"] | None = None,
        **which: Any,
    ) -> Figure:
        """Heat maps over the image: one for each word, or small multiples of words by layer or by the steps kept apart."""
        row = self.row(image)
        chosen = list(words or self.words(row, negative=which.get("negative", False)))
        columns: list[tuple[str, dict]] = [("", {})]
        if by == "step":
            columns = [(f"step {s}, t = {self.timesteps[s]:g}", {"step": s}) for s in self.steps]
        elif by == "layer":
            columns = [(name, {"layer": name}) for name in self.layers]
        if not columns:
            raise ValueError("no steps were kept apart: trace(..., steps=[0, 10, 20]) keeps those")
        picture = self.images[row] if self.images else None
        cells = [(w, f'"{w}" {title}', more) for w in chosen for title, more in columns]
        first = [] if by or picture is None else [None]
        wide = len(columns) if by else min(len(cells) + len(first), 5)
        high = -(-(len(cells) + len(first)) // wide)
        figure = Figure(figsize=(2.1 * wide, 2.35 * high), dpi=90, layout="constrained")
        for i, cell in enumerate([*first, *cells]):
            ax = figure.add_subplot(high, wide, i + 1)
            if cell is None and picture is not None:
                show_image(picture, ax, "image")
            elif cell is not None:
                show_map(self.word_map(cell[0], row, **{**which, **cell[2]}), picture, ax, cell[1])
        return figure

    def to_html(self, image: int | None = None) -> str:
        """One page with the explorer of an image inside, to hand out; see :func:`widgets.traced.attention_of`."""
        from .widgets.attention import AttentionExplorer
        from .widgets.traced import attention_of

        explorer = AttentionExplorer(attention_of(self, image))
        page = explorer.to_html()
        explorer.close()
        return page

    def save(self, path: str | Path) -> Path:
        """Write everything into one safetensors file, with JSON in its header; nothing in it can run."""
        from safetensors.torch import save_file

        tensors = {f"{sign}/{step}/{layer}": m.contiguous().cpu() for (sign, layer, step), m in self.maps.items()}
        tensors |= {f"image/{i}": torch.from_numpy(np.array(p)) for i, p in enumerate(self.images)}
        header = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("maps", "images")}
        about = {"format": FORMAT, "record": json.dumps(header | {"order": self.layers}, default=asdict)}
        write_whole(Path(path), lambda whole: save_file(tensors, whole, about))
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Record:
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: not such a file, or a damaged one.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), "pt") as file:
                about = file.metadata() or {}
                if about.get("format") != FORMAT:
                    raise ValueError(f"{path} holds {about.get('format', 'no record')!r}, not {FORMAT!r}")
                header = json.loads(about["record"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            order = header.pop("order")
            prompts, negatives = (
                [
                    [Text(t["encoder"], t["text"], tuple((k, a, b) for k, a, b in t["tokens"])) for t in texts]
                    for texts in header.pop(name)
                ]
                for name in ("prompts", "negatives")
            )
            maps = {}
            for name in tensors:
                sign, _, rest = name.partition("/")
                step, _, layer = rest.partition("/")
                if sign != "image":
                    maps[sign, layer, int(step)] = tensors[name]
            maps = {key: maps[key] for key in sorted(maps, key=lambda k: (order.index(k[1]), k[2], k[0]))}
            images = [tensors[f"image/{i}"].numpy() for i in range(sum(n.startswith("image/") for n in tensors))]
            return cls(**header, prompts=prompts, negatives=negatives, maps=maps, images=images)
        except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is no record, or a damaged one ({error})") from error

    def __repr__(self) -> str:
        images, layers = max(len(self.images), len(self.prompts)), len(self.layers)
        return f"Record({self.model}, {self.kind}, {images} images, {len(self.timesteps)} steps, {layers} layers)"

    def row(self, image: int | None) -> int:
        """Number of an image, which must be named where there are several."""
        count = len(next(iter(self.maps.values()))) if self.maps else 0
        if not count:
            raise ValueError(
                "nothing was recorded: run the pipeline inside the block of trace, and read the record after it"
            )
        if image is None and count > 1:
            raise ValueError(f"{count} images were painted: say which with image=0 to {count - 1}")
        if not -count <= (image or 0) < count:
            raise ValueError(f"image={image}: {count} images were painted, from 0")
        return (image or 0) % count

    def texts(self, image: int | None, negative: bool) -> list[Text]:
        """The prompt of an image, or its negative prompt, as each text encoder read it."""
        row = self.row(image)
        if negative and not any(sign == "-" for sign, _, _ in self.maps):
            raise ValueError("the negative prompt was not recorded: trace(..., negative=True), with guidance")
        texts = self.negatives if negative else self.prompts
        return texts[row] if texts else []

    def _layers(self, layer: str | Sequence[str] | None) -> list[str]:
        names = self.layers if layer is None else [layer] if isinstance(layer, str) else list(layer)
        unknown = [n for n in names if n not in self.layers]
        if unknown or not names:
            raise ValueError(f"layer={layer!r} was not recorded; there are {', '.join(self.layers)}")
        return names

    def at(self, sign: str, layer: str, step: int | None) -> torch.Tensor:
        """Maps of one layer at a step kept apart, or the mean over all."""
        if step is not None and step not in self.steps:
            kept = f"only {', '.join(map(str, self.steps))}" if self.steps else "only the mean over all"
            raise ValueError(f"step={step} was not kept apart, {kept}: trace(..., steps=[{step}])")
        if step is not None:
            return self.maps[sign, layer, step]
        if (sign, layer, -1) in self.maps:
            return self.maps[sign, layer, -1]
        found = [self.maps[sign, layer, s] for s in self.steps if (sign, layer, s) in self.maps]
        return torch.stack(found).mean(0)

    def _head(self, head: int, maps: torch.Tensor) -> int:
        if maps.ndim != 4:
            raise ValueError(
                f'head={head}: only the mean over heads was recorded; trace(..., heads="each") keeps them apart'
            )
        heads = list(range(len(maps))) if isinstance(self.heads, str) else self.heads
        if head not in heads:
            raise ValueError(f"head={head} was not recorded, only {', '.join(map(str, heads))}")
        return heads.index(head)

    def _kept(self, key: int, word: str) -> int:
        if self.tokens is None:
            return key
        if key not in self.tokens:
            raise ValueError(f"the tokens of {word!r} were not recorded: trace(..., words=[{word!r}])")
        return self.tokens.index(key)


def occurrences(text: str, word: str) -> list[tuple[int, int]]:
    """Where a word stands in a text, as a whole word; where a part of a word is asked for, nowhere."""
    low, part = text.lower(), word.lower().strip()
    found, at = [], low.find(part) if part else -1
    while at >= 0:
        end = at + len(part)
        inside = (at and low[at - 1].isalnum() and part[0].isalnum()) or (
            end < len(low) and low[end].isalnum() and part[-1].isalnum()
        )
        if not inside:
            found.append((at, end))
        at = low.find(part, at + 1)
    return found


def _combine(maps: torch.Tensor, pieces: Pieces) -> torch.Tensor:
    if pieces not in ("mean", "last", "sum"):
        raise ValueError(f"pieces={pieces!r}: choose mean, last or sum")
    return maps[..., -1] if pieces == "last" else maps.mean(-1) if pieces == "mean" else maps.sum(-1)
