"""How fast are the explorers? ``python benchmarks/bench_explorers.py`` (``make bench-explorers``).

Exported pages in Chromium, opened from disk without a network, moved by real mouse and key events. A time runs from the
input event to the end of the frame that shows its effect. AttentionExplorer is measured at the sizes of Stable Diffusion
1.5, with random numbers as attention, and beside it at the toy's; the playground with the toy networks. What the kernel
answers is measured in CPU time, with the packing of its message; its way round, from a choice in the page to the frame that
shows the answer, by the clock. A page's memory counts its arrays. Limits that are missed are marked.
"""

from __future__ import annotations

import gc
import json
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from refdiff_lite import RefDiff
from refdiff_lite.datasets.toyref import load_toyref
from refdiff_lite.files import write_text
from refdiff_lite.widgets import AttentionExplorer, SegmentationPlayground
from refdiff_lite.widgets.recording import Attention, Looks, collect
from refdiff_lite.widgets.slices import slices

LIMITS = {
    "opening the page, ms": 1000,
    "hover to frame, median ms": 16,
    "hover to frame, p95 ms": 33,
    "slider to picture, median ms": 150,
    "slice from the kernel, median ms": 150,
    "slice's way round, median ms": 150,
    "toy: display with its still / build": 1.5,
    "kernel's growth over 50 sentences, MB": 20,
    "page's growth over 50 slices, MB": 20,
    "attention: page's growth over 50 sentences, MB": 20,
    "playground: page's growth over 50 sentences, MB": 20,
    "export, MB": 4,
}
IDLE = "<!doctype html><div class='rdl-stage' style='height: 500px'></div>"
"""A page that does nothing: how fast this machine follows a mouse at all, a frame of 17 ms on most."""
WATCH = """
window.times = [];
const framed = (call) => requestAnimationFrame(() => {
  const channel = new MessageChannel();
  channel.port1.onmessage = () => call(performance.now());
  channel.port2.postMessage(0);
});
for (const kind of ['pointermove', 'input'])
  addEventListener(kind, (event) => framed((now) => times.push(now - event.timeStamp)), { capture: true });
addEventListener('load', () => framed((now) => { window.opened = now; }));
"""


def sd_sized(rng: np.random.Generator, tokens: int = 77) -> Attention:
    """Five layers on each of SD 1.5's grids of 64, 32 and 16, one of 8; eight heads; two steps; self-attention at 32×32."""
    words = ("start", *"the small brown dog on the left".split(), "end")
    grids = [64] * 5 + [32] * 5 + [16] * 5 + [8]
    looks = rng.random((2, 32, 32, 32, 32)).astype(np.float32)
    return Attention(
        image=rng.integers(0, 255, (64, 64, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1),
        words=words,
        head=4,
        timesteps=(101, 501),
        cross=tuple(
            {f"blocks.{i}": rng.standard_normal((8, g, g, tokens), np.float32) for i, g in enumerate(grids)}
            for _ in range(2)
        ),
        columns=tuple(range(len(words))),
        self_maps=tuple(looks / looks.sum((-2, -1), keepdims=True)),
        reads=("blocks.5", "blocks.10", "blocks.11", "blocks.12"),
        looks=tuple(
            {
                f"blocks.{i}": Looks(
                    rng.random((8, g * g, d), np.float32), rng.random((8, g * g, d), np.float32), (g, g)
                )
                for i, (g, d) in enumerate(zip(grids, [40] * 5 + [80] * 5 + [160] * 6, strict=True))
                if g <= 32
            }
            for _ in range(2)
        ),
    )


def answers(explorer: AttentionExplorer, names: list[str]) -> list[float]:
    """CPU ms that the kernel needs for each answer, with the packing of its message."""
    sent: list[Any] = []
    explorer.send = lambda content, buffers=None: sent.append(content)  # type: ignore[method-assign]
    times = []
    for name in names:
        start = time.process_time()
        explorer._asked_by_a_view(explorer, {"ask": name}, [])
        times.append(1000 * (time.process_time() - start))
    if wrong := [c["error"] for c in sent if "error" in c]:
        raise RuntimeError(wrong[0])
    return times


def resident() -> float:
    """MB of memory that this process holds."""
    gc.collect()
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1000


COLOURS = ("red", "blue", "green", "small", "large", "round", "old", "new", "dark", "bright")
THINGS = ("car", "house", "tree", "cat", "dog", "boat", "bird", "ball", "chair", "cup")
SENTENCES = [f"the {c} {t}" for c in COLOURS for t in THINGS]


def page_memory(page: Any) -> float:
    """MB that a page's scripts hold after a collection, arrays included, which lie outside the heap itself."""
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    told = session.send("Runtime.getHeapUsage")
    session.detach()
    return (told["usedSize"] + told.get("backingStorageSize", 0)) / 1e6


UNTIL = """([layer, head]) => new Promise((done) => {
  const root = document.querySelector(".rdl"), began = performance.now();
  models[0].set("head", -1); models[0].set("layer", layer); models[0].set("head", head);
  const wait = () => (root.classList.contains("rdl-waiting") ? setTimeout(wait, 1) : requestAnimationFrame(() => done(performance.now() - began)));
  wait();
})"""


def slices_in(page: Any) -> tuple[np.ndarray, float]:
    """ms from a choice to the frame that shows it, of 100 slices that the page lacks; MB that it grows over the last 50."""
    heads = [(f"blocks.{i}", head) for i in range(16) for head in range(8)][:100]
    times = [page.evaluate(UNTIL, where) for where in heads[:50]]
    before = page_memory(page)
    times += [page.evaluate(UNTIL, where) for where in heads[50:]]
    return np.array(times), page_memory(page) - before


def growth(explorer: Any, page: Any) -> tuple[float, float]:
    """MB by which the kernel and a page grow over 50 new sentences, after as many that filled what they keep."""
    from live_views import state_of

    def ask(sentences: list[str]) -> tuple[float, float]:
        for text in sentences:
            explorer.ask(text)
            page.evaluate("told => models[0].update(told)", state_of(explorer))
        return resident(), page_memory(page)

    first, second = ask(SENTENCES[:50]), ask(SENTENCES[50:100])
    if SENTENCES[99].split()[-1] not in page.inner_text(".rdl-words"):
        raise RuntimeError("the page did not follow the sentences")
    return second[0] - first[0], second[1] - first[1]


def live(browser: Any, sd: AttentionExplorer, attention: AttentionExplorer, playground: Any) -> dict[str, float]:
    """What pages beside a kernel need."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from live_views import show

    found = {}
    times, grown = slices_in(show(browser.new_page(), sd))
    found["slice's way round, median ms"], found["slice's way round, p95 ms"] = np.percentile(times, [50, 95])
    found["page's growth over 50 slices, MB"] = grown
    for name, explorer in (("attention", attention), ("playground", playground)):
        kernel, grown = growth(explorer, show(browser.new_page(), explorer))
        found[f"{name}: page's growth over 50 sentences, MB"] = grown
    return found | {"kernel's growth over 50 sentences, MB": kernel}


def kernel(attention: Attention, recording: float = 0) -> dict[str, float]:
    """What the kernel's part costs at one size, CPU ms; ``recording`` are the seconds that the networks took."""
    start = time.process_time()
    explorer = AttentionExplorer(attention)
    build = recording + time.process_time() - start
    start = time.process_time()
    explorer.still()
    still = time.process_time() - start
    every = [where.key for where, _ in slices(attention)]
    chosen = list(np.random.default_rng(0).choice(every, min(100, len(every)), replace=False))
    times = answers(explorer, chosen)
    looks = [f"self/{n}/{h}/0" for n in list(attention.looks[0])[:3] for h in (-1, 0)] if attention.looks else []
    return {
        "slice from the kernel, median ms": float(np.median(times)),
        "slice from the kernel, p95 ms": float(np.percentile(times, 95)),
        "where a pixel looks, median ms": float(np.median(answers(explorer, looks))) if looks else 0.0,
        "overview, ms": answers(explorer, ["overview/4/0"])[0],
        "build, ms": 1000 * build,
        "display with its still / build": (build + still) / build,
    }


def timed(browser: Any, file: Path, act: Any) -> tuple[float, np.ndarray]:
    """(ms to open the page, ms of every input event) of a page under ``act(page)``."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True)
    context.add_init_script(WATCH)
    page = context.new_page()
    page.goto(file.as_uri())
    while not page.evaluate("window.opened"):  # the page's policy forbids Playwright's own waiting
        page.wait_for_timeout(50)
    page.wait_for_timeout(500)
    act(page)
    page.wait_for_timeout(200)
    found = page.evaluate("window.opened"), np.array(page.evaluate("times"))
    context.close()
    return found


def hover(page: Any) -> None:
    """Wander over the first picture."""
    box = page.locator(".rdl-stage").first.bounding_box()
    rng = np.random.default_rng(0)
    for y, x in rng.random((200, 2)):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])


def slide(page: Any) -> None:
    """Move the first slider of the playground by its keys, there and back."""
    page.get_by_role("slider").first.focus()
    for key in ["ArrowRight"] * 50 + ["ArrowLeft"] * 50:
        page.keyboard.press(key)


def main() -> None:
    from playwright.sync_api import sync_playwright

    sample = load_toyref("test")[0]
    scene = RefDiff.from_preset("toy").set_image(sample.path)
    text = max((r.text for r in sample.records), key=len)
    start = time.process_time()
    toy = collect(scene, text, (1, 5, 10))
    recording = time.process_time() - start
    sd = sd_sized(np.random.default_rng(0))
    explorers = [AttentionExplorer(sd), AttentionExplorer(toy)]
    playground = SegmentationPlayground(scene, *dict.fromkeys(r.text for r in sample.records[:3]))
    explorers.append(playground)
    asked = AttentionExplorer.from_scene(scene, text)
    found = kernel(sd) | {f"toy: {name}": value for name, value in kernel(toy, recording).items()}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        pages = [e.save_html(Path(folder) / f"{i}.html") for i, e in enumerate(explorers)]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        write_text(Path(folder) / "idle.html", IDLE)
        _, idle = timed(browser, Path(folder) / "idle.html", hover)
        found["a page that does nothing: hover to frame, median ms"] = float(np.median(idle))
        found["a page that does nothing: hover to frame, p95 ms"] = float(np.percentile(idle, 95))
        for page, start in ((pages[0], ""), (pages[1], "toy: ")):
            opened = [timed(browser, page, lambda page: None)[0] for _ in range(5)]
            _, hovers = timed(browser, page, hover)
            found |= {
                f"{start}opening the page, ms": float(np.median(opened)),
                f"{start}hover to frame, median ms": float(np.median(hovers)),
                f"{start}hover to frame, p95 ms": float(np.percentile(hovers, 95)),
                f"{start}export, MB": page.stat().st_size / 1e6,
            }
        _, slides = timed(browser, pages[2], slide)
        found |= {
            "slider to picture, median ms": float(np.median(slides)),
            "slider to picture, p95 ms": float(np.percentile(slides, 95)),
        }
        found |= live(browser, explorers[0], asked, playground)
        about = f"Chromium {browser.version}, {platform.machine()}, {len(hovers)} hovers, {len(slides)} slider steps"
        browser.close()
    for name, value in found.items():
        limit = LIMITS.get(name)
        verdict = "" if limit is None else f"  (limit {limit})" if value <= limit else f"  MISSES its limit {limit}"
        print(f"{name:52} {value:8.2f}{verdict}")
    print(about)
    report = {"about": about, "values": {k: round(v, 2) for k, v in found.items()}, "limits": LIMITS}
    write_text(Path(__file__).with_suffix(".json"), json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
