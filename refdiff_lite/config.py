"""Every constant of the method in one frozen place, each with its source.

Three presets by name: :meth:`RefDiffConfig.paper` (after the paper, arXiv 2308.16777), :meth:`RefDiffConfig.official`
(as the official code, kodenii/Ref-Diff, computes) and :meth:`RefDiffConfig.toy` (chosen on the ToyRef val split for
the bundled networks).
"""

from __future__ import annotations

import ast
import inspect
import itertools
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from numbers import Integral, Real
from typing import Any, Literal, get_args, get_origin, get_type_hints

Variant = Literal["g", "gs", "ds", "full", "refam", "concept", "hybridgl", "relations"]
ProposalKind = Literal["weak", "felzenszwalb", "grouping", "self-attention", "sam", "oracle"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
PAPER_VARIANTS, SUCCESSORS = VARIANTS[:4], VARIANTS[4:]
"""The paper's own, and what came after it (:mod:`refdiff_lite.variants`, whose constants stand with each of them)."""
PROPOSALS: tuple[ProposalKind, ...] = get_args(ProposalKind)
BASELINES = ("random", "largest", "oracle", "cropping", "region-token", "global-local")
"""What the variants are compared with, see ``baselines.py``; "oracle" picks the proposal that fits the truth best."""
CLIPS = ("openai", "laion")
SAMS = ("base", "huge")
"""Networks that the preset sd15 may take; the paper's are "openai" and "huge"."""
DTYPES = ("float32", "float16")


MIN_AREAS = {"refcoco": 10_001, "refcoco+": 10_001, "refcocog": 0}
"""Least area of a mask in pixels, by data set, in the official code's configurations (it keeps what is above 10000)."""
_RANGES: dict[str, tuple[float, float]] = {
    "seed": (0, 2**63 - 1),
    "side_factor": (0.125, 4),
    "num_steps": (1, 999),
    "noise_step": (0, 998),
    "denoise_steps": (0, 998),
    "draws": (1, 1000),
    "guidance": (0, 100),
    "propagate": (0, 100),
    "thresholds": (1, 255),
    "keep_largest": (1, 100_000),
    "min_area": (0, 10**9),
    "ramp": (0.01, 1),
    "masked_limit": (1, 100),
    **dict.fromkeys(("noun_in_crop", "noun_in_masked", "beta"), (0, 1)),
    **dict.fromkeys(("weight_g", "weight_d"), (0, 1000)),
}


def _checked(name: str, value: Any, hint: Any) -> Any:
    """The value in the type that its field names, or a ValueError that says which values are right."""
    if type(None) in get_args(hint):
        if value is None:
            return None
        hint = get_args(hint)[0]
    told = f"{name}={value!r}"
    if get_origin(hint) is tuple:
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise ValueError(f"{told}: write numbers in a row, such as (1, 0)")
        return tuple(_checked(name, v, int) for v in value)
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise ValueError(f"{told}: choose one of {', '.join(get_args(hint))}")
    elif hint is bool:
        if not isinstance(value, bool):
            raise ValueError(f"{told}: choose True or False")
    elif hint is str:
        if not isinstance(value, str):
            raise ValueError(f"{told}: write a text")
        if name == "layers":
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(
                    f"{told} is no regular expression ({error}); write for example r'up_blocks\\.1'"
                ) from None
    else:
        low, high = _RANGES[name]
        whole = hint is int
        if isinstance(value, bool) or not isinstance(value, Integral if whole else Real) or not low <= value <= high:
            raise ValueError(f"{told}: write a {'whole ' if whole else ''}number from {low:g} to {high:g}")
        return hint(value)
    return value


@dataclass(frozen=True)
class RefDiffConfig:
    """Hyper-parameters of Ref-Diff. Defaults are the paper's; a wrong value raises ValueError at once."""

    seed: int = 0
    """Seed of the one generator that draws all noise. The official code draws unseeded."""

    # The image as the diffusion model sees it
    side_factor: float = 1.0
    """Its longer side, as a multiple of the side that the model was trained on. Official: 2, so 1024 for SD 1.5."""
    pad: bool = False
    """Pad the image with black to a square (official)."""

    # Noise and denoising (paper: one draw, t = 2 of 20 DDIM steps)
    num_steps: int = 20
    """DDIM steps, of which only those named below are taken."""
    noise_step: int = 2
    """Index into the ascending DDIM timesteps at which the image is noised: 2 of 20 is t = 101."""
    denoise_steps: tuple[int, ...] = (2,)
    """Step indices at which the UNet runs and attention is read. Official: (1, 0), one lower than the noise."""
    noise: Literal["random", "ddim"] = "random"
    """"ddim" inverts the image instead of adding noise: a variant of ours, in neither the paper nor its code."""
    draws: int = 1
    """Noise draws whose attention is averaged (more than one: ours)."""
    guidance: float = 1.0
    """Classifier-free guidance. It changes the first pass's attention only if ``attention_guidance`` is on."""
    attention_guidance: bool = False
    """Official: maps are ``(conditional - unconditional) * guidance + unconditional``."""

    # Attention (paper: softmax, mean over the heads, bilinear, min-max)
    scores: Literal["softmax", "logits"] = "softmax"
    """What a map holds: attention (paper), or q k^T / sqrt(d) before the softmax (official)."""
    layers: str | None = None
    """Regular expression over names of cross-attention modules; None leaves the choice to the networks' preset."""
    normalise: Literal["mean", "each"] = "mean"
    """Min-max once on the mean map (paper), or on the map of every layer and step before the mean (official)."""
    upsample: Literal["bilinear", "lanczos"] = "bilinear"
    """Each layer's map is enlarged bilinearly (paper), or the mean map, in 256 levels, by Lanczos (official)."""
    propagate: int = 0
    """How often the word's map flows along self-attention before it is used (a variant of ours)."""
    prompt_suffix: str = ""
    """Text put behind the expression in the prompt. Official: ", "."""

    # Proposals
    thresholds: int = 19
    """Weak proposals at 1/(n+1) … n/(n+1): 19 gives 5 %, 10 %, …, 95 % (paper)."""
    weak_choice: Literal["score", "otsu"] = "score"
    """How variant g chooses among thresholds: by S_G (paper), or by Otsu's between-class variance (ours)."""
    keep_largest: int | None = None
    """How many of the largest proposals are ranked; None takes all. Official: 10."""
    min_area: int = 0
    """Smallest proposal in pixels of the input. Official: above 10000 on RefCOCO and RefCOCO+, 0 on RefCOCOg."""

    # Ranking
    crop_resize: Literal["square", "shorter"] = "square"
    """A masked crop is squashed to CLIP's square (bicubic), or its shorter side is fitted (official: 8 bits, bilinear)."""
    masked_side: Literal["clip", "full"] = "clip"
    """Side of the image for the masked class tokens: CLIP's own, or the input's (official)."""
    masked_limit: float = 4.0
    """Longest such side, as a multiple of the one that CLIP was trained on: more patches than that it never saw, and
    they cost the square of their number. The official code has no limit; COCO's 640 pixels are 2.9 times CLIP's 224."""
    masked_patches: Literal["half", "nearest"] = "half"
    """Patches of a mask: those half covered, on an image stretched to whole patches; or by `nearest` (official), where
    pixels at the right and lower border that fill no patch are left out."""
    positions: Literal["fitted", "dino"] = "fitted"
    """CLIP's position embeddings are stretched to the grid, or to a tenth of a patch more, as DINO's code (official)."""
    noun_in_crop: float = 0.5
    """Share of the noun's feature in the text feature of the crop's branch (paper: the mean; official: 0)."""
    noun_in_masked: float = 0.5
    """The same in the branch of the masked class tokens (both: 0.5)."""
    positional_bias: Literal["masked", "crop", "both", "none"] = "masked"
    """Branch whose image is multiplied by P (paper: the masked class tokens; official: the crop)."""
    ramp: float = 1.0
    """Share of the axis over which P falls from 1 to 0 (official: 2/3, then 0)."""
    axes: Literal["both", "horizontal"] = "both"
    """Cues left, right, top, bottom (paper) or left and right alone (official)."""

    # Fusion: S = weight_g * S_G + weight_d * S_D,  S_D = beta * masked + (1 - beta) * crop
    weight_g: float = 0.1
    """Weight of S_G: the paper's alpha. Official: 0.05."""
    weight_d: float = 0.9
    """Weight of S_D: the paper's 1 - alpha. Official: 1."""
    beta: float = 0.3
    """Share of the masked class tokens in S_D, the crop has the rest (both: 0.3)."""

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(RefDiffConfig).items():
            object.__setattr__(self, name, _checked(name, getattr(self, name), hint))
        steps = self.denoise_steps
        if not steps or list(steps) != sorted(set(steps), reverse=True):
            raise ValueError(f"denoise_steps={steps}: the way is from noise to image, so write steps in falling order")
        for name, last in (("noise_step", self.noise_step), ("denoise_steps", steps[0])):
            if last >= self.num_steps:
                raise ValueError(
                    f"{name}={getattr(self, name)}: with num_steps={self.num_steps} the last step is {self.num_steps - 1}"
                )
        if self.weight_g == self.weight_d == 0:
            raise ValueError("weight_g=0 and weight_d=0: every score would be 0; one of them must be greater")
        if self.pad and self.propagate:
            raise ValueError("pad=True and propagate: propagation knows no padding yet; switch one of them off")
        if self.attention_guidance and self.guidance == 1:
            raise ValueError("attention_guidance=True needs guidance: with guidance=1 there is no unconditional pass")

    @classmethod
    def paper(cls, **changes: Any) -> RefDiffConfig:
        """After the paper: alpha = 0.1, beta = 0.3, softmax attention, one seeded noise draw at step 2 of 20."""
        return cls(**changes)

    @classmethod
    def official(cls, dataset: str = "refcoco", **changes: Any) -> RefDiffConfig:
        """As the official code computes: 0.7 crop + 0.3 masked + 0.05 difference, guided logits, 10 largest masks.

        What it follows, mends and only approximates: docs/official.md.

        Args:
            dataset: "refcoco", "refcoco+" or "refcocog"; the last one drops no mask by its area.
        """
        if dataset not in MIN_AREAS:
            raise ValueError(f"dataset={dataset!r}: choose one of {', '.join(MIN_AREAS)}")
        values: dict[str, Any] = dict(
            side_factor=2.0,
            pad=True,
            denoise_steps=(1, 0),
            guidance=9.0,
            attention_guidance=True,
            scores="logits",
            normalise="each",
            upsample="lanczos",
            prompt_suffix=", ",
            keep_largest=10,
            min_area=MIN_AREAS[dataset],
            crop_resize="shorter",
            masked_side="full",
            masked_limit=5.0,  # 1120 pixels for ViT-B/16, more than the image ever has: no limit
            masked_patches="nearest",
            positions="dino",
            noun_in_crop=0.0,
            positional_bias="crop",
            ramp=2 / 3,
            axes="horizontal",
            weight_g=0.05,
            weight_d=1.0,
        )
        return cls(**values | changes)

    @classmethod
    def toy(cls, **changes: Any) -> RefDiffConfig:
        """The paper's method with constants chosen on ToyRef val for the bundled networks (``make tune``).

        Half the paper's noise, the positional bias in the other branch, and twice its alpha: on val the paper's alpha, or
        its beta, instead loses at most one expression in a hundred.
        """
        values: dict[str, Any] = dict(
            weak_choice="otsu",
            masked_side="full",
            layers="up",
            noise_step=1,
            denoise_steps=(1,),
            positional_bias="crop",
            weight_g=0.2,
            weight_d=0.8,
            beta=0.5,
            noun_in_crop=0.75,
            noun_in_masked=0.0,
        )
        return cls(**values | changes)

    def replace(self, **changes: Any) -> RefDiffConfig:
        """A copy with some constants changed; an unknown name raises TypeError."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def names(cls) -> list[str]:
        return [f.name for f in fields(cls)]

    @classmethod
    def compare(cls) -> str:
        """All constants of paper, official and toy side by side, with what each one means, as a Markdown table.

        What differs from the paper is in bold.
        """
        presets = {"paper": cls.paper(), "official": cls.official(), "toy": cls.toy()}
        lines = [f"| constant | {' | '.join(presets)} | what it is |", "|---" * (len(presets) + 2) + "|"]
        for name, text in _descriptions().items():
            values = [getattr(config, name) for config in presets.values()]
            shown = [f"{v:.3g}" if isinstance(v, float) else str(v) or "–" for v in values]
            cells = [f"**{t}**" if v != values[0] else t for t, v in zip(shown, values, strict=True)]
            lines.append(f"| {name} | {' | '.join(cells)} | {text} |")
        return "\n".join(lines)


def default_config(preset: str, **changes: Any) -> RefDiffConfig:
    """The constants that suit a preset of networks: the paper's, or those chosen on ToyRef val for the toy."""
    if preset == "toy-dit":  # noise and blocks were chosen on val (measures.json); all else is as for the UNet
        chosen = {"layers": r"transformer_blocks\.[0145]$", "noise_step": 3, "denoise_steps": (3,)}
        return RefDiffConfig.toy(**chosen | changes)
    return RefDiffConfig.toy(**changes) if preset == "toy" else RefDiffConfig.paper(**changes)


def _descriptions() -> dict[str, str]:
    """The text under every field of :class:`RefDiffConfig`, by the field's name."""
    (the_class,) = ast.parse(inspect.getsource(RefDiffConfig)).body
    found, names = {}, RefDiffConfig.names()
    for line, below in itertools.pairwise(getattr(the_class, "body", [])):
        name = getattr(getattr(line, "target", None), "id", None)
        if name in names:
            text = getattr(getattr(below, "value", None), "value", "")
            found[name] = " ".join(text.split()) if isinstance(text, str) else ""
    return found
