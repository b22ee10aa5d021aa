"""What does each way to install bring along? ``python benchmarks/install_size.py``: MB of the installed packages, by extra.

``--fresh`` downloads and installs each way into a new environment, one on top of the other: MB to download, seconds to install from
these files. Then it runs the demo there, offline.

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


def fresh() -> None:
    """Install the package, then each extra on top of it: what there is to download, and the time without the network."""
    with tempfile.TemporaryDirectory() as folder:
        home, wheels = Path(folder), Path(folder) / "wheels"
        venv.create(home / "env", with_pip=True)
        python = home / "env" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")

        def run(*command: object) -> float:
            start = time.perf_counter()
            subprocess.run(
                [python, "-m", *command],
                check=True,
                cwd=home,
                capture_output=True,
                env={**os.environ, "HF_HUB_OFFLINE": "1"},
            )
            return time.perf_counter() - start

        for extra in EXTRAS:
            what = f"{ROOT}[{extra}]" if extra else str(ROOT)
            run("pip", "download", "--dest", wheels, what, "hatchling", "editables")
            seconds = run("pip", "install", "--no-index", "--find-links", wheels, what)
            download, on_disk = mb(wheels), mb(home / "env")
            print(
                f"{extra or 'refdiff-lite':14} {download:6.0f} MB to download, {seconds:4.0f} s to install, {on_disk:6.0f} MB on disk, so far",
                flush=True,
            )
        print(f"{'demo':14} {run('refdiff_lite.cli', 'demo'):6.0f} s, offline")


def mb(folder: Path) -> float:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and not p.is_symlink()) / 1e6


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
