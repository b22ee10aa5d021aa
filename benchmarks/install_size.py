"""What does each way to install bring along? ``python benchmarks/install_size.py``: MB of the installed packages, by extra.

Counts the files of every package that the metadata ask for in this environment. CUDA's libraries come with the Linux wheels of
PyTorch from the usual index and are counted apart: its CPU builds have none.
"""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement

EXTRAS = ("", "web", "docs", "dev")


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


def main() -> None:
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
