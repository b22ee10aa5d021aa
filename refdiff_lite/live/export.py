"""The five toy networks as ONNX files: thin wrappers around what the library itself calls (needs the extra ``web``).

Weights lie in the files as fp16, as they do on disk, and are cast once when the file is loaded; all sums are in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..attention import record_attention
from ..networks import Networks

HIDDEN = -1e9
"""Added to attention that a class token may not pay; ONNX Runtime's softmax makes NaN of rows of -inf."""


class Vae(nn.Module):
    """A picture in [-1, 1], (1, 3, side, side), to scaled latents x_0."""

    def __init__(self, networks: Networks) -> None:
        super().__init__()
        self.vae = networks.use("vae")

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        return self.vae.encode(picture).latent_dist.mode() * self.vae.config.scaling_factor


class Text(nn.Module):
    """Token ids (1, tokens) int32 to the states that the UNet attends to."""

    def __init__(self, networks: Networks) -> None:
        super().__init__()
        self.encoder = networks.use("text_encoder")

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.encoder(ids.long()).last_hidden_state


class Unet(nn.Module):
    """x_t, t (1,) and the text's states to cross-attention: for each grid (layers, h, w, tokens), mean over heads."""

    def __init__(self, networks: Networks) -> None:
        super().__init__()
        self.unet = networks.use("unet")

    def maps(self, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        """The layers' maps by name, for each grid; the coarse one first."""
        with record_attention(self.unet) as record:
            self.unet(x, t, text)
        grids = sorted({m.shape[1:3] for m in record.maps.values()})
        return [{name: m for name, m in record.maps.items() if m.shape[1:3] == g} for g in grids]

    def forward(self, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(torch.cat(list(grid.values())) for grid in self.maps(x, t, text))


class ClipImage(nn.Module):
    """Pictures (B, 3, h, w), standardised, with N class tokens each, to features (B, N, D) of length 1.

    ``hidden`` (N + P, N + P) says by 1 what a token does not see: with N = 1 and zeros these are CLIP's own features, with
    :func:`networks.clip.mask_attention` those of N masks.
    """

    def __init__(self, networks: Networks) -> None:
        super().__init__()
        self.visual = networks.use("clip").visual

    def forward(self, pixels: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        visual = self.visual
        grid = visual.grid_size
        patches = visual.conv1(pixels)
        table = visual.positional_embedding[1:].T.reshape(1, -1, *grid)
        # Always resized, though at the grid that it was trained on this changes nothing: one file serves both branches.
        place = torch.nn.functional.interpolate(table, patches.shape[2:], mode="bicubic", align_corners=False)
        patches = (patches + place).flatten(2).transpose(1, 2)
        start = (visual.class_embedding + visual.positional_embedding[0]).expand(len(pixels), 1, -1)
        count = hidden.shape[0] - patches.shape[1]
        torch._check(count >= 1)
        tokens = visual.ln_pre(torch.cat([start.expand(-1, count, -1), patches], 1))
        bias = hidden * HIDDEN
        for block in visual.transformer.resblocks:
            x = nn.functional.linear(block.ln_1(tokens), block.attn.in_proj_weight, block.attn.in_proj_bias)
            heads = block.attn.num_heads
            q, k, v = (y.unflatten(-1, (heads, -1)).transpose(1, 2) for y in x.chunk(3, -1))
            seen = nn.functional.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + bias, -1) @ v
            tokens = tokens + block.ls_1(block.attn.out_proj(seen.transpose(1, 2).flatten(2)))
            tokens = tokens + block.ls_2(block.mlp(block.ln_2(tokens)))
        return nn.functional.normalize(visual.ln_post(tokens[:, :count]) @ visual.proj, dim=-1)


class ClipText(nn.Module):
    """Token ids (2, tokens) int32 of the sentence and of its noun to features (2, D) of length 1."""

    def __init__(self, networks: Networks) -> None:
        super().__init__()
        self.clip = networks.use("clip")

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.clip.encode_text(ids.long(), normalize=True)


@dataclass(frozen=True)
class _Part:
    make: Callable[[Networks], nn.Module]
    inputs: dict[str, torch.Tensor]
    outputs: tuple[str, ...]
    dynamic: dict[str, dict[int, Any]] | None = None


def _parts(networks: Networks) -> dict[str, _Part]:
    side, tokens, grid = networks.side, networks.tokenizer.model_max_length, networks.side // 8
    width, unet = networks.use("text_encoder").config.hidden_size, networks.use("unet").config
    seen, dim = networks.use("clip").visual.image_size[0], torch.export.Dim
    free = {"pixels": {0: dim.DYNAMIC, 2: dim.DYNAMIC, 3: dim.DYNAMIC}, "hidden": {0: dim.DYNAMIC, 1: dim.DYNAMIC}}
    return {
        "vae": _Part(Vae, {"picture": torch.zeros(1, 3, side, side)}, ("latents",)),
        "text": _Part(Text, {"ids": torch.zeros(1, tokens, dtype=torch.int32)}, ("states",)),
        "unet": _Part(
            Unet,
            {
                "x": torch.zeros(1, unet.in_channels, grid, grid),
                "t": torch.tensor([51.0]),
                "text": torch.zeros(1, tokens, width),
            },
            ("coarse", "fine"),
        ),
        "clip-image": _Part(
            ClipImage,
            {"pixels": torch.zeros(3, 3, 2 * seen, 2 * seen), "hidden": torch.zeros(261, 261)},
            ("features",),
            free,
        ),
        "clip-text": _Part(ClipText, {"ids": torch.zeros(2, tokens, dtype=torch.int32)}, ("features",)),
    }


@torch.no_grad()
def export(networks: Networks, folder: Path) -> list[list[str]]:
    """Write ``vae.onnx``, ``text.onnx``, ``unet.onnx``, ``clip-image.onnx`` and ``clip-text.onnx`` into a folder.

    Returns:
        names of the UNet's layers on each grid, coarse first, in the order of its outputs.

    Raises:
        OSError: the extra ``web`` is not installed.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  # what torch exports by
    except ImportError:
        raise OSError("ONNX files need two more packages: pip install 'refdiff-lite[web]'") from None
    folder.mkdir(parents=True, exist_ok=True)
    parts = _parts(networks)
    for name, part in parts.items():
        module = part.make(networks).eval()
        program = torch.onnx.export(
            module, (), kwargs=part.inputs, dynamo=True, opset_version=20, output_names=list(part.outputs),
            dynamic_shapes=part.dynamic, verbose=False,
        )  # fmt: skip
        assert program is not None
        onnx.save(_slim(program.model_proto), folder / f"{name}.onnx")
    return [list(grid) for grid in Unet(networks).maps(**parts["unet"].inputs)]


def _slim(model: Any) -> Any:
    """Weights as fp16 wherever that loses nothing, and none of the exporter's notes on where each node came from."""
    from onnx import helper, numpy_helper

    graph, casts, kept = model.graph, [], []
    for tensor in graph.initializer:
        value = numpy_helper.to_array(tensor)
        small = value.dtype != np.float32 or value.size <= 64 or np.abs(value).max() > np.finfo(np.float16).max
        half = value if small else value.astype(np.float16)
        if small or not np.array_equal(half.astype(np.float32), value):
            kept.append(tensor)
            continue
        kept.append(numpy_helper.from_array(half, tensor.name + ".half"))
        casts.append(helper.make_node("Cast", [tensor.name + ".half"], [tensor.name], to=1))
    nodes = [*casts, *graph.node]
    for node in nodes:
        node.doc_string = ""
        del node.metadata_props[:]
    for part in ("initializer", "node", "value_info", "metadata_props"):
        del getattr(graph, part)[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)
    del model.functions[:], model.metadata_props[:]
    return model
