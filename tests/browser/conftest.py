"""A Chromium that has no network, and pages that must end without an error in their console."""

import base64
import os
import shutil

import pytest

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


LIVE = """
async (states) => {
  window.models = states.map(({ state, block }, i) => {
    const calls = new Map();
    const bytes = (text) => new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
    state._block = bytes(block);
    const emit = (event, ...rest) => { for (const f of [...(calls.get(event) ?? [])]) f(...rest); };
    return {
      state, emit, asked: [],
      get: (n) => state[n],
      set(n, v) { if (JSON.stringify(state[n]) === JSON.stringify(v)) return; state[n] = v; emit(`change:${n}`); window.changed(i, n, v); },
      save_changes() {},
      update(changes) { // as a message of the kernel does: all is set, then told one by one
        if ("_block" in changes) changes._block = bytes(changes._block);
        const names = Object.keys(changes).filter((n) => state[n] !== changes[n]);
        Object.assign(state, changes);
        for (const n of names) emit(`change:${n}`);
      },
      on: (e, f) => calls.set(e, (calls.get(e) ?? new Set()).add(f)),
      off: (e, f) => calls.get(e)?.delete(f),
      async send(content) {
        this.asked.push(content.ask);
        for (const [answer, block] of await window.kernel(i, content)) {
          await new Promise((done) => setTimeout(done, window.delay?.(content.ask) ?? 0));
          emit("msg:custom", answer, block ? [bytes(block)] : []);
        }
      },
    };
  });
  for (const [i, model] of window.models.entries()) {
    const url = URL.createObjectURL(new Blob([states[i].module], { type: "text/javascript" }));
    const { default: view } = await import(url + "#" + i);
    const el = document.createElement("div");
    el.id = `view${i}`;
    document.querySelector("main").append(el);
    view.render({ model, el });
  }
}
"""


@pytest.fixture
def live_page(chromium, watched):
    """A document with live explorers, each a module of its own as in a notebook, whose questions Python answers."""
    contexts = []

    def open_them(*explorers, width=1280, height=800, setup="", **options):
        context = chromium.new_context(viewport={"width": width, "height": height}, offline=True, **options)
        contexts.append(context)
        page = watched(context.new_page())
        page.set_content(f"<!doctype html><style>{explorers[0]._css}</style><body class='rdl-page'><main></main>")
        if setup:
            page.evaluate(setup)

        def kernel(i, content):
            sent = []
            explorers[i].send = lambda answer, buffers=None: sent.append(
                [answer, base64.b64encode(buffers[0]).decode() if buffers else None]
            )
            explorers[i]._handle_custom_msg(content, [])  # as a message of the page reaches it
            return sent

        page.expose_function("kernel", kernel)
        page.expose_function("changed", lambda i, name, value: setattr(explorers[i], name, value))
        states = [
            {"state": e.state(), "block": base64.b64encode(e._block).decode(), "module": e._esm} for e in explorers
        ]
        page.evaluate(LIVE, states)
        return page

    yield open_them
    for context in contexts:
        context.close()
