"""Where the words of a prompt stand among the keys of a model's attention: by the tokenizers' offsets, in every encoder.

Pipelines wrap prompts into templates, drop the template's tokens again, or leave out padding. Each family's :class:`Source`
says how; what the text encoder really read is compared with it, so that a change there is an error and not a wrong map.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import get_ident
from typing import Any, NamedTuple

from .compat import fast_tokenizer
from .families import family_of


@dataclass(frozen=True)
class Text:
    """A prompt as one text encoder read it.

    Attributes:
        encoder: "clip", "t5" or "llm".
        text: as written.
        tokens: of each token its place among the text's keys, and from where to where in ``text`` it stands.
    """

    encoder: str
    text: str
    tokens: tuple[tuple[int, int, int], ...]

    def keys(self, start: int, end: int) -> list[int]:
        """Places of the tokens that have a part of ``text[start:end]``."""
        return [key for key, a, b in self.tokens if a < end and b > start]


class Read(NamedTuple):
    """A row that a text encoder read: the tokens' numbers, and which of them are no padding."""

    ids: list[int]
    mask: list[int]


def _key_as_is(pipe: Any, call: Mapping[str, Any], position: int, read: Read) -> int | None:
    return position


def _text_as_is(pipe: Any, call: Mapping[str, Any], text: str) -> str:
    return text


class Source(NamedTuple):
    """How a family's pipeline reads a prompt.

    ``suffix`` belongs to the names of the pipeline's tokenizer, text encoder and prompt. ``template`` makes what is tokenized,
    ``negative`` does for the negative prompt where that is otherwise; ``key`` tells the place among the attention's keys from
    that in the encoder, or None where it is dropped.
    """

    encoder: str
    suffix: str = ""
    template: Callable[[Any, Mapping[str, Any], str], str] = _text_as_is
    key: Callable[[Any, Mapping[str, Any], int, Read], int | None] = _key_as_is
    negative: Callable[[Any, Mapping[str, Any], str], str] | None = None


def _behind_clip(pipe: Any, call: Mapping[str, Any], position: int, read: Read) -> int:
    return pipe.tokenizer_max_length + position


def _valid(pipe: Any, call: Mapping[str, Any], position: int, read: Read) -> int:
    return sum(read.mask[:position])


def _qwen_key(pipe: Any, call: Mapping[str, Any], position: int, read: Read) -> int:
    return _valid(pipe, call, position, read) - pipe.prompt_template_encode_start_idx


def _sana_key(pipe: Any, call: Mapping[str, Any], position: int, read: Read) -> int | None:
    """The first token and the last ones; the instruction between them is dropped."""
    key = position - (len(read.ids) - call["max_sequence_length"])
    return 0 if position == 0 else key if key > 0 else None


def _cleaned(pipe: Any, call: Mapping[str, Any], text: str) -> str:
    return pipe._text_preprocessing(text, clean_caption=call.get("clean_caption", False))[0]


def _instructed(pipe: Any, call: Mapping[str, Any], text: str) -> str:
    return "\n".join(call.get("complex_human_instruction") or []) + _cleaned(pipe, call, text)


def _lumina(pipe: Any, call: Mapping[str, Any], text: str) -> str:
    return (call.get("system_prompt") or pipe.system_prompt) + " <Prompt Start> " + text


def _chat(thinking: bool) -> Callable[[Any, Mapping[str, Any], str], str]:
    def template(pipe: Any, call: Mapping[str, Any], text: str) -> str:
        return pipe.tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True, enable_thinking=thinking
        )

    return template


def _flux2(pipe: Any, call: Mapping[str, Any], text: str) -> str:
    if not hasattr(pipe, "system_message"):  # Klein
        return _chat(False)(pipe, call, text)
    from diffusers.pipelines.flux2.pipeline_flux2 import format_input

    messages = format_input([text], system_message=pipe.system_message)[0]
    return pipe.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False)


SOURCES: dict[str, tuple[Source, ...]] = {
    "UNet2DConditionModel": (Source("clip"), Source("clip_2", "_2")),
    "PixArtTransformer2DModel": (Source("t5", "", _cleaned),),
    "SanaTransformer2DModel": (Source("llm", "", _instructed, _sana_key, _cleaned),),
    "SD3Transformer2DModel": (Source("clip"), Source("t5", "_3", key=_behind_clip)),
    "FluxTransformer2DModel": (Source("t5", "_2"),),
    "Flux2Transformer2DModel": (Source("llm", "", _flux2),),
    "QwenImageTransformer2DModel": (
        Source("llm", "", lambda pipe, call, text: pipe.prompt_template_encode.format(text), _qwen_key),
    ),
    "Lumina2Transformer2DModel": (Source("llm", "", _lumina, negative=_text_as_is),),
    "ZImageTransformer2DModel": (Source("llm", "", _chat(True), _valid),),
}
"""By the class of the model."""


@contextmanager
def reading(pipe: Any) -> Generator[dict[str, list[Read]]]:
    """What the pipeline's text encoders read in this thread within the block, by the encoder's suffix."""
    seen: dict[str, list[Read]] = {}
    thread, handles = get_ident(), []

    def hook(suffix: str) -> Any:
        def before(module: Any, args: tuple, kwargs: dict) -> None:
            ids = args[0] if args else kwargs.get("input_ids")
            if get_ident() != thread or ids is None:
                return
            mask = kwargs.get("attention_mask")
            masks = [[1] * ids.shape[1]] * len(ids) if mask is None else mask.int().tolist()
            seen.setdefault(suffix, []).extend(map(Read, ids.tolist(), masks))

        return before

    for suffix in ("", "_2", "_3"):
        encoder = getattr(pipe, f"text_encoder{suffix}", None)
        if encoder is not None:
            handles.append(encoder.register_forward_pre_hook(hook(suffix), with_kwargs=True))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def texts_of(
    pipe: Any, model: Any, call: Mapping[str, Any], name: str, index: int, seen: Mapping[str, Sequence[Read]]
) -> list[Text]:
    """One prompt of a pipeline's call as each of its text encoders read it.

    Args:
        call: arguments of the pipeline's call. name: "prompt" or "negative_prompt". index: which of several.

    Raises:
        ValueError: an encoder read other tokens than those of this prompt.
    """
    kind = next(k.__name__ for k in type(model).__mro__ if k.__name__ in SOURCES)
    found: list[Text] = []
    for source in SOURCES[kind]:
        tokenizer = getattr(pipe, f"tokenizer{source.suffix}", None)
        prompt = call.get(f"{name}{source.suffix}") or call.get(name)
        text = prompt if isinstance(prompt, str) or prompt is None else prompt[index]
        if tokenizer is None or text is None or getattr(pipe, f"text_encoder{source.suffix}", None) is None:
            continue
        if source.encoder == "clip_2" and found and found[0].text == text:
            continue  # SDXL's two stand at the same places
        template = source.negative if name == "negative_prompt" and source.negative else source.template
        full = template(pipe, call, text)
        found.append(_text(pipe, call, source, tokenizer, text, full, seen.get(source.suffix, [])))
    return found


def _text(
    pipe: Any, call: Mapping[str, Any], source: Source, tokenizer: Any, text: str, full: str, rows: Sequence[Read]
) -> Text:
    tokenizer = fast_tokenizer(getattr(tokenizer, "tokenizer", tokenizer))
    if source.encoder.startswith("clip") and hasattr(pipe, "maybe_convert_prompt"):
        full = pipe.maybe_convert_prompt(full, tokenizer)
    encoded = tokenizer(full, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = encoded.input_ids, _unconverted(tokenizer, encoded)
    if not rows:  # encoded before
        plain = tokenizer(full)
        rows = [Read(plain.input_ids, [1] * len(plain.input_ids))]
    special = set(tokenizer.all_special_ids)
    fits = [(row, *place) for row in rows if (place := _find(ids, row.ids, special)) is not None]
    if not fits:
        raise ValueError(
            f"the {source.encoder} encoder of {type(pipe).__name__} read other tokens than those of {text!r}, so its words "
            "cannot be found among them; was the prompt changed on the way?"
        )
    row, first, count = fits[0]
    inner = _inner(full, text)
    tokens = []
    for i in range(count):
        a, b = (n - inner for n in offsets[i])
        key = source.key(pipe, call, first + i, row)
        if key is not None and key >= 0 and b > a and b > 0 and a < len(text):
            tokens.append((key, max(a, 0), min(b, len(text))))
    return Text(source.encoder, text, tuple(tokens))


def _inner(full: str, text: str) -> int:
    """Where the prompt stands in its template; negative by what was stripped before it."""
    plain = text.strip()
    at = max(full.rfind(plain), full.lower().rfind(plain.lower()))
    return at - (len(text) - len(text.lstrip())) if at >= 0 else 0


def _find(ids: list[int], row: list[int], special: set[int]) -> tuple[int, int] | None:
    """Where ``ids`` begin in a row, and how many of them are there before the row was cut."""
    for start in range(len(row)):
        count = 0
        while count < len(ids) and start + count < len(row) and ids[count] == row[start + count]:
            count += 1
        rest = row[start + count :]
        if count == len(ids) or (count and all(t in special for t in rest)):
            return start, count
    return None


def _unconverted(tokenizer: Any, encoded: Any) -> list[tuple[int, int]]:
    """Offsets in the text as written, where a textual inversion's word of several vectors was written out for each.

    "<cat> <cat>_1 <cat>_2" stands for "<cat>", so all three have its place, and what follows moves to the left.
    """
    added, moved, places = tokenizer.added_tokens_encoder, 0, []
    for token, (a, b) in zip(tokenizer.convert_ids_to_tokens(encoded.input_ids), encoded.offset_mapping, strict=True):
        match = re.fullmatch(r"(.+)_\d+", token) if token in added else None
        if match and match[1] in added and places:
            moved += b - a + 1
            places.append(places[-1])
        else:
            places.append((a - moved, b - moved))
    return places


def model_of(pipe: Any) -> Any:
    """The pipeline's denoiser.

    Raises:
        ValueError: it has none of a family that the recorder knows.
    """
    parts = (getattr(pipe, name, None) for name in ("transformer", "unet"))
    model = next((part for part in parts if part is not None), None)  # a compiled one has no truth value
    if model is None:
        raise ValueError(f"{type(pipe).__name__} has neither a UNet nor a transformer, so no attention to trace")
    family_of(getattr(model, "_orig_mod", model))
    if hasattr(pipe, "text_encoder_2") and getattr(pipe, "tokenizer", None) is None:
        raise ValueError(
            f"{type(pipe).__name__} has its second text encoder alone (SDXL's refiner?); take the base model"
        )
    return model
