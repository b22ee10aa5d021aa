"""What ``refdiff-lite check toy`` expects: ``python -m studies.acceptance`` measures it, ``data/models/toy/acceptance.json``.

Each value is lowered by a tenth, for other processors and versions; what is broken falls further (tests/test_acceptance.py).
"""

from __future__ import annotations

import json
import re

from refdiff_lite.acceptance import STAGES, Bench, checksum
from refdiff_lite.config import PAPER_VARIANTS
from refdiff_lite.datasets.toyref import load_toyref
from refdiff_lite.files import data_dir, write_text
from refdiff_lite.pipeline import RefDiff

MEASURED = ("vae", "painting", "clip labels", "word maps", "self attention", "ddim inversion", "proposals", "variants")


def main() -> None:
    """Measure, print and write."""
    folder = data_dir() / "models" / "toy"
    least = dict.fromkeys(
        ["vae", "painting", "clip labels", "word maps", "self attention", "inversion", "proposals"], 0.0
    )
    least |= {f"variant {v}": 0.0 for v in PAPER_VARIANTS}
    bench = Bench(RefDiff.from_preset("toy"), load_toyref("val", limit=8), least, "")
    for name in MEASURED:
        found = STAGES[name](bench)[0]
        print(f"{name:18} {found}")
        numbers = [float(x) for x in re.findall(r"\d+\.?\d*", found)]
        if name == "variants":
            least |= {f"variant {v}": 0.9 * n / 100 for v, n in zip(PAPER_VARIANTS, numbers, strict=True)}
        else:
            share = 0.7 if name == "painting" else 0.9  # of four samples one may fail
            least["inversion" if name == "ddim inversion" else name] = share * numbers[0] / (100 if "%" in found else 1)
    files = sorted(p for p in folder.rglob("*") if p.suffix in (".safetensors", ".json") and p.parent != folder)
    digests = {str(p.relative_to(folder)): checksum(p) for p in files}
    rounded = {k: round(v, 4) for k, v in least.items()}
    write_text(folder / "acceptance.json", json.dumps({"at_least": rounded, "sha256": digests}, indent=1) + "\n")


if __name__ == "__main__":
    main()
