"""How often do the short rule and spaCy find head and cues? ``python -m studies.heads`` (``--misses`` lists the misses).

Judged by ``tests/expressions.tsv``: referring expressions in RefCOCO's manner, annotated by hand before any rule was
run on them. The rule was written for the "given" ones and mended on the "tuned"; nothing was changed for the "held".
spaCy answers if it is installed, with an English model; the cues are the rule's in both. Intervals are Wilson's, 95 %.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated

import typer
from scipy.stats import binomtest

from refdiff_lite.expression import parse

LIST = Path(__file__).parents[1] / "tests" / "expressions.tsv"
USES = ("given", "tuned", "held")


def read_list() -> list[dict[str, str]]:
    """Rows of text, head, cues (with commas), kind and use."""
    with LIST.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def main(misses: Annotated[bool, typer.Option(help="List what was missed.")] = False) -> None:
    """Print the hits of both on the three lists."""
    rows = read_list()
    for finder in ("rule", "spacy"):
        try:
            answers = [parse(row["text"], with_=finder) for row in rows]
        except ModuleNotFoundError as error:
            typer.echo(f"{finder}: {error}")
            continue
        heads = [answer.head == row["head"] for answer, row in zip(answers, rows, strict=True)]
        cues = [",".join(answer.cues) == row["cues"] for answer, row in zip(answers, rows, strict=True)]
        for use in USES:
            mine = [i for i, row in enumerate(rows) if row["use"] == use]
            hits, n = sum(heads[i] for i in mine), len(mine)
            low, high = binomtest(hits, n).proportion_ci(method="wilson")
            line = f"{finder:5} {use:5} head {hits:3}/{n} = {hits / n:.0%} ({low:.0%}–{high:.0%})"
            if finder == "rule":
                sure = [i for i in mine if not answers[i].doubt]
                line += f", cues {sum(cues[i] for i in mine)}/{n}, sure {len(sure)}, sure and wrong "
                line += str(sum(not heads[i] for i in sure))
            typer.echo(line)
        for answer, row, right in zip(answers, rows, heads, strict=True):
            if misses and not right:
                typer.echo(f"  {row['use']:5} {row['text']!r}: {answer.head}, not {row['head']}")


if __name__ == "__main__":
    typer.run(main)
