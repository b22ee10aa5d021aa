"""The words of ToyRef: captions to train on, and referring expressions that name exactly one thing.

A caption says something true of a scene. A referring expression must also be unambiguous: :func:`expressions`
keeps a candidate only if :func:`matches` finds one thing and no other comes close.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from .scenes import Thing

STYLES = ("noun", "toyref", "toyref+", "toyref-g")
"""noun: "cat"; toyref: position words allowed; toyref+: tint and size only; toyref-g: longer, with relations."""
PLACES = {
    "left": ("{} on the left", "left {}", "leftmost {}"),
    "right": ("{} on the right", "right {}", "rightmost {}"),
    "top": ("{} at the top", "top {}", "upper {}"),
    "bottom": ("{} at the bottom", "bottom {}", "lower {}"),
}
RELATIONS = {
    "left": ("left of", "to the left of"),
    "right": ("right of", "to the right of"),
    "top": ("above", "over"),
    "bottom": ("below", "under"),
}
ORDINALS = "toyref-ord"
"""A style of its own, with which nothing was trained: "the second cup from the left", "the largest dog", "third from the right"."""
COUNTS = ("first", "second", "third", "fourth", "fifth")
SIZES = {"largest": ("largest", "biggest"), "smallest": ("smallest",)}
GAP = 0.06
"""How far neighbours in an order must lie apart, as a share of the side; sizes must differ by a sixth."""
MARGIN = 0.12
"""How far (as a share of the side) a place or a relation must hold to be said, and fail for all others."""


@dataclass(frozen=True)
class Phrase:
    """What a noun phrase says of a thing; None where it says nothing."""

    category: str
    tint: str | None = None
    size: str | None = None
    place: str | None = None
    relation: str | None = None
    landmark: Phrase | None = None

    def text(self, rng: np.random.Generator, article: str = "") -> str:
        words = " ".join(w for w in (self.size, self.tint, self.category) if w)
        if self.place:
            words = str(rng.choice(PLACES[self.place])).format(words)
        if self.relation and self.landmark:
            link = str(rng.choice(RELATIONS[self.relation]))
            link = f"that is {link}" if article and rng.uniform() < 0.3 else link
            words = f"{words} {link} {self.landmark.text(rng, article or 'the')}"
        return re.sub(r"\ba (?=[aeiou])", "an ", f"{article} {words}".strip())


def _offset(thing: Thing, direction: str, x: float, y: float) -> float:
    """How far the thing lies from (x, y) in a direction; negative on the other side."""
    return {"left": x - thing.x, "right": thing.x - x, "top": y - thing.y, "bottom": thing.y - y}[direction]


def matches(phrase: Phrase, things: tuple[Thing, ...], slack: float = 0.0) -> list[int]:
    """Indices of the things that the phrase fits. ``slack`` > 0 admits near misses: one hit then means no rival."""
    hits = [
        i
        for i, t in enumerate(things)
        if t.category == phrase.category
        and (phrase.tint is None or t.tint == phrase.tint)
        and (phrase.size is None or t.size_word == phrase.size)
    ]
    if phrase.relation and phrase.landmark:
        marks = matches(phrase.landmark, things)
        if len(marks) != 1:
            return []
        mark = things[marks[0]]
        hits = [
            i for i in hits if i != marks[0] and _offset(things[i], phrase.relation, mark.x, mark.y) >= MARGIN - slack
        ]
    if phrase.place:
        # In its half of the picture, and further to that side than all others that the words before fit.
        offsets = {i: _offset(things[i], phrase.place, 0.5, 0.5) for i in hits}
        best = max(offsets.values(), default=0.0)
        hits = [i for i in hits if offsets[i] >= best - slack and offsets[i] >= 0.06 - slack]
    return hits


def names_one(phrase: Phrase, things: tuple[Thing, ...], index: int) -> bool:
    """Whether the phrase fits ``things[index]`` clearly and no other thing even nearly."""
    return matches(phrase, things) == [index] and matches(phrase, things, slack=MARGIN) == [index]


def _candidates(style: str, things: tuple[Thing, ...], index: int) -> Iterator[Phrase]:
    thing = things[index]
    noun = Phrase(thing.category)
    looks = [noun]
    if thing.tint:
        looks.append(replace(noun, tint=thing.tint))
    if thing.size_word:
        looks += [replace(look, size=thing.size_word) for look in looks]
    if style == "noun":
        yield noun
    elif style == "toyref+":
        yield from looks[1:]
    elif style == "toyref":
        yield from looks[1:]
        yield from (replace(look, place=place) for look in looks[:2] for place in PLACES)
    else:
        for j, other in enumerate(things):
            marks = [Phrase(other.category), Phrase(other.category, other.tint)]
            for mark in marks:
                if j != index and other.category != thing.category and names_one(mark, things, j):
                    for look in looks:
                        yield from (replace(look, relation=r, landmark=mark) for r in RELATIONS)


def expressions(things: tuple[Thing, ...], style: str, rng: np.random.Generator) -> dict[int, str]:
    """One referring expression of the style for each thing that has any: index of the thing -> text."""
    if style not in STYLES:
        raise ValueError(f"unknown style {style!r}; one of {', '.join(STYLES)}")
    chosen = {}
    for index in range(len(things)):
        found = [p for p in _candidates(style, things, index) if names_one(p, things, index)]
        # A phrase that its noun alone would answer tells nothing apart: prefer the others.
        telling = [p for p in found if not names_one(Phrase(p.category), things, index)]
        pool = telling if telling and style != "noun" else found
        if pool:
            article = "" if style == "noun" else "the" if style == "toyref-g" else str(rng.choice(["", "the"]))
            chosen[index] = pool[rng.integers(len(pool))].text(rng, article)
    return chosen


def ordinals(things: tuple[Thing, ...], rng: np.random.Generator) -> dict[int, str]:
    """One expression with a place in an order for each thing that has any: index of the thing -> text.

    Of a kind there are at least two in the picture; a text without a noun counts all things, at least three.
    """
    chosen: dict[int, str] = {}
    for index, thing in enumerate(things):
        same = [i for i, t in enumerate(things) if t.category == thing.category]
        found = []
        for noun, group in ((thing.category, same), ("", list(range(len(things))))):
            if len(group) < (2 if noun else 3):
                continue
            for side in PLACES:
                offsets = {i: _offset(things[i], side, 0.5, 0.5) for i in group}
                if _apart(offsets, index, GAP):
                    count = COUNTS[sorted(group, key=offsets.__getitem__, reverse=True).index(index)]
                    found.append(f"the {count} {noun} from the {side}" if noun else f"{count} from the {side}")
            for by, words in SIZES.items() if noun else ():
                sizes = {i: (1 if by == "largest" else -1) * float(np.log(things[i].size)) for i in group}
                if _apart(sizes, index, float(np.log(7 / 6))) and max(sizes, key=sizes.__getitem__) == index:
                    found.append(f"the {rng.choice(words)} {noun}")
        if found:
            chosen[index] = found[rng.integers(len(found))]
    return chosen


def _apart(amounts: dict[int, float], index: int, gap: float) -> bool:
    """Whether no other amount comes close to that of the index."""
    return all(abs(a - amounts[index]) >= gap for i, a in amounts.items() if i != index)


def _true_phrase(thing: Thing, rng: np.random.Generator, tints: float) -> Phrase:
    """Something true of one thing, for a caption: its tint with probability ``tints``, size and place now and then."""
    places = [p for p in PLACES if _offset(thing, p, 0.5, 0.5) > MARGIN]
    return Phrase(
        thing.category,
        tint=thing.tint if rng.uniform() < tints else None,
        size=thing.size_word if rng.uniform() < 0.3 else None,
        place=str(rng.choice(places)) if places and rng.uniform() < 0.3 else None,
    )


def caption(things: tuple[Thing, ...], rng: np.random.Generator, everything: float = 0.6, tints: float = 0.75) -> str:
    """A true caption: with probability ``everything`` it names all things, else some, or how two of them lie."""
    order = [things[i] for i in rng.permutation(len(things))]
    if rng.uniform() > everything and len(things) > 1:
        a, b = order[:2]
        directions = [r for r in RELATIONS if _offset(a, r, b.x, b.y) >= MARGIN]
        if directions and rng.uniform() < 0.4:
            phrase = replace(_true_phrase(a, rng, tints), place=None, relation=str(rng.choice(directions)))
            return replace(phrase, landmark=replace(_true_phrase(b, rng, tints), place=None)).text(
                rng, str(rng.choice(["a", "the"]))
            )
        order = order[: rng.integers(1, len(order))]
    article = str(rng.choice(["a", "the", ""], p=[0.6, 0.2, 0.2]))
    parts = [_true_phrase(t, rng, tints).text(rng, article) for t in order]
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
