"""SegmentationPlayground as it is seen: what is picked, what is true, what CLIP sees, a picture of one's own."""

import base64
import io

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from refdiff_lite.config import SUCCESSORS
from refdiff_lite.datasets.toyref import load_toyref
from refdiff_lite.widgets import SegmentationPlayground

pytestmark = pytest.mark.slow
READ = "c => { const d = c.getContext('2d').getImageData(0, 0, c.width, c.height); return [d.width, d.height, ...d.data]; }"


@pytest.fixture(scope="module")
def sample():
    return load_toyref("test")[0]


@pytest.fixture
def playground(scene, sample):
    first, second = sample.records[0], sample.records[-1]
    truth = {r.text: sample.masks[r.target] for r in (first, second)}
    return SegmentationPlayground(scene, first.text, second.text, truth=truth)


def inside(locator):
    """The mask that a picture shows: what is not dimmed."""
    width, height, *data = locator.evaluate(READ)
    return np.array(data, np.uint8).reshape(height, width, 4)[..., 3] == 0


def test_what_was_picked_goes_with_its_sentence_and_generator(live_page, playground):
    page = live_page(playground)
    page.get_by_label("Proposals", exact=True).select_option("weak")
    rows = page.locator(".rdl-ranking .rdl-rank")
    for leave in (
        lambda: page.locator(".rdl-history button").nth(1).click(),
        lambda: page.get_by_label("Proposals", exact=True).select_option("felzenszwalb"),
        lambda: page.get_by_role("radio", name="g", exact=True).check(force=True),
    ):
        rows.nth(1).click()
        expect(page.locator(".rdl-rank[aria-pressed=true]")).to_have_count(1)
        assert playground.picked >= 0
        leave()
        page.mouse.move(1, 1)
        expect(page.locator(".rdl-rank[aria-pressed=true]")).to_have_count(0)
        expect(page.locator(".rdl-pane").nth(1)).to_be_hidden()
        assert playground.picked == -1
        expect(page.locator(".rdl-pane .rdl-note").first).to_contain_text(f"chosen #{playground.best}")
        np.testing.assert_array_equal(inside(page.locator(".rdl-over").first), playground.mask)


@pytest.mark.parametrize("first", ["current", "_block", "picked"])
def test_a_new_sentence_comes_in_one_message_in_any_order(live_page, playground, first):
    playground.choose(proposals="oracle", picked=2)
    page = live_page(playground)
    text = "the thing on the right"
    playground.ask(text)
    block = base64.b64encode(playground._block).decode()
    told = {"_meta": playground._meta, "_block": block, "current": playground.current, "picked": playground.picked}
    told = {first: told[first], **told}
    page.evaluate("told => models[0].update(told)", told)
    expect(page.get_by_label("sentence", exact=True)).to_have_value(text)
    expect(page.locator(".rdl-pane .rdl-note").first).to_contain_text(f"chosen #{playground.best}")


def test_two_proposals_stand_side_by_side(live_page, playground):
    playground.proposals = "oracle"
    page = live_page(playground)
    row = page.locator(".rdl-ranking .rdl-rank").nth(1)
    row.click()
    page.mouse.move(1, 1)
    picked, best = int(row.get_attribute("data-i")), playground.best
    masks = playground.answers[0].parts["oracle"].masks
    for pane, i in ((0, best), (1, picked)):
        np.testing.assert_array_equal(inside(page.locator(".rdl-over").nth(pane)), masks[i])
    expect(page.locator(".rdl-pane .rdl-note").nth(1)).to_contain_text(f"picked #{picked}")


def test_the_true_proposal_is_seen_wherever_it_ranks(live_page, scene, playground):
    playground.choose(proposals="weak", variant="gs")
    parts = playground.answers[0].parts["weak"]
    order = np.argsort(-parts.s_g)
    parts.iou[:] = 0.1
    parts.iou[order[12]] = 0.9  # behind the best eight
    playground._publish()
    page = live_page(playground)
    rows = page.locator(".rdl-ranking .rdl-rank")
    expect(rows).to_have_count(9)
    true = page.locator(".rdl-true")
    expect(true).to_have_attribute("data-i", str(order[12]))
    expect(true).to_contain_text(f"#{order[12]}")
    expect(true).to_contain_text("rank 13")
    expect(true).to_contain_text("✓ 0.90")
    for i, row in enumerate(rows.all()[:8]):
        expect(row).to_contain_text(f"#{order[i]}")  # the number that the text and Python name
    row, table = true.bounding_box(), page.locator(".rdl-ranking").bounding_box()
    assert row["y"] + row["height"] <= table["y"] + table["height"]  # not behind the edge of a list that scrolls
    page.get_by_role("button", name=f"show all {len(order)}").click()
    expect(rows).to_have_count(len(order))
    box = page.locator(".rdl-ranking").bounding_box()
    assert box["height"] < 460


def test_knobs_lie_above_the_fold(live_page, playground):
    page = live_page(playground)
    boxes = [c.bounding_box() for c in page.locator(".rdl-knobs > :not([hidden])").all()]
    assert max(b["y"] + b["height"] for b in boxes) <= 800


def test_what_clip_sees(live_page, playground, scene):
    playground.choose(proposals="oracle", bias=False)
    page = live_page(playground)
    page.locator(".rdl-sees summary").click()
    pictures = page.locator(".rdl-sees img")
    expect(pictures).to_have_count(2)
    page.wait_for_timeout(200)
    name = f"clip/0/oracle/{playground.best}/0"
    crop = np.asarray(Image.open(io.BytesIO(playground.answer(name)[f"{name}/crop"].tobytes())))
    size = pictures.first.evaluate("i => [i.naturalHeight, i.naturalWidth]")
    assert size == list(crop.shape[:2])
    page.locator(".rdl-ranking .rdl-rank").nth(1).click()
    expect(page.locator(".rdl-sees summary")).to_have_text(f"What CLIP sees of #{playground.picked}")
    expect(pictures).to_have_count(2)


def test_the_exported_page_keeps_what_clip_sees_of_the_winner(open_page, playground):
    page = open_page(playground)
    page.locator(".rdl-sees summary").click()
    expect(page.locator(".rdl-sees img")).to_have_count(2)
    page.locator(".rdl-ranking .rdl-rank").nth(1).click()
    expect(page.locator(".rdl-sees")).to_contain_text("for the winner alone")


def test_a_picture_of_ones_own_is_segmented(scene, playground, sample):
    """The kernel's side; the page sends the file's bytes as they are."""
    other = load_toyref("test")[1]
    text = playground.answers[0].expression.text
    playground.picked = 1
    playground._given_a_picture(playground, {"picture": "x.png"}, [memoryview(other.path.read_bytes())])
    assert playground._error == ""
    assert not playground._busy
    result = scene.model.set_image(other.path).segment(text, "full", "felzenszwalb")
    np.testing.assert_array_equal(playground.mask, result.mask)
    assert (playground.picked, playground.truth) == (-1, {})
    assert "oracle" not in playground._meta["kinds"]
    playground._given_a_picture(playground, {"picture": "x.png"}, [memoryview(b"no picture")])
    assert "x.png cannot be shown" in playground._error
    np.testing.assert_array_equal(playground.mask, result.mask)


def test_a_dropped_picture_is_sent_and_shown(live_page, playground, tmp_path):
    page = live_page(playground)
    Image.new("RGB", (96, 32), "teal").save(tmp_path / "own.png")
    page.evaluate(
        "() => { models[0].send = (content, _, buffers) => { window.given = [content, buffers[0].byteLength]; }; }"
    )
    page.locator("input[type=file]").set_input_files(tmp_path / "own.png")
    page.wait_for_timeout(300)
    assert page.evaluate("given") == [{"picture": "own.png"}, (tmp_path / "own.png").stat().st_size]


def test_a_successor_is_asked_of_the_kernel_and_shown(live_page, open_page, playground):
    playground.choose(proposals="oracle")
    page = live_page(playground)
    later = page.get_by_label("What came after")
    for variant in SUCCESSORS:
        later.select_option(variant)
        expect(page.locator(".rdl-ranking .rdl-rank")).to_have_count(len(playground.scores()["S"]))
        expect(page.locator(".rdl-best")).to_have_attribute("data-i", str(playground.best))
        assert playground.variant == variant
        expect(page.get_by_label("α, weight of diffusion")).to_be_hidden()
    np.testing.assert_array_equal(inside(page.locator(".rdl-over").first), playground.mask)
    later.select_option("–")
    expect(page.get_by_role("radio", name="full")).to_be_checked()
    playground.variant = "refam"
    kept = open_page(playground)
    expect(kept.locator(".rdl-best")).to_have_attribute("data-i", str(playground.best))
    kept.get_by_label("What came after").select_option("concept")
    expect(kept.locator(".rdl-note", has_text="does not keep concept")).to_be_visible()


def test_ranking_and_pictures_can_be_kept_and_knobs_undone(open_page, playground):
    playground.choose(proposals="oracle")
    page = open_page(playground)
    with page.expect_download() as taken:
        page.get_by_role("button", name="CSV").click()
    lines = taken.value.path().read_text().splitlines()
    assert lines[0] == "rank,proposal,S_G,S_D,S,IoU"
    rank, best, s_g, s_d, s, _ = lines[1].split(",")
    scores = playground.scores()
    assert (int(rank), int(best)) == (1, playground.best)
    np.testing.assert_allclose(
        [float(s_g), float(s_d), float(s)], [scores[k][playground.best] for k in ("S_G", "S_D", "S")], atol=1e-5
    )
    for kind, start in (("PNG", b"\x89PNG"), ("SVG", b"<svg")):
        with page.expect_download() as taken:
            page.get_by_role("button", name=kind).click()
        assert taken.value.path().read_bytes().startswith(start)
    page.get_by_role("radio", name="gs").check(force=True)
    page.wait_for_timeout(400)
    page.get_by_role("button", name="undo").click()
    expect(page.get_by_role("radio", name="full")).to_be_checked()
