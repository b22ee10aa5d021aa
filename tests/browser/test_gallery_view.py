"""The gallery beside a kernel: five thousand results, walked by keyboard, compared, and kept as files."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import expect

from refdiff_lite.widgets import Gallery
from refdiff_lite.widgets.gallery import CAUSES, Item

pytestmark = pytest.mark.slow
MANY = 5000


def items(n, size=(16, 16)):
    rng = np.random.default_rng(0)
    mask = np.zeros(size, bool)
    mask[4:9, 4:8] = True
    image = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
    base = Item(0, image, mask, np.roll(mask, 4, 1), "", "thing", "noun", 0, "right")
    return [replace(base, text=f"thing {i}", iou=i / n, cause=CAUSES[i % 3], image_id=i) for i in range(n)]


def painted(page, i):
    """Has this card's canvas anything on it?"""
    return page.eval_on_selector(f'[data-i="{i}"] canvas', "c => c.width === 16 && c.height === 16")


def test_five_thousand_results_are_walked_and_asked_for_when_seen(live_page):
    page = live_page(Gallery(items(MANY), order="run"))
    cards = page.locator(".rdl-card")
    expect(page.get_by_text(f"{MANY} of {MANY} results")).to_be_visible()
    assert cards.count() < 80
    cards.first.focus()
    page.keyboard.press("End")
    last = page.locator(f'[data-i="{MANY - 1}"]')
    expect(last).to_be_focused()
    expect(last).to_be_in_viewport()
    page.keyboard.press("ArrowUp")
    columns = MANY - 1 - int(page.evaluate("document.activeElement.dataset.i"))
    assert columns > 2
    page.keyboard.press("ArrowDown")
    expect(last).to_be_focused()
    page.locator(".rdl-wall").evaluate("e => e.scrollTop = e.scrollHeight / 2")  # neither end was packed
    expect(page.locator(f'[data-i="{MANY // 2}"]')).to_be_in_viewport()
    page.wait_for_function(f"document.querySelector('[data-i=\"{MANY // 2}\"] canvas').width === 16")
    assert cards.count() < 80
    assert len(page.evaluate("window.models[0].asked")) < 200
    stops = page.evaluate("[...document.querySelectorAll('.rdl-card')].filter((c) => c.tabIndex === 0).length")
    assert stops == 1


def test_an_opened_result_comes_at_full_size_and_escape_returns_to_its_card(live_page):
    page = live_page(Gallery(items(MANY, (300, 1200 // 4)), order="run"))
    page.locator(".rdl-card").first.focus()
    for key in ("PageDown", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    opened = page.evaluate("window.models[0].state.opened")
    assert opened > 5
    expect(page.get_by_role("heading", name=f"thing {opened}")).to_be_visible()
    page.wait_for_function("document.querySelectorAll('.rdl-panel canvas')[1].width === 300")  # the wall has 128
    page.keyboard.press("Escape")
    expect(page.locator(f'[data-i="{opened}"]')).to_be_focused()
    expect(page.locator(f'[data-i="{opened}"]')).to_be_in_viewport()


def test_what_two_runs_disagree_on_is_filtered_and_drawn(live_page):
    some = items(6)
    some = [replace(item, other=item.truth, other_iou=0.9 if i < 2 else item.iou) for i, item in enumerate(some)]
    page = live_page(Gallery(some))
    page.get_by_label("Against the other run").select_option("lost (2)")
    expect(page.locator(".rdl-card")).to_have_count(2)
    page.locator(".rdl-card").first.click()
    expect(page.locator(".rdl-pane")).to_have_count(4)
    expect(page.get_by_text("in the other run 0.90: lost")).to_be_visible()


def test_what_is_shown_is_kept_as_csv_and_png(live_page):
    page = live_page(Gallery(items(6), cause="twin"))
    with page.expect_download() as found:
        page.get_by_role("button", name="CSV").click()
    lines = Path(found.value.path()).read_text().splitlines()
    assert lines == [
        "image,text,head,style,iou,cause",
        "2,thing 2,thing,noun,0.333,twin",
        "5,thing 5,thing,noun,0.833,twin",
    ]
    page.locator(".rdl-card").first.click()
    with page.expect_download() as found:
        page.get_by_role("button", name="PNG").click()
    assert Path(found.value.path()).read_bytes().startswith(b"\x89PNG")


def test_the_truth_is_on_the_wall_and_can_be_taken_off(live_page):
    page = live_page(Gallery(items(3)))
    blue = """c => { const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
      return [...d.keys()].filter((k) => k % 4 === 0 && d[k] === 0 && d[k + 1] === 0x72 && d[k + 2] === 0xb2).length; }"""
    assert page.eval_on_selector(".rdl-card canvas", blue) > 5
    page.get_by_label("Outline of the truth").uncheck()
    assert page.eval_on_selector(".rdl-card canvas", blue) == 0


@pytest.mark.parametrize("zoom", [1, 2], ids=["phone", "twice as large"])
def test_nothing_is_cut_off_on_a_phone_or_at_200_percent(live_page, zoom):
    page = live_page(Gallery(items(40)), width=390 if zoom == 1 else 1280 // zoom, height=844)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    wide = page.evaluate("""() => [...document.querySelectorAll('.rdl button, .rdl select, .rdl label')].filter((e) => e.offsetParent)
      .filter((e) => { const b = e.getBoundingClientRect(); return b.left < 0 || b.right > innerWidth + 0.5; }).map((e) => e.outerHTML)""")
    assert not wide
