"""An explorer answers a hand at once: far from the goals of ``make bench-explorers`` is a failure on any machine."""

from pathlib import Path

import numpy as np
import pytest

from refdiff_lite.widgets import AttentionExplorer

pytestmark = pytest.mark.slow
FACTOR, FRAME, TRIES = 5, 16, 3
"""Goals are measured on a quiet machine and committed. Here a factor is allowed, and more where even a page that does
nothing takes longer than a frame (ms) to follow the mouse; the best of some tries counts, for noise only adds."""


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return __import__("bench_explorers")


def test_hovering_at_stable_diffusions_size_draws_in_time(bench, chromium, tmp_path):
    page = AttentionExplorer(bench.sd_sized(np.random.default_rng(0))).save_html(tmp_path / "sd.html")
    idle = tmp_path / "idle.html"
    idle.write_text(bench.IDLE)
    ratios = []
    for _ in range(TRIES):
        slow = max(1.0, np.median(bench.timed(chromium, idle, bench.hover)[1]) / FRAME)
        opened, hovers = bench.timed(chromium, page, bench.hover)
        assert len(hovers) >= 100
        found = {
            "opening the page, ms": opened,
            "hover to frame, median ms": np.median(hovers),
            "hover to frame, p95 ms": np.percentile(hovers, 95),
        }
        ratios.append(max(value / bench.LIMITS[name] / slow for name, value in found.items()))
        if ratios[-1] <= FACTOR:
            break
    assert min(ratios) <= FACTOR, f"times over their goals, in {TRIES} tries: {ratios}"


def test_slices_come_round_in_time_and_the_pages_memory_stays_flat(bench, live_page, capsys):
    """From the choice in the page over Python and back to the picture, at Stable Diffusion's size (`pytest -s` prints it)."""
    explorer = AttentionExplorer(bench.sd_sized(np.random.default_rng(0)))
    page = live_page(explorer)
    times, grown = bench.slices_in(page)
    with capsys.disabled():
        print(
            f"\nslice round trip, median {np.median(times):.0f} ms, p95 {np.percentile(times, 95):.0f}; {grown:+.1f} MB over 50 slices"
        )
    assert np.median(times) <= 150 * FACTOR
    assert grown < 20
