"""One image through the stages in order: noise, attention, word map, proposals, both scores, choice -> ``Result``."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from . import fusion, ranking, variants
from . import proposals as generators
from .attention import AttentionMaps, Kind, min_max, propagate, resize, word_map
from .config import PROPOSALS, SUCCESSORS, VARIANTS, ProposalKind, Variant
from .expression import Expression, cut_text, parse, pieces, token_positions
from .images import pad_to_square, square_corner
from .inversion import guided, invert
from .latents import add_noise, ddim_timesteps, encode
from .masks import as_masks, keep, resize_nearest
from .networks import clip
from .proposals import Proposals
from .reading import Reading, maps_of, read
from .result import Result
from .unet_pass import unet_pass

if TYPE_CHECKING:
    from .pipeline import RefDiff

WORK_SIDE = 1024
"""Masks and maps are computed on an image whose longer side is at most this, then brought back to the input's size."""
SENTENCES = 8
"""Sentences whose maps are computed in one batch of the UNet; twice as many maps are kept for the other variants."""


def _one_at_a_time(method: Callable) -> Callable:
    """Keep other threads off the networks, and the networks in evaluation mode, while a method of Scene runs."""

    @wraps(method)
    def alone(self: Scene, *args: Any, **kwargs: Any) -> Any:
        with self.model.networks.at_work():
            return method(self, *args, **kwargs)

    return alone


class Scene:
    """One image with everything that its sentences share: latents, noise, proposals, CLIP features."""

    def __init__(self, model: RefDiff, image: np.ndarray, oracle: Any = None) -> None:
        self.model, self.config = model, model.config
        self.full_size: tuple[int, int] = (image.shape[0], image.shape[1])
        scale = min(1.0, WORK_SIDE / max(self.full_size))
        height, width = (max(1, round(n * scale)) for n in self.full_size)
        self.size = (height, width)
        picture = Image.fromarray(image)
        self.image = np.array(picture.resize((width, height), Image.Resampling.LANCZOS) if scale < 1 else picture)
        self.image.flags.writeable = False
        self._oracle = None if oracle is None else as_masks(oracle, self.full_size)
        self._word_maps: OrderedDict[tuple[str, tuple[int, int]], tuple[torch.Tensor, Reading]] = OrderedDict()
        self._proposals: dict[str, tuple[Proposals, int]] = {}
        self._texts: dict[tuple[str, str], torch.Tensor] = {}

    @property
    def oracle(self) -> np.ndarray | None:
        """The true masks that came with the image, (N, H, W) bool at the input's size."""
        return self._oracle

    @property
    def _framed(self) -> np.ndarray:
        """The image, or with ``config.pad`` the square around it, (h, w, 3) uint8."""
        return pad_to_square(self.image) if self.config.pad else self.image

    def to_full(self, mask: torch.Tensor | np.ndarray) -> np.ndarray:
        """A proposal (h, w) as a mask of the input's size, (H, W) bool."""
        return resize_nearest(np.asarray(mask), self.full_size)

    @cached_property
    @_one_at_a_time
    def latents(self) -> torch.Tensor:
        """x_0, (1, C, h, w), of the image, or with ``config.pad`` of the square around it.

        The longer side is the diffusion model's; the shape is kept but for rounding.
        """
        nets = self.model.networks
        if not nets.own_pass:
            raise ValueError(
                f"a scene holds latents for Stable Diffusion 1 and 2 alone; look(pipe, image, text) reads {type(nets.sd).__name__}"
            )
        image = self._framed
        scale = nets.side * self.config.side_factor / max(self.size)
        height, width = (nets.multiple * max(1, round(n * scale / nets.multiple)) for n in image.shape[:2])
        x0 = encode(nets.use("vae"), image, (height, width))
        return nets.check_finite("vae", x0).to(nets.device, nets.dtype)  # the UNet's, where the VAE has its own

    @cached_property
    def timesteps(self) -> list[int]:
        return ddim_timesteps(self.model.networks.scheduler, self.config.num_steps)

    @cached_property
    def noised(self) -> list[torch.Tensor]:
        """x_t of every draw at ``config.noise_step``."""
        return self.noised_at(self.config.noise_step)

    @_one_at_a_time
    def noised_at(self, step: int) -> list[torch.Tensor]:
        """x_t of every draw at one of :attr:`timesteps`, as the config makes noise.

        One seeded generator on the CPU is the only randomness, so all devices agree.
        """
        nets, x0, config = self.model.networks, self.latents, self.config
        if config.noise == "ddim":
            denoiser = guided(nets.use("unet"), self.model.empty_prompt)
            x = invert(nets.scheduler, denoiser, x0, config.num_steps, until=step + 1)[-1]
            return [nets.check_finite("unet", x)]
        generator = torch.Generator().manual_seed(config.seed)
        draws = [torch.randn(x0.shape, generator=generator).to(x0) for _ in range(config.draws)]
        return [add_noise(nets.scheduler, x0, noise, self.timesteps[step]) for noise in draws]

    @_one_at_a_time
    def unet_pass(self, prompts: list[str], kinds: Sequence[Kind] = ("cross",)) -> list[dict[Kind, AttentionMaps]]:
        """Attention of the chosen layers under each prompt, all prompts in one batch of the UNet."""
        nets, config = self.model.networks, self.config
        noised = self.noised
        empty = self.model.empty_prompt if config.guidance != 1 else None
        text = self.model.encode_prompt(prompts)
        patterns = {"self": nets.self_layers, "cross": nets.layers if config.layers is None else config.layers}
        steps = [self.timesteps[s] for s in config.denoise_steps]
        layers: dict[Kind, str] = {kind: patterns[kind] for kind in kinds}
        found = unet_pass(nets.use("unet"), nets.scheduler, noised, steps, text, empty, layers, config)
        for maps in (m for kinds_of in found for attention in kinds_of.values() for m in attention.maps.values()):
            nets.check_finite("unet", maps)
        return found

    @_one_at_a_time
    def compute_word_maps(self, expressions: Sequence[Expression]) -> None:
        """Compute the maps of up to :data:`SENTENCES` expressions in one batch, for :meth:`word_map` to return."""
        config = self.config
        missing = [e for e in dict.fromkeys(expressions) if (e.text, e.span) not in self._word_maps]
        if not missing:
            return
        kinds: tuple[Kind, ...] = ("cross", "self") if config.propagate else ("cross",)
        for e, found in zip(missing, self._read(missing, kinds), strict=True):
            c = self.map_of(found.maps, found.tokens)
            self._word_maps[e.text, e.span] = c, found._replace(maps={})
        while len(self._word_maps) > max(2 * SENTENCES, len(missing)):
            self._word_maps.popitem(last=False)

    def map_of(self, maps: dict[Kind, AttentionMaps], tokens: Sequence[list[int]]) -> torch.Tensor:
        """The map c of a word, from attention to its tokens for each text encoder that reads it, as this config makes it.

        (H, W) float32 in [0, 1] on the CPU, at the working size.
        """
        config, cross = self.config, maps["cross"]
        each = [word_map(cross, t, self.size, config.normalise, config.upsample, config.pad) for t in tokens]
        c = each[0] if len(each) == 1 else min_max(torch.stack(each).mean(0))
        if config.propagate:
            c = resize(propagate(c, maps["self"], config.propagate), self.size)
        return c.cpu()

    def _read(self, expressions: Sequence[Expression], kinds: tuple[Kind, ...]) -> list[Reading]:
        nets, config = self.model.networks, self.config
        if not nets.own_pass:
            return [read(nets, self._framed, e, config, kinds) for e in expressions]
        prompts = [e.text + config.prompt_suffix for e in expressions]
        tokens = [token_positions(nets.tokenizer, p, e.span) for p, e in zip(prompts, expressions, strict=True)]
        return [
            Reading(maps, [places], pieces(nets.tokenizer, prompt), cut_text(nets.tokenizer, e.text))
            for maps, places, prompt, e in zip(
                self.unet_pass(prompts, kinds), tokens, prompts, expressions, strict=True
            )
        ]

    @_one_at_a_time
    def word_map(self, expression: Expression) -> torch.Tensor:
        """The map c of the head word, (H, W) float32 in [0, 1] on the CPU, at the working size."""
        self.compute_word_maps([expression])
        return self._word_maps[expression.text, expression.span][0].clone()

    @_one_at_a_time
    def proposals(self, kind: ProposalKind, word: torch.Tensor | None = None) -> Proposals:
        """Candidate masks of a generator, filtered as the config says; computed once but for "weak".

        Args:
            word: a map c, for "weak".

        Raises:
            ValueError: no such generator; "weak" without a map, "oracle" without true masks, "sam" without SAM.
        """
        if kind not in PROPOSALS:
            raise ValueError(f"unknown proposals {kind!r}: choose one of {', '.join(PROPOSALS)}")
        if kind == "weak":
            if word is None:
                raise ValueError("weak proposals are thresholds of a word map: give one")
            masks = generators.weak(word, self.config.thresholds)
            return Proposals(kind, masks[masks.flatten(1).any(1)], self.image)
        made, version = self._proposals.get(kind, (None, 0))
        if made is None or made.masks._version != version:  # changed in place by whoever holds them
            made = self.proposals_of(self._generate(kind), kind)
            self._proposals[kind] = made, made.masks._version
        return made

    def proposals_of(self, masks: Any, kind: str = "own") -> Proposals:
        """Masks of your own as proposals of this image, filtered as the config says.

        Args:
            masks: (N, H, W) at the input's or the working size, as :func:`masks.as_masks` takes them.
        """
        checked = torch.from_numpy(resize_nearest(as_masks(masks, self.full_size, self.size), self.size))
        shrink = self.size[0] * self.size[1] / (self.full_size[0] * self.full_size[1])
        return Proposals(kind, keep(checked, self.config.keep_largest, self.config.min_area * shrink), self.image)

    def _own(self, proposals: Proposals) -> Proposals:
        if proposals.image is not self.image:
            raise ValueError("these proposals belong to another image: take them from scene.proposals of this one")
        return proposals

    def _generate(self, kind: str) -> Any:
        if kind == "felzenszwalb":
            return generators.felzenszwalb(self.image)
        if kind == "grouping":
            return generators.grouping(self.image)
        if kind == "self-attention":
            return self._self_attention()
        if kind == "sam":
            return generators.kept_sam(self.image, self.model.networks)
        if self._oracle is None:
            raise ValueError('proposals "oracle" need ground truth: set_image(image, oracle=masks)')
        return self._oracle

    def _self_attention(self) -> torch.Tensor:
        nets, seed = self.model.networks, self.config.seed
        if nets.own_pass:
            attention = self.unet_pass([""], ["self"])[0]["self"]
        else:
            attention, _ = maps_of(nets, self._framed, "", self.config, "self")
        if not self.config.pad:
            return generators.self_attention(attention, self.size, seed=seed)
        (top, left), (height, width) = square_corner(self.size), self.size
        masks = generators.self_attention(attention, (max(self.size), max(self.size)), seed=seed)
        return masks[:, top : top + height, left : left + width]

    @_one_at_a_time
    def text_features(self, expression: Expression) -> torch.Tensor:
        """CLIP's features of the sentence and of its head word, (2, D), each of length 1."""
        nets, words = self.model.networks, (expression.text, expression.head)
        if words not in self._texts:
            found = clip.encode_text(nets.use("clip"), nets.clip_tokenizer, *words)
            self._texts[words] = nets.check_finite("clip", found)
        return self._texts[words]

    @_one_at_a_time
    def discriminative_scores(self, expression: Expression, proposals: Proposals) -> torch.Tensor:
        """S_D of every proposal, (N,) float32 on the CPU.

        Raises:
            ValueError: the proposals belong to another image.
        """
        if not len(self._own(proposals)):
            return torch.zeros(0)
        text, config = self.text_features(expression), self.config
        crop, masked = (
            ranking.branch_score(
                ranking.visual_features(self.model.networks, proposals, branch, expression.cues, config), text, share
            )
            for branch, share in (("crop", config.noun_in_crop), ("masked", config.noun_in_masked))
        )
        return ranking.discriminative_score(crop, masked, config.beta)

    @_one_at_a_time
    def segment(
        self,
        expression: str,
        variant: Variant = "full",
        proposals: ProposalKind | Proposals | None = None,
        head: str | None = None,
    ) -> Result:
        """The mask that the expression names.

        Args:
            variant: "g" (diffusion alone, thresholds), "gs" (diffusion ranks proposals), "ds" (CLIP ranks them), "full";
                or a successor, which has its own map and score: "refam", "concept", "hybridgl", "relations".
            proposals: generator of candidates, or candidates of your own (:meth:`proposals_of`); by default "weak" for g,
                else "oracle" if true masks came with the image, else "felzenszwalb".
            head: the word to look for, where the rule's choice is wrong.
        """
        if variant not in VARIANTS:
            raise ValueError(f"unknown variant {variant!r}: choose one of {', '.join(VARIANTS)}")
        default: ProposalKind = "weak" if variant == "g" else "felzenszwalb" if self._oracle is None else "oracle"
        chosen = default if proposals is None else proposals
        if variant == "g" and chosen != "weak":
            raise ValueError('variant "g" has no proposal network: its proposals are "weak"; "gs" takes others')
        parsed, config = parse(expression, head), self.config
        if isinstance(chosen, Proposals):
            self._own(chosen)
        c = self.word_map(parsed)
        candidates = chosen if isinstance(chosen, Proposals) else self.proposals(chosen, c)
        masks = candidates.masks
        c, s_g, s_d, s = self._scores(variant, parsed, candidates, c)
        best = fusion.choose(s)
        shown = masks.numpy()
        shown.flags.writeable = False
        _, told = self._word_maps[parsed.text, parsed.span]
        return Result(
            mask=self.to_full(shown[best]).copy() if best is not None else np.zeros(self.full_size, bool),
            best=best,
            scores={"S_G": s_g, "S_D": s_d, "S": s},
            word_map=c.numpy(),
            proposals=shown,
            expression=parsed,
            variant=variant,
            generator=candidates.kind,
            image=self.image,
            pieces=told.pieces,
            tokens=tuple(told.tokens[0]),
            unread=told.unread,
            config=config,
            preset=self.model.networks.name,
        )

    def _scores(
        self, variant: Variant, expression: Expression, proposals: Proposals, c: torch.Tensor
    ) -> variants.Scored:
        """The map that a variant reads, S_G, S_D (0 where CLIP is not asked), and S, which decides."""
        if variant in SUCCESSORS:
            return variants.score(variant, self, expression, proposals)
        config, masks = self.config, proposals.masks
        s_g = fusion.generative_score(c, masks)
        s_d = (
            self.discriminative_scores(expression, proposals) if variant in ("ds", "full") else torch.zeros(len(masks))
        )
        otsu = generators.otsu_choice(c, masks) if variant == "g" and config.weak_choice == "otsu" else None
        return variants.Scored(c, s_g, s_d, fusion.score(variant, s_g, s_d, config.weight_g, config.weight_d, otsu))

    @_one_at_a_time
    def segment_all(
        self,
        expressions: Sequence[str],
        variant: Variant = "full",
        proposals: ProposalKind | Proposals | None = None,
    ) -> list[Result]:
        """:meth:`segment` for several sentences, whose word maps are computed together: much faster on a GPU."""
        texts = [expressions] if isinstance(expressions, str) else list(expressions)
        results = []
        for i in range(0, len(texts), SENTENCES):
            self.compute_word_maps([parse(e) for e in texts[i : i + SENTENCES]])
            results += [self.segment(e, variant, proposals) for e in texts[i : i + SENTENCES]]
        return results
