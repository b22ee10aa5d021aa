"""What ToyRef says is checked here by reading the words again, not with the functions that wrote them."""

import re

import numpy as np
import pytest

from refdiff_lite.toy.phrases import STYLES, Phrase, caption, expressions, matches, names_one, ordinals
from refdiff_lite.toy.scenes import TINTS, Thing, categories, make_scene

NOUN = "|".join(categories())
LOOK = rf"(?:(?P<size>small|large) )?(?:(?P<tint>{'|'.join(TINTS)}) )?(?P<noun>{NOUN})"
PLACE = r"(?:(?P<before>left|leftmost|right|rightmost|top|upper|bottom|lower) )?"
AFTER = r"(?: (?:on the|at the) (?P<after>left|right|top|bottom))?"
TERM = re.compile(rf"(?:(?:the|an|a) )?{PLACE}{LOOK}{AFTER}")
LINK = re.compile(
    r" (?:that is )?(?:to the )?(left of|right of|above|over|below|under) (?=the |an? |small |large |\w+)"
)
DIRECTION = {"leftmost": "left", "rightmost": "right", "upper": "top", "lower": "bottom"}
AHEAD = {  # how far a is in the named direction of b
    "left": lambda a, b: b.x - a.x,
    "right": lambda a, b: a.x - b.x,
    "top": lambda a, b: b.y - a.y,
    "bottom": lambda a, b: a.y - b.y,
}
RELATION = {"left of": "left", "right of": "right", "above": "top", "over": "top", "below": "bottom", "under": "bottom"}
CENTRE = Thing("", None, 0, 0.5, 0.5)


def read(text):
    """(size, tint, noun, place) of a noun phrase."""
    m = TERM.fullmatch(text)
    assert m, f"cannot read {text!r}"
    place = m["before"] or m["after"]
    return m["size"], m["tint"], m["noun"], DIRECTION.get(place, place)


def looks_like(things, size, tint, noun):
    return [t for t in things if t.category == noun and tint in (None, t.tint) and size in (None, t.size_word)]


def named(text, things):
    """All things that a reader could take the expression for."""
    link = LINK.search(text)
    *look, place = read(text[: link.start()] if link else text)
    found = looks_like(things, *look)
    if link:
        assert place is None
        *mark, where = read(text[link.end() :])
        assert where is None
        landmarks = looks_like(things, *mark)
        assert len(landmarks) == 1, f"{text!r}: which landmark?"
        ahead = AHEAD[RELATION[link[1]]]
        found = [t for t in found if t is not landmarks[0] and ahead(t, landmarks[0]) > 0]
    if place:
        best = max(AHEAD[place](t, CENTRE) for t in found)
        assert best > 0, f"{text!r} does not lie there"
        found = [t for t in found if AHEAD[place](t, CENTRE) > best - 0.1]
    return found


@pytest.fixture(scope="module")
def scenes():
    return [make_scene("val", i, 16).things for i in range(60)]


@pytest.fixture(scope="module")
def said(scenes):
    """style -> [(things, named thing, text)]."""
    rng = np.random.default_rng(0)
    return {s: [(ts, ts[i], x) for ts in scenes for i, x in expressions(ts, s, rng).items()] for s in STYLES}


def test_the_reader_itself():
    a = Thing("cat", "red", 0.3, 0.2, 0.5)
    b, c = Thing("cat", None, 0.4, 0.8, 0.5), Thing("dog", None, 0.3, 0.5, 0.2)
    for text, expected in [
        ("cat", [a, b]),
        ("the large cat", [b]),
        ("red cat", [a]),
        ("the leftmost cat", [a]),
        ("cat on the right", [b]),
        ("the cat that is to the right of the dog", [b]),
        ("cats", None),
        ("the cat below the dog", [a, b]),
    ]:
        if expected is None:
            with pytest.raises(AssertionError):
                named(text, (a, b, c))
        else:
            assert named(text, (a, b, c)) == expected, text


@pytest.mark.parametrize("style", STYLES)
def test_an_expression_names_exactly_one_thing(said, style):
    assert len(said[style]) > 60
    for things, thing, text in said[style]:
        assert named(text, things) == [thing], text


def test_what_each_style_may_say(said):
    words = {style: {w for *_, text in rows for w in text.split()} for style, rows in said.items()}
    where = set("left right top bottom leftmost rightmost upper lower above over below under of on at".split())
    assert words["noun"] <= set(categories())
    assert not words["toyref+"] & where
    assert words["toyref+"] & TINTS.keys()
    assert words["toyref+"] & {"small", "large"}
    assert words["toyref"] & where
    assert not words["toyref"] & {"of", "above", "below", "that"}
    assert words["toyref-g"] >= {"of", "above", "below", "that", "is", "to"}
    assert all(text.startswith("the ") and LINK.search(text) for *_, text in said["toyref-g"])
    # A bare noun says nothing about looks or place, so only the style "noun" may use it.
    assert not [text for s in STYLES[1:] for *_, text in said[s] if text.removeprefix("the ") in categories()]


def test_twins_are_told_apart_rather_than_left_out(said, scenes):
    """A phrase longer than the noun is used where the noun alone is ambiguous."""
    twins = [t for ts in scenes for t in ts if sum(o.category == t.category for o in ts) == 2]
    for style in ("toyref", "toyref+"):
        found = {id(t) for _, t, _ in said[style]}
        assert sum(id(t) in found for t in twins) > len(twins) / 3


def test_unknown_style():
    with pytest.raises(ValueError, match=r"unknown style 'refcoco'.*noun, toyref"):
        expressions((), "refcoco", np.random.default_rng(0))


def test_equal_seeds_say_the_same(scenes):
    def run(seed):
        rng = np.random.default_rng(seed)
        return [expressions(ts, "toyref", rng) for ts in scenes[:20]]

    assert run(0) == run(0) != run(1)


def test_near_misses_are_no_match():
    a, b = Thing("cat", None, 0.3, 0.2, 0.5), Thing("cat", None, 0.3, 0.3, 0.5)
    far = Thing("cat", None, 0.3, 0.8, 0.5)
    left = Phrase("cat", place="left")
    assert matches(left, (a, b)) == [0]
    assert not names_one(left, (a, b), 0)  # too close to call
    assert names_one(left, (a, far), 0)
    assert not names_one(left, (a, far), 1)
    assert matches(Phrase("dog"), (a, b)) == []
    assert matches(Phrase("cat", relation="left", landmark=Phrase("dog")), (a, b)) == []


def test_articles():
    rng = np.random.default_rng(0)
    assert Phrase("owl").text(rng, "a") == "an owl"
    assert Phrase("owl", tint="red").text(rng, "a") == "a red owl"
    assert Phrase("cat", "blue", "small").text(rng) == "small blue cat"
    assert Phrase("cat", relation="top", landmark=Phrase("owl")).text(rng).endswith(" the owl")


def true(text, things):
    """Whether a part of a caption is true of some thing, or of two."""
    link = LINK.search(text)
    *look, place = read(text[: link.start()] if link else text)
    found = [t for t in looks_like(things, *look) if place is None or AHEAD[place](t, CENTRE) > 0.1]
    if not link:
        return bool(found)
    *mark, _ = read(text[link.end() :])
    ahead = AHEAD[RELATION[link[1]]]
    return any(a is not b and ahead(a, b) > 0.1 for a in found for b in looks_like(things, *mark))


@pytest.mark.parametrize("split", ["train", "val"])
def test_captions_are_true(split):
    rng = np.random.default_rng(0)
    related = whole = 0
    for i in range(60):
        things = make_scene(split, i, 16).things
        for _ in range(3):
            text = caption(things, rng)
            parts = re.split(r", | and ", text)
            assert len(parts) <= len(things)
            assert all(true(part, things) for part in parts), text
            related += bool(LINK.search(text))
            whole += len(parts) == len(things)
    assert related > 5
    assert whole > 90


def test_a_caption_of_everything_names_everything():
    rng = np.random.default_rng(0)
    for i in range(20):
        things = make_scene("train", i, 16).things
        parts = re.split(r", | and ", caption(things, rng, everything=1))
        assert sorted(read(p)[2] for p in parts) == sorted(t.category for t in things)


def test_ordinals_name_one_thing_and_nothing_comes_close():
    things = tuple(Thing("cup", None, 0.3, x, 0.5, 0, False) for x in (0.1, 0.4, 0.42, 0.8))
    found = [ordinals(things, np.random.default_rng(i)) for i in range(20)]
    assert {i for f in found for i in f} == {0, 3}  # the middle ones are too near to each other
    said = {text for f in found for text in f.values() if "left" in text and "cup" in text}
    assert said == {"the first cup from the left", "the fourth cup from the left"}
    assert not any("largest" in text or "top" in text for f in found for text in f.values())  # alike in both
