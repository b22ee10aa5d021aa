"""Two recordings, as a reader sees them."""

import re

import numpy as np
import pytest
from playwright.sync_api import expect

from refdiff_lite import RefDiff
from refdiff_lite.datasets.toyref import load_toyref
from refdiff_lite.widgets import AttentionComparison

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def comparison():
    scene = RefDiff.from_preset("toy").set_image(load_toyref("val")[0].image())
    return AttentionComparison.from_scenes((scene, "the chair on the left"), (scene, "the small dog on the left"))


def test_a_word_is_chosen_and_the_pictures_follow(comparison, open_page):
    page = open_page(comparison)
    word = page.get_by_role("button", name="chair → dog")
    page.get_by_role("button", name="∅ → small").or_(page.get_by_role("button", name="chair → small")).first.click()
    expect(page.locator(".rdl-live")).to_contain_text("row" if word.count() == 0 else "only in")
    shown = page.locator(".rdl-words [aria-pressed=true]")
    expect(shown).to_have_count(1)
    page.get_by_role("button", name="on", exact=True).click()
    expect(page.locator(".rdl-live")).to_contain_text("“on” differs most at row")


def test_hover_tells_both_values_and_their_difference(comparison, open_page):
    page = open_page(comparison)
    page.locator(".rdl-stage").nth(1).hover(position={"x": 60, "y": 60})
    told = page.locator(".rdl-live")
    expect(told).to_contain_text("difference")
    cells = page.locator(".rdl-cell:visible")
    expect(cells).to_have_count(3)  # the same place in all three pictures
    page.get_by_role("button", name="∅ → dog").click()  # only the second sentence has it
    page.locator(".rdl-stage").nth(1).focus()
    page.keyboard.press("ArrowRight")
    expect(told).to_have_text(re.compile("^At row .*: “the small dog on the left” [0-9.]+ %.$"))
    page.keyboard.press("Enter")
    page.get_by_role("button", name="on", exact=True).focus()
    expect(cells).to_have_count(3)  # pinned
    page.keyboard.press("Escape")
    expect(cells).to_have_count(0)


def test_a_finger_pins_a_place(comparison, open_page):
    page = open_page(comparison, width=390, has_touch=True)
    page.locator(".rdl-stage").first.tap()
    expect(page.locator(".rdl-cell:visible")).to_have_count(3)
    expect(page.locator(".rdl-live")).to_contain_text("At row 9, column 9")
    stage = page.locator(".rdl-stage").first
    assert "region" not in stage.get_attribute("aria-roledescription")  # there is none to draw


def test_a_small_difference_has_the_digits_that_it_needs(open_page):
    scene = RefDiff.from_preset("toy").set_image(load_toyref("val")[0].image())
    shown = AttentionComparison.from_scenes((scene, "the dog on the left"), (scene, "the dog on the right"))
    most = np.abs(shown.difference()).max()
    assert 0 < most < 0.0005  # the word stands before the one that differs
    page = open_page(shown)
    end = page.locator(".rdl-scale").nth(2).locator("span").nth(1).inner_text()
    assert float(end.removesuffix(" %")) / 100 == pytest.approx(most, rel=0.1)


def test_layers_are_linked_until_they_are_parted(comparison, open_page):
    page = open_page(comparison)
    first, second = (
        page.get_by_label("Layer, the chair on the left"),
        page.get_by_label("Layer, the small dog on the left"),
    )
    name = first.locator("option").nth(1).inner_text()
    first.select_option(label=name)
    expect(second.locator("option:checked")).to_have_text(name)
    expect(page.locator(".rdl-status")).to_have_text("")
    second.select_option(index=2)
    expect(first.locator("option:checked")).to_have_text(name)
    expect(page.locator(".rdl-status")).to_contain_text("does not hold this view")
    page.locator(".rdl-stage").first.focus()
    page.keyboard.press("ArrowRight")  # nothing to walk over, and no error


def test_one_range_makes_the_brighter_map_the_larger(comparison, open_page):
    page = open_page(comparison)
    ends = page.locator(".rdl-scale")
    tops = [ends.nth(i).locator("span").nth(1).inner_text() for i in (0, 1)]
    assert tops[0] == tops[1]
    page.locator("label", has_text="Each").click()
    expect(ends.nth(0).locator("span").nth(1)).not_to_have_text(ends.nth(1).locator("span").nth(1).inner_text())


def test_on_a_phone_nothing_is_cut_off(comparison, open_page):
    page = open_page(comparison, width=390)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_numbers_can_be_taken_along(comparison, open_page):
    page = open_page(comparison)
    with page.expect_download() as taken:
        page.get_by_role("button", name="CSV").click()
    lines = taken.value.path().read_text().splitlines()
    assert lines[0] == "row,column,the chair on the left,the small dog on the left,difference"
    row = [float(x) for x in lines[1].split(",")]
    assert row[4] == pytest.approx(row[2] - row[3], abs=0.003)
