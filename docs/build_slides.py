"""Slides from the lessons' own cells: ``python docs/build_slides.py`` (``make slides``) -> ``out/slides``, offline, and PDFs.

One deck a lesson. A section opens with its first words and equations; toy numbers are shown as code and output; each figure stands
with the claims that its lesson makes about it; exercises are shown without hints and answers. All other prose is in the speaker's
notes (key S), with what teaching/notes tells to do.
"""

from __future__ import annotations

import argparse
import base64
import html
import io
import re
import shutil
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
from jinja2 import Environment, FileSystemLoader
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin
from PIL import Image
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from run_lessons import ROOT, run

from refdiff_lite.live.page import fetch

OUT = ROOT / "out" / "slides"
MATHJAX = ("mathjax", "3.2.2", "1b9c0a1c44df864e915690558e72adb9cc5203360daefd385084ced3b6c64c09")
REVEAL = ("reveal.js", "6.0.2", "2f0c20bfb02447a198a1ebe8a8c097a5437d035caa38f2820bf4ba887a3eac91")
WORDS = 75
"""A slide of prose has about as many; what is more goes to the speaker's notes."""
MOST = 5
"""Points on a slide; claims of later cells get one of their own."""
_DETAILS = re.compile(r"<details>.*?</details>\n?", re.DOTALL)
EXPLORER = "An explorer: alive in the lesson and on the site of the course."
_STILL = re.compile(r"^A still of .*", re.DOTALL)
_TAG = re.compile(r"<[^>]+>")
_EFFORT = re.compile(r"^\*\*Difficulty\*\* (.+)\n+", re.MULTILINE)


@dataclass
class Slide:
    """A slide: its kind is a CSS class, ``notes`` is Markdown for the speaker."""

    kind: str
    title: str
    body: str = ""
    intro: str = ""
    points: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def _math(content: str, options: dict[str, bool]) -> str:
    return html.escape(f"\\[{content}\\]" if options["display_mode"] else f"\\({content}\\)")


def _code(source: str, *_: str) -> str:
    return highlight(source, PythonLexer(), HtmlFormatter(nowrap=True))


_MARKDOWN = MarkdownIt("commonmark", {"highlight": _code}).enable(["table", "strikethrough"])
dollarmath_plugin(_MARKDOWN, renderer=_math, allow_digits=False)


def rendered(text: str, inline: bool = False) -> str:
    """Markdown as HTML; links within the course become plain words, for a deck stands alone."""
    text = re.sub(r"(?<!!)\[([^\]]+)\]\((?!https?:)[^)]*\)", r"\1", text)
    return _MARKDOWN.renderInline(text) if inline else _MARKDOWN.render(text)


def lead(text: str) -> tuple[str, str]:
    """The first paragraphs of a cell, up to about WORDS words and never ending before a formula that was announced; and the rest."""
    paragraphs = [p for p in text.strip().split("\n\n") if p]
    taken, words = [], 0
    for p in paragraphs:
        words += 0 if p.startswith("$$") else len(p.split())
        if taken and words > WORDS:
            break
        taken.append(p)
    if len(taken) > 1 and taken[-1].endswith(":"):  # it announces what is not here
        taken.pop()
    return "\n\n".join(taken), "\n\n".join(paragraphs[len(taken) :])


def first_sentences(text: str, most: int = 2) -> str:
    """The first sentences of a paragraph, for beside a figure."""
    paragraph = re.sub(r"\s+", " ", text.strip().split("\n\n")[0])
    sentences = re.split(r"(?<=[.?!]) (?=[A-Z\"*`$])", paragraph)
    return " ".join(sentences[:most])


def picture(outputs: list[Any], target: Path) -> tuple[str, str] | None:
    """Write the last picture among outputs; its HTML, and "wide" or "tall"."""
    for output in reversed(outputs):
        for kind in ("image/png", "image/jpeg"):
            if encoded := output.get("data", {}).get(kind):
                image = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")
                image.save(target, quality=88, method=4)
                alt = _STILL.sub(EXPLORER, output.get("metadata", {}).get(kind, {}).get("alt", ""))
                shape = "wide" if image.width > 2.3 * image.height else "tall"
                source = f"{target.parent.name}/{target.name}"
                return (
                    f'<img src="{source}" width="{image.width}" height="{image.height}" alt="{html.escape(alt)}">',
                    shape,
                )
    return None


def printed(outputs: list[Any]) -> str:
    return "".join(o.text for o in outputs if o.output_type == "stream" and o.get("name") == "stdout")


def claims(cell: Any) -> list[str]:
    """The claims that a cell printed as true."""
    lines = printed(cell.outputs).splitlines() if "claim(" in cell.source else []
    return [line[2:] for line in lines if line.startswith("✓ ")]


def to_do(number: str) -> dict[str, str]:
    """Section -> what the teacher's notes of a lesson tell to do in it."""
    path = ROOT / "teaching" / "notes" / f"{number}.md"
    rows = re.findall(r"^\| (\d+–\d+) \| (.+?) \| (.+) \|$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {section: f"**Minutes {minutes}.** {told}" for minutes, section, told in rows}


def parts(text: str) -> list[tuple[str, str]]:
    """A cell of prose cut at its headings: (heading or "", text) each, without what is folded away."""
    cut = re.split(r"^#{2,3} (.+)\n*", _DETAILS.sub("", text), flags=re.MULTILINE)
    found = [("", cut[0].strip()), *zip(cut[1::2], (t.strip() for t in cut[2::2]), strict=True)]
    return [part for part in found if any(part)]


def of_prose(heading: str, text: str, section: str, deck: list[Slide]) -> Slide | None:
    """The slide that a piece of prose makes; without a heading it goes to the slide before."""
    effort = _EFFORT.search(text)
    if effort:
        time = effort[1].replace("**", "")
        return Slide("exercise", heading, f'<p class="effort">{time}</p>\n{rendered(text[effort.end() :].strip())}')
    if heading or len(deck) == 1:
        said, rest = lead(text)
        return Slide("prose", heading or section, rendered(said), notes=[rest])
    if deck[-1].kind.startswith("figure") and not deck[-1].points:
        deck[-1].points.append(first_sentences(text))
    deck[-1].notes.append(text)
    return None


def announced(deck: list[Slide]) -> dict[str, Any]:
    """Takes a few words of prose, which announce what comes next, off the deck: introduction and notes of the next slide."""
    if len(deck) > 2 and deck[-1].kind == "prose" and len(_TAG.sub("", deck[-1].body).split()) < 45:
        before = deck.pop()
        return {"intro": before.body, "notes": before.notes}
    return {}


def of_code(cell: Any, fine: Any, section: str, pictures: Path, name: str, deck: list[Slide]) -> Slide | None:
    """The slide that a code cell makes: its figure, or toy numbers with their code; claims go to the slide before."""
    told = claims(cell)
    found = picture(fine.outputs, pictures / name) or picture(cell.outputs, pictures / name)
    if found:
        points = [EXPLORER] if EXPLORER in found[0] else told
        return Slide(f"figure {found[1]}", section, found[0], points=points, **announced(deck))
    if "nbval-check-output" in cell.metadata.get("tags", []) and cell.source.count("\n") < 9:
        shown = html.escape(printed(cell.outputs).rstrip())
        body = f'<pre class="code">{_code(cell.source)}</pre><pre class="printed">{shown}</pre>'
        return Slide("numbers", section, body)
    if told:
        if not deck[-1].kind.startswith(("figure", "claims")) or len(deck[-1].points) + len(told) > MOST:
            deck.append(Slide("claims", section, **announced(deck)))
        numbers = [line for line in printed(cell.outputs).splitlines() if not line.startswith("✓ ")]
        if deck[-1].kind == "claims" and 0 < len(numbers) <= 14:
            deck[-1].body += f'<pre class="printed">{html.escape(chr(10).join(numbers))}</pre>'
        deck[-1].points += [p for p in told if p not in deck[-1].points]
    return None


def slides(lesson: Path, pictures: Path) -> list[Slide]:
    """The slides of a built lesson; its figures are written to ``pictures``."""
    stored = nbformat.read(lesson, 4).cells
    fine = nbformat.read(run(lesson) / "lesson.ipynb", 4).cells
    plan = to_do(lesson.stem[:2])
    deck = [opening(stored[0].source)]
    section = deck[0].title
    for i, cell in enumerate(stored[1:], 1):
        made: list[Slide | None] = []
        if cell.cell_type == "markdown":
            for heading, text in parts(cell.source):
                if heading == "Recap":
                    made.append(recap(cell.source))
                    break
                made.append(slide := of_prose(heading, text, section, deck))
                if slide and slide.kind == "prose":
                    section = slide.title
                if slide:
                    slide.notes.insert(0, plan.get(heading, ""))
        elif not {"setup", "exercise"} & set(cell.metadata.get("tags", [])):
            made.append(of_code(cell, fine[i], section, pictures, f"{i}.webp", deck))
        deck += [slide for slide in made if slide]
    for i, slide in reversed(list(enumerate(deck))):  # a heading without words: its section begins with what follows
        if slide.kind == "prose" and not slide.body and slide.title in [after.title for after in deck[i + 1 :]]:
            deck[i + 1].notes[:0] = slide.notes
            del deck[i]
    for slide in deck:
        if slide.kind.startswith("figure") and not slide.points:  # what is told to those who cannot see it
            slide.points += [html.unescape(alt) for alt in re.findall(r'alt="(.+?)"', slide.body)]
        slide.points = [p if p.split()[0] in ("g", "gs", "ds") else p[:1].upper() + p[1:] for p in slide.points]
    return deck


def opening(text: str) -> Slide:
    """The title slide, from a lesson's first cell."""
    number, title = re.match(r"# (\d+) · (.+)\n", text).groups()
    goals = text.partition("You will be able to")[2].strip()
    minutes = re.search(r"^\| (\d+) minutes", text, re.MULTILINE)[1]
    about = f'<p class="effort">Lesson {number} · {minutes} minutes</p>'
    return Slide("title", title, f"{about}\n<p>You will be able to</p>\n{rendered(goals)}")


def recap(text: str) -> Slide:
    """The last slide: questions to answer from memory, and the open one. Answers are for the speaker."""
    open_question = re.search(r"\*\*Open question\.\*\*.+?(?=\n\n|\Z)", text, re.DOTALL)
    asked = re.findall(r"<summary>(?!Answers)(.+?)</summary>", text)
    listed = "\n".join(f"- {q}" for q in asked) or "\n".join(
        re.findall(r"^\d+\. .+$", _DETAILS.sub("", text), re.MULTILINE)
    )
    answers = "\n\n".join(
        f"*{q}* {a.strip()}" for q, a in re.findall(r"<summary>(.+?)</summary>(.+?)</details>", text, re.DOTALL)
    )
    return Slide("recap", "Recap", rendered(f"{listed}\n\n{open_question[0]}"), notes=[answers])


def build(out: Path, wanted: list[str] | None = None) -> list[Path]:
    """Write the decks of the lessons whose numbers are wanted (default: all), and the page that lists them."""
    templates = Environment(loader=FileSystemLoader(ROOT / "docs" / "slides"), autoescape=False)
    templates.filters |= {"markdown": rendered, "inline": lambda text: rendered(text, inline=True)}
    assets = out / "assets"
    assets.mkdir(parents=True, exist_ok=True)
    taken = {
        REVEAL: ("dist/reveal.js", "dist/reveal.css", "dist/plugin/notes.js", "LICENSE"),
        MATHJAX: ("es5/tex-svg.js",),
    }
    for package, names in taken.items():
        with tarfile.open(fetch(*package)) as tar:
            for name in names:
                told = name if name != "LICENSE" else "reveal-LICENSE.txt"
                (assets / Path(told).name).write_bytes(tar.extractfile(f"package/{name}").read())
    for name in ("deck.css", "deck.js"):
        shutil.copy(ROOT / "docs" / "slides" / name, assets)
    colours = {"light": "default", "dark": "github-dark"}
    css = "\n".join(
        HtmlFormatter(style=s).get_style_defs([f'[data-theme="{t}"] pre code', f'[data-theme="{t}"] pre.code'])
        for t, s in colours.items()
    )
    (assets / "code.css").write_text(re.sub(r"background(-color)?: [^;}]+;?", "", css))
    made = []
    for lesson in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        number = lesson.stem[:2]
        if wanted is None or number in wanted:
            print(f"slides of {lesson.stem}", flush=True)
            (out / number).mkdir(exist_ok=True)
            deck = slides(lesson, out / number)
            made.append(out / f"{number}.html")
            made[-1].write_text(templates.get_template("deck.html").render(slides=deck, number=number))
    listed = []  # with the decks of earlier runs
    for path in sorted(out.glob("[0-9]*.html")):
        text = path.read_text()
        listed.append((path.stem, re.search(r"<h1>(.+?)</h1>", text)[1], text.count("<section")))
    (out / "index.html").write_text(templates.get_template("index.html").render(decks=listed))
    return made


def find_chromium() -> str | None:
    return next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)


def pdf(decks: list[Path], chromium: str) -> None:
    """Print each deck with Chromium, one slide a page."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        for deck in decks:
            page.goto(f"{deck.resolve().as_uri()}?view=print")
            page.wait_for_selector("body.ready .pdf-page", state="attached", timeout=60_000)
            page.pdf(path=deck.with_suffix(".pdf"), prefer_css_page_size=True, print_background=True)
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lessons", nargs="*", help="numbers of lessons, such as 03; default: all")
    parser.add_argument("--no-pdf", action="store_true", help="without PDFs, which need Chromium")
    given = parser.parse_args()
    numbers = sorted(p.stem[:2] for p in (ROOT / "notebooks").glob("[0-9]*.ipynb"))
    if unknown := [n for n in given.lessons if n not in numbers]:
        parser.error(f"no lesson has the number {', '.join(unknown)}; there are {', '.join(numbers)}")
    chromium = find_chromium()
    if not (chromium or given.no_pdf):
        parser.error("PDFs need Chromium: install it, or ask for --no-pdf (make slides FLAGS=--no-pdf)")
    decks = build(OUT, given.lessons or None)
    if not given.no_pdf:
        pdf(decks, chromium)
    size = sum(p.stat().st_size for p in OUT.rglob("*") if p.is_file())
    print(f"-> {OUT}/index.html ({size / 1e6:.0f} MB)")


if __name__ == "__main__":
    main()
