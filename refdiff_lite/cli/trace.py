"""``refdiff-lite trace``: paint, and see what each word attends to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import SeedOption, app, one_line_errors


@app.command()
def trace(
    prompt: Annotated[str, typer.Argument(help='What to paint, for example "a dog left of a cat".')],
    model: Annotated[
        str, typer.Option(help="toy (bundled), a folder, or an id of the hub: SD, SDXL, SD3, FLUX, …")
    ] = "toy",
    negative: Annotated[str | None, typer.Option(help="What not to paint; its words are traced too.")] = None,
    word: Annotated[list[str] | None, typer.Option(help="May be repeated; default: all words of the prompt.")] = None,
    layers: Annotated[str | None, typer.Option(help="Regular expression; default: what suits the model.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Denoising steps; default: the pipeline's.")] = None,
    by_step: Annotated[bool, typer.Option("--by-step", help="Keep every step apart, and draw them.")] = False,
    guidance: Annotated[float | None, typer.Option(help="Scale of guidance; default: the pipeline's.")] = None,
    height: Annotated[int | None, typer.Option(min=8)] = None,
    width: Annotated[int | None, typer.Option(min=8)] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, float16 or bfloat16; default: what suits.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for image.png, words.png, record.safetensors.")] = Path("out/trace"),
    seed: SeedOption = 0,
) -> None:
    """Paint PROMPT and show where each of its words went."""
    with one_line_errors():
        from ..painting import paint

        size = {"height": height, "width": width}
        record = paint(prompt, model, negative, word, layers, steps, by_step, guidance, size, dtype, out, seed)
        typer.echo(f"{record} -> {out}")
