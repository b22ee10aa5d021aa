"""What the tokens of a text attend to inside a text encoder, before any picture: each layer and head apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import rearrange

from ..expression import cut_text, pieces
from .compat import fast_tokenizer
from .networks import Networks

ENCODERS = ("text_encoder", "text_encoder_2", "clip")
"""The diffusion pipeline's text encoders, and the text tower of the CLIP that ranks proposals."""
MEAN = -1
"""The layer or head that is none: the mean over all of them."""


@dataclass(frozen=True)
class TextAttention:
    """Attention between the tokens of one text.

    Attributes:
        text: as it was read. encoder: one of :data:`ENCODERS`.
        tokens: the pieces as text, between "start" and "end". Padding is left out: it stands behind the end, and in CLIP
            no token looks at those behind it.
        maps: of each layer (heads, tokens, tokens) float32: how much the token of a row looks at that of a column; rows
            add up to 1.
        unread: the end of the text, which the encoder does not read.
    """

    text: str
    encoder: str
    tokens: tuple[str, ...]
    maps: tuple[np.ndarray, ...]
    unread: str = ""

    def at(self, layer: int = MEAN, head: int = MEAN) -> np.ndarray:
        """One layer and head, (tokens, tokens) float32; :data:`MEAN` for the mean over layers, over heads, or over both.

        Raises:
            ValueError: no such layer or head; or a head of no layer: heads of two layers have nothing in common.
        """
        if not MEAN <= layer < len(self.maps):
            raise ValueError(f"layer={layer}: there are the layers 0 to {len(self.maps) - 1}; {MEAN} is their mean")
        if layer == MEAN:
            if head != MEAN:
                raise ValueError(f"head={head} of no layer: choose a layer too")
            return np.mean([m.mean(0) for m in self.maps], axis=0)
        heads = self.maps[layer]
        if not MEAN <= head < len(heads):
            raise ValueError(f"head={head}: layer {layer} has the heads 0 to {len(heads) - 1}; {MEAN} is their mean")
        return heads.mean(0) if head == MEAN else heads[head]


def attend_text(networks: Networks, text: str, encoder: str = ENCODERS[0]) -> TextAttention:
    """Run a text encoder once, and keep what every token looks at in every layer and head.

    Queries and keys are read beside the running network, whichever kernel computes its attention.

    Args:
        encoder: one of :data:`ENCODERS`.

    Raises:
        ValueError: the text is empty, there is no such encoder, or it is not CLIP's (T5, language models).
    """
    text = " ".join(text.split())
    if not text:
        raise ValueError('the text is empty; write a phrase such as "the small cat on the left"')
    _check(networks, encoder)
    with networks.at_work(), torch.no_grad():
        network = networks.use(encoder)
        if encoder == "clip":
            ids, tokens, unread = _clip_tokens(networks.clip_tokenizer, text)
            maps = _watch(network, ids.to(networks.device), network.encode_text)
        else:
            own = encoder.replace("text_encoder", "tokenizer")
            tokenizer = networks.tokenizer if own == "tokenizer" else fast_tokenizer(getattr(networks.sd, own))
            if hasattr(networks.sd, "maybe_convert_prompt"):  # textual inversions of several vectors
                text = networks.sd.maybe_convert_prompt(text, tokenizer)
            ids = tokenizer(text, truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt").input_ids
            tokens, unread = pieces(tokenizer, text), cut_text(tokenizer, text)
            maps = _watch(network, ids.to(networks.device), network)
        for m in maps:
            networks.check_finite(encoder, m)
    shown = ("start", *tokens[1:-1], "end")
    kept = tuple(m[0, :, : len(shown), : len(shown)].cpu().numpy() for m in maps)
    return TextAttention(text, encoder, shown, kept, unread)


def _check(networks: Networks, encoder: str) -> None:
    there = [n for n in ENCODERS if n == "clip" or type(getattr(networks.sd, n, None)).__name__.startswith("CLIPText")]
    if encoder not in there:
        found = getattr(networks.sd, encoder, None) if encoder.startswith("text_encoder") else None
        kind = "there is no such text encoder" if found is None else f"a {type(found).__name__}, not CLIP's"
        raise ValueError(f"encoder={encoder!r}: {kind}; choose {' or '.join(map(repr, there))}")


def _clip_tokens(tokenizer: Any, text: str) -> tuple[torch.Tensor, tuple[str, ...], str]:
    """open_clip's ids of a text (1, length), the pieces that are read, and the end of the text that is not."""
    inner = getattr(tokenizer, "tokenizer", tokenizer)  # Hugging Face's inside open_clip's, or open_clip's own
    ids = tokenizer([text])
    end = inner.eos_token_id if hasattr(inner, "eos_token_id") else inner.eot_token_id
    read = ids[0].tolist()
    read = read[: read.index(end) + 1]
    cut = cut_text(inner, text) if inner is not tokenizer else inner.decode(inner.encode(text)[len(read) - 2 :])
    return ids, tuple(inner.decode([i]).strip() or "·" for i in read), cut.strip()


def _watch(network: torch.nn.Module, ids: torch.Tensor, run: Callable[[torch.Tensor], Any]) -> list[torch.Tensor]:
    """Probabilities of every self-attention of a text encoder in its order, each (1, heads, tokens, tokens) float32."""
    maps: list[torch.Tensor] = []
    seen: dict[str, torch.Tensor] = {}

    def clip_layer(attention: Any, inputs: Any, output: Any) -> None:  # transformers
        q, k = (rearrange(seen.pop(n).float(), "b t (h d) -> b h t d", h=attention.num_heads) for n in ("q", "k"))
        logits = q @ k.mT * attention.scale
        later = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).triu(1)
        maps.append(logits.masked_fill(later, -torch.inf).softmax(-1))

    def torch_layer(attention: Any, inputs: Any, named: Any, output: Any) -> None:  # open_clip
        # Its forward, not the module: that would call this hook again.
        maps.append(
            attention.forward(*inputs, **named | dict(need_weights=True, average_attn_weights=False))[1].float()
        )

    hooks = []
    for name, module in network.named_modules():
        if name.startswith("visual"):
            continue
        if hasattr(module, "q_proj") and hasattr(module, "k_proj"):
            for part in "qk":
                keep = lambda _, __, out, part=part: seen.__setitem__(part, out)  # noqa: E731
                hooks.append(getattr(module, f"{part}_proj").register_forward_hook(keep))
            hooks.append(module.register_forward_hook(clip_layer))
        elif isinstance(module, torch.nn.MultiheadAttention):
            hooks.append(module.register_forward_hook(torch_layer, with_kwargs=True))
    try:
        run(ids)
    finally:
        for hook in hooks:
            hook.remove()
    return maps
