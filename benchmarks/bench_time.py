"""Seconds on this machine, two things in turn, on networks of real size with random weights."""

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from common import make_clip, make_unet

from refdiff_lite.attend import attend
from refdiff_lite.attention import record_attention
from refdiff_lite.backbones import PRESETS
from refdiff_lite.compat import cross_attention_modules, ddim, self_attention_modules
from refdiff_lite.config import RefDiffConfig
from refdiff_lite.ranking import encode_images, encode_masks


def in_turn(rounds: int, *things: Callable[[], Any]) -> list[float]:
    """Seconds of each thing, the least of some rounds in which they take turns, so that a busy machine is fair."""
    best = [float("inf")] * len(things)
    for _ in range(rounds):
        for i, thing in enumerate(things):
            start = time.perf_counter()
            thing()
            best[i] = min(best[i], time.perf_counter() - start)
    return best


def everything(unet: Any, run: Callable[[], Any]) -> None:
    """The baseline: probabilities of every head of every layer, all kept."""
    kept, handles = [], []

    def hook(module: Any, args: Any, kwargs: Any) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        context = kwargs.get("encoder_hidden_states")
        q, k = module.to_q(hidden), module.to_k(hidden if context is None else context)
        q, k = (x.unflatten(-1, (module.heads, -1)).transpose(1, 2) for x in (q, k))
        kept.append((q @ k.transpose(2, 3) * module.scale).softmax(-1))

    for module in [*cross_attention_modules(unet).values(), *self_attention_modules(unet).values()]:
        handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
    run()
    for handle in handles:
        handle.remove()


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=256, help="side of the image in pixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--masks", type=int, default=64)
    options = parser.parse_args()
    from diffusers import DDIMScheduler

    scheduler = ddim(DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1))
    unet = make_unet("cpu")
    x, text = torch.randn(1, 4, options.side // 8, options.side // 8), torch.randn(2, 77, 768)

    def plain() -> None:
        unet(x, 101, text[:1])

    def captured() -> None:
        with (
            record_attention(unet, r"(blocks\.[12]|mid)"),
            record_attention(unet, r"(down_blocks\.2|up_blocks\.1)", "self"),
        ):
            plain()

    def ours() -> None:
        layers = {"cross": PRESETS["sd15"].layers}
        attend(unet, scheduler, [x], [101], text[:1], None, layers, RefDiffConfig.paper())

    def official() -> None:
        for t in (51, 1):
            unet(x.expand(2, -1, -1, -1), t, text)

    bare, with_capture, all_kept = in_turn(options.rounds, plain, captured, lambda: everything(unet, plain))
    short, long = in_turn(options.rounds, ours, official)
    print(f"| seconds at {options.side} px, best of {options.rounds} | ratio |\n|---|---|")
    print(f"| UNet pass with our capture over a plain pass | {with_capture / bare:.3f} |")
    print(f"| UNet pass with every head of every layer kept over a plain pass | {all_kept / bare:.3f} |")
    print(f"| generative score of one sentence: official order of work over ours | {long / short:.1f} |", flush=True)

    clip, half = make_clip("cpu"), torch.full((3,), 0.5)
    pixels, masks = torch.rand(3, 224, 224), torch.rand(options.masks, 224, 224) > 0.5
    crops, kept = list(torch.rand(options.masks, 3, 224, 224)), 10

    def features(part: slice) -> None:
        encode_images(clip, crops[part], half, half)
        encode_masks(clip, pixels, masks[part], (224, 224), half, half)

    def one_at_a_time() -> None:
        for i in range(options.masks):
            features(slice(i, i + 1))

    singly, batch, few = in_turn(1, one_at_a_time, lambda: features(slice(None)), lambda: features(slice(kept)))
    print(f"| CLIP features of {options.masks} masks: one at a time over ours, all of them | {singly / batch:.1f} |")
    print(f"| the same over ours, the {kept} that the filter keeps | {singly / few:.1f} |")


if __name__ == "__main__":
    main()
