"""Slides: all that a lesson shows is on them, nothing sticks out, nothing gives an answer away, and they need no network."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import build_slides as builder
import nbformat
import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
LESSONS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))


@pytest.fixture(scope="module")
def decks(tmp_path_factory):
    """All decks, with the figures as they are stored: running the lessons again gives the same ones, only finer."""
    try:
        for package in (builder.REVEAL, builder.MATHJAX):
            builder.fetch(*package)
    except OSError as error:
        pytest.skip(f"no slides here: {error}")
    out = tmp_path_factory.mktemp("slides")

    def stored(lesson):
        folder = out / "run" / lesson.stem
        folder.mkdir(parents=True)
        shutil.copy(lesson, folder / "lesson.ipynb")
        return folder

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder, "run", stored)
        assert [p.stem for p in builder.build(out)] == [p.stem[:2] for p in LESSONS]
    return out


@pytest.fixture
def opened(chromium, watched, decks):
    contexts = []

    def go(page, **options):
        contexts.append(chromium.new_context(offline=True, **{"viewport": {"width": 1280, "height": 720}, **options}))
        tab = watched(contexts[-1].new_page())
        asked = []
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(f"{decks.as_uri()}/{page}")
        tab.wait_for_selector("body.ready")
        assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
        return tab

    yield go
    for context in contexts:
        context.close()


STICKS_OUT = """() => {
  const found = [];
  for (let i = 0; i < Reveal.getTotalSlides(); i++) {
    Reveal.slide(i);
    const slide = Reveal.getCurrentSlide(), body = slide.querySelector(".body"), box = slide.getBoundingClientRect();
    const inside = [...slide.querySelectorAll("h1, h2, .intro, p, pre, li, img, table, mjx-container")]
      .filter((e) => !e.closest("aside") && e.getClientRects().length)
      .every((e) => { const r = e.getBoundingClientRect(); return r.left >= box.left - 1 && r.right <= box.right + 1
        && r.top >= box.top - 1 && r.bottom <= box.bottom + 1; });
    const type = parseFloat(getComputedStyle(slide).fontSize);
    const small = [...slide.querySelectorAll(".body img")].some((e) => e.height < 140);
    if (!inside || small || type < 20 || body.scrollHeight > body.clientHeight + 2 || body.scrollWidth > body.clientWidth + 2
      || slide.querySelector(".body mjx-merror")) found.push([i, slide.querySelector("h1, h2").textContent, type]);
  }
  return found;
}"""


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda p: p.stem[:2])
def test_nothing_sticks_out_and_type_stays_large(opened, lesson):
    tab = opened(f"{lesson.stem[:2]}.html")
    assert tab.evaluate("Reveal.getTotalSlides()") > 15
    assert tab.evaluate(STICKS_OUT) == []


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda p: p.stem[:2])
def test_a_deck_shows_what_its_lesson_shows_and_gives_no_answer_away(decks, lesson):
    text = (decks / f"{lesson.stem[:2]}.html").read_text()
    shown, notes = (
        re.sub(r"<aside.*?</aside>", "", text, flags=re.DOTALL),
        re.findall(r"<aside.*?</aside>", text, re.DOTALL),
    )
    titles = re.findall(r"<h[12]>(.+?)</h[12]>", shown)
    cells = nbformat.read(lesson, 4).cells
    prose = "\n".join(c.source for c in cells if c.cell_type == "markdown")
    for heading in re.findall(r"^#{2,3} (.+)$", prose, re.MULTILINE):
        assert builder.rendered(heading, inline=True) in titles
    pictures = [
        c for c in cells if any(k.startswith("image/") for o in c.get("outputs", []) for k in o.get("data", {}))
    ]
    images = re.findall(r'<img src="(.+?)".*? alt="(.+?)">', shown)
    assert len(images) == len(pictures)
    assert all((decks / file).stat().st_size > 500 for file, _ in images)
    claims = {
        line[2:]
        for c in cells
        if c.cell_type == "code" and "claim(" in c.source and "exercise" not in c.metadata.get("tags", [])
        for line in builder.printed(c.outputs).splitlines()
        if line.startswith("✓ ")
    }
    told = re.sub(r"<[^>]+>", "", shown)
    assert len(claims) >= 4
    missing = [c for c in claims if re.sub(r"<[^>]+>", "", builder.rendered(c, inline=True))[1:] not in told]
    assert missing == []
    plain = re.sub(r"<[^>]+>", "", text)
    for cell in cells:
        if "exercise" in cell.metadata.get("tags", []):
            given = [
                s.strip()
                for s in re.sub(r"<[^>]+>", "", builder._code(cell.source)).splitlines()
                if s.strip().startswith("return ") and len(s) > 30
            ]
            assert [s for s in given if s in plain and s not in builder._DETAILS.sub("", prose)] == []
    slides = re.findall(r"<section.*?</section>", shown, re.DOTALL)
    assert [x for x in slides if not re.search(r"<(p|pre|li|img|mjx|table)\b", x)] == []  # none is a bare heading
    assert max(x.count("<li>") for x in slides if 'class="points"' in x) <= 7
    assert sum("Minutes" in note for note in notes) >= 5


def test_a_second_run_for_one_lesson_keeps_the_others_listed(decks):
    listed = (decks / "index.html").read_text()
    assert listed.count("<li ") == len(LESSONS)
    assert builder.build(decks, []) == []
    assert (decks / "index.html").read_text() == listed


def test_speaker_s_notes_open_without_a_network(opened):
    tab = opened("03.html")
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("ArrowRight")
    with tab.context.expect_page() as other:
        tab.keyboard.press("s")
    other.value.wait_for_function("document.body.innerText.includes('Minutes')")


def test_keys_turn_pages_and_lights(opened):
    tab = opened("03.html", color_scheme="dark")
    light = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).every((x) => x > 200)"
    assert not tab.evaluate(light)
    tab.keyboard.press("d")
    assert tab.evaluate(light)
    tab.keyboard.press("ArrowRight")
    assert tab.evaluate("Reveal.getIndices().h") == 1


def test_a_phone_scrolls_through_the_slides(opened):
    tab = opened("03.html", viewport={"width": 390, "height": 800})
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    assert tab.locator("section h2").first.is_visible()
    assert tab.evaluate("document.querySelector('section h2').getBoundingClientRect().left") > 10


def test_in_print_every_slide_keeps_its_margins(opened):
    tab = opened("00.html?view=print")
    assert (
        tab.evaluate(
            """() => [...document.querySelectorAll(".pdf-page")].filter((page) => {
      const box = page.getBoundingClientRect();
      return [...page.querySelectorAll("h1, h2, .body p, .body img, .body li")].some((e) => { const r = e.getBoundingClientRect();
        return r.left < box.left + 50 || r.right > box.right - 50 || r.bottom > box.bottom - 20; });
    }).map((page) => page.innerText.slice(0, 40))"""
        )
        == []
    )


def test_a_pdf_has_a_page_for_each_slide(decks, chromium):
    code = f"import pathlib, build_slides; build_slides.pdf([pathlib.Path({str(decks / '00.html')!r})], build_slides.find_chromium())"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT / "docs", check=True)  # one process, one browser
    made = (decks / "00.pdf").read_bytes()
    slides = (decks / "00.html").read_text().count("<section")
    assert len(re.findall(rb"/Type\s*/Page\b", made)) == slides
