"""``refdiff-lite segment`` and ``demo``: the mask that an expression names."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Annotated

import typer

from ..config import PAPER_VARIANTS, RefDiffConfig
from .options import (
    ClipOption,
    ConstantsOption,
    DtypeOption,
    LowMemoryOption,
    Preset,
    PresetOption,
    ProposalName,
    SamOption,
    SeedOption,
    VariantName,
    app,
    choices,
    constants_of,
    one_line_errors,
)


@app.command()
def segment(
    image: Annotated[Path, typer.Argument(help="PNG, JPEG, WebP, …")],
    expression: Annotated[str, typer.Argument(help='For example "the small cat on the left".')],
    preset: PresetOption = Preset("toy"),
    variant: Annotated[VariantName, typer.Option(help="full, or one of its parts.")] = VariantName("full"),
    proposals: Annotated[ProposalName | None, typer.Option(help="Where candidate masks come from.")] = None,
    oracle: Annotated[
        Path | None,
        typer.Option(
            help="COCO instances.json with the image's true masks, for --proposals oracle. They belong to the pixels as "
            "stored, so the image is not turned as EXIF says."
        ),
    ] = None,
    head: Annotated[str | None, typer.Option(help="The word to look for, if the rule picks the wrong one.")] = None,
    clip: ClipOption = None,
    sam: SamOption = None,
    low_memory: LowMemoryOption = False,
    dtype: DtypeOption = None,
    config: ConstantsOption = None,
    out: Annotated[Path, typer.Option(help="Folder for mask.png, overlay.png, panel.png, result.json.")] = Path("out"),
    seed: SeedOption = 0,
) -> None:
    """Write the mask of what EXPRESSION names in IMAGE."""
    from ..datasets.records import masks_of
    from ..expression import parse
    from ..files import check_folder, write_text
    from ..images import load_image, save_mask

    with one_line_errors():
        kind = proposals.value if proposals else None
        if variant.value == "g" and kind not in (None, "weak"):
            raise ValueError("variant g has no proposal network: leave --proposals out, or use --variant gs")
        if (kind == "oracle") != (oracle is not None):
            raise ValueError("--proposals oracle and --oracle instances.json go together")
        settings = constants_of(preset.value, config, seed)
        chosen = choices(preset.value, kind, clip, sam, low_memory, dtype)
        pixels = load_image(image, upright=oracle is None)
        parsed = parse(expression, head)
        truth = masks_of(oracle, image.name, pixels.shape[:2]) if oracle else None
        _spare(
            [p for p in (image, oracle) if p],
            [out / n for n in ("mask.png", "overlay.png", "panel.png", "result.json")],
        )
        check_folder(out)

        from ..pipeline import RefDiff  # torch and diffusers: only after the quick checks
        from ..viz import save_overlay

        model = RefDiff.from_preset(preset.value, settings, **chosen)
        result = model.set_image(pixels, oracle=truth).segment(expression, variant.value, kind, head)
        save_mask(result.mask, out / "mask.png")
        save_overlay(pixels, result.mask, out / "overlay.png")
        result.plot(out / "panel.png")
        write_text(out / "result.json", json.dumps(result.to_dict(), indent=1, ensure_ascii=False) + "\n")
    typer.echo(f'"{parsed.text}": head word {parsed.head}, cues {", ".join(parsed.cues) or "none"}')
    if parsed.doubt:
        typer.secho(f"unsure of the head word ({parsed.doubt}); name another with --head", fg="yellow")
    if result.unread:
        typer.secho(f"not read, for the text encoder ends before it: {result.unread!r}", fg="yellow")
    if result.best is None:
        typer.echo("no proposal was found, so the mask is empty; try --proposals weak")
    typer.echo(f"{result.mask.mean():.1%} of the image, {len(result.proposals)} {result.generator} proposals -> {out}/")
    if model.networks.note:
        typer.secho(f"note: {model.networks.note}", fg="yellow")


def _spare(inputs: list[Path], outputs: list[Path]) -> None:
    """Refuse to write over what is read."""
    for path in outputs:
        if any(path.exists() and os.path.samefile(path, given) for given in inputs):
            raise ValueError(f"{path} is the input and would be written over; choose another folder with --out")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for demo.png.")] = Path("out/demo"), seed: SeedOption = 0
) -> None:
    """Segment bundled test expressions of all kinds by all four variants; print IoU, draw one grid."""
    from ..datasets.toyref import STYLES, load_toyref
    from ..evaluation.metrics import iou
    from ..files import check_folder
    from ..pipeline import RefDiff
    from ..viz import Picture, grid

    with one_line_errors():
        check_folder(out)
        model = RefDiff.from_preset("toy", RefDiffConfig.toy(seed=seed))
        data = load_toyref("test")
        # Fixed before any result was seen: two expressions a style, from scenes 0, 10, 20, …
        picks = []
        for n, style in enumerate(STYLES * 2):
            sample = next(s for s in data[n * 10 :] if any(r.style == style for r in s.records))
            picks.append((sample, next(r for r in sample.records if r.style == style)))
        typer.echo(
            f"{'style':9} {'expression':44} "
            + " ".join(f"{v:>6}" for v in PAPER_VARIANTS)
            + "   (IoU, Felzenszwalb's proposals)"
        )
        rows, start = [], time.perf_counter()
        for sample, record in picks:
            image = sample.image()
            scene = model.set_image(image)
            row: list[Picture] = [(image, None, record.text)]
            numbers = []
            for variant in PAPER_VARIANTS:
                result = scene.segment(record.text, variant)
                numbers.append(iou(result.mask, sample.masks[record.target]))
                row.append((image, result.mask, f"IoU {numbers[-1]:.2f}"))
            rows.append(row)
            typer.echo(f"{record.style:9} {record.text[:44]:44} " + " ".join(f"{x:6.2f}" for x in numbers))
        grid(rows, out / "demo.png", ["expression", *PAPER_VARIANTS])
        typer.echo(
            f"{len(picks)} expressions by {len(PAPER_VARIANTS)} variants in {time.perf_counter() - start:.0f} s -> {out}/demo.png"
        )
