"""A Chromium that has no network, and pages that must end without an error in their console."""

import os
import shutil

import pytest
from live_views import show

MISSING = (
    "the browser tests need Chromium: run `apt-get install chromium` as root, or install it with your system's tools"
)


@pytest.fixture(scope="session")
def chromium():
    """Debian's Chromium under Playwright. Missing: skipped on a desk, a failure where CI is set."""
    path = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
    if path is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(MISSING)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def watched():
    """Collects what goes wrong on a page; the test fails if anything did."""
    wrong = []

    def watch(page):
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
        page.on("dialog", lambda d: (wrong.append(f"dialog: {d.message}"), d.dismiss()))
        return page

    watch.wrong = wrong
    yield watch
    assert not wrong


@pytest.fixture
def open_page(chromium, watched, tmp_path):
    """Save an explorer as HTML and open it from disk, with the network cut."""
    contexts = []

    def open_it(explorer, width=1280, **options):
        context = chromium.new_context(viewport={"width": width, "height": 900}, offline=True, **options)
        contexts.append(context)
        page = watched(context.new_page())
        page.set_default_timeout(60_000)
        page.goto(explorer.save_html(tmp_path / f"{type(explorer).__name__}.html").as_uri())
        page.wait_for_selector(".rdl")
        return page

    yield open_it
    for context in contexts:
        context.close()


@pytest.fixture
def live_page(chromium, watched):
    """A document with live explorers, each a module of its own as in a notebook, whose questions Python answers."""
    contexts = []

    def open_them(*explorers, width=1280, height=800, setup="", **options):
        context = chromium.new_context(viewport={"width": width, "height": height}, offline=True, **options)
        contexts.append(context)
        page = watched(context.new_page())
        return show(page, *explorers, setup=setup)

    yield open_them
    for context in contexts:
        context.close()
