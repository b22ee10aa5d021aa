"""Numbers by hand, slices, gains, and what may be compared with the literature."""

import pytest
from builders import row

from refdiff_lite.evaluation.summary import comparable, gains, latex, percent, slices, summarise, table


def test_summarise_by_hand():
    found = summarise([row(50, 100, True), row(1, 10, False, image=1, error="x")])
    assert found["oIoU"] == pytest.approx(51 / 110)
    assert found["mIoU"] == pytest.approx(0.3)
    assert [found[f"Pr@{x}"] for x in (0.5, 0.6)] == [0.5, 0]
    assert (found["accuracy"], found["chance"], found["errors"], found["images"]) == (0.5, 0.25, 1, 2)
    low, high = found["mIoU_95"]  # two images tell hardly anything
    assert low < 0.1
    assert high > 0.5
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


@pytest.mark.parametrize("count", [1, 7, 160])
def test_where_all_are_right_the_interval_says_how_many_they_were(count):
    """ "100 (100 to 100)" it was, however few."""
    found = summarise([row(10, 10, True, image=n) for n in range(count)])
    for metric in ("accuracy", "mIoU", "oIoU", "Pr@0.9"):
        assert found[f"{metric}_95"] == pytest.approx((count / (count + 1.96**2), 1), abs=1e-4)
    nothing = summarise([row(0, 10, False, image=n) for n in range(count)])
    assert nothing["accuracy_95"] == pytest.approx((0, 1 - count / (count + 1.96**2)), abs=1e-4)


def test_gains_are_paired():
    """Each image its own difficulty: the difference is far surer than either mean."""
    rows = [row(n % 80, 100, n % 3 == 0, image=n, sent=0, variant="ds") for n in range(90)]
    rows += [row(n % 80 + 20 - n % 2, 100, n % 3 < 2 - n % 2, image=n, sent=0, variant="full") for n in range(90)]
    found = gains(rows)
    assert list(found) == ["full − ds"]
    one = found["full − ds"]
    assert one["n"] == 90
    assert one["mIoU"] == pytest.approx(0.195)
    assert one["mIoU_95"] == pytest.approx((0.194, 0.196), abs=2e-4)
    assert one["accuracy"] == pytest.approx(15 / 90)
    low, high = one["accuracy_95"]
    assert 0.05 < low < 15 / 90 < high < 0.3


def test_gains_pair_sentences_of_their_image():
    """Two images may number their sentences alike."""
    rows = [row(k * 10, 10, True, image=k, sent=1, variant="full") for k in (0, 1)]
    rows += [row(0, 10, False, image=k, sent=1, variant="ds") for k in (1, 0)]
    assert gains(rows)["full − ds"]["n"] == 2
    assert gains(rows)["full − ds"]["mIoU"] == 0.5


def test_no_difference_at_all_is_no_certainty():
    rows = [row(5, 10, True, image=n, variant=v) for v in ("full", "ds") for n in range(10)]
    low, high = gains(rows)["full − ds"]["mIoU_95"]
    assert -0.3 < low < -0.2
    assert high == pytest.approx(-low)


ABOUT = {
    "data": "refcoco", "split": "val", "split_by": "unc", "refs": 3811, "published_refs": 3811, "preset": "sd15",
    "proposals": "sam", "sam": "sam-huge", "complete": True, "images": 1500, "images_total": 1500,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"preset": "toy"}, "preset toy"),
        ({"proposals": "oracle"}, "our proposals oracle"),
        ({"sam": "sam-base"}, "our proposals sam (sam-base)"),
        ({"complete": False, "images": 3}, "only 3 of 1500 images"),
        ({"refs": 9}, "holds 9 references here, 3811"),
    ],
)
def test_what_cannot_be_compared_is_said(change, said):
    assert not any(said in note for note in comparable(ABOUT)[1])
    rows, notes = comparable(ABOUT | change)
    assert any(said in note for note in notes)
    assert {(p.method, p.metric): v for p, v in rows}["Ref-Diff (2023)", "mIoU"] == 37.21


def test_tables_have_ours_and_theirs():
    rows, notes = comparable(ABOUT)
    one = summarise([row(50, 100, True)])
    summary = ABOUT | {
        "n": 1, "variants": {"full": {"all": one, "noun": one}}, "comparable": notes,
        "published": [{"method": p.method, "networks": p.networks, "metric": p.metric, "value": v} for p, v in rows],
    }  # fmt: skip
    markdown, tex = table(summary), latex(summary)
    assert "| full | noun | 1 | 0 | 25 | 100.0 (20–100) | 50.0 (10–90) |" in markdown
    assert "| Ref-Diff (2023) | Stable Diffusion 1.5, CLIP ViT-B/16, SAM ViT-H | mIoU | 37.21 |" in markdown
    assert "- oIoU and mIoU are two metrics" in markdown
    assert r"full & 50.00 & 50.00 & 100.00 \\" in tex
    assert r"Ref-Diff (2023) & -- & 37.21 & -- \\" in tex
    assert all(line.startswith("%") or line.endswith((r"\\", r"\midrule")) for line in tex.splitlines())


@pytest.mark.parametrize(
    ("numbers", "shown"),
    [((0.999, 0.9974, 1), "99.9 (99–100)"), ((0.5, 0.07, 0.93), "50.0 (7–93)"), ((0, 0, 0.001), "0.0 (0–1)"),
     ((0.294, 0.2941, 0.2949), "29.4 (29–30)")],
)  # fmt: skip
def test_bounds_are_rounded_outwards(numbers, shown):
    assert percent(*numbers) == shown
