"""Numbers by hand, slices, gains, and what may be compared with the literature."""

import pytest
from builders import row

from refdiff_lite.evaluation.published import PUBLISHED
from refdiff_lite.evaluation.summary import comparable, gains, latex, slices, summarise, table


def test_summarise_by_hand():
    found = summarise([row(50, 100, True), row(1, 10, False, image=1, error="x")])
    assert found["oIoU"] == pytest.approx(51 / 110)
    assert found["mIoU"] == pytest.approx(0.3)
    assert [found[f"Pr@{x}"] for x in (0.5, 0.6)] == [0.5, 0]
    assert (found["accuracy"], found["chance"], found["errors"], found["images"]) == (0.5, 0.25, 1, 2)
    assert found["mIoU_95"] == pytest.approx((0.1, 0.5))
    assert summarise([]) == {"n": 0}


def test_slices_part_the_rows():
    rows = [
        row(1, 2, True), row(1, 2, True, style="toyref", same=0, area=50, cues=["left"]),
        row(0, 2, False, same=7, area=500, cues=["left", "top"]),
    ]  # fmt: skip
    found = slices(rows)
    assert all(sum(s["n"] for s in groups.values()) == 3 for groups in found.values())
    assert set(found["others of its category"]) == {"0", "1", "3+"}
    assert list(found["size of the object"]) == ["under 2 % of the image", "2 to 8 %", "over 8 %"]
    assert set(found["direction cues"]) == {"none", "left", "left, top"}
    assert found["style"]["noun"]["mIoU"] == 0.25


def test_gains_are_paired():
    rows = [row(n, 10, True, image=n, sent=n, variant="ds") for n in range(6)]
    rows += [row(n + 2, 10, True, image=n, sent=n, variant="full") for n in range(6)]
    found = gains(rows)
    assert list(found) == ["full − ds"]
    assert found["full − ds"]["mIoU"] == pytest.approx(0.2)
    assert found["full − ds"]["mIoU_95"] == pytest.approx((0.2, 0.2))  # every sentence gains the same


ABOUT = {
    "data": "refcoco", "split": "val", "split_by": "unc", "refs": 3811, "published_refs": 3811, "preset": "sd15",
    "proposals": "sam", "complete": True, "images": 1500, "images_total": 1500,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"preset": "toy"}, "preset toy"),
        ({"proposals": "oracle"}, "proposals are oracle"),
        ({"complete": False, "images": 3}, "only 3 of 1500 images"),
        ({"refs": 9}, "holds 9 references here, 3811"),
    ],
)
def test_what_cannot_be_compared_is_said(change, said):
    assert not any(said in note for note in comparable(ABOUT)[1])
    rows, notes = comparable(ABOUT | change)
    assert any(said in note for note in notes)
    assert {(p.method, p.metric): v for p, v in rows}["Ref-Diff (2023)", "mIoU"] == 37.21


@pytest.mark.parametrize("about", [{"data": "toyref"}, {"data": "refcocog", "split_by": "google"}])
def test_nothing_published(about):
    rows, notes = comparable(ABOUT | about)
    assert rows == []
    assert "nothing was published" in notes[0]


def test_published_numbers_are_percent_of_known_splits():
    for p in PUBLISHED:
        assert p.metric in ("oIoU", "mIoU")
        assert all(10 < v < 60 for v in p.values.values())


def test_tables_have_ours_and_theirs():
    rows, notes = comparable(ABOUT)
    one = summarise([row(50, 100, True)])
    summary = ABOUT | {
        "n": 1, "variants": {"full": {"all": one, "noun": one}}, "comparable": notes,
        "published": [{"method": p.method, "metric": p.metric, "value": v} for p, v in rows],
    }  # fmt: skip
    markdown, tex = table(summary), latex(summary)
    assert "| full | noun | 1 | 0 | 25 | 100.0 (100–100) | 50.0 (50–50) |" in markdown
    assert "| Ref-Diff (2023) | mIoU | 37.21 |" in markdown
    assert "- oIoU and mIoU are two metrics" in markdown
    assert r"full & 50.00 & 50.00 & 100.00 \\" in tex
    assert r"Ref-Diff (2023) & -- & 37.21 & -- \\" in tex
    assert all(line.startswith("%") or line.endswith((r"\\", r"\midrule")) for line in tex.splitlines())
