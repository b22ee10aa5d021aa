"""From lesson 1's noise to lesson 3's maps: the UNet runs over the noised image, no further than the maps need.

Sentences go as one batch; the empty prompt of guidance is left out where nothing reads it, and computed once where all
sentences share it; the last pass stops at the last recorded layer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch

from .attention import AttentionMaps, Kind, record_attention, run_for_attention
from .config import RefDiffConfig
from .latents import ddim_step


@torch.no_grad()
def unet_pass(
    unet: Any,
    scheduler: Any,
    noised: list[torch.Tensor],
    timesteps: list[int],
    text: torch.Tensor,
    empty: torch.Tensor | None,
    layers: Mapping[Kind, str],
    config: RefDiffConfig,
) -> list[dict[Kind, AttentionMaps]]:
    """Attention of the chosen layers under each of S prompts, mean over noise draws and denoising steps.

    Args:
        noised: x_t of every draw, each (1, C, h, w). timesteps: descending; one pass for each.
        text: encoded prompts (S, tokens, width). empty: the encoded empty prompt, needed for guidance.
        layers: regular expression of the layers of each kind to record.
        config: guidance, ``attention_guidance`` (maps become ``(given - empty) * guidance + empty``), ``scores``, and
            ``normalise``: "each" keeps every step's maps apart, under ``name t=timestep``.

    Returns:
        for each prompt, the maps of each kind, with a batch of one.
    """
    sums: dict[Kind, dict[str, torch.Tensor]] = {kind: {} for kind in layers}
    added: Counter[str] = Counter()
    for start in noised:
        x = start.expand(len(text), -1, -1, -1)
        for i, t in enumerate(timesteps):
            last = i + 1 == len(timesteps)
            guided = config.guidance != 1 and (config.attention_guidance or not last)
            batch, context, n = x, text, 0
            if guided and empty is not None:
                alone = x[:1] if i == 0 else x  # before the first step the sentences share one image
                n = len(alone)
                batch, context = torch.cat([alone, x]), torch.cat([empty.expand(n, -1, -1), text])
            with ExitStack() as stack:
                records = {
                    kind: stack.enter_context(
                        record_attention(unet, pattern, kind, config.scores if kind == "cross" else "softmax")
                    )
                    for kind, pattern in layers.items()
                }
                if last:
                    run_for_attention(unet, batch, t, context)
                else:
                    noise = unet(batch, t, context).sample
            for kind, record in records.items():
                for name, maps in record.maps.items():
                    given, without = maps[n:], maps[:n]
                    if n and config.attention_guidance and kind == "cross":
                        given = without + config.guidance * (given - without)
                    key = f"{name} t={t}" if config.normalise == "each" else name
                    sums[kind][key] = sums[kind][key] + given if key in sums[kind] else given
                    added[kind + key] += 1
            if not last:
                noise = noise[:n] + config.guidance * (noise[n:] - noise[:n]) if n else noise
                x = ddim_step(scheduler, x, noise, t, timesteps[i + 1])
    calls = len(noised) * len(timesteps)
    means = {kind: {key: m / added[kind + key] for key, m in found.items()} for kind, found in sums.items()}
    return [
        {
            kind: AttentionMaps(
                kind,
                config.scores if kind == "cross" else "softmax",
                {name: m[s : s + 1] for name, m in found.items()},
                calls,
            )
            for kind, found in means.items()
        }
        for s in range(len(text))
    ]
