"""The course's site from what is committed: ``python docs/build_site.py`` (``make site``) -> ``out/site``.

The pages are staged in the repository's own tree, so that links among them hold; links to what is no page go to the
repository. Lessons are shown as they were built; their explorers are exported once more and run in the page.
"""

from __future__ import annotations

import argparse
import html
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import build_slides
import nbformat
from run_lessons import explorers, run

from refdiff_lite.live.page import build, fetch

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "out"
STAGE, SITE = OUT / "site-source", OUT / "site"
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
PAGES = (
    "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "notebooks/README.md", "docs/*.md", "docs/howto/*.md", "teaching/**/*.md",
    "data/*/README.md", "data/models/*/*.md",
)  # fmt: skip
MODULES = (
    "pipeline scene result config expression latents inversion attention unet_pass proposals ranking fusion trace look record "
    "painting networks.networks networks.presets networks.loading variants.refam variants.concept variants.hybridgl "
    "variants.relations evaluation.run evaluation.metrics evaluation.summary evaluation.baselines datasets.records "
    "datasets.toyref widgets.base widgets.attention widgets.comparison widgets.playground widgets.gallery widgets.inversion "
    "widgets.traced live.page live.export lesson images masks viz"
).split()
"""What the API pages tell of, in this order."""
_LINK = re.compile(r"(?P<head>!?\[[^\]]*\]\()(?P<path>[^)\s#]+)(?P<anchor>#[^)\s]*)?\)")
_IMAGE = re.compile(r"""(?P<head>(?:src|srcset)=["'])(?P<path>[^"'#]+)(?P<tail>["'])""")
_BADGE = re.compile(r"\[!\[(?P<alt>[^\]]*)\]\(https?://[^)]*\)\]\((?P<to>[^)]*)\)")


def staged() -> list[Path]:
    """Every page of the repository that the site shows, without the lessons."""
    return sorted({p for pattern in PAGES for p in ROOT.glob(pattern)})


def relink(text: str, here: Path, pages: set[Path], pictures: set[Path]) -> str:
    """Markdown whose links to pages stay, whose pictures are noted, and whose other links go to the repository."""

    def target(path: str) -> Path | None:
        return None if re.match(r"[a-z]+:|/", path) else (here.parent / path).resolve()

    def link(m: re.Match[str]) -> str:
        to = target(m["path"])
        if to is None or to in pages or not to.is_relative_to(ROOT):
            return m.group()
        if to.suffix in (".png", ".jpg", ".jpeg", ".svg") and to.is_file():
            pictures.add(to)
            return m.group()
        if to.is_dir() and to / "README.md" in pages:
            return f"{m['head']}{m['path'].rstrip('/')}/README.md{m['anchor'] or ''})"
        kind = "tree" if to.is_dir() else "blob"
        return f"{m['head']}{REPOSITORY}/{kind}/main/{to.relative_to(ROOT)}{m['anchor'] or ''})"

    def image(m: re.Match[str]) -> str:
        if (to := target(m["path"])) is not None and to.is_file():
            pictures.add(to)
            return f"{m['head']}{REPLACED}{to.relative_to(ROOT)}{m['tail']}"
        return m.group()

    # A badge is a picture from elsewhere; its link alone says as much.
    text = _BADGE.sub(lambda m: f"[{m['alt']}]({m['to']})", text)
    return _IMAGE.sub(image, _LINK.sub(link, text))


REPLACED = "@root@/"
"""Stands for the way to the site's root in pictures that are written as HTML, which Sphinx leaves as they are."""


def lesson_page(lesson: Path, pages: set[Path], pictures: set[Path], live: bool) -> None:
    """A built lesson with its links mended and its explorers alive."""
    notebook = nbformat.read(lesson, 4)
    alive = explorers(folder := run(lesson)) if live else {}
    for i, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            cell.source = relink(cell.source, lesson, pages, pictures).replace(REPLACED, "../")
        for name in alive.get(i, []):
            shutil.copy(folder / name, STAGE / "_extra" / "explorers" / name)
            frame = (
                f'<iframe class="explorer" loading="lazy" src="../explorers/{name}" title="explorer of this lesson"></iframe>'
                f'<p class="under"><a href="../explorers/{name}">in a page of its own</a></p>'
            )
            stills = [(o, k) for o in cell.outputs for k in o.get("data", {}) if k.startswith("image/")]
            for output, kind in stills[-1:]:  # stays for print
                alt = html.escape(output.metadata.get(kind, {}).get("alt", ""), quote=True)
                frame += f'<img class="still" src="data:{kind};base64,{output.data[kind].strip()}" alt="{alt}">'
                cell.outputs.remove(output)
            cell.outputs.append(nbformat.v4.new_output("display_data", {"text/html": frame}))
    target = STAGE / lesson.relative_to(ROOT)
    target.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="without live page and slides, and with stills in the place of explorers"
    )
    numbers = sorted(p.stem[:2] for p in (ROOT / "notebooks").glob("[0-9]*.ipynb"))
    parser.add_argument(
        "--only",
        nargs="*",
        choices=numbers,
        metavar="NN",
        help="lessons, such as 02, with explorers and slides; default: all",
    )
    given = parser.parse_args()
    quick = given.quick
    for folder in (STAGE, SITE):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "docs" / "site", STAGE)
    (STAGE / "_extra" / "explorers").mkdir(parents=True)
    lessons = sorted((ROOT / "notebooks").glob("*.ipynb"))
    pages, pictures = {p.resolve() for p in (*staged(), *lessons)}, set()
    for page in staged():
        target = STAGE / page.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        up = "../" * len(page.relative_to(ROOT).parts[:-1])
        target.write_text(relink(page.read_text(), page, pages, pictures).replace(REPLACED, up))
    for number, lesson in enumerate(lessons, 1):
        print(f"lesson {number} of {len(lessons)}: {lesson.stem}", flush=True)
        lesson_page(lesson, pages, pictures, live=not quick and (given.only is None or lesson.stem[:2] in given.only))
    (STAGE / "api").mkdir()
    for name in MODULES:
        title = f"refdiff_lite.{name}"
        text = f"{title}\n{'=' * len(title)}\n\n.. automodule:: {title}\n   :members:\n   :show-inheritance:\n"
        (STAGE / "api" / f"{name}.rst").write_text(text)
    for picture in pictures:
        for target in (STAGE / picture.relative_to(ROOT), STAGE / "_extra" / picture.relative_to(ROOT)):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(picture, target)
    shutil.copy(ROOT / "CITATION.cff", STAGE)
    with tarfile.open(fetch(*build_slides.MATHJAX)) as tar:
        (STAGE / "_static" / "tex-svg.js").write_bytes(tar.extractfile("package/es5/tex-svg.js").read())
    if not quick:
        build_slides.build(STAGE / "_extra" / "slides", given.only)
        print("the live page …", flush=True)
        build(STAGE / "_extra" / "live", one_file=False)
    command = [sys.executable, "-m", "sphinx", "-q", "-j", "2", "-b", "html", str(STAGE), str(SITE)]
    subprocess.run(command, check=True)
    (SITE / ".nojekyll").touch()  # GitHub leaves out what begins with an underscore, unless told
    size = sum(p.stat().st_size for p in SITE.rglob("*") if p.is_file())
    print(f"-> {SITE}/index.html ({size / 1e6:.0f} MB)")


if __name__ == "__main__":
    main()
