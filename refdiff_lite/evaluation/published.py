"""Numbers of the literature, in percent, as reviews of the papers report them; each with its one metric.

oIoU (also "cIoU") weighs large objects more than mIoU; papers report one, the other, or both under either name.
"""

from __future__ import annotations

from typing import NamedTuple

_SPLITS = [("refcoco", "val"), ("refcoco", "testA"), ("refcoco", "testB")]
_SPLITS += [
    ("refcoco+", "val"),
    ("refcoco+", "testA"),
    ("refcoco+", "testB"),
    ("refcocog", "val"),
    ("refcocog", "test"),
]


class Published(NamedTuple):
    """One row: method, the networks that it used, metric, and (data set, split) -> percent; RefCOCOg is UMD's partition."""

    method: str
    networks: str
    metric: str
    values: dict[tuple[str, str], float]


def _row(method: str, networks: str, metric: str, *numbers: float | None) -> Published:
    values = {k: v for k, v in zip(_SPLITS, numbers, strict=False) if v is not None}
    return Published(method, networks, metric, values)


_SD, _CLIP, _SAM = "Stable Diffusion 1.5", "CLIP ViT-B/16", "SAM ViT-H"
_REF_DIFF, _HYBRID = f"{_SD}, {_CLIP}, {_SAM}", f"{_CLIP} with GEM, {_SAM}"
PUBLISHED = [
    _row("Ref-Diff (2023)", _REF_DIFF, "oIoU", 35.16, 37.44, 34.50, 35.56, 38.66, 31.40, 38.62, 37.50),
    _row("Ref-Diff (2023)", _REF_DIFF, "mIoU", 37.21, None, None, 37.29, None, 33.01, 44.02),
    _row("Ref-Diff G, weak proposals", _SD, "mIoU", 21.53, None, None, None, None, None, 27.03),
    _row("Ref-Diff GS", f"{_SD}, {_SAM}", "mIoU", 29.82),
    _row("Ref-Diff DS", f"{_CLIP}, {_SAM}", "mIoU", 35.27),
    _row("Global-Local CLIP (2023)", "CLIP ViT-B/32, FreeSOLO",
         "mIoU", 26.20, 24.94, 26.56, 27.80, 25.64, 27.84, 33.52, 33.67),
    _row("CaR (2024)", "CLIP twice, no proposals", "mIoU", 33.57, 35.36, 30.51, 34.22, 36.03, 31.02, 36.67, 36.57),
    _row("TAS (2023)", "CLIP, a captioner, SAM", "oIoU", 29.53, 30.26, 28.24, 33.21, 38.77, 28.01, 35.84, 36.16),
    _row("HybridGL (2025)", _HYBRID, "oIoU", 41.81, 44.52, 38.50, 35.74, 41.43, 30.90, 42.47, 42.97),
    _row("HybridGL (2025)", _HYBRID, "mIoU", 49.48, 53.37, 45.19, 43.40, 49.13, 37.17, 51.25, 51.59),
    _row("RefAM (2025)", "FLUX, SAM, no CLIP", "oIoU", 46.91, 52.30, 43.88, 38.57, 42.66, 34.90, 45.53, 44.45),
]  # fmt: skip
