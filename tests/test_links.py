from pathlib import Path

import pytest

from refdiff_lite.expression import parse

CASES = [
    line.split("\t") for line in (Path(__file__).parent / "links.tsv").read_text(encoding="utf-8").splitlines()[1:]
]
SIDES = {"left", "right", "top", "bottom"}


@pytest.mark.parametrize("case", CASES, ids=[c[0] for c in CASES])
def test_relations_and_orders(case):
    text, link, first, second, core, _ = case
    found = parse(text)
    ordinal, relation = found.ordinal, found.relation
    if link == "ordinal":
        assert ordinal is not None
        assert (str(ordinal.number), ordinal.by, ordinal.core) == (first, second, core)
        assert found.cues == parse(core).cues if core else found.cues == ()
    elif link == "relation":
        assert (ordinal, found.cues) == (None, ())
        assert relation is not None
        assert (relation.direction, relation.landmark, relation.core) == (first, second, core)
    else:
        assert (ordinal, relation) == (None, None)


def test_half_of_the_cases_were_held_out():
    """Written after the patterns, and run once; the others were at hand while the patterns were written."""
    assert len(CASES) >= 40
    assert sum(c[-1] == "held out" for c in CASES) >= len(CASES) / 2


@pytest.mark.parametrize("side", sorted(SIDES))
def test_the_last_from_one_side_is_the_first_from_the_other(side):
    last, first = parse(f"the last cup from the {side}").ordinal, parse(f"the first cup from the {side}").ordinal
    assert last.number == first.number == 1
    assert {last.by, first.by} in ({"left", "right"}, {"top", "bottom"})
