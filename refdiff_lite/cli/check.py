"""``refdiff-lite check``: an acceptance test of this machine and these weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import DtypeOption, LowMemoryOption, Preset, app, one_line_errors


@app.command()
def check(
    preset: Annotated[Preset, typer.Argument(help="toy (bundled) or sd15 (from the hub).")] = Preset("toy"),
    low_memory: LowMemoryOption = False,
    dtype: DtypeOption = None,
    out: Annotated[Path, typer.Option(help="Folder for check.json and check.md.")] = Path("out/check"),
) -> None:
    """Try every stage on this machine, line by line: what was found, what was expected, what to do.

    Exit code 0: all is as expected. 1: something is not. 2: nothing could be tried, one line says why.
    """
    with one_line_errors():
        from ..files import check_folder

        check_folder(out)

        from ..acceptance import run, write_report
        from ..pipeline import RefDiff

        model = RefDiff.from_preset(preset.value, low_memory=low_memory, dtype=dtype and dtype.value)
        lines = []
        for line in run(model):
            typer.secho(str(line), fg=None if line.ok else "red")
            lines.append(line)
        write_report(model, lines, out)
    wrong = sum(not line.ok for line in lines)
    typer.echo(f"{len(lines) - wrong} of {len(lines)} stages as expected -> {out}/check.md")
    raise typer.Exit(1 if wrong else 0)
