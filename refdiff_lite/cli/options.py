"""What all commands share: the application, their options, and how an error becomes one line."""

from __future__ import annotations

import io
import sys
from collections.abc import Generator
from contextlib import contextmanager
from enum import Enum
from typing import Annotated, Any

import typer

from ..config import BASELINES, CLIPS, DTYPES, MIN_AREAS, PROPOSALS, SAMS, VARIANTS, RefDiffConfig, default_config
from ..networks.presets import PRESETS

app = typer.Typer(
    help="Which pixels does a phrase mean? Ref-Diff, to learn from and to debug.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
Preset = Enum("Preset", {p: p for p in PRESETS}, type=str)  # type: ignore[misc]
VariantName = Enum("VariantName", {v: v for v in VARIANTS}, type=str)  # type: ignore[misc]
MethodName = Enum("MethodName", {v: v for v in (*VARIANTS, *BASELINES)}, type=str)  # type: ignore[misc]
ProposalName = Enum("ProposalName", {p: p for p in PROPOSALS}, type=str)  # type: ignore[misc]
Constants = Enum("Constants", {c: c for c in ("paper", "official", "toy")}, type=str)  # type: ignore[misc]

ClipName = Enum("ClipName", {c: c for c in CLIPS}, type=str)  # type: ignore[misc]
Dtype = Enum("Dtype", {d: d for d in DTYPES}, type=str)  # type: ignore[misc]
SamName = Enum("SamName", {s: s for s in SAMS}, type=str)  # type: ignore[misc]
SamOrNone = Enum("SamOrNone", {s: s for s in (*SAMS, "none")}, type=str)  # type: ignore[misc]

PresetOption = Annotated[Preset, typer.Option(help="Networks: toy or toy-dit (bundled, offline), or sd15 (hub, GPU).")]
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


def constants_of(preset: str, constants: Enum | None, seed: int, data: str = "refcoco") -> RefDiffConfig:
    """The constants by name; those of the official code depend on the data set."""
    if constants and constants.value == "official":
        return RefDiffConfig.official(data if data in MIN_AREAS else "refcoco", seed=seed)
    return getattr(RefDiffConfig, constants.value)(seed=seed) if constants else default_config(preset, seed=seed)


def choices(
    preset: str, proposals: str | None, clip: Enum | None, sam: Enum | None, low_memory: bool, dtype: Enum | None
) -> dict[str, Any]:
    """What :func:`networks.load` is to choose, refused where it would do nothing."""
    from ..networks import check_preset

    chosen: dict[str, Any] = {"clip": clip and clip.value, "sam": sam and sam.value}
    check_preset(preset, **chosen)
    if sam and proposals != "sam":
        raise ValueError("--sam chooses the network of --proposals sam: give both")
    return chosen | {"low_memory": low_memory, "dtype": dtype and dtype.value}
