"""How an expression sets its thing against others: by a relation to a landmark, or by its place in an order.

"left of the red car" and "the second cup from the left" hold no direction cue: the thing may lie anywhere in the
picture. A few patterns find them; what they do not know stays unparsed, and the expression is then answered without.
"""

from __future__ import annotations

from dataclasses import dataclass

import regex as re

from .grammar import CUES, IMAGE, NUMBERS, find_words


@dataclass(frozen=True)
class Relation:
    """ "the cup left of the dog": the core "the cup", the direction "left", the landmark "the dog".

    The core is "" where the expression names no thing of its own, as in "left of the dog".
    """

    core: str
    direction: str
    landmark: str


@dataclass(frozen=True)
class Ordinal:
    """ "the second cup from the left": the core "the cup", number 2, by "left"; "the largest dog": number 1, by "largest".

    It goes by left, right, top, bottom, largest, smallest, tallest or shortest. The core is what is left of the expression,
    "" where it names no thing.
    """

    core: str
    number: int
    by: str


_SIDE = r"(?:left|right|top|bottom)"
_OTHER = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}
_NUMBER = rf"(?P<number>{'|'.join(NUMBERS)}|last)"
_GROUPS = r"(?!\s+(?:row|column|line|shelf|floor|level|step|rung|time)s?\b)"
_FROM = re.compile(
    rf"\b{_NUMBER}\b{_GROUPS}(?P<between>(?:\s+(?!from\b|frm\b)[\w'’-]+){{0,6}}?)(?:\s+(?:in|over|down|up|counting|counted))?"
    rf"\s+(?:from|frm)\s+(?:the\s+)?(?:far\s+)?(?P<side>{_SIDE})\b(?![ -]{_SIDE}\b)(?:[ -]?hand)?(?:\s+(?:side|edge))?"
    rf"(?:\s+of\s+(?:the\s+)?(?:{'|'.join(IMAGE)})\b)?(?:\s+to\s+(?:the\s+)?{_SIDE}\b)?(?!\s+of\b)",
    re.IGNORECASE,
)
_BARE = re.compile(rf"\b{_NUMBER}\s+(?P<side>{_SIDE})(?:most)?\b(?!\s+of\b|[ -]{_SIDE}\b)(?P<between>)", re.IGNORECASE)
_SIZES = {
    **dict.fromkeys(("largest", "biggest"), "largest"),
    **dict.fromkeys(("smallest", "tiniest", "littlest"), "smallest"),
    "tallest": "tallest",
    "shortest": "shortest",
}
_MOST = re.compile(
    rf"\b(?:{_NUMBER}[\s-]+)?(?P<size>{'|'.join(_SIZES)})\b(?:\s+(?:of|among)\s+(?:(?:all|the|these|those)\b\s*)+)?",
    re.IGNORECASE,
)
_LINK = re.compile(
    r"(?:^|\s)(?:(?:to|on|at)\s+(?:the\s+|its\s+)?)?(?:immediate\s+|far\s+)?"
    r"(?P<side>left|right)(?:[ -]?hand)?(?:\s+side)?\s+of\s+(?P<mark>.+)$"
    r"|(?:^|\s)(?:(?P<top>above|over|on\s+top\s+of)|(?P<bottom>below|under|underneath|beneath))\s+(?P<mark2>.+)$",
    re.IGNORECASE,
)
_NOT_THINGS = {*IMAGE, "center", "centre", "middle", "there", "here", "it", "them", "her", "him", "frame"}
_EMPTY = {"a", "an", "the", "this", "that", "one", "ones", "thing", "object", "item", "all", "of", "in"}
_TAIL = re.compile(
    r"(?:\s*,|\s+(?:that|which|who|is|are|was|directly|just|immediately|standing|sitting|lying|located|placed|positioned"
    r"|seen|in|and|it|'s|’s))+\s*$|['’]s\s*$",
    re.IGNORECASE,
)


def _core(text: str) -> str:
    """What names the thing itself, "" if nothing does."""
    text = _TAIL.sub("", " ".join(text.split()).strip(" ,;"))
    return "" if all(m.group().lower() in _EMPTY for m in find_words(text)) else text


def find_ordinal(text: str) -> Ordinal | None:
    """The place in an order that a text names, if it names one."""
    if found := _MOST.search(text):
        number = (found["number"] or "first").lower()
        if number == "last" or (found["number"] is None and _negated(text, found.start())):
            return None
        return Ordinal(
            _core(text[: found.start()] + " " + text[found.end() :]), NUMBERS[number], _SIZES[found["size"].lower()]
        )
    found = _FROM.search(text) or _BARE.search(text)
    if found is None or _negated(text, found.start()):
        return None
    number, side = found["number"].lower(), found["side"].lower()
    core = _core(f"{text[: found.start()]} {found['between']} {text[found.end() :]}")
    return Ordinal(core, 1, _OTHER[side]) if number == "last" else Ordinal(core, NUMBERS[number], side)


def find_relation(text: str) -> Relation | None:
    """The first relation to a landmark that a text names, if it names one."""
    for found in _LINK.finditer(text, overlapped=True):
        side = "top" if found["top"] else "bottom" if found["bottom"] else CUES[found["side"].lower()]
        mark = re.split(r"\s*[,;]", found["mark"] or found["mark2"])[0].strip(" .")
        words = [m.group().lower() for m in find_words(mark)]
        naming = [w for w in words if w not in _EMPTY]
        vague = found["side"] is None and words[:1] and words[0].isdecimal()  # "over 40"
        if not naming or naming[0] in _NOT_THINGS or vague or _negated(text, found.start() + 1):
            continue
        return Relation(_core(text[: found.start()]), side, mark)
    return None


def _negated(text: str, start: int) -> bool:
    before = [m.group().lower() for m in find_words(text[:start])]
    return any(w in ("not", "isn't", "isn’t", "never") for w in before[-2:])
