"""What does each way to install bring along? ``python benchmarks/install_size.py``: MB of the installed packages, by extra.

``--fresh`` installs each way into a new environment, without pip's cache, and prints seconds and MB received (on Linux), then runs the
demo offline there.

Counts the files of every package that the metadata ask for in this environment. CUDA's libraries come with the Linux wheels of
PyTorch from the usual index and are counted apart: its CPU builds have none.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
import venv
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = ("", "lessons", "web", "teach", "docs", "dev")


def closure(extra: str) -> set[str]:
    """Names of all packages that ``refdiff-lite[extra]`` needs, as far as they are installed."""
    found: set[str] = set()
    waiting = [("refdiff-lite", frozenset({extra}))]
    done = set()
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in done:
            continue
        done.add((name, extras))
        try:
            told = distribution(name)
        except PackageNotFoundError:  # for another system, or for another extra
            continue
        found.add(re.sub(r"[-_.]+", "-", name).lower())
        for line in told.requires or ():
            need = Requirement(line)
            if need.marker is None or any(need.marker.evaluate({"extra": e}) for e in extras | {""}):
                waiting.append((need.name, frozenset(need.extras)))
    return found - {"refdiff-lite"}


def size(name: str) -> float:
    """MB of a package's files."""
    files = distribution(name).files or ()
    return sum(path.stat().st_size for f in files if (path := f.locate()).is_file()) / 1e6


def received() -> float:
    """MB that came over the network since the machine started; 0 where that cannot be read."""
    told = Path("/proc/net/dev")
    lines = told.read_text().splitlines()[2:] if told.exists() else []
    return sum(int(line.split(":")[1].split()[0]) for line in lines if not line.strip().startswith("lo:")) / 1e6


def fresh() -> None:
    """Install the package, then each extra on top of it."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        venv.create(home / "env", with_pip=True)
        python = home / "env" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
        for extra in EXTRAS:
            what = f"{ROOT}[{extra}]" if extra else str(ROOT)
            start, before = time.perf_counter(), received()
            command = [python, "-m", "pip", "install", "--quiet", "--no-cache-dir", what]
            subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
            seconds, came = time.perf_counter() - start, received() - before
            on_disk = (
                sum(p.stat().st_size for p in (home / "env").rglob("*") if p.is_file() and not p.is_symlink()) / 1e6
            )
            print(
                f"{extra or 'refdiff-lite':14} {seconds:5.0f} s, {came:6.0f} MB received, {on_disk:6.0f} MB on disk so far",
                flush=True,
            )
            if not extra:
                done = [python, "-m", "refdiff_lite.cli", "demo", "--out", str(home / "demo")]
                subprocess.run(
                    done, check=True, cwd=home, stdout=subprocess.DEVNULL, env={**os.environ, "HF_HUB_OFFLINE": "1"}
                )
                print(f"{'':14} the demo runs: {(home / 'demo').exists()}", flush=True)


def main() -> None:
    if "--fresh" in sys.argv[1:]:
        return fresh()
    sizes: dict[str, float] = {}
    for extra in EXTRAS:
        names = closure(extra)
        sizes |= {n: size(n) for n in names - sizes.keys()}
        cuda = {n for n in names if n.startswith(("nvidia", "triton", "cuda"))}
        total, extra_cuda = sum(sizes[n] for n in names), sum(sizes[n] for n in cuda)
        label = f"refdiff-lite[{extra}]" if extra else "refdiff-lite"
        print(
            f"{label:20} {len(names):4} packages {total:6.0f} MB, of which CUDA {extra_cuda:6.0f}; without {total - extra_cuda:6.0f}"
        )
    print("largest:", ", ".join(f"{n} {sizes[n]:.0f}" for n in sorted(sizes, key=sizes.__getitem__, reverse=True)[:12]))


if __name__ == "__main__":
    main()
