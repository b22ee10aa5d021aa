"""``refdiff-lite live``: a page in which Ref-Diff runs, without Python."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import app, one_line_errors


@app.command()
def live(
    out: Annotated[
        Path, typer.Option(help="A file such as page.html that holds everything (19 MB), or a folder for a web server.")
    ] = Path("out/live.html"),
) -> None:
    """Write a page that runs Ref-Diff on the toy networks in any browser: one file to hand out, or a folder to serve.

    Needs the extra "web" (pip install 'refdiff-lite[web]'), and the first time npm's registry, for ONNX Runtime.
    """
    with one_line_errors():
        from ..live.page import build

        typer.echo("exporting the networks: a minute the first time …")
        page = build(out, one_file=out.suffix in (".html", ".htm"))
    size = sum(
        p.stat().st_size for p in (page.parent.rglob("*") if page.name == "index.html" else [page]) if p.is_file()
    )
    typer.echo(f"-> {page} ({size / 1e6:.1f} MB)")
