"""From a referring expression to its head word and direction cues, and from a word to its tokens.

The head is found by a short rule for English noun phrases, not by a parser: the last word before the first word
that opens a modifier ("the small cat | on the left"). It can be corrected: ``segment(..., head="cat")``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import regex as re  # knows letters and their marks in every script

CUES = {
    **dict.fromkeys(("left", "leftmost"), "left"),
    **dict.fromkeys(("right", "rightmost"), "right"),
    **dict.fromkeys(("top", "topmost", "upper"), "top"),
    **dict.fromkeys(("bottom", "bottommost", "lower"), "bottom"),
}
"""Direction words of the four cues of the paper."""
_OPENERS = frozenset(
    "on in at of to with without by near next behind beside under over above below between from for against along "
    "around inside outside beneath that which who whose wearing holding standing sitting riding facing looking eating "
    "lying walking playing is are was has having and or closest nearest".split()
)
_NOT_NOUNS = frozenset(
    "a an the this these those one two three four five other another first second third last middle center far "
    "small large big little tall short long tiny huge old young new red orange yellow green blue purple pink brown "
    "black white grey gray dark".split()
) | frozenset(CUES)
_MAX = 1000


@dataclass(frozen=True)
class Expression:
    """A parsed referring expression.

    Attributes:
        text: the expression, white space folded.
        head: the word whose attention is read (the paper's ROOT word), as written.
        span: (start, end) of the head in ``text``, in characters.
        cues: directions among left, right, top, bottom, in order of mention.
    """

    text: str
    head: str
    span: tuple[int, int]
    cues: tuple[str, ...]


def find_words(text: str) -> list[re.Match[str]]:
    """The words of a text, each with its place; letters and their marks of every script."""
    return list(re.finditer(r"[\p{L}\p{N}][\p{L}\p{M}\p{N}]*(?:['’-][\p{L}\p{M}\p{N}]+)*", text))


def _head(words: list[re.Match[str]]) -> re.Match[str]:
    """Last word of the first noun phrase that holds a noun; without one, the last word that is no opener."""
    phrase: list[re.Match[str]] = []
    for word in [*words, None]:
        if word is not None and word.group().lower() not in _OPENERS:
            phrase.append(word)
            continue
        nouns = [w for w in phrase if w.group().lower() not in _NOT_NOUNS]
        if nouns:
            return nouns[-1]
        phrase = []
    # No noun that we know: "the one in the middle", "the orange" (a colour may be a fruit), "on the left".
    if ones := [w for w in words if w.group().lower() == "one"]:
        return ones[0]
    rest = [w for w in words if w.group().lower() not in _OPENERS | CUES.keys() | {"a", "an", "the"}]
    return (rest or words)[-1]


def parse(text: str, head: str | None = None) -> Expression:
    """Find the head word and the cues of a referring expression.

    A direction word is a cue unless it places the object against another one: "left of the dog", "on top of".

    Args:
        text: any text with at least one word, at most 1000 characters.
        head: take this word of the text as head instead of the rule's choice.

    Raises:
        ValueError: the text has no word, is too long, or does not contain ``head``.
    """
    text = " ".join(text.split())
    if len(text) > _MAX:
        raise ValueError(f"the expression has {len(text)} characters; write at most {_MAX}, best a short phrase")
    words = find_words(text)
    if not words:
        raise ValueError(f'the expression {text!r} has no word; write a phrase such as "the small cat on the left"')
    chosen = _head(words)
    if head is not None:
        found = [w for w in words if w.group().lower() == head.lower().strip()]
        if not found:
            raise ValueError(f"head={head!r} is not a word of {text!r}")
        chosen = found[0]
    cues = []
    for i, word in enumerate(words):
        cue = CUES.get(word.group().lower())
        relation = i + 1 < len(words) and words[i + 1].group().lower() == "of"
        if cue and not relation and cue not in cues:
            cues.append(cue)
    return Expression(text, chosen.group(), chosen.span(), tuple(cues))


def token_positions(tokenizer: Any, text: str, span: tuple[int, int]) -> list[int]:
    """Positions in the padded token sequence of the pieces of the word at ``span`` of ``text``.

    Character offsets, not a search for the string: "man" is not found in "woman".

    Raises:
        ValueError: the word lies behind the last token that the text encoder can read.
    """
    encoded = tokenizer(text, truncation=True, max_length=tokenizer.model_max_length, return_offsets_mapping=True)
    special = set(tokenizer.all_special_ids)
    pieces = zip(encoded.input_ids, encoded.offset_mapping, strict=True)
    hits = [i for i, (token, (a, b)) in enumerate(pieces) if token not in special and a < span[1] and b > span[0]]
    if not hits:
        limit = tokenizer.model_max_length - 2
        raise ValueError(
            f"the head word {text[slice(*span)]!r} lies behind the {limit} tokens that the text encoder reads; "
            "shorten the expression or name the head yourself"
        )
    return hits


def pieces(tokenizer: Any, text: str) -> tuple[str, ...]:
    """The tokens that the text encoder reads of a text, as text: the start token, the words' pieces, the end token."""
    ids = tokenizer(text, truncation=True, max_length=tokenizer.model_max_length).input_ids
    return tuple(tokenizer.decode([i]).strip() or "·" for i in ids)
