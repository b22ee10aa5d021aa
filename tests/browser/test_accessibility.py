"""The exported pages by axe-core's rules, without JavaScript, and with forced colours."""

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from refdiff_lite.widgets import (
    AttentionComparison,
    AttentionExplorer,
    Gallery,
    InversionExplorer,
    SegmentationPlayground,
    TextExplorer,
)
from refdiff_lite.widgets.gallery import CAUSES, Item

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pages(scene, tmp_path_factory):
    """One of each explorer, exported."""
    rng = np.random.default_rng(0)
    mask = np.zeros((16, 16), bool)
    mask[4:9, 4:8] = True
    items = [
        Item(i, rng.integers(0, 255, (16, 16, 3), dtype=np.uint8), mask, mask.T, f"thing {i}", "thing", "noun", i / 8, c,
             rng.random((16, 16)), (0.5, 0.2))
        for i, c in enumerate(CAUSES)
    ]  # fmt: skip
    folder = tmp_path_factory.mktemp("pages")
    text = "the red car on the left"
    made = {
        "attention": AttentionExplorer.from_scene(scene, text, pinned=[1, 2]),
        "playground": SegmentationPlayground(scene, text, truth={text: scene.oracle[0]}),
        "inversion": InversionExplorer.from_scene(scene, steps=4, step=3),
        "gallery": Gallery(items),
        "opened gallery": Gallery(items, opened=1),
        "comparison": AttentionComparison.from_scenes((scene, text), (scene, "the blue car")),
        "text": TextExplorer.from_networks(scene.model.networks, text, token=3),
        "text matrix": TextExplorer.from_networks(scene.model.networks, text, token=3, form="matrix", layer=1, head=2),
    }
    return {name: explorer.save_html(folder / f"{name}.html").as_uri() for name, explorer in made.items()}


NAMES = ["attention", "playground", "inversion", "gallery", "opened gallery", "comparison", "text", "text matrix"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", NAMES)
def test_axe_finds_nothing_serious(chromium, pages, name, scheme):
    context = chromium.new_context(color_scheme=scheme, bypass_csp=True)  # the page forbids what axe puts into it
    page = context.new_page()
    page.goto(pages[name])
    expect(page.locator(".rdl h2")).to_be_visible()
    found = Axe().run(page).response
    serious = [v for v in found["violations"] if v["impact"] in ("serious", "critical")]
    assert not serious, [(v["id"], v["nodes"][0]["html"], v["nodes"][0]["failureSummary"]) for v in serious]
    assert len(found["passes"]) > 10
    context.close()


@pytest.mark.parametrize("name", NAMES)
def test_without_javascript_a_still_and_a_sentence_are_there(chromium, pages, name):
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(pages[name])
    expect(page.get_by_text("To explore it, switch JavaScript on")).to_be_visible()
    still = page.get_by_role("img")
    expect(still).to_be_visible()
    assert still.bounding_box()["width"] > 200
    assert still.get_attribute("alt")
    context.close()


@pytest.mark.parametrize("name", NAMES)
def test_what_is_chosen_is_seen_in_forced_colours(chromium, pages, name):
    """Where the system paints all backgrounds, a checked radio or a pressed button still differs from its neighbours."""
    context = chromium.new_context(forced_colors="active")
    page = context.new_page()
    page.goto(pages[name])
    expect(page.locator(".rdl h2")).to_be_visible()
    seen = page.evaluate("""() => {
      const look = (e) => { const s = getComputedStyle(e); return [s.backgroundColor, s.color, s.outlineStyle, s.borderTopWidth,
        s.borderTopStyle, s.borderTopColor, s.fontWeight, s.textDecorationLine].join('|'); };
      const pairs = [];
      for (const input of document.querySelectorAll('.rdl-segments input:checked')) {
        const other = [...document.getElementsByName(input.name)].find((i) => !i.checked);
        if (other) pairs.push([look(input.nextElementSibling), look(other.nextElementSibling)]);
      }
      const pressed = [...document.querySelectorAll('[aria-pressed=true]')].filter((e) => e.offsetParent);
      const free = [...document.querySelectorAll('[aria-pressed=false]')].filter((e) => e.offsetParent);
      for (const p of pressed.slice(0, 1)) { const f = free.find((e) => e.classList[0] === p.classList[0]); if (f) pairs.push([look(p), look(f)]); }
      return pairs;
    }""")
    assert all(chosen != other for chosen, other in seen), seen
    context.close()
