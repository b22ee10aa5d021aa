"""README's tables from the runs of ``make evaluate``: ``python -m studies.results OUT/test-oracle …``.

Keeps their numbers in ``results.json`` and writes the tables between two marks in README, so that nobody types them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from refdiff_lite.datasets.formats import read_json
from refdiff_lite.datasets.toyref import STYLES
from refdiff_lite.evaluation.summary import percent
from refdiff_lite.files import write_text

BEGIN, END = "<!-- results: written by make evaluate -->", "<!-- end of results -->"
METRICS, GAINS = ("accuracy", "mIoU", "oIoU"), ("mIoU", "accuracy")
RUNS = ("test-oracle", "unseen-oracle", "test-felzenszwalb")
"""Split and proposals of the three runs that the tables need."""


def condense(summary: dict[str, Any]) -> dict[str, Any]:
    """Of a run's summary what the tables show: per method and style each metric as (value, low, high) in percent."""

    def cell(s: dict[str, Any]) -> dict[str, Any]:
        numbers = {m: [round(100 * x, 3) for x in (s[m], *s[f"{m}_95"])] for m in METRICS}
        return {"n": s["n"], "chance": round(100 * s["chance"], 3), **numbers}

    return {
        "images": [summary["images"], summary["images_total"]],
        "seed": summary["seed"],
        "methods": {
            method: {style: cell(s) for style, s in styles.items()} for method, styles in summary["variants"].items()
        },
        "gains": {
            name: {m: [round(100 * x, 3) for x in (g[m], *g[f"{m}_95"])] for m in GAINS}
            for name, g in summary["gains"].items()
        },
    }


def _cell(numbers: list[float]) -> str:
    return percent(*(x / 100 for x in numbers))


def _said(run: dict[str, Any], split: str) -> str:
    done, total = run["images"]
    return f"all {total} scenes of {split}" if done == total else f"**only {done} of {total} scenes of {split}**"


def tables(runs: dict[str, dict[str, Any]]) -> str:
    """Markdown: ranking alone (true masks as proposals) by accuracy, and the whole method by mIoU, with 95 % intervals.

    Args:
        runs: by the names in :data:`RUNS`, from :func:`condense`.
    """
    oracle, unseen, whole = (runs[name] for name in RUNS)
    full = oracle["methods"]["full"]
    styles = [s for s in STYLES if s in full] + ["all"]
    heads = [f"{s} (n = {full[s]['n']})" for s in styles]
    lines = [
        f"ToyRef, {_said(oracle, 'test')}, seed {oracle['seed']}; percent, with 95 % intervals by image (Wilson's, rounded outwards). **Ranking alone**: "
        f"proposals are the true masks (g makes its own), accuracy is how often the object that the chosen mask fits best "
        f"is the one named. The last column is the split of kinds in colours never seen in training ({_said(unseen, 'unseen')}).",
        "",
        f"| accuracy | {' | '.join(heads)} | unseen (n = {unseen['methods']['full']['all']['n']}) |",
        "|---" * (len(heads) + 2) + "|",
    ]
    for method, found in oracle["methods"].items():
        cells = [_cell(found[s]["accuracy"]) for s in styles] + [_cell(unseen["methods"][method]["all"]["accuracy"])]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    chances = [full[s]["chance"] for s in styles] + [unseen["methods"]["full"]["all"]["chance"]]
    lines.append(f"| chance | {' | '.join(f'{c:.0f}' for c in chances)} |")
    lines += [
        "",
        f"**The whole way**, with Felzenszwalb's proposals ({_said(whole, 'test')}), beside six baselines (oracle: the proposal "
        "that fits the truth best):",
        "",
        f"| mIoU | {' | '.join(styles)} | oIoU, all | accuracy, all |",
        "|---" * (len(styles) + 3) + "|",
    ]
    for method, found in whole["methods"].items():
        cells = [_cell(found[s]["mIoU"]) for s in styles] + [_cell(found["all"][m]) for m in ("oIoU", "accuracy")]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    lines += [
        "",
        "What each part buys, in points on the same expressions (paired):",
        "",
        f"| | {' | '.join(GAINS)} |",
        "|---" * (1 + len(GAINS)) + "|",
    ]
    for name, one in whole["gains"].items():
        cells = ["{:+.1f} ({:+.1f} to {:+.1f})".format(*one[m]) for m in GAINS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def insert(readme: Path, block: str) -> None:
    """Put the block between the marks of README.

    Raises:
        ValueError: it has no such marks.
    """
    before, begin, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{readme} lacks the lines {BEGIN} and {END}: put them where the tables belong")
    write_text(readme, f"{before}{BEGIN}\n{block}\n{END}{after}")


def main(
    folders: Annotated[list[Path], typer.Argument(help=f"The three runs' folders: {', '.join(RUNS)}.")],
    out: Annotated[Path, typer.Option(help="Where results.json goes.")] = Path("data/models/toy"),
    readme: Annotated[Path, typer.Option(help="The file with the marks.")] = Path("README.md"),
) -> None:
    """Write results.json and README's tables."""
    summaries = [read_json(folder / "summary.json") for folder in folders]
    runs = {f"{s['split']}-{s['proposals']}": condense(s) for s in summaries}
    if missing := set(RUNS) - set(runs):
        raise ValueError(f"no run of {', '.join(sorted(missing))}: make evaluate makes all three")
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(runs[name], ensure_ascii=False)}" for name in RUNS)
    write_text(out / "results.json", f"{{\n{lines}\n}}\n")
    insert(readme, tables(runs))
    typer.echo(f"-> {out / 'results.json'}, {readme}")


if __name__ == "__main__":
    typer.run(main)
