"""The toy networks' own small vocabulary: byte-level BPE, so that any text tokenises, one token per ToyRef word."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from .phrases import STYLES, caption, expressions
from .scenes import make_scene

CONTEXT = 24
"""Tokens per text, the two special ones included."""
START, END = "<|startoftext|>", "<|endoftext|>"


def corpus(scenes: int = 2000) -> list[str]:
    """Captions and expressions of the first training scenes."""
    rng = np.random.default_rng(0)
    lines = []
    for i in range(scenes):
        things = make_scene("train", i, side=16).things
        lines += [caption(things, rng) for _ in range(2)]
        lines += [text for style in STYLES for text in expressions(things, style, rng).values()]
    return lines


def train_tokenizer(lines: list[str], vocabulary: int = 900) -> CLIPTokenizer:
    """Learn merges from the lines; all 256 bytes stay in the vocabulary, the end token is its last id.

    open_clip reads the sentence at the highest id, Stable Diffusion pads with the end token: one tokenizer for both.
    """
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(" ", "removed"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    learner.train_from_iterator(
        (line.replace(",", " ,") for line in lines),
        trainers.BpeTrainer(vocab_size=vocabulary, end_of_word_suffix="</w>", show_progress=False),
    )
    data = learner.to_str()
    merges = [tuple(m) for m in json.loads(data)["model"]["merges"]]
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*symbols, *(s + "</w>" for s in symbols), *dict.fromkeys(a + b for a, b in merges), START, END]
    vocab = {word: i for i, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=CONTEXT)  # ty: ignore[invalid-argument-type]  # wants pairs


def save_tokenizer(folder: Path) -> CLIPTokenizer:
    tokenizer = train_tokenizer(corpus())
    tokenizer.save_pretrained(folder)
    return tokenizer
