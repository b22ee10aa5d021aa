"""AttentionExplorer as it is seen: live, with Python answering, and exported."""

import base64
import csv
import io
import json
import re
from dataclasses import replace
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from refdiff_lite.widgets import AttentionExplorer
from refdiff_lite.widgets import attention as attention_module
from refdiff_lite.widgets.base import palette, quantise
from refdiff_lite.widgets.slices import MEAN, READ, Slice, self_map, word_maps

pytestmark = pytest.mark.slow
OVER = 3
READ_CANVAS = "c => { const d = c.getContext('2d').getImageData(0, 0, c.width, c.height); return [d.width, d.height, ...d.data]; }"


def pixels(locator):
    """The (h, w, 4) colours of a canvas."""
    width, height, *data = locator.evaluate(READ_CANVAS)
    return np.array(data, np.uint8).reshape(height, width, 4)


@pytest.fixture
def little_room(monkeypatch):
    """What is packed at once: hardly anything, so that the rest is asked for or left out."""
    monkeypatch.setattr(attention_module, "LIVE_BYTES", 1500)
    monkeypatch.setattr(attention_module, "DATA_BYTES", 20_000)


def shows(page, attention, where, word):
    levels = quantise(word_maps(attention, where))[0][word]
    expect(page.locator(".rdl").first).to_have_attribute("aria-busy", "false")
    np.testing.assert_allclose(pixels(page.locator(".rdl-over").first)[..., :3], palette()[levels], atol=OVER)


def test_every_bar_of_every_explorer_shows_its_choice(live_page, recorded):
    """Radio buttons of one name exclude each other in the whole document: in the tour four of seven bars were empty."""
    page = live_page(*(AttentionExplorer(recorded()) for _ in range(3)))
    seen = "() => [...document.querySelectorAll('.rdl-segments')].map(b => b.querySelectorAll('input:checked').length)"
    assert page.evaluate(seen) == [1] * 9
    page.locator("#view1").get_by_role("radio", name="Crisp").check(force=True)
    assert page.evaluate(seen) == [1] * 9
    for view, text in ((0, "Smooth"), (1, "Crisp"), (2, "Smooth")):
        chosen = page.locator(f"#view{view} .rdl-segments[aria-label=Pixels] input:checked + span")
        expect(chosen).to_have_text(text)
        assert chosen.evaluate("s => getComputedStyle(s).backgroundColor") == "rgb(255, 255, 255)"


def test_a_live_explorer_offers_everything_and_asks_for_it(live_page, recorded, little_room):
    explorer = AttentionExplorer(recorded([(16, 16), (8, 8)], heads=3, steps=3))
    page = live_page(explorer)
    assert page.locator("option:disabled").count() == 0
    page.get_by_label("Resolution").select_option("16×16")
    page.get_by_label("Layer").select_option("✓ blocks.0")
    page.get_by_label("Head").select_option("2")
    page.get_by_label("Noise").press("End")
    shows(page, explorer.attention, Slice("blocks.0", 2, 2), explorer.attention.head)
    assert explorer.slice == Slice("blocks.0", 2, 2)  # nothing jumped back


def test_a_late_answer_is_not_drawn_as_another(live_page, recorded, little_room):
    explorer = AttentionExplorer(recorded([(16, 16), (8, 8)], heads=3))
    slow = "() => { window.delay = (name) => (name.includes('/0/0/') ? 800 : 0); }"
    page = live_page(explorer, setup=slow)
    page.get_by_label("Layer").select_option("✓ blocks.0")
    expect(page.locator(".rdl")).to_have_attribute("aria-busy", "false")
    page.get_by_label("Head").select_option("0")
    expect(page.locator(".rdl")).to_have_attribute("aria-busy", "true")
    expect(page.locator(".rdl-status")).to_have_text("asking the kernel …")
    for head in ("1", "2"):
        page.get_by_label("Head").select_option(head)
    shows(page, explorer.attention, Slice("blocks.0", 2, 0), explorer.attention.head)
    asked = page.evaluate("models[0].asked")
    assert "blocks.0/1/0/probabilities" not in asked  # it was no longer wanted when the way was free
    page.get_by_label("Head").select_option("0")  # came late, and was kept
    shows(page, explorer.attention, Slice("blocks.0", 0, 0), explorer.attention.head)
    assert page.evaluate("models[0].asked") == asked


def test_what_the_kernel_refuses_is_said(live_page, recorded, little_room):
    explorer = AttentionExplorer(recorded())
    explorer.answer = lambda name: (_ for _ in ()).throw(ValueError(f"no {name}"))
    page = live_page(explorer)
    page.get_by_label("Head").select_option("1")
    expect(page.locator(".rdl-status")).to_have_text(f"no {READ}/1/0/probabilities")


def test_a_page_with_41_words_keeps_its_steps_and_says_what_is_missing(open_page, recorded, monkeypatch):
    words = ("start", *(f"word{i}" for i in range(41)), "end")
    explorer = AttentionExplorer(recorded([(16, 16), (8, 8)], heads=3, steps=3, words=words, self_side=8))
    monkeypatch.setattr(attention_module, "DATA_BYTES", 220_000)
    page = open_page(explorer)
    expect(page.locator(".rdl-status")).to_contain_text("This page keeps")
    slider = page.get_by_label("Noise")
    slider.press("End")
    expect(slider).to_have_value("2")
    shows(page, explorer.attention, Slice(READ, MEAN, 2), explorer.attention.head)
    page.locator(".rdl-stage").first.hover()
    expect(page.locator(".rdl-pane").last.locator(".rdl-note")).to_contain_text("t = 101")


def test_this_pixel_looks_by_its_layer_and_head(live_page, scene, recorded):
    explorer = AttentionExplorer.from_scene(scene, "the red car", [1], head=1)
    layer = explorer.attention.reads[0]
    explorer.layer = layer
    page = live_page(explorer)
    page.locator(".rdl-stage").first.hover(position={"x": 5, "y": 5})
    last = page.locator(".rdl-pane").last
    expect(last.locator(".rdl-note")).to_contain_text("this layer, head 1")
    levels = quantise(self_map(explorer.attention, Slice(layer, 1, 0)))[0][0, 0]
    np.testing.assert_allclose(pixels(last.locator(".rdl-over"))[..., :3], palette()[levels], atol=OVER)


def test_shares_add_up_and_flat_maps_are_marked(open_page, recorded):
    attention = recorded()
    even = tuple({n: np.zeros_like(m) for n, m in step.items()} for step in attention.cross)
    page = open_page(AttentionExplorer(replace(attention, cross=even)))
    page.locator(".rdl-stage").first.hover()
    shares = [float(s.split()[0]) for s in page.locator(".rdl-word small").all_inner_texts()]
    assert sum(shares) == pytest.approx(100, abs=2)  # rounded one by one
    expect(page.locator(".rdl-chip").last).to_have_text("padding")
    expect(page.locator(".rdl-pane .rdl-note").first).to_contain_text("nearly flat")
    page.get_by_role("radio", name="From 0").check(force=True)
    assert page.locator(".rdl-scale span").all_inner_texts()[0] == "0.0 %"


def test_the_shared_range_holds_what_is_shown(open_page, recorded):
    attention = recorded()
    for step in attention.cross:
        step["blocks.0"][..., 0] += 5  # the start token drinks up most
    explorer = AttentionExplorer(attention, pinned=[0, 2], scale="shared")
    page = open_page(explorer)
    maps = explorer.maps()[:3]
    ends = page.locator(".rdl-pane .rdl-scale span:last-child").all_inner_texts()[:2]
    assert ends == [f"{100 * maps.max():.0f} %"] * 2
    top = pixels(page.locator(".rdl-over").nth(1))
    assert top[..., 3].max() < 255  # the other word is nowhere near the top of the common range


def test_the_picture_shows_through_where_the_map_is_low(open_page, recorded):
    explorer = AttentionExplorer(recorded())
    alpha = pixels(open_page(explorer).locator(".rdl-over").first)[..., 3]
    levels = quantise(explorer.maps())[0][explorer.attention.head]
    assert alpha[levels == 0].max() < 80
    assert alpha[levels == 255].min() == 255
    assert (np.diff(alpha.ravel()[np.argsort(levels.ravel())].astype(int)) >= 0).all()


def test_a_word_of_several_pieces_says_so(open_page, recorded):
    pieces = ((), ("a",), ("ca", "t"), ())
    page = open_page(AttentionExplorer(replace(recorded(), columns=(0, 1, 3, 4), pieces=pieces)))
    chip = page.get_by_role("button", name="cat")
    expect(chip.locator("xpath=..").locator("small")).to_have_text("ca·t")
    assert "the last is shown" in chip.get_attribute("title")
    expect(page.get_by_role("button", name="other pieces")).to_be_visible()


@pytest.mark.parametrize("shape", [(300, 1200), (1200, 300)])
def test_long_pictures_are_bounded_and_controls_lie_above_the_fold(live_page, recorded, shape):
    attention = replace(recorded(), image=np.zeros((*shape, 3), np.uint8))
    page = live_page(AttentionExplorer(attention, pinned=[1, 2]))
    assert page.evaluate("document.documentElement.scrollHeight") < 900
    boxes = [c.bounding_box() for c in page.locator(".rdl-control, .rdl-keep").all()]
    assert max(b["y"] + b["height"] for b in boxes) <= 800
    stage = page.locator(".rdl-stage").first.bounding_box()
    assert stage["width"] / stage["height"] == pytest.approx(shape[1] / shape[0], rel=0.02)


def test_any_number_of_pins_and_their_difference(open_page, recorded):
    explorer = AttentionExplorer(recorded(words=("start", "a", "red", "cat", "end")), layer="blocks.0")
    page = open_page(explorer)
    for word in ("a", "red", "cat"):
        page.get_by_role("button", name=word, exact=True).click()
    expect(page.locator(".rdl-pane.rdl-pinned strong")).to_have_text(["a", "red", "cat"])
    page.get_by_label("difference of two pins").check()
    shown = page.locator(".rdl-pane", has_text="a − red").locator("canvas.rdl-over")
    found = explorer.maps()[1] - explorer.maps()[2]
    colours = pixels(shown)[..., :3].astype(int)
    warm = colours[..., 0] - colours[..., 2]
    assert np.corrcoef(warm.ravel(), found.ravel())[0, 1] > 0.95


def test_a_drawn_region_tells_which_words_listen(live_page, recorded):
    explorer = AttentionExplorer(recorded(), layer="blocks.0")
    page = live_page(explorer)
    box = page.locator(".rdl-stage").first.bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + 20)  # the corners are round
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()
    page.mouse.move(2, 2)
    expect(page.locator(".rdl-live")).to_contain_text("The region listens most to")
    assert explorer.pixel == []
    listening = explorer.listening()
    shares = [float(s.split()[0]) / 100 for s in page.locator(".rdl-word small").all_inner_texts()]
    np.testing.assert_allclose(shares, list(listening.values()), atol=0.006)
    page.locator("summary").click()
    page.get_by_label("Order of the overview").select_option("most inside the region first")
    expect(page.locator(".rdl-small small")).to_have_count(6)  # once the kernel has answered
    shares = [int(s.split()[0]) for s in page.locator(".rdl-small small").all_inner_texts()]
    assert shares == sorted(shares, reverse=True)
    page.keyboard.press("Escape")
    expect(page.locator(".rdl-box").first).to_be_hidden()
    assert explorer.box == []


def test_the_overview_leads_to_a_head(live_page, recorded):
    explorer = AttentionExplorer(recorded())
    page = live_page(explorer)
    page.locator("summary").click()
    expect(page.locator(".rdl-small")).to_have_count(6)  # two layers, two heads and their mean
    page.get_by_label("Order of the overview").select_option("most focused first")
    expect(page.locator(".rdl-small small").first).to_be_visible()
    entropies = [int(s.split()[0]) for s in page.locator(".rdl-small small").all_inner_texts()]
    assert entropies == sorted(entropies)
    page.get_by_role("button", name="blocks.1, head 1").click()
    shows(page, explorer.attention, Slice("blocks.1", 1, 0), explorer.attention.head)
    assert (explorer.layer, explorer.head) == ("blocks.1", 1)
    page.get_by_label("Columns of the overview").select_option("layers × timesteps")
    page.get_by_role("button", name="blocks.0, t = 51").click()
    shows(page, explorer.attention, Slice("blocks.0", MEAN, 1), explorer.attention.head)


def test_arrows_walk_a_grid_as_it_is_seen(live_page, recorded):
    page = live_page(AttentionExplorer(recorded(grids=((4, 4), (2, 2), (4, 4)))))
    page.locator("summary").click()
    page.get_by_role("button", name="blocks.0, head 0").focus()
    for key, name in (("Down", "blocks.1, head 0"), ("Right", "blocks.1, head 1"), ("Down", "blocks.2, head 1"),
                      ("Down", "blocks.2, head 1"), ("Up", "blocks.1, head 1"), ("Home", "blocks.0, mean")):  # fmt: skip
        page.keyboard.press(key if key == "Home" else f"Arrow{key}")
        expect(page.locator(".rdl-small:focus")).to_have_attribute("aria-label", re.compile(f"^{name}"))


def test_what_is_seen_can_be_kept(open_page, recorded, tmp_path):
    explorer = AttentionExplorer(recorded(), layer="blocks.0", pinned=[1, 2])
    page = open_page(explorer)
    with page.expect_download() as got:
        page.get_by_role("button", name="CSV").click()
    rows = list(csv.reader(io.StringIO(got.value.path().read_text())))
    ours = list(csv.reader(io.StringIO(explorer.to_csv())))
    assert [r[:3] for r in rows] == [r[:3] for r in ours]
    np.testing.assert_allclose([float(r[3]) for r in rows[1:]], [float(r[3]) for r in ours[1:]], atol=0.003)
    with page.expect_download() as got:
        page.get_by_role("button", name="PNG").click()
    with Image.open(got.value.path()) as image:
        assert image.format == "PNG"
        assert image.width > 900
        assert len(set(np.asarray(image.convert("L")).ravel())) > 50
    page.get_by_label("Head").select_option("1")
    page.wait_for_timeout(400)
    told = json.loads(unquote(page.url.split("#")[1]))
    assert told == {"head": 1}
    page.reload()
    expect(page.get_by_label("Head").locator("option:checked")).to_have_text("1")
    page.goto(page.url.split("#")[0] + '#{"pinned":[99],"head":"x"}')
    page.reload()
    expect(page.locator(".rdl-chip").first).to_be_visible()


def test_another_sentence_takes_the_place_of_the_first(live_page, scene):
    explorer = AttentionExplorer.from_scene(scene, "the red car", [1, 3], pinned=[3])
    page = live_page(explorer)
    explorer.ask("a small blue house by the tree", head_word="tree")
    block = base64.b64encode(explorer._block).decode()
    page.evaluate("told => models[0].update(told)", {"pinned": [], "_meta": explorer._meta, "_block": block})
    expect(page.locator(".rdl-chip")).to_have_text(list(explorer.attention.names))
    expect(page.locator(".rdl-pane strong").first).to_have_text("tree")
    shows(page, explorer.attention, explorer.slice, 7)
    page.get_by_label("Noise").press("End")
    assert explorer.slice.step == 1
    page.keyboard.press("Escape")
    expect(page.locator(".rdl")).to_have_count(1)


def test_what_was_chosen_can_be_undone_and_done_again(open_page, recorded):
    page = open_page(AttentionExplorer(recorded()))
    undo, redo = page.get_by_role("button", name="undo"), page.get_by_role("button", name="redo")
    expect(undo).to_be_disabled()
    chips = page.locator(".rdl-chip")
    chips.nth(1).click()
    page.wait_for_timeout(400)
    page.locator("label", has_text="Crisp").click()
    page.wait_for_timeout(400)
    undo.click()
    expect(page.get_by_label("Smooth")).to_be_checked()
    expect(chips.nth(1)).to_have_attribute("aria-pressed", "true")
    chips.nth(1).press("Control+z")
    expect(chips.nth(1)).to_have_attribute("aria-pressed", "false")
    expect(undo).to_be_disabled()
    chips.nth(1).press("Control+Shift+Z")
    redo.click()
    expect(chips.nth(1)).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_label("Crisp")).to_be_checked()
    expect(redo).to_be_disabled()


def test_a_vector_picture_holds_text_and_both_layers(open_page, recorded, chromium):
    page = open_page(AttentionExplorer(recorded(), pinned=[1, 2]))
    with page.expect_download() as taken:
        page.get_by_role("button", name="SVG").click()
    text = taken.value.path().read_text()
    root = ElementTree.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    said = [t.text for t in root.iter(f"{space}text")]
    names = [page.locator(".rdl-pane strong").nth(i).inner_text() for i in (0, 1)]
    assert all(any(s.startswith(n) for s in said) for n in names)
    assert len(list(root.iter(f"{space}image"))) >= 6  # picture, map and scale of each
    drawn = chromium.new_page()
    drawn.goto("data:image/svg+xml;base64," + base64.b64encode(text.encode()).decode())
    assert len(np.unique(np.asarray(Image.open(io.BytesIO(drawn.screenshot()))).reshape(-1, 3), axis=0)) > 20
    drawn.close()


def test_another_sentence_is_asked_from_the_page_and_a_wrong_one_is_answered_in_words(live_page, scene):
    explorer = AttentionExplorer.from_scene(scene, "the cat")
    page = live_page(explorer)

    def ask(text):
        field = page.get_by_label("sentence", exact=True)
        field.fill(text)
        field.press("Enter")
        page.wait_for_timeout(600)  # Python has answered; what it synchronises is handed on here
        told = {
            "_meta": explorer._meta,
            "_block": base64.b64encode(explorer._block).decode(),
            "_error": explorer._error,
        }
        page.evaluate("told => models[0].update(told)", {"pinned": explorer.pinned, **told})

    ask("the small dog")
    expect(page.locator(".rdl-chip", has_text="dog")).to_be_visible()
    assert explorer.attention.words[1:-1] == ("the", "small", "dog")
    ask("?!")
    expect(page.locator(".rdl-error")).to_contain_text("has no word")
    expect(page.locator(".rdl-chip", has_text="dog")).to_be_visible()
    assert page.locator(".rdl").get_attribute("aria-busy") == "false"


def test_without_networks_there_is_no_field(open_page, recorded):
    page = open_page(AttentionExplorer(recorded()))
    assert page.locator(".rdl-field").count() == 0
