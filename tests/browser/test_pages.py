"""The exported pages, opened from disk without a network: hover, click, keys, and what Python says of the same."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from refdiff_lite.widgets import AttentionExplorer, Gallery, InversionExplorer, SegmentationPlayground
from refdiff_lite.widgets.base import _EXPORT, palette, quantise
from refdiff_lite.widgets.gallery import CAUSES, Item
from refdiff_lite.widgets.inversion import WAYS, Journey
from refdiff_lite.widgets.playground import score
from refdiff_lite.widgets.slices import MEAN, Slice, word_maps

pytestmark = pytest.mark.slow
READ = "c => { const d = c.getContext('2d').getImageData(0, 0, c.width, c.height); return [d.width, d.height, ...d.data]; }"
OVER = 3
"""Colours that let the picture through lose so many levels where the browser keeps them multiplied by their opacity."""
HOSTILE = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"


def pixels(page, selector):
    """The (h, w, 3) colours of a canvas."""
    width, height, *data = page.eval_on_selector(selector, READ)
    return np.array(data, np.uint8).reshape(height, width, 4)[..., :3]


def point_at(page, stage, y, x):
    """Move the mouse to a place of a picture, given as shares."""
    box = page.locator(stage).first.bounding_box()
    page.mouse.move(box["x"] + box["width"] * x, box["y"] + box["height"] * y)


@pytest.fixture
def attention(recorded):
    return AttentionExplorer(recorded(words=("start", "a", "small", "cat", "end")))


@pytest.fixture
def inversion():
    rng = np.random.default_rng(0)
    return InversionExplorer(
        {
            way: Journey(
                rng.normal(size=(7, 4, 2, 2)).astype(np.float32),
                rng.integers(0, 255, (7, 16, 16, 3), dtype=np.uint8),
                np.array([138, 30.5, 20.5, 10 + n, 12 + n, 14 + n, 16 + n], float),
            )
            for n, way in enumerate(WAYS)
        },
        [1, 401, 801],
    )


@pytest.fixture
def gallery():
    rng = np.random.default_rng(0)
    mask = np.zeros((16, 16), bool)
    mask[4:9, 4:8] = True
    image = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
    return Gallery(
        [
            Item(
                0,
                image,
                mask,
                mask.T,
                f"thing {i}",
                "thing",
                "noun" if i % 2 else "toyref",
                i / 8,
                c,
                *((rng.random((16, 16)), (0.5, 0.2)) if i else ()),
            )
            for i, c in enumerate(CAUSES)
        ]
    )


@pytest.fixture(scope="module")
def playground(scene):
    from refdiff_lite.datasets.toyref import load_toyref

    sample = load_toyref("test")[0]
    first, second = sample.records[0], sample.records[-1]
    return SegmentationPlayground(scene, first.text, second.text, truth={first.text: sample.masks[first.target]})


def test_a_hovered_word_shows_its_map_in_the_palettes_colours(open_page, attention):
    page = open_page(attention)
    page.get_by_role("button", name="small").hover()
    levels = quantise(word_maps(attention.attention, Slice("blocks.0", MEAN, 0, "probabilities")))[0][2]
    np.testing.assert_allclose(pixels(page, ".rdl-over"), palette()[levels], atol=OVER)
    expect(page.locator(".rdl-pane strong").first).to_have_text("small")


def test_a_hovered_pixel_shows_what_it_listens_to(open_page, attention):
    page = open_page(attention)
    point_at(page, ".rdl-stage", 0.9, 0.3)  # row 4, column 2 of 4×4
    maps = attention.maps()
    top = ["a", "small", "cat"][int(maps[1:4, 3, 1].argmax())]
    expect(page.locator(".rdl-live")).to_contain_text(f"Row 4, column 2 of 4×4 listens most to “{top}”")
    shares = page.locator(".rdl-word small").all_inner_texts()
    np.testing.assert_allclose([float(s.split()[0]) / 100 for s in shares], maps[:, 3, 1], atol=0.006)
    looks = attention.arrays()["self/mean/0"][3, 1]
    np.testing.assert_allclose(pixels(page, ".rdl-pane:last-child .rdl-over"), palette()[looks], atol=OVER)


def test_attention_by_keyboard_alone(open_page, attention):
    page = open_page(attention)
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="cat")).to_be_focused()  # the head word is the one stop of the words
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    expect(page.locator(".rdl-pane.rdl-pinned strong")).to_have_text(["cat", "small"])
    page.keyboard.press("Tab")  # into the first picture
    page.keyboard.press("ArrowDown")
    expect(page.locator(".rdl-live")).to_contain_text("Row 4, column 3 of 4×4")
    page.keyboard.press("Escape")
    expect(page.locator(".rdl-pane.rdl-pinned")).to_have_count(0)


def test_every_choice_of_the_attention_explorer_draws(open_page, attention):
    page = open_page(attention)
    for label, option in (("Resolution", "2×2"), ("Head", "1"), ("Layer", "mean of all")):
        page.get_by_label(label).select_option(option)
    page.get_by_role("radio", name="Logits").check(force=True)
    page.get_by_label("Noise").press("ArrowRight")
    page.get_by_role("button", name="cat").hover()
    where = Slice("mean 2×2", 1, 1, "logits")
    levels = quantise(word_maps(attention.attention, where))[0][3]
    np.testing.assert_allclose(pixels(page, ".rdl-over"), palette()[levels], atol=OVER)
    page.get_by_role("radio", name="Crisp").check(force=True)
    assert page.eval_on_selector(".rdl-over", "c => getComputedStyle(c).imageRendering") == "pixelated"


def test_what_a_person_typed_is_shown_as_typed(open_page, recorded):
    page = open_page(AttentionExplorer(recorded(words=("start", HOSTILE, "cat", "end"))))
    expect(page.locator(".rdl-chip").nth(1)).to_have_text(HOSTILE)
    assert page.locator("img[src=x]").count() == 0


def test_what_a_data_set_says_is_shown_as_it_says(open_page, gallery):
    first = replace(gallery.items[0], text=HOSTILE, style=HOSTILE, head=HOSTILE)
    page = open_page(Gallery([first, *gallery.items[1:]], HOSTILE, opened=0))
    for shown in (".rdl h2", ".rdl-panel h3"):
        expect(page.locator(shown)).to_have_text(HOSTILE)
    expect(page.locator(".rdl-panel > .rdl-note").first).to_contain_text(HOSTILE)
    expect(page.get_by_label("Style").locator("option").nth(1)).to_have_text(HOSTILE)
    assert page.locator("img[src=x]").count() == 0


def set_knobs(page, alpha, beta, bias):
    """Move the sliders and the switch as a hand would, only faster."""
    page.evaluate(
        """([a, b, bias]) => {
          const inputs = [...document.querySelectorAll('.rdl-knobs input[type=range]')];
          for (const [i, value] of [[0, a], [1, b]]) { inputs[i].value = value; inputs[i].dispatchEvent(new Event('input')); }
          const box = document.querySelector('.rdl-knobs input[type=checkbox]');
          if (box.checked !== bias) box.click();
        }""",
        [alpha, beta, bias],
    )


def test_the_page_ranks_as_python_does(open_page, playground):
    playground.choose(current=0, variant="full", proposals="felzenszwalb")
    page = open_page(playground)
    otsu = playground.scene.config.weak_choice == "otsu"
    for variant, kind in itertools.product(("g", "gs", "ds", "full"), ("felzenszwalb", "weak", "oracle")):
        page.get_by_role("radio", name=variant, exact=True).check(force=True)
        if variant != "g":
            page.get_by_label("Proposals", exact=True).select_option(kind)
        used = "weak" if variant == "g" else kind
        for alpha, beta, bias in ((0, 0, True), (0.5, 1, False), (1, 0.3, True), (0.05, 0.3, False)):
            set_knobs(page, alpha, beta, bias)
            s = score(playground.answers[0].parts[used], variant, alpha, beta, bias, otsu)["S"]
            shown = page.locator(".rdl-ranking .rdl-sum small").all_inner_texts()
            np.testing.assert_allclose([float(x) for x in shown[:8]], np.sort(s)[::-1][:8], atol=0.00051)
            best = int(page.locator(".rdl-best").get_attribute("data-i"))
            assert s[best] == pytest.approx(s.max(), abs=1e-6)


def test_playground_by_hand_and_by_keyboard(open_page, playground):
    playground.choose(current=0, variant="full", proposals="oracle", picked=-1)
    page = open_page(playground)
    rows = page.locator(".rdl-ranking .rdl-rank")
    expect(page.locator(".rdl-pane .rdl-note").first).to_contain_text("IoU")
    rows.nth(1).hover()
    second = int(rows.nth(1).get_attribute("data-i"))
    outside = pixels(page, ".rdl-over")[0, 0]
    assert (outside == [24, 24, 28]).all()
    expect(page.locator(".rdl-live")).to_contain_text(f"shown is proposal {second}")
    rows.first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(rows.nth(1)).to_have_attribute("aria-pressed", "true")
    page.get_by_label("sentence", exact=True).fill(playground.answers[1].expression.text)
    page.keyboard.press("Enter")
    expect(page.locator(".rdl-chip[aria-pressed=true]")).to_have_text(playground.answers[1].expression.head)
    page.get_by_label("sentence", exact=True).fill(HOSTILE)
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("no networks")


def test_inversion_slides(open_page, inversion):
    page = open_page(inversion)
    notes = page.locator(".rdl-pane .rdl-note")
    expect(notes.first).to_have_text("16.0 dB")  # it opens where the ways differ
    assert len(set(notes.all_inner_texts())) == 3
    slider = page.get_by_role("slider", name="Step")
    slider.focus()
    page.keyboard.press("Home")
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    expect(page.locator(".rdl-live")).to_have_text(
        "back, t = 401: random noise 12.0 dB, DDIM inversion 13.0 dB, fixed-point 14.0 dB."
    )
    page.keyboard.press("Home")
    expect(page.locator(".rdl-pane .rdl-note").first).to_have_text("≥ 60 dB")
    page.get_by_role("radio", name="Latents").check(force=True)
    levels = inversion.arrays()["random/latents"][0]
    sheet = levels.reshape(2, 2, 2, 2).transpose(0, 2, 1, 3).reshape(4, 4)
    drawn = pixels(page, ".rdl-over").astype(int)
    zero = np.abs(sheet.astype(int) - 127.5)
    np.testing.assert_array_less(drawn[zero < 3], 246)
    np.testing.assert_array_less(225, drawn[zero < 3])  # near zero: white
    blue, orange = drawn[sheet < 100], drawn[sheet > 155]
    assert len(blue)
    assert len(orange)
    assert (blue[:, 2] > blue[:, 0]).all()  # negative
    assert (orange[:, 0] > orange[:, 2]).all()  # positive


def test_inversion_keeps_what_it_shows(open_page, inversion, tmp_path):
    page = open_page(inversion)
    with page.expect_download() as found:
        page.get_by_role("button", name="CSV").click()
    lines = Path(found.value.path()).read_text().splitlines()
    assert len(lines) == 1 + 3 * 7
    assert lines[7] == "random,6,0,16"
    pictures = []
    for step in ("End", "Home"):
        page.get_by_role("slider", name="Step").focus()
        page.keyboard.press(step)
        with page.expect_download() as found:
            page.get_by_role("button", name="PNG").click()
        pictures.append(np.asarray(Image.open(found.value.path()).convert("RGB"), int))
    way = pictures[0][70:-60, 24:504], pictures[1][70:-60, 24:504]
    assert np.abs(way[0] - way[1]).mean() > 20  # the frame shown, not the strip's first
    page.set_viewport_size({"width": 390, "height": 844})
    edge = page.eval_on_selector(".rdl-chart", "e => e.getBoundingClientRect().right")
    assert (
        page.eval_on_selector_all(
            ".rdl-chart g text", "t => Math.max(...t.map((e) => e.getBoundingClientRect().right))"
        )
        <= edge
    )


def test_gallery_filters_opens_and_comes_back(open_page, gallery):
    page = open_page(gallery)
    cards = page.locator(".rdl-card")
    assert [int(c.get_attribute("data-i")) for c in cards.all()] == gallery.shown()
    page.get_by_role("radio", name="Best").check(force=True)
    expect(cards.first).to_have_attribute("data-i", "5")
    page.get_by_label("Style").select_option("noun")
    expect(cards).to_have_count(3)
    cards.first.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="thing 5")).to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("heading", name="thing 3")).to_be_visible()
    page.keyboard.press("Escape")
    expect(cards.nth(1)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="thing 3")).to_be_visible()
    page.get_by_label("Style").select_option("toyref")  # the opened one is none of these
    expect(page.get_by_role("heading", name="thing 3")).to_have_count(0)
    expect(cards.first).to_be_visible()


@pytest.mark.parametrize(("number", "panes"), [(1, 4), (0, 3)], ids=["with map and scores", "as a run keeps it"])
def test_gallerys_panel_shows_what_is_known(open_page, gallery, number, panes):
    gallery.opened = number
    page = open_page(gallery)
    expect(page.locator(".rdl-panel .rdl-pane")).to_have_count(panes)
    expect(page.locator(".rdl-scores li")).to_have_count(2 if panes == 4 else 0)
    expect(page.get_by_text("S of the best")).to_have_count(1 if panes == 4 else 0)
    expect(page.get_by_text("no rival")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["attention", "playground", "inversion", "gallery"])
def test_pages_fit_a_phone_and_follow_the_theme(open_page, request, name, scheme):
    page = open_page(request.getfixturevalue(name), width=390, color_scheme=scheme)
    expect(page.locator(".rdl")).to_have_attribute("data-theme", scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    light = np.mean(
        [int(c) for c in page.eval_on_selector(".rdl", "e => getComputedStyle(e).backgroundColor")[4:-1].split(",")]
    )
    assert (light > 200) == (scheme == "light")
    line = page.locator(".rdl-live")
    expect(line).to_have_attribute("aria-live", "polite")
    expect(line).not_to_be_empty()


@pytest.fixture
def in_a_page(chromium, watched):
    """Runs JavaScript in an empty page that knows an explorer's ``render``, ``model``, ``el`` and ``listening()``."""
    page = watched(chromium.new_page())

    def run(explorer, script):
        page.set_content("<main></main>")
        page.add_script_tag(content=explorer._esm.removesuffix(_EXPORT) + "\nwindow.render = render;")
        return page.evaluate(f"state => {{ {MODEL} {script} }}", {**explorer.state(), "_block": list(explorer._block)})

    yield run
    page.close()


MODEL = """
      const calls = new Map();
      const model = {
        get: (n) => state[n],
        set(n, v) { state[n] = v; for (const f of [...(calls.get(`change:${n}`) ?? [])]) f(); },
        save_changes() {},
        on: (e, f) => calls.set(e, (calls.get(e) ?? new Set()).add(f)),
        off: (e, f) => calls.get(e).delete(f),
      };
      state._block = new DataView(Uint8Array.from(state._block).buffer);
      const el = document.querySelector('main');
      const listening = () => [...calls.values()].reduce((n, s) => n + s.size, 0);
"""


def test_two_views_of_one_model_stay_in_step(in_a_page, attention):
    script = """
      render({ model, el });
      render({ model, el });
      const views = [...document.querySelectorAll('.rdl')];
      views[0].querySelectorAll('.rdl-chip')[2].click();
      return views.map((v) => v.querySelectorAll('.rdl-chip')[2].getAttribute('aria-pressed'));
    """
    assert in_a_page(attention, script) == ["true", "true"]


@pytest.mark.parametrize("name", ["attention", "playground", "inversion", "gallery"])
def test_fifty_views_come_and_go(in_a_page, request, name):
    """A view that goes takes its listeners along."""
    script = """
      const undo = render({ model, el });
      const during = listening();
      undo();
      for (let i = 0; i < 50; i++) render({ model, el })();
      return { during: during > 0, after: listening(), left: el.children.length };
    """
    assert in_a_page(request.getfixturevalue(name), script) == {"during": True, "after": 0, "left": 0}


def test_the_theme_is_that_of_the_place(in_a_page, inversion):
    script = """
      render({ model, el });
      const theme = () => new Promise((done) => setTimeout(() => done(el.firstChild.dataset.theme), 20));
      const { body, documentElement: html } = document;
      const found = [];
      const see = async (act) => { act(); found.push(await theme()); };
      return (async () => {
        await see(() => { body.dataset.jpThemeLight = 'false'; });
        await see(() => { body.dataset.jpThemeLight = 'true'; });
        await see(() => { delete body.dataset.jpThemeLight; html.setAttribute('theme', 'dark'); });
        await see(() => { html.setAttribute('theme', 'light'); });
        await see(() => { html.removeAttribute('theme'); body.className = 'vscode-dark'; });
        await see(() => { body.className = 'vscode-light'; });
        return found;
      })();
    """
    assert in_a_page(inversion, script) == ["dark", "light"] * 3
