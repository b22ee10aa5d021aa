"""The live page beside PyTorch, timed in turn: first mask, sentences, memory, weight. ``python benchmarks/bench_live.py``."""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil
from playwright.sync_api import sync_playwright

from refdiff_lite import RefDiff
from refdiff_lite.datasets.toyref import load_toyref
from refdiff_lite.live.data import SCENES
from refdiff_lite.live.page import build

SENTENCES = 20


def renderer_memory(before: set[int]) -> float:
    """MB that Chromium's new renderers hold."""
    processes = [p for p in psutil.process_iter(["pid", "cmdline"]) if p.pid not in before]
    held = [p.memory_info().rss for p in processes if "--type=renderer" in (p.info["cmdline"] or [])]
    return max(held, default=0) / 1e6


def main() -> None:
    path = shutil.which("chromium") or sys.exit("this benchmark needs Chromium")
    folder = Path(tempfile.mkdtemp())
    file, site = build(folder / "page.html", one_file=True), build(folder / "site", one_file=False)
    weight = sum(p.stat().st_size for p in site.parent.rglob("*") if p.is_file())
    print(f"one file {file.stat().st_size / 1e6:.1f} MB, folder {weight / 1e6:.1f} MB")
    model = RefDiff.from_preset("toy")
    sample = load_toyref("test")[SCENES[0]]
    words = ["star", "bus", "dog", "cat"]
    texts = [f"the {w} number {n}" for n in range(SENTENCES // len(words)) for w in words]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        before = {p.pid for p in psutil.process_iter()}
        for throttle in (1, 4):
            tab = browser.new_context(offline=True).new_page()
            tab.context.new_cdp_session(tab).send("Emulation.setCPUThrottlingRate", {"rate": throttle})
            start = time.perf_counter()
            tab.goto(site.as_uri())
            tab.wait_for_selector(".live-scene")
            seen = time.perf_counter() - start
            tab.wait_for_selector(".rdl-ranking button", timeout=120_000)
            print(
                f"CPU / {throttle}: page seen after {seen:.1f} s, first mask after {time.perf_counter() - start:.1f} s"
            )
            if throttle == 1:
                page = tab
            else:
                tab.context.close()
        scene = model.set_image(sample.image())
        scene.segment("warm up")
        browser_times, torch_times = [], []
        for text in texts:  # in turn
            start = time.perf_counter()
            page.evaluate("(text) => refdiff.work(() => refdiff.ask(text))", text)
            browser_times.append(time.perf_counter() - start)
            start = time.perf_counter()
            scene.segment(text)
            torch_times.append(time.perf_counter() - start)
        ours, theirs = statistics.median(browser_times), statistics.median(torch_times)
        print(f"a sentence: page {1000 * ours:.0f} ms, PyTorch {1000 * theirs:.0f} ms, ratio {ours / theirs:.1f}")
        print(f"the page's process holds {renderer_memory(before):.0f} MB after {len(texts)} sentences")
        browser.close()
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
