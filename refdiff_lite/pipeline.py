"""The stages in order: ``RefDiff.set_image`` (slow, once) -> ``Scene.segment`` (fast, often) -> ``Result``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from . import fusion, hub, ranking
from . import proposals as generators
from .attend import attend
from .attention import AttentionMaps, Kind, propagate, resize, word_map
from .backbones import Backbones, check_networks, default_config, load
from .config import PROPOSALS, VARIANTS, ProposalKind, RefDiffConfig, Variant
from .expression import Expression, parse, token_positions
from .images import load_image, pad_to_square, square_corner
from .inversion import guided, invert
from .latents import add_noise, ddim_timesteps, encode
from .mask_cache import cached
from .result import Result

WORK_SIDE = 1024
"""Masks and maps are computed on an image whose longer side is at most this, then brought back to the input's size."""
SENTENCES = 8
"""Sentences whose maps are computed in one batch of the UNet."""


class RefDiff:
    """Zero-shot referring segmentation with networks that were never trained for it (Ref-Diff, arXiv 2308.16777)."""

    def __init__(self, backbones: Backbones, config: RefDiffConfig | None = None) -> None:
        """Use networks of your own; :meth:`from_preset` is the short way."""
        check_networks(backbones)
        self.backbones = backbones
        self.config = config or default_config(backbones.name)

    @classmethod
    def from_preset(cls, name: str = "toy", config: RefDiffConfig | None = None, **choices: Any) -> RefDiff:
        """Load "toy" (bundled, CPU) or "sd15" (from the hub, GPU); for the choices see :func:`backbones.load`."""
        return cls(load(name, **choices), config)

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
        tokenizer, encoder = self.backbones.sd.tokenizer, self.backbones.use("text_encoder")
        ids = tokenizer(
            texts, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
        ).input_ids
        return encoder(ids.to(self.backbones.device)).last_hidden_state

    @cached_property
    def empty_prompt(self) -> torch.Tensor:
        """The encoded empty prompt, (1, tokens, width)."""
        return self.encode_prompt([""])


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
        self._texts: dict[tuple[str, str], torch.Tensor] = {}

    def to_full(self, mask: torch.Tensor) -> np.ndarray:
        """A proposal (h, w) as a mask of the input's size, (H, W) bool."""
        return _nearest(mask.numpy()[None], self.full_size)[0]

    @cached_property
    def latents(self) -> torch.Tensor:
        """x_0, (1, C, h, w), of the image, or with ``config.pad`` of the square around it.

        The longer side is the diffusion model's; the shape is kept but for rounding.
        """
        nets = self.model.backbones
        image = pad_to_square(self.image) if self.config.pad else self.image
        scale = nets.side * self.config.side_factor / max(self.size)
        height, width = (nets.multiple * max(1, round(n * scale / nets.multiple)) for n in image.shape[:2])
        return encode(nets.use("vae"), image, (height, width))

    @cached_property
    def timesteps(self) -> list[int]:
        return ddim_timesteps(self.model.backbones.scheduler, self.config.num_steps)

    @cached_property
    def noised(self) -> list[torch.Tensor]:
        """x_t of every draw; one seeded generator on the CPU is the only randomness, so all devices agree."""
        nets, x0, config = self.model.backbones, self.latents, self.config
        if config.noise == "ddim":
            empty = self.model.empty_prompt
            denoiser = guided(nets.use("unet"), empty)
            return [invert(nets.scheduler, denoiser, x0, config.num_steps, until=config.noise_step + 1)[-1]]
        generator = torch.Generator().manual_seed(config.seed)
        t = self.timesteps[config.noise_step]
        draws = [torch.randn(x0.shape, generator=generator).to(x0) for _ in range(config.draws)]
        return [add_noise(nets.scheduler, x0, noise, t) for noise in draws]

    def attend_all(self, prompts: list[str], kinds: Sequence[Kind] = ("cross",)) -> list[dict[Kind, AttentionMaps]]:
        """Attention of the chosen layers under each prompt, all prompts in one batch of the UNet."""
        nets, config = self.model.backbones, self.config
        noised = self.noised
        empty = self.model.empty_prompt if config.guidance != 1 else None
        text = self.model.encode_prompt(prompts)
        patterns = {"self": nets.self_layers, "cross": nets.layers if config.layers is None else config.layers}
        steps = [self.timesteps[s] for s in config.denoise_steps]
        layers: dict[Kind, str] = {kind: patterns[kind] for kind in kinds}
        return attend(nets.use("unet"), nets.scheduler, noised, steps, text, empty, layers, config)

    def attend(self, prompt: str, kind: Kind = "cross") -> AttentionMaps:
        """Run the UNet over the noised image under a prompt and return the attention of the chosen layers."""
        return self.attend_all([prompt], [kind])[0][kind]

    def read(self, expressions: list[Expression]) -> None:
        """Compute the word maps of many expressions, :data:`SENTENCES` at a time, for :meth:`word_map` to return."""
        missing = [e for e in dict.fromkeys(expressions) if (e.text, e.span) not in self._word_maps]
        prompts = {e: e.text + self.config.prompt_suffix for e in missing}
        tokens = {e: token_positions(self.model.backbones.tokenizer, prompts[e], e.span) for e in missing}
        kinds: tuple[Kind, ...] = ("cross", "self") if self.config.propagate else ("cross",)
        for i in range(0, len(missing), SENTENCES):
            batch = missing[i : i + SENTENCES]
            for e, maps in zip(batch, self.attend_all([prompts[e] for e in batch], kinds), strict=True):
                config = self.config
                c = word_map(maps["cross"], tokens[e], self.size, config.normalise, config.upsample, config.pad)
                if config.propagate:
                    c = resize(propagate(c, maps["self"], config.propagate), self.size)
                self._word_maps[e.text, e.span] = c.cpu(), tokens[e]

    def word_map(self, expression: Expression) -> tuple[torch.Tensor, list[int]]:
        """The map c of the head word, (H, W) float32 in [0, 1] on the CPU, and its tokens; kept for the other variants."""
        self.read([expression])
        return self._word_maps[expression.text, expression.span]

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
                masks = self._self_attention()
            elif kind == "sam":
                masks = self._sam()
            elif self.oracle is None:
                raise ValueError('proposals "oracle" need ground truth: set_image(image, oracle=masks)')
            else:
                masks = torch.from_numpy(_nearest(self.oracle, self.size))
            shrink = self.size[0] * self.size[1] / (self.full_size[0] * self.full_size[1])
            self._proposals[kind] = generators.keep(masks, self.config.keep_largest, self.config.min_area * shrink)
        return self._proposals[kind]

    def _self_attention(self) -> torch.Tensor:
        attention, seed = self.attend("", "self"), self.config.seed
        if not self.config.pad:
            return generators.self_attention(attention, self.size, seed=seed)
        (top, left), (height, width) = square_corner(self.size), self.size
        masks = generators.self_attention(attention, (max(self.size), max(self.size)), seed=seed)
        return masks[:, top : top + height, left : left + width]

    def _sam(self) -> torch.Tensor:
        nets = self.model.backbones
        points = 16 if nets.low_memory else 64  # a batch of 64 holds 3 × 64 masks at full size
        if nets.sam_id not in hub.WEIGHTS:  # a network of the user's own may change under the same name
            return generators.sam(self.image, nets.use("sam"), points)
        about = {"sam": nets.sam_id, "revision": hub.WEIGHTS[nets.sam_id].revision, "dtype": str(nets.sd.unet.dtype)}
        return cached(self.image, about, lambda: generators.sam(self.image, nets.use("sam"), points))

    def visual(self, branch: str, kind: str, masks: torch.Tensor, cues: tuple[str, ...]) -> torch.Tensor:
        """CLIP features of all masks in one branch, "crop" or "masked"; cached where masks are the image's own."""
        nets, config = self.model.backbones, self.config
        if config.axes == "horizontal":
            cues = tuple(c for c in cues if c in ("left", "right"))[:1]
        cues = cues if config.positional_bias in (branch, "both") else ()
        key = (branch, kind, cues)
        if key not in self._features or kind == "weak":
            # Cut and resized on the CPU, where image and masks are, so that every device sees the same.
            pixels = torch.from_numpy(self.image).permute(2, 0, 1).float() / 255
            pixels = pixels * ranking.positional_bias(cues, self.size, config.ramp)
            clip, patch = nets.use("clip"), nets.clip.visual.patch_size[0]
            clip_side = clip.visual.image_size[0]
            if branch == "crop":
                images = ranking.crops(pixels, masks, clip_side, config.crop_resize)
                self._features[key] = ranking.encode_images(clip, images, nets.clip_mean, nets.clip_std)
            else:
                side = (clip_side, clip_side)
                if config.masked_side == "full":
                    side = tuple(patch * max(1, round(n / patch)) for n in self.size)  # type: ignore[assignment]
                self._features[key] = ranking.encode_masks(clip, pixels, masks, side, nets.clip_mean, nets.clip_std)
        return self._features[key]

    def rank(self, expression: Expression, kind: str, masks: torch.Tensor) -> torch.Tensor:
        """S_D of every mask, (N,) float32 on the CPU."""
        nets, config = self.model.backbones, self.config
        words = (expression.text, expression.head)
        if words not in self._texts:
            self._texts[words] = ranking.encode_text(nets.use("clip"), nets.clip_tokenizer, *words)
        text = self._texts[words]
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

    def segment_all(
        self, expressions: Sequence[str], variant: Variant = "full", proposals: ProposalKind | None = None
    ) -> list[Result]:
        """:meth:`segment` for several sentences, whose word maps are computed together: much faster on a GPU."""
        self.read([parse(e) for e in expressions])
        return [self.segment(e, variant, proposals) for e in expressions]


def _nearest(masks: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(N, h, w) bool masks at another size."""
    if masks.shape[1:] == size:
        return masks
    rows = (np.arange(size[0]) + 0.5) * masks.shape[1] / size[0]
    cols = (np.arange(size[1]) + 0.5) * masks.shape[2] / size[1]
    return masks[:, rows.astype(int)][:, :, cols.astype(int)]
