"""How each family of diffusion models attends: which modules, and where image and text stand among their tokens.

UNets and PixArt attend from pixels to words (``attn2``) and from pixels to pixels (``attn1``); the other transformers put
text and image into one sequence, where everything looks at everything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from math import prod
from typing import Any, Literal, NamedTuple

import torch

Kind = Literal["cross", "reverse", "self", "text", "output"]
"""What is recorded: pixels to words, words to pixels, pixels to pixels, words to words, or products of their outputs."""


class Place(NamedTuple):
    """Where image and text stand in one row's sequence; None where it has none of them."""

    image: slice | None
    text: slice | None


class Layout(NamedTuple):
    """Grid (h, w) of the image's tokens, and for each row of the batch where queries and keys are what."""

    grid: tuple[int, int]
    queries: list[Place]
    keys: list[Place]


@dataclass(frozen=True)
class Family:
    """What the recorder must know of a family of models.

    Attributes:
        modules: for each kind that can be recorded, a regular expression over names of modules.
        layout: ``(model, arguments of its call, name of the module, queries, keys) -> Layout``.
        rows: rows of the batch, from the arguments of the call.
        guidance: order of the empty (-) and the given prompt (+) in a guided batch; "calls": one call for each, + first.
        layers: regular expression of the layers that are read when nobody chooses.
        missing: why a kind cannot be recorded.
    """

    modules: Mapping[str, str]
    layout: Callable[[Any, Mapping[str, Any], str, int, int], Layout]
    guidance: Literal["-+", "+-", "calls"] = "-+"
    layers: str = ""
    missing: str = "its words are only keys and ask nothing"
    rows: Callable[[Mapping[str, Any]], int] = lambda call: len(call["hidden_states"])


def _fits(name: str, found: int, expected: int) -> None:
    if found != expected:
        raise ValueError(
            f"{name} attends over {found} tokens where {expected} were expected: token merging, a cache of keys or "
            "perturbed attention is at work; switch it off to record"
        )


def _pixels_and_words(grid: Callable[[Any, Mapping[str, Any], str], tuple[int, int]]) -> Callable[..., Layout]:
    """Layout of models whose image is asked (``attn1``, ``attn2``) and whose text only answers (``attn2``)."""

    def layout(model: Any, call: Mapping[str, Any], name: str, queries: int, keys: int) -> Layout:
        h, w = grid(model, call, name)
        own = name.endswith("attn1")
        _fits(name, queries, h * w)
        if own:
            _fits(name, keys, h * w)
        rows = len(call["sample"] if "sample" in call else call["hidden_states"])
        image, text = Place(slice(0, queries), None), Place(None, slice(0, keys))
        return Layout((h, w), [image] * rows, [image if own else text] * rows)

    return layout


def _one_sequence(places: Callable[[Any, Mapping[str, Any]], tuple[tuple[int, int], int, list[Place]]]) -> Callable:
    """Layout of models where text and image are one sequence."""

    def layout(model: Any, call: Mapping[str, Any], name: str, queries: int, keys: int) -> Layout:
        grid, total, rows = places(model, call)
        if name.endswith("attn2"):  # SD 3.5: the image alone
            total, rows = prod(grid), [Place(slice(0, prod(grid)), None)] * len(rows)
        _fits(name, queries, total)
        _fits(name, keys, total)
        return Layout(grid, rows, rows)

    return layout


def _unet_grid(unet: Any, call: Mapping[str, Any], name: str) -> tuple[int, int]:
    """Rows and columns at a layer, from how often the blocks before it halve the image: never guessed from a count."""
    down = [block.downsamplers is not None for block in unet.down_blocks]
    block, _, rest = name.partition("_block")
    index = rest.removeprefix("s.").split(".")[0]
    halved = sum(down[: int(index)] if block == "down" else down)
    if block == "up":
        halved -= sum(b.upsamplers is not None for b in unet.up_blocks[: int(index)])
    h, w = call["sample"].shape[-2:]
    return -(-h // 2**halved), -(-w // 2**halved)


def _patches(model: Any, call: Mapping[str, Any], name: str = "") -> tuple[int, int]:
    h, w = call["hidden_states"].shape[-2:]
    return h // model.config.patch_size, w // model.config.patch_size


def _sd3(model: Any, call: Mapping[str, Any]) -> tuple[tuple[int, int], int, list[Place]]:
    """Image, then text."""
    grid, words = _patches(model, call), call["encoder_hidden_states"].shape[1]
    pixels = prod(grid)
    return grid, pixels + words, [Place(slice(0, pixels), slice(pixels, pixels + words))] * len(call["hidden_states"])


def _text_first(grid: tuple[int, int], call: Mapping[str, Any]) -> tuple[tuple[int, int], int, list[Place]]:
    """Text, then the image, then perhaps images to edit, which are left out."""
    rows, tokens = call["hidden_states"].shape[:2]
    words = call["encoder_hidden_states"].shape[1]
    return grid, words + tokens, [Place(slice(words, words + prod(grid)), slice(0, words))] * rows


def _flux(model: Any, call: Mapping[str, Any]) -> tuple[tuple[int, int], int, list[Place]]:
    """The grid is that of the first image: its tokens' ids begin with the same number, row and column follow."""
    ids = call["img_ids"]
    ids = ids[0] if ids.ndim == 3 else ids
    first = ids[ids[:, 0] == ids[0, 0]]
    h, w = (int(n) + 1 for n in (first[:, 1:3] - first[0, 1:3]).amax(0))
    return _text_first((h, w), call)


def _qwen(model: Any, call: Mapping[str, Any]) -> tuple[tuple[int, int], int, list[Place]]:
    shape = call["img_shapes"][0]
    frames, h, w = shape[0] if isinstance(shape, list) else shape
    if frames != 1:
        raise ValueError(f"{frames} frames: layered images and videos cannot be recorded, single images can")
    return _text_first((h, w), call)


def _lumina2(model: Any, call: Mapping[str, Any]) -> tuple[tuple[int, int], int, list[Place]]:
    """Each row has its own text's length; shorter rows are filled up behind the image."""
    grid = _patches(model, call)
    words = call["encoder_attention_mask"].sum(1).int().tolist()
    return grid, max(words) + prod(grid), [Place(slice(n, n + prod(grid)), slice(0, n)) for n in words]


def _z_image(model: Any, call: Mapping[str, Any]) -> tuple[tuple[int, int], int, list[Place]]:
    """Image, then text, each filled up to a multiple of 32 by learned tokens, which are left out."""
    if isinstance(call["x"][0], list):
        raise ValueError("Z-Image's editing mode cannot be recorded; generation can")
    sizes = {tuple(x.shape[-3:]) for x in call["x"]}
    frames, h, w = sizes.pop()
    if sizes or frames != 1:
        raise ValueError("images of several sizes or frames in one batch cannot be recorded; give them one by one")
    patch = call.get("patch_size", 2)
    grid = h // patch, w // patch
    start = -(-prod(grid) // 32) * 32
    places = [Place(slice(0, prod(grid)), slice(start, start + len(text))) for text in call["cap_feats"]]
    return grid, max(start + -(-len(text) // 32) * 32 for text in call["cap_feats"]), places


def _joint(pattern: str, **also: str) -> dict[str, str]:
    return dict.fromkeys(("cross", "reverse", "self", "text", "output"), pattern) | also


_ATTN = r"^(single_)?transformer_blocks\.\d+\.attn$"
FAMILIES: dict[str, Family] = {
    "UNet2DConditionModel": Family(
        {"cross": r"\.attn2$", "self": r"\.attn1$"},
        _pixels_and_words(_unet_grid),
        rows=lambda call: len(call["sample"]),
    ),
    "PixArtTransformer2DModel": Family({"cross": r"\.attn2$", "self": r"\.attn1$"}, _pixels_and_words(_patches)),
    "SanaTransformer2DModel": Family(
        {"cross": r"\.attn2$"},
        _pixels_and_words(_patches),
        missing="its self-attention is linear, without a softmax, and its words are only keys",
    ),
    "SD3Transformer2DModel": Family(_joint(_ATTN, self=_ATTN.replace("attn", "attn2?")), _one_sequence(_sd3)),
    "FluxTransformer2DModel": Family(_joint(_ATTN), _one_sequence(_flux), "calls", r"^transformer_blocks\.1[5-8]$"),
    "Flux2Transformer2DModel": Family(_joint(_ATTN), _one_sequence(_flux), "calls"),
    "QwenImageTransformer2DModel": Family(_joint(_ATTN), _one_sequence(_qwen), "calls"),
    "Lumina2Transformer2DModel": Family(_joint(r"^layers\.\d+\.attn$"), _one_sequence(_lumina2), "calls"),
    "ZImageTransformer2DModel": Family(
        _joint(r"^layers\.\d+\.attention$"), _one_sequence(_z_image), "+-", rows=lambda call: len(call["x"])
    ),
}
"""By the class of the model."""


def family_of(model: torch.nn.Module) -> Family:
    """The family of a model, by its class or one that it derives from.

    Raises:
        ValueError: no family that the recorder knows.
    """
    for kind in type(model).__mro__:
        if kind.__name__ in FAMILIES:
            return FAMILIES[kind.__name__]
    raise ValueError(f"no attention of a {type(model).__name__} can be recorded, only that of {', '.join(FAMILIES)}")


def attention_modules(model: torch.nn.Module, kind: Kind = "cross") -> dict[str, torch.nn.Module]:
    """Modules that attend in this way, by name: that of their block, ``down_blocks.0.attentions.0`` or ``layers.3``.

    Raises:
        ValueError: this family has no such attention. RuntimeError: this version of diffusers names it otherwise.
    """
    return {short: module for short, (_, module) in named_modules(model, kind).items()}


def named_modules(model: torch.nn.Module, kind: Kind) -> dict[str, tuple[str, torch.nn.Module]]:
    """The same with the modules' full names."""
    base = getattr(model, "_orig_mod", model)
    family, name = family_of(base), type(base).__name__
    if kind not in family.modules:
        raise ValueError(
            f"{kind}-attention of a {name} cannot be recorded: {family.missing}; choose {' or '.join(family.modules)}"
        )
    full = {n.replace("_orig_mod.", ""): m for n, m in base.named_modules() if re.search(family.modules[kind], n)}
    if not full:
        raise RuntimeError(f"no {kind}-attention modules were found in {name} (diffusers {version('diffusers')})")
    found: dict[str, tuple[str, torch.nn.Module]] = {}
    for n, module in full.items():
        block = n.rpartition(".")[0]
        outer, inner, _ = block.partition(".transformer_blocks.")  # in a UNet; SDXL has up to ten of them in one place
        if inner and sum(other.startswith(outer + inner) for other in full) == 1:
            block = outer
        found[n if block in found else block] = n, module  # SD 3.5 has two in one block
    return found
