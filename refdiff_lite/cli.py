"""The command line: segment, demo, evaluate, download, doctor. Wrong input costs one line and exit code 2."""

from __future__ import annotations

import io
import json
import os
import re
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .config import BASELINES, CLIPS, DTYPES, MIN_AREAS, PROPOSALS, SAMS, VARIANTS, RefDiffConfig, default_config

if TYPE_CHECKING:
    from .datasets import Sample

app = typer.Typer(
    help="Which pixels does a phrase mean? Ref-Diff, to learn from and to debug.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
Preset = Enum("Preset", {"toy": "toy", "sd15": "sd15"}, type=str)  # type: ignore[misc]
VariantName = Enum("VariantName", {v: v for v in VARIANTS}, type=str)  # type: ignore[misc]
MethodName = Enum("MethodName", {v: v for v in (*VARIANTS, *BASELINES)}, type=str)  # type: ignore[misc]
ProposalName = Enum("ProposalName", {p: p for p in PROPOSALS}, type=str)  # type: ignore[misc]
Constants = Enum("Constants", {c: c for c in ("paper", "official", "toy")}, type=str)  # type: ignore[misc]

ClipName = Enum("ClipName", {c: c for c in CLIPS}, type=str)  # type: ignore[misc]
Dtype = Enum("Dtype", {d: d for d in DTYPES}, type=str)  # type: ignore[misc]
SamName = Enum("SamName", {s: s for s in SAMS}, type=str)  # type: ignore[misc]
SamOrNone = Enum("SamOrNone", {s: s for s in (*SAMS, "none")}, type=str)  # type: ignore[misc]

PresetOption = Annotated[Preset, typer.Option(help="Networks: toy (bundled, offline) or sd15 (hub, GPU).")]
ConstantsOption = Annotated[
    Constants | None, typer.Option("--config", help="Constants; default: what suits the preset.")
]
ClipOption = Annotated[ClipName | None, typer.Option(help="sd15's CLIP: openai (the paper's) or laion.")]
SamOption = Annotated[SamName | None, typer.Option(help="sd15's SAM: base, or huge (the paper's).")]
LowMemoryOption = Annotated[bool, typer.Option("--low-memory", help="One network at a time on the GPU.")]
DtypeOption = Annotated[Dtype | None, typer.Option(help="Precision of the networks; default: what suits the device.")]
SeedOption = Annotated[int, typer.Option(help="Seed of all noise.")]


@app.callback()
def _any_text() -> None:
    """Let names of files that are no Unicode be printed: a line must not cost the work that it tells of."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def one_line_errors() -> Generator[None]:
    """Turn the errors that we word ourselves into one line and exit code 2."""
    try:
        yield
    except (ValueError, OSError) as error:
        typer.secho(f"refdiff-lite: {' '.join(str(error).split())}", err=True, fg="red")
        raise typer.Exit(2) from None


def _config(preset: str, constants: Enum | None, seed: int, data: str = "refcoco") -> RefDiffConfig:
    """The constants by name; those of the official code depend on the data set."""
    if constants and constants.value == "official":
        return RefDiffConfig.official(data if data in MIN_AREAS else "refcoco", seed=seed)
    return getattr(RefDiffConfig, constants.value)(seed=seed) if constants else default_config(preset, seed=seed)


def _choices(
    preset: str, proposals: str | None, clip: Enum | None, sam: Enum | None, low_memory: bool, dtype: Enum | None
) -> dict[str, Any]:
    """What :func:`networks.load` is to choose, refused where it would do nothing."""
    from .networks import check_preset

    chosen: dict[str, Any] = {"clip": clip and clip.value, "sam": sam and sam.value}
    check_preset(preset, **chosen)
    if sam and proposals != "sam":
        raise ValueError("--sam chooses the network of --proposals sam: give both")
    return chosen | {"low_memory": low_memory, "dtype": dtype and dtype.value}


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
    from .datasets.records import masks_of
    from .expression import parse
    from .files import check_folder, write_text
    from .images import load_image, save_mask

    with one_line_errors():
        kind = proposals.value if proposals else None
        if variant.value == "g" and kind not in (None, "weak"):
            raise ValueError("variant g has no proposal network: leave --proposals out, or use --variant gs")
        if (kind == "oracle") != (oracle is not None):
            raise ValueError("--proposals oracle and --oracle instances.json go together")
        settings = _config(preset.value, config, seed)
        choices = _choices(preset.value, kind, clip, sam, low_memory, dtype)
        pixels = load_image(image, upright=oracle is None)
        parsed = parse(expression, head)
        truth = masks_of(oracle, image.name, pixels.shape[:2]) if oracle else None
        _spare(
            [p for p in (image, oracle) if p],
            [out / n for n in ("mask.png", "overlay.png", "panel.png", "result.json")],
        )
        check_folder(out)

        from .pipeline import RefDiff  # torch and diffusers: only after the quick checks
        from .viz import save_overlay

        model = RefDiff.from_preset(preset.value, settings, **choices)
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
    from .datasets.toyref import STYLES, load_toyref
    from .evaluation.metrics import iou
    from .files import check_folder
    from .pipeline import RefDiff
    from .viz import Picture, grid

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
            + " ".join(f"{v:>6}" for v in VARIANTS)
            + "   (IoU, Felzenszwalb's proposals)"
        )
        rows, start = [], time.perf_counter()
        for sample, record in picks:
            image = sample.image()
            scene = model.set_image(image)
            row: list[Picture] = [(image, None, record.text)]
            numbers = []
            for variant in VARIANTS:
                result = scene.segment(record.text, variant)
                numbers.append(iou(result.mask, sample.masks[record.target]))
                row.append((image, result.mask, f"IoU {numbers[-1]:.2f}"))
            rows.append(row)
            typer.echo(f"{record.style:9} {record.text[:44]:44} " + " ".join(f"{x:6.2f}" for x in numbers))
        grid(rows, out / "demo.png", ["expression", *VARIANTS])
        typer.echo(
            f"{len(picks)} expressions by {len(VARIANTS)} variants in {time.perf_counter() - start:.0f} s -> {out}/demo.png"
        )


@app.command()
def evaluate(
    data: Annotated[str, typer.Argument(help="toyref, refcoco, refcoco+ or refcocog")] = "toyref",
    split: Annotated[
        str, typer.Option(help="toyref: val to choose, test to report, unseen; else val, testA, …")
    ] = "val",
    style: Annotated[str | None, typer.Option(help="noun, toyref, toyref+ or toyref-g; default: all.")] = None,
    variant: Annotated[
        list[MethodName] | None, typer.Option(help="May be repeated; default: the four of the paper.")
    ] = None,
    proposals: Annotated[ProposalName, typer.Option(help="For all but g.")] = ProposalName("oracle"),
    preset: PresetOption = Preset("toy"),
    clip: ClipOption = None,
    sam: SamOption = None,
    low_memory: LowMemoryOption = False,
    dtype: DtypeOption = None,
    config: ConstantsOption = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first images.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for results, summary, tables, report.")] = Path("out/evaluate"),
    seed: SeedOption = 0,
    data_dir: Annotated[Path | None, typer.Option(help="Folder with refcoco/, refcoco+/, refcocog/.")] = None,
    images: Annotated[Path | None, typer.Option(help="COCO train2014, folder or zip; default: in --data-dir.")] = None,
    split_by: Annotated[str | None, typer.Option(help="Partition: unc, umd or google.")] = None,
    shard: Annotated[str, typer.Option(help="i/n: only every n-th image, from the i-th on.")] = "1/1",
    retry: Annotated[bool, typer.Option("--retry", help="Run images that had errors again.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget the run that lies in --out.")] = False,
) -> None:
    """Measure variants on a data set, with intervals. Started again after a kill, it goes on where it was.

    Exit code 0: all is written. 2: nothing was done, one line says why. 3: all is written, but more than a tenth of the
    rows failed (they count as IoU 0, so these numbers are none).
    """
    with one_line_errors():
        from .evaluation.journal import Journal
        from .evaluation.plan import make_plan
        from .files import check_folder

        choices = _choices(preset.value, proposals.value, clip, sam, low_memory, dtype)
        settings = _config(preset.value, config, seed, data)
        if not (found := re.fullmatch(r"(\d{1,9})/(\d{1,9})", shard)):
            raise ValueError(f"--shard {shard[:20]!r}: write i/n, for example 1/4")
        samples, about = _samples(data, split, style, data_dir, images, split_by)
        names = [v.value for v in variant] if variant else list(VARIANTS)
        part = int(found[1]), int(found[2])
        plan = make_plan(samples, names, proposals.value, settings, about, limit, part)
        _tell_missing(plan.chosen)
        journal = Journal(check_folder(out))

        from .evaluation.run import carry_out, processes, table
        from .pipeline import RefDiff

        team = processes()  # before the networks are loaded: it says on which GPU
        if not fresh:
            journal.check(plan.identity)
        with journal.at_work(part, fresh) if team.is_main_process else nullcontext():  # refuse before that, too
            model = RefDiff.from_preset(preset.value, settings, **choices)
            summary = carry_out(model, plan, out, retry=retry, fresh=fresh, team=team)
    if summary:
        typer.echo(table(summary))
        typer.echo(f"-> {out}/summary.json, results.jsonl, table.md, table.tex, report.html")
        if summary["failed"]:
            told = f"{summary['failed']} of {summary['rows']} rows failed and count as IoU 0; see results.jsonl"
            typer.secho(told, fg="yellow")
        if summary["failed"] > summary["rows"] / 10:
            raise typer.Exit(3)


def _tell_missing(samples: list[Sample]) -> None:
    """Say which images are not there, refuse if none is; say how many sentences have damaged annotations."""
    if problems := [p for s in samples for r in s.records if (p := s.problem or r.problem)]:
        typer.secho(
            f"{len(problems)} sentences have damaged annotations, they count as IoU 0; the first: {problems[0]}",
            fg="yellow",
        )
    if missing := [s.image_id for s in samples if not s.found]:
        if len(missing) == len(samples):
            raise FileNotFoundError(
                f"none of the {len(samples)} images is there; name their folder or zip with --images"
            )
        told = ", ".join(map(str, missing[:5])) + (", …" if len(missing) > 5 else "")
        typer.secho(f"{len(missing)} of {len(samples)} images are missing, they count as IoU 0: {told}", fg="yellow")


def _samples(
    data: str, split: str, style: str | None, data_dir: Path | None, images: Path | None, split_by: str | None
) -> tuple[list[Sample], dict]:
    """A data set by its name on the command line, and what the summary says of it."""
    from .datasets.refer import PUBLISHED, load_refer
    from .datasets.toyref import load_toyref

    if data == "toyref":
        return load_toyref(split, style), {"data": data, "split": split, "style": style}
    if data not in PUBLISHED:
        raise ValueError(f"unknown data set {data!r}: choose toyref, {', '.join(PUBLISHED)}")
    if style is not None:
        raise ValueError("--style is for toyref alone")
    if data_dir is None:
        raise ValueError(f"{data} is not downloaded by this package: choose its folder with --data-dir (see README)")
    samples, about = load_refer(data, split, data_dir, images, split_by)
    return samples, {"data": data, "split": split, **about}


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
        from .painting import paint

        size = {"height": height, "width": width}
        record = paint(prompt, model, negative, word, layers, steps, by_step, guidance, size, dtype, out, seed)
        typer.echo(f"{record} -> {out}")


@app.command()
def download(
    preset: Annotated[Preset, typer.Argument(help="sd15; the toy networks are here already.")],
    clip: Annotated[ClipName, typer.Option(help="openai (the paper's) or laion.")] = ClipName("openai"),
    sam: Annotated[SamOrNone, typer.Option(help="base, huge (the paper's) or none.")] = SamOrNone("base"),
) -> None:
    """Fetch a preset's weights from the hub: sizes first, then progress; a broken download goes on where it stopped."""
    from .networks import hub

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
    from .networks.doctor import report

    for what, how in report():
        typer.echo(f"{what:16} {how}")


if __name__ == "__main__":
    app()
