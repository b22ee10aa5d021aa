"""What tokens look at, as a reader sees it."""

import base64
import csv
import re

import numpy as np
import pytest
from playwright.sync_api import expect

from refdiff_lite.networks import load
from refdiff_lite.networks.text_attention import TextAttention
from refdiff_lite.widgets import TextExplorer

pytestmark = pytest.mark.slow
TEXT = "the small dog on the left"


@pytest.fixture
def shown():
    return TextExplorer.from_networks(load("toy"), TEXT)


def numbers(page):
    return [float(t.removesuffix(" %")) / 100 for t in page.locator(".rdl-word small").all_inner_texts()]


@pytest.mark.parametrize("start", [True, False])
@pytest.mark.parametrize(("direction", "label"), [("looks", "Looks at"), ("seen", "Is seen by")])
def test_a_word_that_is_pointed_at_tells_its_shares(shown, open_page, start, direction, label):
    page = open_page(shown)
    page.get_by_label("Layer", exact=True).select_option(label="1")
    page.get_by_label("Head", exact=True).select_option(label="2")
    page.locator("label", has_text=label).click()
    page.get_by_label("Count the start token").set_checked(start)
    page.get_by_role("button", name="dog").hover()
    shown.choose(layer=1, head=2, start=start)
    m = shown.shares()
    expected = m[3] if direction == "looks" else m[:, 3]
    assert numbers(page) == pytest.approx(list(expected), abs=0.0006)
    best = shown.attention.tokens[int(expected.argmax())]
    expect(page.locator(".rdl-live")).to_contain_text(f"{label.lower()} “{best}” {100 * expected.max():.1f} %")


def test_lines_lead_to_what_is_looked_at(shown, open_page):
    page = open_page(shown)
    drawn = page.locator(".rdl-board path")
    every = drawn.count()
    page.locator("[data-side=looks][data-token='3']").hover()
    m = shown.shares()
    expect(drawn).to_have_count(int((m[3] >= 0.005).sum()))
    assert drawn.count() < every
    page.locator("[data-side=seen][data-token='3']").hover()
    expect(drawn).to_have_count(int((m[:, 3] >= 0.005).sum()))
    page.mouse.move(5, 5)
    expect(drawn).to_have_count(every)


def test_a_cell_of_the_matrix_tells_its_share(shown, open_page):
    page = open_page(shown)
    page.locator("label", has_text="Matrix").click()
    cells = page.locator("[data-area=cells]")
    box, n = cells.bounding_box(), len(shown.attention.tokens)
    cells.hover(position={"x": box["width"] * 2.5 / n, "y": box["height"] * 3.5 / n})
    share = 100 * shown.shares()[3, 2]
    expect(page.locator(".rdl-live")).to_have_text(f"“dog” gives “small” {share:.1f} % of its attention.")


def test_a_head_is_entered_from_the_panel_and_undo_leaves_it(shown, open_page):
    page = open_page(shown)
    small = page.get_by_role("button", name="layer 2, head 3")
    small.click()
    expect(small).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_label("Layer", exact=True).locator("option:checked")).to_have_text("2")
    expect(page.get_by_label("Head", exact=True).locator("option:checked")).to_have_text("3")
    page.wait_for_timeout(400)
    page.get_by_role("button", name="undo").click()
    expect(page.get_by_label("Layer", exact=True).locator("option:checked")).to_have_text("mean of all")
    expect(page.locator(".rdl-head[aria-pressed=true]")).to_have_count(0)


def test_by_keyboard_alone(shown, open_page):
    page = open_page(shown)
    page.get_by_role("button", name="start", exact=True).focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    expect(page.get_by_role("button", name="dog")).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".rdl-live")).to_contain_text("“dog” looks at")
    page.keyboard.press("Escape")
    expect(page.locator(".rdl-words [aria-pressed=true]")).to_have_count(0)


def test_the_view_is_taken_along(shown, open_page):
    page = open_page(shown)
    with page.expect_download() as taken:
        page.get_by_role("button", name="CSV").click()
    rows = list(csv.DictReader(taken.value.path().read_text().splitlines()))
    found = np.array([float(r["share"]) for r in rows]).reshape(shown.shares().shape)
    assert np.abs(found - shown.shares()).max() < 1e-5
    for form in ("Lines", "Matrix"):
        page.locator("label", has_text=form).click()
        with page.expect_download() as taken:
            page.get_by_role("button", name="SVG").click()
        text = taken.value.path().read_text()
        assert ">dog</text>" in text  # words stay words
        assert "mean of all layers" in text
        assert "var(" not in text
        assert (re.search(r'<image[^>]* href="data:image/png', text) is None) == (form == "Lines")
        with page.expect_download() as taken:
            page.get_by_role("button", name="PNG").click()
        assert taken.value.path().stat().st_size > 5000


def test_a_live_view_asks_for_layers_and_for_sentences(live_page):
    rng = np.random.default_rng(0)
    maps = tuple(rng.dirichlet(np.ones(40), (8, 40)).astype(np.float32) for _ in range(14))
    big = TextExplorer(TextAttention("long", "text_encoder", tuple(f"w{i}" for i in range(40)), maps))
    toy = TextExplorer.from_networks(load("toy"), TEXT)
    page = live_page(big, toy)
    view = page.locator("#view0")
    assert "layer/13" not in big.arrays()
    expect(view.locator(".rdl-head:disabled")).to_have_count(0)  # the panel has asked for all
    view.get_by_label("Layer", exact=True).select_option(label="13")
    view.get_by_role("button", name="w7", exact=True).hover()
    assert numbers(view) == pytest.approx(list(maps[13].mean(0)[7]), abs=0.0006)
    expect(view.get_by_label("sentence", exact=True)).to_have_count(0)  # nobody there to answer
    other = page.locator("#view1")
    field, asked = other.get_by_label("sentence", exact=True), "models[1].asked.length"

    def ask(text):
        field.fill(text)
        field.press("Enter")
        page.wait_for_timeout(400)  # Python has answered; what it synchronises is handed on here
        block = base64.b64encode(toy._block).decode()
        told = {"_meta": toy._meta, "_block": block, "_error": toy._error, "token": toy.token}
        page.evaluate("told => models[1].update(told)", told)

    ask(" ")
    expect(other.get_by_role("alert")).to_contain_text("the text is empty")
    ask("a big car")
    expect(other.get_by_role("button", name="car")).to_be_visible()
    expect(other.get_by_role("alert")).to_have_text("")
    before = page.evaluate(asked)
    ask("a  big car ")
    assert page.evaluate(asked) == before
    expect(other.locator(".rdl")).to_have_attribute("aria-busy", "false")


def test_on_a_phone_nothing_is_cut_off(shown, open_page):
    page = open_page(shown, width=390)
    small = page.locator(".rdl-board svg")
    assert small.bounding_box()["width"] == float(small.get_attribute("width"))  # its words keep their size
    for form in ("Lines", "Matrix"):
        page.locator("label", has_text=form).click()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
