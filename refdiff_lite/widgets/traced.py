"""A traced generation for the explorer: ``AttentionExplorer(attention_of(record))``."""

from __future__ import annotations

import numpy as np
import torch

from ..expression import find_words, parse
from ..record import Record
from .recording import END, START, Attention

_LEAST = 1e-12
"""Probabilities below are drawn as this one: their logarithm must be a number."""


def attention_of(
    record: Record, image: int | None = None, *, negative: bool = False, head: str | None = None
) -> Attention:
    """One picture's attention as the explorer shows it, by the steps and heads that the record keeps apart.

    Where the record has probabilities, the explorer's logits are their logarithms; where text and image are one sequence,
    its probabilities are shares among the text's tokens. Of several text encoders CLIP is shown, else the first.

    Args:
        head: the word shown at first, where the rule's choice is wrong.

    Raises:
        ValueError: the head is not read, no picture, no prompt, not all tokens recorded, or another kind than cross.
    """
    if record.kind != "cross" or record.tokens is not None:
        raise ValueError("the explorer shows cross-attention to all tokens: trace without kind=... and words=...")
    if not record.images:
        raise ValueError("the explorer draws over the picture, and the pipeline gave none: record.images = [picture]")
    row = record.row(image)
    texts = {t.encoder: t for t in record.texts(row, negative)}
    if not texts:
        raise ValueError("no prompt is known, only its encoding: give the pipeline a prompt, not prompt_embeds")
    text = texts.get("clip", next(iter(texts.values())))
    before = min(key for key, _, _ in text.tokens)  # CLIP's start token, or the end of a language model's template
    behind = 1 + max(key for key, _, _ in text.tokens)
    tokens = min(m.shape[-1] for m in record.maps.values())
    # Where nothing stands before the words (T5) or behind them (Lumina), the explorer gets a token that nobody looks at.
    shift, more = int(before == 0), int(behind >= tokens)
    spans = [w.span() for w in find_words(text.text) if text.keys(*w.span())]
    chosen = parse(text.text, head)
    if head and chosen.span not in spans:
        raise ValueError(
            f"the word {chosen.head!r} lies behind the last token that the encoder reads; name another: head=..."
        )
    read_to = max(b for _, _, b in text.tokens)
    elsewhere = [key for t in texts.values() if t is not text for key, _, _ in t.tokens]
    steps: list[int | None] = [*record.steps] if record.steps else [None]
    scale = 1 if max(record.timesteps) > 1 else 1000  # flow matching counts from 0 to 1
    times = [np.mean(record.timesteps) if s is None else record.timesteps[s] for s in steps]
    sign = "-" if negative else "+"

    def logits(layer: str, step: int | None) -> np.ndarray:
        m = record.at(sign, layer, step)[row]
        m = m[None] if m.ndim == 3 else m
        m = torch.nn.functional.pad(m, (shift, more), value=0.0 if record.scores == "softmax" else -torch.inf)
        return (m.clamp(min=_LEAST).log() if record.scores == "softmax" else torch.nan_to_num(m, neginf=-1e4)).numpy()

    return Attention(
        image=record.images[row],
        words=(START, *(text.text[a:b] for a, b in spans), END),
        head=1 + (spans.index(chosen.span) if chosen.span in spans else 0),  # nothing but where the view starts
        timesteps=tuple(round(float(t) * scale) for t in times),
        cross=tuple({layer: logits(layer, step) for layer in record.layers} for step in steps),
        columns=(
            before + shift - 1,
            *(text.keys(a, b)[-1] + shift for a, b in spans),
            behind + shift,
        ),
        self_maps=(),
        pieces=((), *(tuple(text.text[a:b] for k, a, b in text.tokens if k in text.keys(*span)) for span in spans), ()),
        unread=text.text[read_to:].strip(),
        reach=min(elsewhere) + shift if elsewhere else None,
    )
