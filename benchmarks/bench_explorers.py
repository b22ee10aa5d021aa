"""How fast are the explorers? ``python benchmarks/bench_explorers.py`` (``make bench-explorers``).

Exported pages in Chromium, opened from disk without a network, moved by real mouse and key events. A time runs from the
input event to the end of the frame that shows its effect. AttentionExplorer is measured at the sizes of Stable Diffusion
1.5, with random numbers as attention; the playground with the toy networks. Limits that are missed are marked.
"""

from __future__ import annotations

import json
import platform
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from refdiff_lite import RefDiff
from refdiff_lite.datasets.toyref import load_toyref
from refdiff_lite.files import write_text
from refdiff_lite.widgets import AttentionExplorer, SegmentationPlayground
from refdiff_lite.widgets.recording import Attention

LIMITS = {
    "opening the page, ms": 1000,
    "hover to frame, median ms": 16,
    "hover to frame, p95 ms": 33,
    "slider to picture, median ms": 150,
    "export, MB": 4,
}
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


def sd_sized(rng: np.random.Generator) -> Attention:
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
            {f"blocks.{i}": rng.normal(size=(8, g, g, 12)).astype(np.float32) for i, g in enumerate(grids)}
            for _ in range(2)
        ),
        columns=tuple(range(len(words))),
        self_maps=tuple(looks / looks.sum((-2, -1), keepdims=True)),
        reads=("blocks.0",),
    )


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
    explorer = AttentionExplorer(sd_sized(np.random.default_rng(0)))
    playground = SegmentationPlayground(scene, *dict.fromkeys(r.text for r in sample.records[:3]))
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        pages = [e.save_html(Path(folder) / f"{i}.html") for i, e in enumerate((explorer, playground))]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        opened = [timed(browser, pages[0], lambda page: None)[0] for _ in range(5)]
        _, hovers = timed(browser, pages[0], hover)
        _, slides = timed(browser, pages[1], slide)
        found = {
            "opening the page, ms": float(np.median(opened)),
            "hover to frame, median ms": float(np.median(hovers)),
            "hover to frame, p95 ms": float(np.percentile(hovers, 95)),
            "slider to picture, median ms": float(np.median(slides)),
            "slider to picture, p95 ms": float(np.percentile(slides, 95)),
            "export, MB": pages[0].stat().st_size / 1e6,
        }
        about = f"Chromium {browser.version}, {platform.machine()}, {len(hovers)} hovers, {len(slides)} slider steps"
        browser.close()
    for name, value in found.items():
        limit = LIMITS.get(name)
        verdict = "" if limit is None else f"  (limit {limit})" if value <= limit else f"  MISSES its limit {limit}"
        print(f"{name:30} {value:8.2f}{verdict}")
    print(about)
    report = {"about": about, "values": {k: round(v, 2) for k, v in found.items()}, "limits": LIMITS}
    write_text(Path(__file__).with_suffix(".json"), json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
