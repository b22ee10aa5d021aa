"""The stages in order: ``RefDiff.set_image`` (slow, once) -> ``Scene.segment`` (fast, often) -> ``Result``."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from . import fusion, ranking
from . import proposals as generators
from .attention import AttentionMaps, propagate, record_attention, resize, word_map
from .backbones import Backbones, default_config, load
from .compat import versions
from .config import PROPOSALS, VARIANTS, ProposalKind, RefDiffConfig, Variant
from .expression import Expression, parse, token_positions
from .images import load_image
from .inversion import guided, invert
from .latents import add_noise, ddim_step, ddim_timesteps, encode

WORK_SIDE = 1024
"""Masks and maps are computed on an image whose longer side is at most this, then brought back to the input's size."""


class RefDiff:
    """Zero-shot referring segmentation with networks that were never trained for it (Ref-Diff, arXiv 2308.16777)."""

    def __init__(self, backbones: Backbones, config: RefDiffConfig | None = None) -> None:
        """Use networks of your own; :meth:`from_preset` is the short way."""
        prediction = backbones.sd.scheduler.config.prediction_type
        if prediction != "epsilon":
            raise ValueError(f"the diffusion model predicts {prediction!r}; Ref-Diff needs one that predicts noise")
        self.backbones = backbones
        self.config = config or default_config(backbones.name)

    @classmethod
    def from_preset(cls, name: str = "toy", config: RefDiffConfig | None = None) -> RefDiff:
        """Load "toy" (bundled, CPU) or "sd15" (from the hub, GPU)."""
        return cls(load(name), config)

    def set_image(self, image: str | Path | Image.Image | np.ndarray, *, oracle: np.ndarray | None = None) -> Scene:
        """Do all that depends on the image alone (most of it when first needed).

        Args:
            image: path, PIL image or (H, W, 3) uint8 RGB.
            oracle: (N, H, W) bool ground-truth masks, to study what perfect proposals would give.
        """
        return Scene(self, load_image(image), oracle)

    @torch.no_grad()
    def encode_prompt(self, texts: list[str]) -> torch.Tensor:
        """Text encoder's last hidden states, (B, tokens, width); padded and cut to the encoder's length."""
        tokenizer, encoder = self.backbones.sd.tokenizer, self.backbones.sd.text_encoder
        ids = tokenizer(
            texts, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
        ).input_ids
        return encoder(ids.to(self.backbones.device)).last_hidden_state


class Scene:
    """One image with everything that its sentences share: latents, noise, proposals, CLIP features."""

    def __init__(self, model: RefDiff, image: np.ndarray, oracle: np.ndarray | None = None) -> None:
        self.model, self.config = model, model.config
        self.full_size = image.shape[:2]
        scale = min(1.0, WORK_SIDE / max(self.full_size))
        self.size: tuple[int, int] = tuple(max(1, round(n * scale)) for n in self.full_size)  # type: ignore[assignment]
        self.image = (
            np.array(Image.fromarray(image).resize(self.size[::-1], Image.Resampling.LANCZOS)) if scale < 1 else image
        )
        if oracle is not None and (oracle.ndim != 3 or oracle.shape[1:] != self.full_size):
            raise ValueError(f"oracle masks must be (N, {self.full_size[0]}, {self.full_size[1]}), not {oracle.shape}")
        self.oracle = oracle
        self._word_maps: dict[tuple, tuple[torch.Tensor, list[int]]] = {}
        self._proposals: dict[str, torch.Tensor] = {}
        self._features: dict[tuple, torch.Tensor] = {}

    def to_full(self, mask: torch.Tensor) -> np.ndarray:
        """A proposal (h, w) as a mask of the input's size, (H, W) bool."""
        return _nearest(mask.numpy()[None], self.full_size)[0]

    @cached_property
    def latents(self) -> torch.Tensor:
        """x_0, (1, C, h, w); the image's shape is kept, its longer side is the diffusion model's."""
        nets = self.model.backbones
        scale = nets.side / max(self.size)
        height, width = (nets.multiple * max(1, round(n * scale / nets.multiple)) for n in self.size)
        return encode(nets.sd.vae, self.image, (height, width))

    @cached_property
    def timesteps(self) -> list[int]:
        return ddim_timesteps(self.model.backbones.sd.scheduler, self.config.num_steps)

    @cached_property
    def noised(self) -> list[torch.Tensor]:
        """x_t of every draw; one seeded generator on the CPU is the only randomness, so all devices agree."""
        scheduler, x0, config = self.model.backbones.sd.scheduler, self.latents, self.config
        if config.noise == "ddim":
            denoiser = guided(self.model.backbones.sd.unet, self.model.encode_prompt([""]))
            return [invert(scheduler, denoiser, x0, config.num_steps, until=config.noise_step + 1)[-1]]
        generator = torch.Generator().manual_seed(config.seed)
        t = self.timesteps[config.noise_step]
        draws = [torch.randn(x0.shape, generator=generator).to(x0) for _ in range(config.draws)]
        return [add_noise(scheduler, x0, noise, t) for noise in draws]

    def attend(self, prompt: str, kind: str = "cross") -> AttentionMaps:
        """Run the UNet over the noised image under a prompt and return the attention of the chosen layers."""
        nets, config = self.model.backbones, self.config
        with_guidance = config.guidance != 1 and (config.attention_guidance or len(config.denoise_steps) > 1)
        text = self.model.encode_prompt(["", prompt] if with_guidance else [prompt])
        layers = "" if kind == "self" else config.layers if config.layers is not None else nets.layers
        scores = "softmax" if kind == "self" else config.scores
        with record_attention(nets.sd.unet, layers, kind, scores) as maps, torch.no_grad():  # type: ignore[arg-type]
            for x in self.noised:
                steps = [self.timesteps[s] for s in config.denoise_steps]
                for t, to in zip(steps, [*steps[1:], None], strict=True):
                    noise = nets.sd.unet(x.repeat(len(text), 1, 1, 1), t, text).sample
                    if with_guidance:
                        without, given = noise.chunk(2)
                        noise = without + config.guidance * (given - without)
                    x = x if to is None else ddim_step(nets.sd.scheduler, x, noise, t, to)
        if with_guidance:
            g = config.guidance if config.attention_guidance else 1
            maps.maps = {n: m[:1] + g * (m[1:] - m[:1]) for n, m in maps.maps.items()}
        return maps

    def word_map(self, expression: Expression) -> tuple[torch.Tensor, list[int]]:
        """The map c of the head word, (H, W) float32 in [0, 1] on the CPU, and its tokens; kept for the other variants."""
        key = (expression.text, expression.span)
        if key not in self._word_maps:
            prompt = expression.text + self.config.prompt_suffix
            tokens = token_positions(self.model.backbones.sd.tokenizer, prompt, expression.span)
            c = word_map(self.attend(prompt), tokens, self.size, self.config.normalise)
            if self.config.propagate:
                c = resize(propagate(c, self.attend(prompt, "self"), self.config.propagate), self.size)
            self._word_maps[key] = c.cpu(), tokens
        return self._word_maps[key]

    def proposals(self, kind: ProposalKind, word: torch.Tensor | None = None) -> torch.Tensor:
        """Candidate masks (N, H, W) bool of a generator, filtered as the config says; cached but for "weak"."""
        if kind not in PROPOSALS:
            raise ValueError(f"unknown proposals {kind!r}: choose one of {', '.join(PROPOSALS)}")
        if kind == "weak":
            if word is None:
                raise ValueError("weak proposals are thresholds of a word map: give one")
            return generators.weak(word, self.config.thresholds)
        if kind not in self._proposals:
            if kind == "felzenszwalb":
                masks = generators.felzenszwalb(self.image)
            elif kind == "self-attention":
                masks = generators.self_attention(self.attend("", "self"), self.size, seed=self.config.seed)
            elif kind == "sam":
                masks = generators.sam(self.image, self.model.backbones.sam)
            elif self.oracle is None:
                raise ValueError('proposals "oracle" need ground truth: set_image(image, oracle=masks)')
            else:
                masks = torch.from_numpy(_nearest(self.oracle, self.size))
            self._proposals[kind] = generators.keep(masks, self.config.keep_largest, self.config.min_area)
        return self._proposals[kind]

    def visual(self, branch: str, kind: str, masks: torch.Tensor, cues: tuple[str, ...]) -> torch.Tensor:
        """CLIP features of all masks in one branch, "crop" or "masked"; cached where masks are the image's own."""
        nets, config = self.model.backbones, self.config
        if config.axes == "horizontal":
            cues = tuple(c for c in cues if c in ("left", "right"))[:1]
        cues = cues if config.positional_bias in (branch, "both") else ()
        key = (branch, kind, cues)
        if key not in self._features or kind == "weak":
            pixels = torch.from_numpy(self.image).permute(2, 0, 1).float() / 255
            pixels = (pixels * ranking.positional_bias(cues, self.size, config.ramp)).to(nets.device)
            masks, patch = masks.to(nets.device), nets.clip.visual.patch_size[0]
            clip_side = nets.clip.visual.image_size[0]
            if branch == "crop":
                images = ranking.crops(pixels, masks, clip_side, config.crop_resize, patch)
                self._features[key] = ranking.encode_images(nets.clip, images, nets.clip_mean, nets.clip_std)
            else:
                side = (clip_side, clip_side)
                if config.masked_side == "full":
                    side = tuple(patch * max(1, round(n / patch)) for n in self.size)  # type: ignore[assignment]
                self._features[key] = ranking.encode_masks(
                    nets.clip, pixels, masks, side, nets.clip_mean, nets.clip_std
                )
        return self._features[key]

    def rank(self, expression: Expression, kind: str, masks: torch.Tensor) -> torch.Tensor:
        """S_D of every mask, (N,) float32 on the CPU."""
        nets, config = self.model.backbones, self.config
        text = ranking.encode_text(nets.clip, nets.clip_tokenizer, expression.text, expression.head)
        crop = self.visual("crop", kind, masks, expression.cues)
        masked = self.visual("masked", kind, masks, expression.cues)
        score = ranking.discriminative_score
        return (
            config.beta * score(masked, text, config.noun_in_masked)
            + (1 - config.beta) * score(crop, text, config.noun_in_crop)
        ).cpu()

    def segment(
        self, expression: str, variant: Variant = "full", proposals: ProposalKind | None = None, head: str | None = None
    ) -> Result:
        """The mask that the expression names.

        Args:
            variant: "g" (diffusion alone, thresholds), "gs" (diffusion ranks proposals), "ds" (CLIP ranks them), "full".
            proposals: generator of candidates; "weak" for g, else "oracle" if given with the image, else "felzenszwalb".
            head: the word to look for, where the rule's choice is wrong.
        """
        if variant not in VARIANTS:
            raise ValueError(f"unknown variant {variant!r}: choose one of {', '.join(VARIANTS)}")
        kind = proposals or ("weak" if variant == "g" else "felzenszwalb" if self.oracle is None else "oracle")
        if variant == "g" and kind != "weak":
            raise ValueError('variant "g" has no proposal network: its proposals are "weak"; "gs" takes others')
        parsed = parse(expression, head)
        c, tokens = self.word_map(parsed)
        masks = self.proposals(kind, c)
        masks = masks[masks.flatten(1).any(1)]
        s_g = fusion.generative_score(c, masks)
        s_d = self.rank(parsed, kind, masks) if variant in ("ds", "full") and len(masks) else torch.zeros(len(masks))
        if variant == "full":
            s = fusion.fuse(s_g, s_d, self.config.weight_g, self.config.weight_d)
        elif variant == "g" and self.config.weak_choice == "otsu":
            s = generators.otsu_choice(c, masks)
        else:
            s = s_d if variant == "ds" else s_g
        best = int(s.argmax()) if len(masks) else None
        chosen = masks[best].numpy() if best is not None else np.zeros(self.size, bool)
        return Result(
            mask=_nearest(chosen[None], self.full_size)[0],
            best=best,
            scores={"S_G": s_g, "S_D": s_d, "S": s},
            word_map=c.numpy(),
            masks=masks,
            expression=parsed,
            tokens=tokens,
            variant=variant,
            proposals=kind,
            scene=self,
        )


def _nearest(masks: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(N, h, w) bool masks at another size."""
    if masks.shape[1:] == size:
        return masks
    rows = (np.arange(size[0]) + 0.5) * masks.shape[1] / size[0]
    cols = (np.arange(size[1]) + 0.5) * masks.shape[2] / size[1]
    return masks[:, rows.astype(int)][:, :, cols.astype(int)]


@dataclass
class Result:
    """What an expression led to, with every intermediate that explains it.

    Attributes:
        mask: (H, W) bool at the input's size; empty if there was no proposal.
        scores: "S_G", "S_D", "S", each (N,) float32, one number per proposal (S_D is 0 where CLIP was not asked).
        word_map: c, (h, w) float32 in [0, 1], at the working size. masks: (N, h, w) bool, the proposals.
        best: index of the chosen proposal, None if there was none.
    """

    mask: np.ndarray
    best: int | None
    scores: dict[str, torch.Tensor]
    word_map: np.ndarray
    masks: torch.Tensor
    expression: Expression
    tokens: list[int]
    variant: str
    proposals: str
    scene: Scene = field(repr=False)

    def __repr__(self) -> str:
        share = f"{self.mask.mean():.1%} of the image"
        return f"Result({self.expression.text!r} -> {share}, best {self.best} of {len(self.masks)} {self.proposals} proposals)"

    def plot(self, path: str | Path | None = None) -> Any:
        """The whole story in one figure: image, tokens, word map, best proposals with scores, mask."""
        from .viz import panel

        return panel(self, path)

    def to_dict(self) -> dict[str, Any]:
        """All but the pictures, ready for JSON; the mask as COCO RLE."""
        rle = coco_mask.encode(np.asfortranarray(self.mask.astype(np.uint8)))
        order = self.scores["S"].argsort(descending=True).tolist()
        return {
            "expression": self.expression.text,
            "head": self.expression.head,
            "cues": list(self.expression.cues),
            "variant": self.variant,
            "proposals": self.proposals,
            "n_proposals": len(self.masks),
            "best": self.best,
            "ranking": [{"proposal": i} | {k: round(float(v[i]), 6) for k, v in self.scores.items()} for i in order],
            "area": round(float(self.mask.mean()), 6),
            "rle": {"size": list(rle["size"]), "counts": rle["counts"].decode()},
            "preset": self.scene.model.backbones.name,
            "config": self.scene.config.to_dict(),
            "versions": versions(),
        }
