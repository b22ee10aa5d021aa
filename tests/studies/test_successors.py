"""The table of successors: paired differences, what holds, and the choice of constants."""

import pytest

from refdiff_lite import RefDiff
from refdiff_lite.config import VARIANTS
from studies import successors


def row(variant, image, hit, style="noun"):
    return {
        "variant": variant, "image_id": image, "sent_id": image, "style": style, "hit": hit, "iou": float(hit),
        "intersection": int(hit), "union": 1, "objects": 2,
    }  # fmt: skip


@pytest.fixture
def table():
    """Full finds every second thing, relations all, gs all but one of what full finds."""
    rows = []
    for image in range(40):
        found = dict.fromkeys(VARIANTS, image % 2 == 0) | {"relations": True}
        found["gs"] = image % 2 == 0 and image != 0
        rows += [row(v, image, hit) for v, hit in found.items()]
        rows += [row(v, image, False, "toyref-ord") for v in VARIANTS]
    return successors.condense(rows)


def test_differences_are_paired_and_only_sure_ones_hold(table):
    changes = {v: table[v]["noun"]["accuracy − full"] for v in VARIANTS}
    assert (changes["relations"]["value"], changes["relations"]["holds"]) == (0.5, True)
    assert (changes["gs"]["value"], changes["gs"]["holds"]) == (-0.025, False)
    assert not changes["full"]["holds"]


def test_all_is_without_the_style_of_its_own(table):
    assert table["full"]["all"]["n"] == table["full"]["noun"]["n"] == 40
    assert table["full"]["toyref-ord"]["accuracy"] == 0


def test_a_star_marks_what_holds(table):
    report = {"preset": "toy", "images": None, "runs": {"test, oracle": table}}
    lines = {line.split(" | ")[0]: line for line in successors.markdown(report).splitlines()}
    assert r"100.0 (91–100)\*" in lines["| relations"]
    assert r"\*" not in lines["| gs"]
    assert "all images" in successors.markdown(report)
    assert "only the first 3 images" in successors.markdown(report | {"images": 3})


@pytest.mark.slow
def test_val_tells_that_relations_help():
    found = successors.choose(RefDiff.from_preset("toy"), 12)
    assert found["best"]["accuracy"] > found["full"] + 0.1
    assert found["settings"] == 125
