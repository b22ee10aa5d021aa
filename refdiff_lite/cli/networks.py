"""``refdiff-lite download``, ``config`` and ``doctor``: what the method runs on, and by which constants."""

from __future__ import annotations

from typing import Annotated

import typer

from ..config import RefDiffConfig
from .options import ClipName, Preset, SamOrNone, app, one_line_errors


@app.command()
def download(
    preset: Annotated[Preset, typer.Argument(help="sd15; the toy networks are here already.")],
    clip: Annotated[ClipName, typer.Option(help="openai (the paper's) or laion.")] = ClipName("openai"),
    sam: Annotated[SamOrNone, typer.Option(help="base, huge (the paper's) or none.")] = SamOrNone("base"),
) -> None:
    """Fetch a preset's weights from the hub: sizes first, then progress. If it breaks off, run it again: whole files are kept."""
    from ..networks import hub

    with one_line_errors():
        if preset.value != "sd15":
            raise ValueError("the toy networks are bundled, there is nothing to download; choose sd15")
        names = ["sd15", clip.value, *([] if sam.value == "none" else [f"sam-{sam.value}"])]
        for name in names:
            entry = hub.WEIGHTS[name]
            size = f"{entry.to_download / 1e9:.2f} GB to download" if entry.missing() else "here"
            typer.echo(f"{name:9} {entry.repo}, {entry.licence}: {size}")
        hub.check(names)
        for name in names:
            hub.fetch(name)
    typer.echo("all here; now it runs offline")


@app.command()
def config() -> None:
    """Print the constants of paper, official and toy side by side, with their sources."""
    typer.echo(RefDiffConfig.compare())


@app.command()
def doctor() -> None:
    """Say what is installed, which presets are ready, on what device, and what to do about each gap."""
    from ..networks.doctor import report

    for what, how in report():
        typer.echo(f"{what:16} {how}")
