"""The course's site: every link holds, no request leaves it, and lessons, search and explorers work from disk."""

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import build_site as builder
import pytest
from axe_playwright_python.sync_playwright import Axe

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site without the live page, which has tests of its own, and with the explorers of one lesson."""
    try:
        builder.fetch(*builder.build_slides.MATHJAX)
    except OSError as error:
        pytest.skip(f"no site here: {error}")
    out = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        for name, folder in (("STAGE", "source"), ("SITE", "site")):
            patch.setattr(builder, name, out / folder)
        patch.setattr("run_lessons.KEPT", out / "lessons")
        patch.setattr(builder, "build", lambda *_, **__: None)
        patch.setattr("sys.argv", ["build_site", "--only", "02"])
        builder.main()
    yield out / "site"
    shutil.rmtree(out)


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.links, self.ids, self.loads = [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids.add(attrs.get("id"))
        for name in ("href", "src"):
            if link := attrs.get(name):
                self.links.append(link)
                if name == "src" or tag == "link":
                    self.loads.append(link)


def test_every_link_holds_and_nothing_is_loaded_from_elsewhere(site):
    pages = {p: Page(p.read_text()) for p in site.rglob("*.html") if "explorers" not in p.parts}
    assert len(pages) > 60
    broken = []
    for path, page in pages.items():
        assert [x for x in page.loads if re.match(r"https?:|//", x)] == []
        for link in page.links:
            if re.match(r"[a-z]+:|//", link) or link.startswith("live/"):
                continue
            file, _, anchor = link.partition("#")
            to = (path.parent / unquote(file.partition("?")[0])).resolve() if file else path
            to = to / "index.html" if to.is_dir() else to
            if not to.is_file() or (anchor and to in pages and unquote(anchor) not in pages[to].ids):
                broken.append((str(path.relative_to(site)), link))
    assert broken == []


@pytest.fixture
def opened(chromium, watched, site):
    contexts = []

    def go(page, **options):
        context = chromium.new_context(offline=True, **options)
        contexts.append(context)
        tab = watched(context.new_page())
        tab.goto(f"{site.as_uri()}/{page}")
        return tab

    yield go
    for context in contexts:
        context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page", ["notebooks/03_cross_attention.html", "docs/glossary.html", "api/fusion.html"])
def test_a_page_fits_a_phone_and_axe_finds_nothing_serious(opened, page, scheme):
    tab = opened(page, viewport={"width": 390, "height": 800}, color_scheme=scheme)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    dark = tab.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).every((x) => x < 80)")
    assert dark == (scheme == "dark")
    found = Axe().run(tab, context="article", options={"preload": False}).response["violations"]
    kinds = {v["id"]: v["nodes"][0]["html"][:100] for v in found if v["impact"] in ("serious", "critical")}
    # Pygments' and the theme's own colours of code, and code that scrolls, are not ours.
    assert kinds.keys() <= {"color-contrast", "scrollable-region-focusable"}, kinds


def test_formulas_are_set_without_a_connection(opened):
    tab = opened("notebooks/07_fusion.html")
    tab.wait_for_selector("mjx-container svg")


def test_search_finds_the_lesson(opened):
    tab = opened("search.html?q=cross-attention")
    tab.wait_for_selector("ul.search li a")
    assert any("Cross-attention" in text for text in tab.locator("ul.search li a").all_inner_texts())


def test_an_explorer_of_a_lesson_is_alive(opened):
    tab = opened("notebooks/02_ddim_inversion.html", viewport={"width": 1280, "height": 900})
    frame = tab.locator("iframe.explorer").first
    frame.scroll_into_view_if_needed()
    view = frame.content_frame
    slider = view.get_by_role("slider").first
    slider.wait_for()
    before = view.locator(".rdl-live").inner_text()
    slider.focus()
    slider.press("Home")
    tab.wait_for_timeout(400)
    assert view.locator(".rdl-live").inner_text() != before


def test_in_print_an_explorer_is_a_still_and_no_line_is_cut_off(opened):
    tab = opened("notebooks/02_ddim_inversion.html", viewport={"width": 794, "height": 1123})
    tab.emulate_media(media="print")
    assert tab.locator("iframe.explorer").first.is_hidden()
    assert tab.locator("img.still").first.is_visible()
    assert (
        tab.evaluate("[...document.querySelectorAll('pre')].filter((e) => e.scrollWidth > e.clientWidth + 1).length")
        == 0
    )


def test_on_a_laptop_the_playground_has_room_and_nothing_sticks_out(opened):
    tab = opened("index.html", viewport={"width": 1280, "height": 800})
    assert tab.evaluate("document.documentElement.scrollWidth") <= 1280
    assert tab.locator("iframe.live").bounding_box()["width"] > 850
