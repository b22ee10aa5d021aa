"""ConceptAttention (arXiv 2502.04320, 2025): compare what pixels and concepts *got* from attention, not where they look.

Concepts are words of their own, each encoded alone, that stand beside the prompt. They attend to the image and to each
other; neither prompt nor image ever sees them, so the picture is what it would be without them. Each pixel's output of
attention is multiplied with every concept's, heads joined, before the output projection; a softmax over the concepts shares
the pixel out, and the layers are averaged. The map of the head word against its rivals then ranks the proposals by S_G.

No block is edited: the concepts are appended to the text, and a mask is added within ``scaled_dot_product_attention``. In
a UNet words never ask, so a concept has no output; there its *value*, which is what a pixel gets that looks at it alone, takes
its place. That is our reading, not the paper's. Other families than UNets of Stable Diffusion 1 and 2 and SD3's
transformers are refused.
"""

from __future__ import annotations

import inspect
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ..attention import finest, min_max, resize
from ..expression import Expression, token_positions
from ..fusion import generative_score
from ..images import square_corner
from ..networks.families import family_of, named_modules
from ..networks.recorder import choose
from ..proposals import Proposals
from ..reading import maps_of
from .common import Scored

if TYPE_CHECKING:
    from ..scene import Scene


@dataclass(frozen=True)
class Concept:
    """Constants of ConceptAttention."""

    rivals: tuple[str, ...] = ("background", "person", "floor", "wall", "sky", "tree")
    """[I] Concepts that the head word is compared with; the paper names the classes of its data set and a background."""
    threshold: float | None = None
    """[C] The paper's masks are what lies above the mean of the map. Proposals take their place here, so there is none."""


_TOY = (
    "airplane apple backpack ball banana boat book bus butterfly cactus car carrot cat chair clock cow crown cup dog duck "
    "elephant fish flower frog gift guitar hat horse house mushroom orange owl penguin pig pizza rabbit robot rocket snail star "
    "strawberry train tree turtle umbrella"
)


def constants(preset: str) -> Concept:
    """For the toy networks the rivals are the 45 things that they know, as the paper takes the classes of its data."""
    return Concept(rivals=tuple(_TOY.split())) if preset.startswith("toy") else Concept()


def score(scene: Scene, expression: Expression, proposals: Proposals, values: Concept) -> Scored:
    """S_G of the head word's concept map.

    Raises:
        ValueError: a family whose text the concepts cannot be appended to.
    """
    head = expression.head.lower()
    c = concept_map(scene, expression.text, (head, *(r for r in values.rivals if r != head)))
    s_g = generative_score(c, proposals.masks)
    return Scored(c, s_g, torch.zeros_like(s_g), s_g)


def concept_map(scene: Scene, prompt: str, concepts: Sequence[str]) -> Float[Tensor, "h w"]:
    """The map of the first of several concepts in [0, 1], at the working size."""
    nets, config = scene.model.networks, scene.config
    model, family = nets.denoiser, type(getattr(nets.denoiser, "_orig_mod", nets.denoiser)).__name__
    if not nets.own_pass and family != "SD3Transformer2DModel":
        raise ValueError(
            f'variant "concept" cannot append concepts to the text of a {family}: take Stable Diffusion 1, 2 or 3, or '
            'another variant, such as "refam"'
        )
    pattern = config.layers or nets.layers
    states = concept_states(scene, concepts)
    if nets.own_pass:
        unet, text = nets.use("unet"), scene.model.encode_prompt([prompt])
        t, kept = scene.timesteps[config.noise_step], []
        for x in scene.noised:
            with torch.no_grad(), beside(unet, states, pattern) as found:
                unet(x, t, text)
            kept.append(found)
    else:
        with beside(model, states, pattern) as found:
            maps_of(nets, scene._framed, prompt, config.replace(draws=1, scores="softmax"), "output")
        kept = [found]
    layers = [torch.stack([f[name] for f in kept]).mean(0) for name in kept[0]]
    grid = finest(layers)
    c = torch.stack([resize(share(m), grid) for m in layers]).mean(0)
    nets.check_finite("denoiser", c)
    frame = (max(scene.size), max(scene.size)) if config.pad else scene.size
    c = resize(c.cpu(), frame)
    if config.pad:
        top, left = square_corner(scene.size)
        c = c[top : top + scene.size[0], left : left + scene.size[1]]
    return min_max(c)


def share(products: Float[Tensor, "h w n"]) -> Float[Tensor, "h w"]:
    """The first concept's share of each pixel: softmax over the concepts."""
    return products.softmax(-1)[..., 0]


@torch.no_grad()
def concept_states(scene: Scene, concepts: Sequence[str]) -> Float[Tensor, "n d"]:
    """Each concept encoded alone, its first piece, in the order given."""
    nets, words = scene.model.networks, list(concepts)
    if nets.own_pass:
        states = scene.model.encode_prompt(words)
    else:
        length = {k: v for k, v in nets.call.items() if k == "max_sequence_length"}
        states = nets.sd.encode_prompt(words, None, None, do_classifier_free_guidance=False, **length)[0]
    first = [token_positions(nets.tokenizer, w, (0, len(w)))[0] for w in words]
    return torch.stack([s[i] for s, i in zip(states, first, strict=True)])


class _Mask(TorchFunctionMode):
    """While an attention module runs: hides the last ``count`` keys from all but themselves, and keeps what came out."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count, self.name, self.pixels = count, "", 0
        self.kept: dict[str, torch.Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not functional.scaled_dot_product_attention or not self.name:
            return func(*args, **kwargs)
        call = inspect.signature(_arguments).bind(*args, **kwargs).arguments
        query, key, value = call["query"], call["key"], call["value"]
        queries, keys = query.shape[2], key.shape[2]
        first, joint = keys - self.count, queries == keys
        seen = torch.ones(queries, keys, dtype=torch.bool, device=query.device)
        seen[:, first:] = False
        if joint:
            seen[first:, first:] = True
            seen[first:, self.pixels : first] = False  # the prompt's words stay unseen by the concepts
        mask = call.get("attn_mask")
        if mask is not None:
            seen = mask & seen if mask.dtype == torch.bool else mask.masked_fill(~seen, -torch.inf)
        out = func(**{**call, "attn_mask": seen})
        theirs = out if joint else value
        self.kept[self.name] = products(out[:, :, : self.pixels], theirs[:, :, first:])[0]
        return out


def _arguments(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):  # type: ignore[no-untyped-def]
    """The arguments of ``scaled_dot_product_attention`` by name."""


def products(pixels: Float[Tensor, "b heads p d"], concepts: Float[Tensor, "b heads n d"]) -> Float[Tensor, "b p n"]:
    """Scalar products of what pixels and concepts got, heads joined, float32."""
    return torch.einsum("bhpd,bhnd->bpn", pixels.detach().float(), concepts.detach().float())


@contextmanager
def beside(model: Any, states: Float[Tensor, "n d"], layers: str) -> Generator[dict[str, Float[Tensor, "h w n"]]]:
    """Let concepts stand beside the text while the model runs, seen by nobody: its output stays what it was.

    Args:
        states: each concept as the text encoder gives it. layers: regular expression of the layers to keep.

    Yields:
        after the run, each layer's products of pixels and concepts, (h, w, N).
    """
    base = getattr(model, "_orig_mod", model)
    signature, family = inspect.signature(type(base).forward), family_of(base)
    every = named_modules(base, "cross")
    wanted = {full for full, _ in choose(base, "cross", layers).values()}
    mode, found = _Mask(len(states)), dict[str, Any]()
    call: dict[str, Any] = {}

    def append(module: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        bound = signature.bind(module, *args, **kwargs)
        text = bound.arguments["encoder_hidden_states"]
        more = states.to(text).expand(len(text), -1, -1)
        bound.arguments["encoder_hidden_states"] = torch.cat([text, more], 1)
        call.update(bound.arguments)
        return bound.args[1:], bound.kwargs

    with ExitStack() as stack:
        stack.callback(base.register_forward_pre_hook(append, with_kwargs=True).remove)
        stack.enter_context(mode)
        for short, (full, module) in every.items():

            def before(module: Any, args: tuple, kwargs: dict, full: str = full) -> None:
                x = kwargs.get("hidden_states", args[0] if args else None)
                mode.name, mode.pixels = full, x.shape[1]

            def after(module: Any, args: tuple, output: Any, full: str = full, short: str = short) -> None:
                kept, mode.name = mode.kept.pop(full, None), ""
                if full in wanted and kept is not None:
                    pixels, text = mode.pixels, call["encoder_hidden_states"].shape[1]
                    joint = full.endswith(".attn")
                    h = family.layout(base, call, full, pixels + text * joint, text + pixels * joint).grid[0]
                    found[short] = rearrange(kept, "(h w) n -> h w n", h=h)

            stack.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
            stack.callback(module.register_forward_hook(after, always_call=True).remove)
        yield found
