"""The built tour in a real JupyterLab: run it, hover, click, type, move sliders by keyboard, and read the outcome in Python."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import expect

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow

# What a person does shows in the traits; the kernel writes them to a file, which is how the test reads Python's side.
PROBE = """
import json, os
from pathlib import Path
def write(_=None):
    state = {n: {k: v for k, v in globals()[n].state().items() if k != "_meta"} for n in
             ("attention", "comparison", "text", "playground", "inversion", "gallery")}
    state["read"] = text.attention.text
    state["asked"] = [a.expression.text for a in playground.answers]
    state["heads"] = [a.expression.head for a in playground.answers]
    Path("state.part").write_text(json.dumps(state))
    os.replace("state.part", "state.json")
for explorer in (attention, comparison, text, playground, inversion, gallery):
    explorer.observe(write)
write()
display(attention)  # a second view of the same model
"""


@pytest.fixture(scope="module")
def lab(chromium, tmp_path_factory):
    """JupyterLab on the built tour in an empty folder; gives the folder and the address."""
    home = tmp_path_factory.mktemp("lab")
    tour = nbformat.read(ROOT / "notebooks" / "explorers.ipynb", as_version=4)
    tour.cells.append(nbformat.v4.new_code_cell(PROBE))
    (home / "work").mkdir()
    nbformat.write(tour, home / "work" / "tour.ipynb")
    settings = home / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folders = {f"JUPYTER_{n}_DIR": str(home / n.lower()) for n in ("CONFIG", "RUNTIME", "DATA")}
    lab_folders = {"JUPYTERLAB_SETTINGS_DIR": str(home / "settings"), "JUPYTERLAB_WORKSPACES_DIR": str(home / "spaces")}
    python_path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    with (home / "lab.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}",
             "--IdentityProvider.token=", "--ServerApp.disable_check_xsrf=True", f"--ServerApp.root_dir={home / 'work'}"],
            env=os.environ | folders | lab_folders | {"PYTHONPATH": python_path}, stdout=log, stderr=log,
        )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{address}/api", timeout=5).read()
                break
            except OSError:
                time.sleep(1)
        else:
            pytest.fail("JupyterLab did not start:\n" + (home / "lab.log").read_text()[-2000:])
        yield home / "work", address
    finally:
        server.terminate()
        server.wait(30)


def read(folder, wanted, seconds=120):
    """Python's state, once it is as wanted."""
    state = {}
    for _ in range(seconds * 5):
        if (folder / "state.json").is_file():
            state = json.loads((folder / "state.json").read_text())
            if wanted(state):
                return state
        time.sleep(0.2)
    raise AssertionError(f"Python never saw it; its last state: {json.dumps(state)[:1500]}")


def test_the_tour(chromium, watched, lab):
    folder, address = lab
    page = watched(chromium.new_context(viewport={"width": 1500, "height": 1000}).new_page())
    page.set_default_timeout(120_000)
    page.goto(f"{address}/lab/tree/tour.ipynb")
    page.locator(".jp-Notebook").wait_for()
    page.get_by_text("(ipykernel) | Idle").wait_for(timeout=240_000)  # cells run before that are silently dropped
    watched.wrong.clear()  # JupyterLab's own start-up; from here on the console must stay silent
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    read(folder, bool, seconds=480)
    views = {
        name: page.locator(f".rdl[aria-label^='{name}']")
        for name in ("Where", "“", "What looks", "Which", "Through", "Results")
    }
    for view in views.values():
        view.first.scroll_into_view_if_needed()

    # AttentionExplorer: hover, click, slider and words by keyboard, and the second view follows
    first, second = views["Where"].nth(0), views["Where"].nth(1)
    first.scroll_into_view_if_needed()
    chip = first.locator(".rdl-chip").nth(1)
    chip.hover()
    expect(first.locator(".rdl-pane strong").first).to_have_text(chip.inner_text())
    chip.click()
    read(folder, lambda s: s["attention"]["pinned"] == [1])
    expect(second.locator(".rdl-chip").nth(1)).to_have_attribute("aria-pressed", "true")
    second.scroll_into_view_if_needed()
    second.get_by_label("Noise").focus()
    page.keyboard.press("ArrowRight")
    read(folder, lambda s: s["attention"]["step"] == 1)
    first.locator(".rdl-stage").first.click()
    place = read(folder, lambda s: s["attention"]["pixel"])["attention"]["pixel"]
    assert place == pytest.approx([0.5, 0.5], abs=0.02)
    expect(first.locator(".rdl-live")).to_contain_text("listens most to")
    chip.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    read(folder, lambda s: s["attention"]["pinned"] == [1, 2])
    page.keyboard.press("Escape")
    read(folder, lambda s: s["attention"]["pinned"] == s["attention"]["pixel"] == [])

    # What the page does not have it asks the kernel for, and an overview's small map leads to its head
    first.get_by_text("Overview of all layers").click()
    expect(first.locator(".rdl-small canvas").first).to_be_visible()
    first.locator(".rdl-small").nth(1).click()
    read(folder, lambda s: s["attention"]["head"] == 0 and s["attention"]["layer"].startswith("down"))
    expect(first).to_have_attribute("aria-busy", "false")

    # AttentionComparison: a word, layers that part, a head that the kernel is asked for, a place by keyboard
    pair = views["“"].first
    pair.scroll_into_view_if_needed()
    word = pair.get_by_role("button", name="right → left")
    word.click()
    chosen = read(folder, lambda s: s["comparison"]["word"] > 3)["comparison"]["word"]
    assert pair.locator(".rdl-chip").nth(chosen).get_attribute("aria-pressed") == "true"
    one, other = pair.locator("select").nth(0), pair.locator("select").nth(1)
    layer, another = one.locator("option").nth(2).inner_text(), one.locator("option").nth(3).inner_text()
    one.select_option(label=layer)
    read(folder, lambda s: s["comparison"]["layer"] == s["comparison"]["other"] == layer)  # it is taken along
    other.select_option(label=another)
    read(folder, lambda s: (s["comparison"]["layer"], s["comparison"]["other"]) == (layer, another))
    pair.get_by_label("Head").select_option(label="1")
    read(folder, lambda s: s["comparison"]["head"] == 1)
    expect(pair).to_have_attribute("aria-busy", "false")
    expect(pair.locator(".rdl-status")).to_have_text("")
    pair.locator(".rdl-stage").first.focus()
    page.keyboard.press("ArrowDown")
    expect(pair.locator(".rdl-live")).to_contain_text("difference")
    page.keyboard.press("Enter")
    read(folder, lambda s: len(s["comparison"]["pixel"]) == 2)
    page.keyboard.press("Escape")
    read(folder, lambda s: s["comparison"]["pixel"] == [])

    # TextExplorer: hover, words and heads by keyboard, another sentence
    inner = views["What looks"].first
    inner.scroll_into_view_if_needed()
    inner.get_by_role("button", name="cactus", exact=True).hover()
    expect(inner.locator(".rdl-live")).to_contain_text("“cactus” looks at")
    inner.get_by_role("button", name="crown", exact=True).focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    green = read(folder, lambda s: s["text"]["token"] != len("the cactus that is right of the green crown".split()))
    assert green["text"]["token"] == 8
    inner.get_by_role("button", name="layer 1, head 0").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    read(folder, lambda s: (s["text"]["layer"], s["text"]["head"]) == (1, 1))
    inner.get_by_label("Count the start token").uncheck()
    inner.get_by_role("radio", name="Matrix").check(force=True)
    read(folder, lambda s: (s["text"]["start"], s["text"]["form"]) == (False, "matrix"))
    inner.get_by_label("sentence", exact=True).fill("a <b>big</b> car")
    page.keyboard.press("Enter")
    read(folder, lambda s: (s["read"], s["text"]["token"]) == ("a <b>big</b> car", -1))
    expect(views["What looks"].first.get_by_role("button", name="car", exact=True)).to_be_visible()

    # SegmentationPlayground: type a sentence, correct its head, a slider by keyboard, a row of the ranking
    play = views["Which"].first
    play.scroll_into_view_if_needed()
    field = play.get_by_label("sentence", exact=True)
    field.fill("the <b>thing</b> on the left")
    page.keyboard.press("Enter")
    read(folder, lambda s: s["asked"][-1] == "the <b>thing</b> on the left" and s["playground"]["current"] == 1)
    expect(play.locator(".rdl-history button").nth(1)).to_have_text("the <b>thing</b> on the left")
    expect(play.locator(".rdl-cue[aria-label=left]")).to_have_attribute("aria-pressed", "true")
    play.locator(".rdl-chip").filter(has_text="left").click()
    read(folder, lambda s: s["heads"][-1] == "left" and s["playground"]["current"] == 2)
    expect(play.locator(".rdl-chip[aria-pressed=true]")).to_have_text("left")
    play.get_by_role("slider").first.focus()
    page.keyboard.press("End")
    read(folder, lambda s: s["playground"]["alpha"] == 1)
    row = play.locator(".rdl-rank[data-i]").nth(1)
    row.hover()
    expect(play.locator(".rdl-live")).to_contain_text(f"shown is proposal {row.get_attribute('data-i')}")
    row.click()
    picked = read(folder, lambda s: s["playground"]["picked"] >= 0)["playground"]["picked"]
    assert play.locator(".rdl-rank[aria-pressed=true]").get_attribute("data-i") == str(picked)

    play.get_by_text("What CLIP sees").click()
    expect(play.locator(".rdl-sees img")).to_have_count(2)

    # InversionExplorer: slider by keyboard, then a click on the curve, then the latents
    way = views["Through"].first
    way.scroll_into_view_if_needed()
    way.get_by_role("slider").focus()  # it opens at the way's end
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    read(folder, lambda s: s["inversion"]["step"] == 1)
    way.locator(".rdl-cursor").locator("..").click()
    read(folder, lambda s: 2 <= s["inversion"]["step"] <= 10)
    way.get_by_role("radio", name="Latents").check(force=True)
    read(folder, lambda s: s["inversion"]["latents"])

    # Gallery: click, filter, open and close by keyboard
    wall = views["Results"].first
    cards = wall.locator(".rdl-card")
    cards.first.click()
    read(folder, lambda s: s["gallery"]["opened"] >= 0)
    wall.get_by_role("button", name="all results").click()
    read(folder, lambda s: s["gallery"]["opened"] == -1)
    wall.get_by_role("radio", name="Best").check(force=True)
    wall.get_by_label("Style").select_option("toyref")
    read(folder, lambda s: (s["gallery"]["order"], s["gallery"]["style"]) == ("best", "toyref"))
    cards.nth(1).scroll_into_view_if_needed()
    cards.nth(1).focus()
    opened = int(cards.nth(1).get_attribute("data-i"))
    page.keyboard.press("Enter")
    read(folder, lambda s: s["gallery"]["opened"] == opened)
    page.keyboard.press("Escape")
    read(folder, lambda s: s["gallery"]["opened"] == -1)
    watched.wrong[:] = [w for w in watched.wrong if "Failed to load resource" not in w]  # Lab asks for optional files

    # Saved and opened again, where another kernel knows none of these widgets: the stills are to be seen
    stills = page.locator(".jp-OutputArea-child img[src^='data:image/png']")
    assert not [i for i in range(stills.count()) if stills.nth(i).is_visible()]  # the living widgets stand there
    page.get_by_role("button", name="Save and create checkpoint").click()
    for _ in range(300):
        saved = nbformat.read(folder / "tour.ipynb", as_version=4)
        cells = [nbformat.v4.writes(nbformat.v4.new_notebook(cells=[c])) for c in saved.cells]
        if sum("widget-view" in c for c in cells) >= len(views):
            break
        time.sleep(0.2)
    else:
        pytest.fail("the notebook was not saved with its widgets")
    nbformat.write(saved, folder / "saved.ipynb")
    again = chromium.new_context(viewport={"width": 1500, "height": 1000}).new_page()
    again.set_default_timeout(120_000)
    again.goto(f"{address}/lab/workspaces/other/tree/saved.ipynb")
    again.locator(".jp-Notebook").wait_for()
    expect(again.get_by_text("model not found").first).to_be_visible(timeout=120_000)
    pictures = again.locator(".jp-OutputArea-child img[src^='data:image/png']")
    expect(pictures.first).to_be_visible()
    assert pictures.count() >= len(views)
    for place in range(len(views)):
        pictures.nth(place).scroll_into_view_if_needed()
        expect(pictures.nth(place)).to_be_visible()
