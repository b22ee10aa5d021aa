"""From a referring expression to its head word and direction cues, and from a word to its tokens.

The head is found by a short rule (:mod:`refdiff_lite.grammar`), not by a parser. Where it may be wrong,
:attr:`Expression.doubt` says why, and you can name the word yourself: ``segment(..., head="cat")``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from re import Match
from typing import Any, Literal

import regex as re

from .grammar import CUES, find_cues, find_head, find_words
from .links import Ordinal, Relation, find_ordinal, find_relation

__all__ = ["CUES", "Expression", "cut_text", "find_words", "parse", "pieces", "token_positions"]
_MAX = 1000


@dataclass(frozen=True)
class Expression:
    """A parsed referring expression.

    Attributes:
        text: the expression, white space folded.
        head: the word whose attention is read (the paper's ROOT word), as written.
        span: (start, end) of the head in ``text``, in characters.
        cues: directions among left, right, top, bottom, in order of mention.
        doubt: why the head may be wrong, in a few words; "" where the rule is sure, the user named it, or spaCy did.
    """

    text: str
    head: str
    span: tuple[int, int]
    cues: tuple[str, ...]
    doubt: str = ""

    @property
    def ordinal(self) -> Ordinal | None:
        """The thing's place in an order: "second from the left", "largest"; no direction cue."""
        return find_ordinal(self.text)

    @property
    def relation(self) -> Relation | None:
        """The landmark against which the thing is placed: "left of the red car"; no direction cue."""
        return find_relation(self.text)


def parse(text: str, head: str | None = None, *, with_: Literal["rule", "spacy"] = "rule") -> Expression:
    """Find the head word and the cues of a referring expression.

    A direction word is a cue unless it places the object against another one ("left of the dog", "on top of"), counts
    ("third from left") or tells which way something looks ("facing left").

    Args:
        text: any text with at least one word, at most 1000 characters.
        head: take this word of the text as head instead of the rule's choice. Where it stands twice, the rule's own
            choice is taken if it is one of them, else the first; for another one write the words before it too:
            ``head="the cat"`` is the second in "cat left of the cat".
        with_: who finds the head, the "rule" or "spacy": an installed spaCy, by the official code's choice of the first
            word whose dependency is ROOT or a subject. The cues are always the rule's.

    Raises:
        ValueError: the text is no Unicode, has no word, is too long, or does not contain ``head``.
        ModuleNotFoundError: spaCy is asked for, and it or its English model is not installed.
    """
    for given in (text, head or ""):
        if not isinstance(given, str) or re.search(r"\p{Cs}", given):
            raise ValueError(
                "the expression and its head are Unicode text; half of a surrogate pair, or bytes, are none"
            )
    text = " ".join(text.split())
    if len(text) > _MAX:
        raise ValueError(f"the expression has {len(text)} characters; write at most {_MAX}, best a short phrase")
    if not find_words(text):
        raise ValueError(f'the expression {text!r} has no word; write a phrase such as "the small cat on the left"')
    if with_ not in ("rule", "spacy"):
        raise ValueError(f'with_={with_!r} is unknown; choose "rule" or "spacy"')
    chosen, doubt = find_head(text) if with_ == "rule" else (_spacy_head(text), "")
    span = chosen.span()
    if head is not None:
        span, doubt = _named(text, head, span), ""
    word = text[slice(*span)]
    return Expression(text, word, span, find_cues(text, word), doubt)


def _named(text: str, name: str, rule: tuple[int, int]) -> tuple[int, int]:
    """Place of the word that the user names: the rule's own if it bears the name, else the first."""
    name = " ".join(name.split())
    name = re.sub("['’]s$", "", name) or name
    pattern = rf"(?<![\p{{L}}\p{{M}}\p{{N}}]){re.escape(name)}"
    ends = {m.end() for m in re.finditer(pattern, text, re.IGNORECASE)} if name else set()
    found = [m.span() for m in find_words(text) if m.end() in ends]
    if not found:
        raise ValueError(f"head={name!r} is not a word of {text!r}; name one of its words as it is written there")
    return rule if rule in found else found[0]


@lru_cache(1)
def _spacy() -> Any:
    try:
        import spacy  # ty: ignore[import-not-found]
    except ImportError:
        raise ModuleNotFoundError('with_="spacy" needs spaCy: pip install spacy') from None
    models = [m for m in spacy.util.get_installed_models() if m.startswith("en_core_web")]
    if not models:
        raise ModuleNotFoundError('with_="spacy" needs an English model: python -m spacy download en_core_web_sm')
    return spacy.load(min(models, key=lambda m: ("_sm" not in m, m)))  # the official code's is the small one


def _spacy_head(text: str) -> Match[str]:
    """The word that the official code takes: the first whose dependency is ROOT or a subject."""
    start = next(t.idx for t in _spacy()(text) if t.dep_ == "ROOT" or "subj" in t.dep_)
    words = find_words(text)
    return next((w for w in words if w.end() > start), words[-1])


def _tokens(tokenizer: Any, text: str) -> tuple[list[tuple[int, int]], int]:
    """(start, end) in characters of every token, read or not, (0, 0) for special ones; and how many can be read.

    The last special tokens (CLIP's end token) take their places from those that can be read.
    """
    fast = getattr(tokenizer, "is_fast", False)
    found = tokenizer(text, return_special_tokens_mask=True, return_offsets_mapping=fast, verbose=False)
    special = "".join(map(str, found["special_tokens_mask"]))
    reach = tokenizer.model_max_length - (len(special) - len(special.rstrip("1")))
    if fast:
        return [(0, 0) if s == "1" else tuple(o) for s, o in zip(special, found["offset_mapping"], strict=True)], reach
    # A slow tokenizer tells no places: count the pieces before the start and the end of every word.
    pieces = tokenizer.tokenize(text)
    first = len(special) - len(special.lstrip("1"))
    offsets, start, before = [(0, 0)] * len(special), 0, 0
    for end in (*(end for word in find_words(text) for end in word.span()), len(text)):
        part = tokenizer.tokenize(text[:end])
        if part != pieces[: len(part)]:
            raise ValueError(
                f"this slow tokenizer ({type(tokenizer).__name__}) does not tell which tokens the words of {text!r} have; "
                "load the fast one, for example by transformers.AutoTokenizer"
            )
        offsets[first + before : first + len(part)] = [(start, end)] * (len(part) - before)
        start, before = end, len(part)
    return offsets, reach


def token_positions(tokenizer: Any, text: str, span: tuple[int, int]) -> list[int]:
    """Positions in the padded token sequence of the pieces of the word at ``span`` of ``text``.

    By character offsets, not by a search for the string: "man" is not found in "woman". Of a word that lies partly
    behind the last token that the text encoder reads, the pieces before it; :func:`cut_text` tells.

    Raises:
        ValueError: the whole word lies behind that token, or a slow tokenizer does not tell where its tokens lie.
    """
    offsets, reach = _tokens(tokenizer, text)
    hits = [i for i, (a, b) in enumerate(offsets[:reach]) if a < span[1] and b > span[0]]
    if not hits:
        limit = tokenizer.model_max_length - tokenizer.num_special_tokens_to_add()
        raise ValueError(
            f"the head word {text[slice(*span)]!r} lies behind the {limit} tokens that the text encoder reads; "
            "shorten the expression or name the head yourself"
        )
    return hits


def cut_text(tokenizer: Any, text: str) -> str:
    """The end of the text that the text encoder does not read, from the first word that is not read whole; "" if none."""
    offsets, reach = _tokens(tokenizer, text)
    start = min((a for a, b in offsets[reach:] if b > a), default=len(text))
    return text[next((w.start() for w in find_words(text) if w.start() < start < w.end()), start) :].strip()


def pieces(tokenizer: Any, text: str) -> tuple[str, ...]:
    """The tokens that the text encoder reads of a text, as text: the start token, the words' pieces, the end token."""
    ids = tokenizer(text, truncation=True, max_length=tokenizer.model_max_length).input_ids
    return tuple(tokenizer.decode([i]).strip() or "·" for i in ids)
