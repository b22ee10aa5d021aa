"""``refdiff-lite trace``: paint a prompt, and leave in a folder the picture, a heat map of each word, and the record."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .files import check_folder, write_whole
from .record import Record, occurrences


def paint(
    prompt: str,
    model: str,
    negative: str | None,
    words: Sequence[str] | None,
    layers: str | None,
    steps: int | None,
    by_step: bool,
    guidance: float | None,
    size: Mapping[str, int | None],
    dtype: str | None,
    out: Path,
    seed: int,
) -> Record:
    """Paint, trace, and write ``image.png``, ``words.png``, ``word-NAME.png``, ``record.safetensors``, perhaps ``steps.png``, ``explorer.html``.

    Raises:
        ValueError: a word that is not in the prompt, options that the pipeline has not, or attention that cannot be traced.
        OSError: no pipeline at ``model``, or no writing to ``out``.
    """
    if not prompt.strip():
        raise ValueError('the prompt is empty; write what to paint, such as "a dog left of a cat"')
    for word in words or ():
        if not occurrences(prompt, word):
            raise ValueError(f"--word {word!r} is not in the prompt {prompt!r}")
    check_folder(out)
    from .networks.loading import load_painter  # torch and diffusers: only after the quick checks
    from .trace import trace

    pipe = load_painter(model, dtype)
    with trace(pipe, layers, steps="each" if by_step else None, negative=negative is not None) as record:
        pipe(prompt=prompt, **_options(pipe, negative, steps, guidance, size, seed))
    _write(record, list(words or dict.fromkeys(record.words())), by_step, out)
    return record


def _options(
    pipe: Any,
    negative: str | None,
    steps: int | None,
    guidance: float | None,
    size: Mapping[str, int | None],
    seed: int,
) -> dict[str, Any]:
    """The pipeline's own names of what was asked for; those left open are its defaults."""
    import torch

    known = inspect.signature(type(pipe).__call__).parameters
    scale = "true_cfg_scale" if "true_cfg_scale" in known and negative is not None else "guidance_scale"
    asked = {"negative_prompt": negative, "num_inference_steps": steps, scale: guidance, **size}
    given = {name: value for name, value in asked.items() if value is not None}
    if scale == "true_cfg_scale":
        given.setdefault(scale, 4.0)  # else FLUX leaves the negative prompt out
    missing = [name for name in given if name not in known]
    if missing:
        raise ValueError(f"{type(pipe).__name__} takes no {', '.join(missing)}")
    return given | {"generator": torch.Generator().manual_seed(seed)}


def _write(record: Record, words: Sequence[str], by_step: bool, out: Path) -> None:
    import numpy as np
    from matplotlib.figure import Figure
    from PIL import Image

    from .viz import show_map

    def draw(figure: Figure, name: str) -> None:
        write_whole(out / f"{name}.png", lambda path: figure.savefig(path))

    picture = record.images[0] if record.images else None
    if picture is not None:
        write_whole(out / "image.png", lambda path: Image.fromarray(np.ascontiguousarray(picture)).save(path))
    draw(record.plot(words), "words")
    if by_step:
        draw(record.plot(words, by="step"), "steps")
    for i, word in enumerate(words):
        figure = Figure(figsize=(4, 4.3), dpi=120, layout="constrained")
        show_map(record.word_map(word), picture, figure.add_subplot(), f'"{word}"')
        draw(figure, f"word-{i}-" + re.sub(r"\W+", "-", word.lower()))
    record.save(out / "record.safetensors")
    from .widgets.attention import AttentionExplorer
    from .widgets.traced import attention_of

    explorer = AttentionExplorer(attention_of(record))
    explorer.save_html(out / "explorer.html")
    explorer.close()
