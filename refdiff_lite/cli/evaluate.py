"""``refdiff-lite evaluate``: a data set, measured."""

from __future__ import annotations

import re
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..config import PAPER_VARIANTS
from .options import (
    ClipOption,
    ConstantsOption,
    DtypeOption,
    LowMemoryOption,
    MethodName,
    Preset,
    PresetOption,
    ProposalName,
    SamOption,
    SeedOption,
    app,
    choices,
    constants_of,
    one_line_errors,
)

if TYPE_CHECKING:
    from ..datasets import Sample


@app.command()
def evaluate(
    data: Annotated[str, typer.Argument(help="toyref, photos, refcoco, refcoco+ or refcocog")] = "toyref",
    split: Annotated[
        str, typer.Option(help="toyref: val to choose, test to report, unseen; else val, testA, …")
    ] = "val",
    style: Annotated[
        str | None, typer.Option(help="noun, toyref, toyref+ or toyref-g; default: these four. Or toyref-ord.")
    ] = None,
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
        from ..evaluation.journal import Journal
        from ..evaluation.plan import make_plan
        from ..files import check_folder

        chosen = choices(preset.value, proposals.value, clip, sam, low_memory, dtype)
        settings = constants_of(preset.value, config, seed, data)
        if not (found := re.fullmatch(r"(\d{1,9})/(\d{1,9})", shard)):
            raise ValueError(f"--shard {shard[:20]!r}: write i/n, for example 1/4")
        samples, about = _samples(data, split, style, data_dir, images, split_by)
        names = [v.value for v in variant] if variant else list(PAPER_VARIANTS)
        part = int(found[1]), int(found[2])
        plan = make_plan(samples, names, proposals.value, settings, about, limit, part)
        _tell_missing(plan.chosen)
        journal = Journal(check_folder(out))

        from ..evaluation.run import carry_out, processes, table
        from ..pipeline import RefDiff

        team = processes()  # before the networks are loaded: it says on which GPU
        if not fresh:
            journal.check(plan.identity)
        with journal.at_work(part, fresh) if team.is_main_process else nullcontext():  # refuse before that, too
            model = RefDiff.from_preset(preset.value, settings, **chosen)
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
    from ..datasets.photos import load_photos
    from ..datasets.refer import PUBLISHED, load_refer
    from ..datasets.toyref import load_toyref

    if data == "toyref":
        return load_toyref(split, style), {"data": data, "split": split, "style": style}
    if data not in ("photos", *PUBLISHED):
        raise ValueError(f"unknown data set {data!r}: choose toyref, photos, {', '.join(PUBLISHED)}")
    if style is not None:
        raise ValueError("--style is for toyref alone")
    if data == "photos":
        return load_photos(), {"data": data, "split": "all"}
    if data_dir is None:
        raise ValueError(f"{data} is not downloaded by this package: choose its folder with --data-dir (see README)")
    samples, about = load_refer(data, split, data_dir, images, split_by)
    return samples, {"data": data, "split": split, **about}
