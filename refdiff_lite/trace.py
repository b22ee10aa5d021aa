"""See what each word attends to while a pipeline paints: ``with trace(pipe) as record: pipe("a dog left of a cat")``."""

from __future__ import annotations

import inspect
import threading
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from .attention import check_room
from .networks import recorder
from .networks import scores as attention
from .networks import words as prompts_of
from .networks.families import Family, Kind, Layout, attention_modules, family_of
from .networks.recorder import Call
from .networks.scores import Seen, Wanted, size_of
from .record import Record, occurrences

_LOCK = threading.Lock()


@contextmanager
def trace(
    pipe: Any,
    layers: str | Sequence[str] | None = None,
    *,
    kind: Kind = "cross",
    scores: Literal["softmax", "logits"] = "softmax",
    over: Literal["all", "own"] = "all",
    heads: Literal["mean", "each"] | Sequence[int] = "mean",
    steps: Literal["each"] | Sequence[int] | None = None,
    words: Sequence[str] | None = None,
    negative: bool = False,
    stop: bool = False,
    max_bytes: int = 2**30,
) -> Generator[Record]:
    """Record the attention of one generation by any diffusers pipeline, without changing a bit of its pictures.

    Works for text to image, image to image and inpainting; with LoRA, textual inversion, offload and compiled models; of
    one prompt or several, and several images each. Memory does not grow with the steps, unless they are kept apart.

    Args:
        pipe: a pipeline whose UNet or transformer is of one of :data:`networks.families.FAMILIES`.
        layers: regular expression over names of layers, or names; None takes those that suit the family, "" all.
        kind, scores, over, heads: as :func:`attention.record_attention` has them.
        steps: record only these steps, counted from 0, and keep each apart; "each" keeps all apart; None means over all.
        words: keep the tokens of these words only; None keeps all.
        negative: record the negative prompt too, where guidance runs it.
        stop: end the generation behind the last of ``steps``, where only its maps are wanted; the pipeline returns None.
        max_bytes: refuse to hold more than this.

    Yields:
        the :class:`record.Record`, filled when the block ends.

    Raises:
        ValueError: attention that cannot be recorded, a layer, step or word that is not there, more than one generation in
            the block, or none.
    """
    model = prompts_of.model_of(pipe)
    if layers is None:
        suits = family_of(getattr(model, "_orig_mod", model)).layers
        layers = suits if any(recorder.re.search(suits, n) for n in attention_modules(model, kind)) else ""
    tracer = _Tracer(pipe, model, Wanted(kind, scores, over, None, heads), steps, words, negative, max_bytes)
    if stop:
        if steps is None or isinstance(steps, str):
            raise ValueError("stop=True ends behind the last of steps=[...]: name them")
        tracer.last = max(steps)
    with ExitStack() as stack:
        tracer.read = stack.enter_context(prompts_of.reading(pipe))
        stack.enter_context(_called(pipe, tracer))
        running = stack.enter_context(recorder.record(model, tracer.wanted, layers, tracer.add, tracer.leaves_out))
        yield tracer.record
    tracer.finish(running.elsewhere)


class _Tracer:
    """Sums up one generation's attention by sign, layer and step."""

    def __init__(
        self, pipe: Any, model: Any, wanted: Wanted, steps: Any, words: Any, negative: bool, max_bytes: int
    ) -> None:
        self.pipe, self.model, self.wanted, self.max_bytes = pipe, model, wanted, max_bytes
        self.family: Family = family_of(getattr(model, "_orig_mod", model))
        self.steps, self.words, self.negative = steps, words, negative
        self.thread = threading.get_ident()
        self.read: dict[str, list[prompts_of.Read]] = {}
        self.call: dict[str, Any] | None = None
        self.images = 0
        self.texts: list[Call] = []
        self.done: set[str] = set()
        self.last: int | None = None
        self.signs: dict[str, slice] = {}
        self.sums: dict[tuple[str, str, int], torch.Tensor] = {}
        self.added: Counter[tuple[str, str, int]] = Counter()
        heads = wanted.heads if isinstance(wanted.heads, str) else list(wanted.heads)
        name = type(getattr(model, "_orig_mod", model)).__name__
        self.record = Record(name, wanted.kind, wanted.scores, wanted.over, heads)

    def begin(self, call: Mapping[str, Any]) -> None:
        """The pipeline was called with these arguments."""
        if self.call is not None:
            raise ValueError("one trace records one generation: open another block for the next")
        prompt = call.get("prompt")
        prompts = [prompt] if isinstance(prompt, str) else list(prompt or [])
        embeds = call.get("prompt_embeds")
        count = len(prompts) or (0 if embeds is None else len(embeds))
        self.images = count * (call.get("num_images_per_prompt") or 1)
        kept = {name: list(value) if isinstance(value, list) else value for name, value in call.items()}
        self.call = {**kept, "prompt": prompts or None}  # copies: Z-Image's pipeline writes its template into the lists

    def end(self, output: Any) -> None:
        """The pipeline returned: its pictures, if they are pictures."""
        found = output[0] if isinstance(output, tuple) else getattr(output, "images", None)
        for picture in found if isinstance(found, (list, np.ndarray)) else []:
            if isinstance(picture, np.ndarray):
                picture = np.round(picture * 255).astype(np.uint8) if picture.dtype.kind == "f" else picture
            elif isinstance(picture, Image.Image):
                picture = np.array(picture.convert("RGB"))
            self.record.images.append(picture)

    def leaves_out(self, call: Call) -> bool:
        """Find out which step and which prompts a call of the model belongs to, and whether it is wanted."""
        if self.call is None:
            raise ValueError("the model was called outside the traced pipeline: call the pipeline inside the block")
        if call.arguments.get("skip_layers"):  # SD3's guidance by a weakened model
            return True
        self.signs = self._signs(call)
        time = call.arguments.get("timestep", call.arguments.get("t"))
        t = float(time.flatten()[0] if isinstance(time, torch.Tensor) else time)
        times = self.record.timesteps
        if not times or times[-1] != t or self.done & set(self.signs):
            times.append(t)
            self.done = set()
        self.done |= set(self.signs)
        if not self.negative:
            self.signs.pop("-", None)
        if len(times) - 1 == self.last and (not self.negative or "-" in self.done):
            recorder.stop_when_recorded(self.model)
        wanted = self.steps is None or self.steps == "each" or len(times) - 1 in self.steps
        return not wanted or not self.signs

    def _signs(self, call: Call) -> dict[str, slice]:
        """Rows of the prompt (+) and of the negative prompt (-) in this call."""
        n, rows, order = self.images, call.rows, self.family.guidance
        if order == "calls" and rows == n:
            known = next((i for i, c in enumerate(self.texts) if call.same_text(c)), None)
            if known is None:
                self.texts.append(call)
                known = len(self.texts) - 1
            if known < 2:
                return {"+-"[known]: slice(0, n)}
        elif rows == n:
            return {"+": slice(0, n)}
        elif rows == 2 * n and order != "calls":
            return {order[0]: slice(0, n), order[1]: slice(n, 2 * n)}
        raise ValueError(
            f"the model ran over {rows} rows for {n} images, which is neither the prompts alone nor guidance by a negative "
            "prompt; guidance by more than that cannot be traced"
        )

    def add(self, call: Call, layer: str, seen: Seen, layout: Layout) -> None:
        if not self.sums:
            self._find_words()
        for sign, rows in self.signs.items():
            part = seen.rows(rows)
            where = Layout(layout.grid, layout.queries[rows], layout.keys[rows])
            key = sign, layer, -1 if self.steps is None else len(self.record.timesteps) - 1
            if key not in self.sums:
                what = f"{self.wanted.kind}-attention of {layer}"
                check_room(what, size_of(part, where, self.wanted), self.sums.values(), self.max_bytes)
            found = attention.scores(part, where, self.wanted)
            if key in self.sums and self.sums[key].shape != found.shape:
                raise ValueError(
                    f"{layer} gave maps {tuple(found.shape)} after {tuple(self.sums[key].shape)}: the size or the text's "
                    "length changed on the way; trace single steps, steps=[...], to keep them apart"
                )
            self.sums[key] = self.sums[key].add_(found) if key in self.sums else found
            self.added[key] += 1

    def _find_words(self) -> None:
        """Where the prompts' words stand, before anything is recorded: only some tokens may be wanted."""
        assert self.call is not None
        given = self.call.get("prompt") or []
        each = self.images // max(1, len(given))
        named = {"prompts": "prompt"} | ({"negatives": "negative_prompt"} if self.negative else {})
        for name, argument in named.items():
            call = self.call if name == "prompts" or self.call.get(argument) else {**self.call, argument: ""}
            if name == "negatives" and isinstance(call[argument], list):
                call = {**call, argument: call[argument] * (1 if len(call[argument]) > 1 else len(given))}
            texts = [
                prompts_of.texts_of(self.pipe, self._base, call, argument, i, self.read) for i in range(len(given))
            ]
            setattr(self.record, name, [t for t in texts for _ in range(each)])
        if self.words is not None:
            keys = set()
            for i in range(self.images):
                for word in self.words:
                    keys |= self._keys(word, i)
            if not keys:
                raise ValueError(f"none of the words {', '.join(self.words)} is in a prompt")
            self.record.tokens = sorted(keys)
            self.wanted = Wanted(
                self.wanted.kind, self.wanted.scores, self.wanted.over, tuple(self.record.tokens), self.wanted.heads
            )

    @property
    def _base(self) -> Any:
        return getattr(self.model, "_orig_mod", self.model)

    def _keys(self, word: str, image: int) -> set[int]:
        texts = [*self.record.prompts[image], *(self.record.negatives[image] if self.record.negatives else [])]
        return {k for t in texts for span in occurrences(t.text, word) for k in t.keys(*span)}

    def finish(self, elsewhere: int) -> None:
        """Turn sums into means."""
        if not self.sums:
            if elsewhere:
                raise ValueError("the pipeline ran in another thread: open the trace in the thread that calls it")
            if self.call is None:
                raise ValueError("nothing was painted inside the block: call the pipeline there")
        taken = len(self.record.timesteps)
        kept = sorted({step for _, _, step in self.sums if step >= 0})
        missing = [] if self.steps is None or self.steps == "each" else [s for s in self.steps if s not in kept]
        if missing:
            raise ValueError(f"steps={missing}: there were only {taken} steps, from 0")
        self.record.steps = kept
        self.record.maps = {key: (total / self.added[key]).cpu() for key, total in self.sums.items()}


_TRACERS: dict[int, list[_Tracer]] = {}
"""Those of each pipeline, by its id."""


@contextmanager
def _called(pipe: Any, tracer: _Tracer) -> Generator[None]:
    """Let a tracer hear with which arguments its thread calls the pipeline, and what comes back."""
    with _LOCK:
        tracers = _TRACERS.setdefault(id(pipe), [])
        if not tracers:
            pipe.__class__ = _listening(type(pipe), tracers)
        tracers.append(tracer)
    try:
        yield
    finally:
        with _LOCK:
            tracers.remove(tracer)
            if not tracers:
                pipe.__class__ = type(pipe).__mro__[1]
                _TRACERS.pop(id(pipe), None)


def _listening(kind: type, tracers: list[_Tracer]) -> type:
    signature = inspect.signature(kind.__call__)

    @wraps(kind.__call__)
    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:
        mine = [t for t in tracers if t.thread == threading.get_ident()]
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        for t in mine:
            t.begin(bound.arguments)
        try:
            output = kind.__call__(self, *args, **kwargs)
        except recorder.Enough:
            self.maybe_free_model_hooks()  # as every pipeline does at its end
            return None
        finally:
            recorder.stop_when_recorded(None)
        for t in mine:
            t.end(output)
        return output

    return type(kind.__name__, (kind,), {"__call__": __call__, "__module__": kind.__module__, "__doc__": kind.__doc__})
