"""Every constant of the method in one frozen place, each with its source.

Three presets by name: :meth:`RefDiffConfig.paper` (after the paper, arXiv 2308.16777), :meth:`RefDiffConfig.official`
(as the official code, kodenii/Ref-Diff, computes) and :meth:`RefDiffConfig.toy` (chosen on the ToyRef val split for
the bundled networks).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args, get_type_hints

Variant = Literal["g", "gs", "ds", "full"]
ProposalKind = Literal["weak", "felzenszwalb", "self-attention", "sam", "oracle"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
PROPOSALS: tuple[ProposalKind, ...] = get_args(ProposalKind)
BASELINES = ("random", "largest", "oracle", "cropping", "region-token", "global-local")
"""What the variants are compared with, see ``baselines.py``; "oracle" picks the proposal that fits the truth best."""
CLIPS = ("openai", "laion")
SAMS = ("base", "huge")
"""Networks that the preset sd15 may take; the paper's are "openai" and "huge"."""


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
    """Official: 10."""
    min_area: int = 0
    """Smallest proposal in pixels of the input. Official: above 10000 on RefCOCO and RefCOCO+, 0 on RefCOCOg."""

    # Ranking
    crop_resize: Literal["square", "shorter"] = "square"
    """A masked crop is squashed to CLIP's square, or its shorter side is fitted (official)."""
    masked_side: Literal["clip", "full"] = "clip"
    """Side of the image for the masked class tokens: CLIP's own, or the input's (official)."""
    noun_in_crop: float = 0.5
    noun_in_masked: float = 0.5
    """Share of the noun's feature in the text feature of each branch (paper: mean; official: 0 and 0.5)."""
    positional_bias: Literal["masked", "crop", "both", "none"] = "masked"
    """Branch whose image is multiplied by P (paper: the masked class tokens; official: the crop)."""
    ramp: float = 1.0
    """Share of the axis over which P falls from 1 to 0 (official: 2/3, then 0)."""
    axes: Literal["both", "horizontal"] = "both"
    """Cues left, right, top, bottom (paper) or left and right alone (official)."""

    # Fusion: S = weight_g * S_G + weight_d * S_D,  S_D = beta * masked + (1 - beta) * crop
    weight_g: float = 0.1
    weight_d: float = 0.9
    beta: float = 0.3

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(RefDiffConfig).items():
            choices = get_args(hint)
            if choices and all(isinstance(c, str) for c in choices) and getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r}: choose one of {', '.join(choices)}")
        checks = {
            "side_factor": 0 < self.side_factor <= 4,
            "pad": not (self.pad and self.propagate),
            "num_steps": 1 <= self.num_steps < 1000,
            "noise_step": 0 <= self.noise_step < self.num_steps,
            "denoise_steps": bool(self.denoise_steps) and all(0 <= s < self.num_steps for s in self.denoise_steps),
            "draws": self.draws >= 1,
            "propagate": self.propagate >= 0,
            "thresholds": self.thresholds >= 1,
            "keep_largest": self.keep_largest is None or self.keep_largest >= 1,
            "min_area": self.min_area >= 0,
            "ramp": 0 < self.ramp <= 1,
            **{name: 0 <= getattr(self, name) <= 1 for name in ("noun_in_crop", "noun_in_masked", "beta")},
            "attention_guidance": not self.attention_guidance or self.guidance != 1,
        }
        for name, good in checks.items():
            if not good:
                raise ValueError(f"{name}={getattr(self, name)!r} is out of range")

    @classmethod
    def paper(cls, **changes: Any) -> RefDiffConfig:
        """After the paper: alpha = 0.1, beta = 0.3, softmax attention, one seeded noise draw at step 2 of 20."""
        return cls(**changes)

    @classmethod
    def official(cls, **changes: Any) -> RefDiffConfig:
        """As the official code computes: 0.7 crop + 0.3 masked + 0.05 difference, guided logits, 10 largest masks."""
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
            min_area=10_001,
            crop_resize="shorter",
            masked_side="full",
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
