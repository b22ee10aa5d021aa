"""CPU seconds of two things in turn, on networks of real size with random weights: ratios, and their spread.

CPU seconds, and things that take turns, so that a busy machine disturbs both sides little and alike. Each round gives
one ratio; told are the median and the extremes.

``python benchmarks/bench_time.py capture`` (score, clip, sentences) runs one part.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from common import make_clip, make_unet, make_vae
from tqdm import tqdm

from refdiff_lite.attention import record_attention
from refdiff_lite.config import RefDiffConfig
from refdiff_lite.networks import PRESETS
from refdiff_lite.networks.clip import encode_images, encode_masks
from refdiff_lite.networks.compat import cross_attention_modules, ddim, self_attention_modules
from refdiff_lite.unet_pass import unet_pass

MASKS, KEPT, SENTENCES = 64, 10, 8


def in_turn(rounds: int, **things: Callable[[], Any]) -> dict[str, list[float]]:
    """CPU seconds of each thing in each round; a round before them warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in things}
    with tqdm(total=(rounds + 1) * len(things), leave=False) as bar:
        for number in range(rounds + 1):
            for name, thing in things.items():
                bar.set_description(name)
                start = time.process_time()
                thing()
                if number:
                    seconds[name].append(time.process_time() - start)
                bar.update()
    return seconds


def row(what: str, above: list[float], below: list[float], goal: str) -> None:
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    least, middle, most = (f"{x:.2f}" for x in (min(ratios), statistics.median(ratios), max(ratios)))
    tqdm.write(f"| {what} | {middle} ({least}–{most}) | {goal} |")


def keep_everything(unet: Any, run: Callable[[], Any]) -> None:
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


class Bench:
    """The parts; networks are made when a part first needs them."""

    def __init__(self, side: int, rounds: int) -> None:
        self.side, self.rounds = side, rounds
        self.x, self.text = torch.randn(1, 4, side // 8, side // 8), torch.randn(SENTENCES, 77, 768)

    @cached_property
    def unet(self) -> Any:
        return make_unet("cpu")

    @cached_property
    def clip_model(self) -> Any:
        return make_clip("cpu")

    def official(self) -> None:
        for t in (51, 1):
            self.unet(self.x.expand(2, -1, -1, -1), t, self.text[:2])

    def ours(self, sentences: int) -> None:
        from diffusers import DDIMScheduler

        scheduler = ddim(DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"))
        layers = {"cross": PRESETS["sd15"].layers}
        unet_pass(self.unet, scheduler, [self.x], [101], self.text[:sentences], None, layers, RefDiffConfig.paper())

    def features(self, masks: int) -> None:
        """Both branches of CLIP for so many masks."""
        half, pixels = torch.full((3,), 0.5), torch.zeros(3, 224, 224)
        encode_images(self.clip_model, [pixels] * masks, half, half)
        encode_masks(self.clip_model, pixels, torch.ones(masks, 224, 224, dtype=torch.bool), (224, 224), half, half)

    def capture(self) -> None:
        def plain() -> None:
            self.unet(self.x, 101, self.text[:1])

        def captured() -> None:
            with (
                record_attention(self.unet, r"(blocks\.[12]|mid)"),
                record_attention(self.unet, r"(down_blocks\.2|up_blocks\.1)", "self"),
            ):
                plain()

        s = in_turn(self.rounds, plain=plain, ours=captured, everything=lambda: keep_everything(self.unet, plain))
        extra = [[t - p for t, p in zip(s[name], s["plain"], strict=True)] for name in ("everything", "ours")]
        row("UNet pass with our capture, over a plain pass", s["ours"], s["plain"], "≤ 1.05")
        row("UNet pass with every head of every layer kept, over a plain pass", s["everything"], s["plain"], "–")
        middle = [statistics.median(e) for e in extra]
        tqdm.write(f"| extra time of the second over the first, medians: {middle[0]:.2f} s, {middle[1]:.2f} s | "
                   f"{middle[0] / middle[1]:.1f} | ≥ 3 |")  # fmt: skip

    def score(self) -> None:
        s = in_turn(self.rounds, official=self.official, ours=lambda: self.ours(1))
        row("generative score of one sentence: official order of work over ours", s["official"], s["ours"], "≥ 6")

    def clip(self) -> None:
        s = in_turn(self.rounds, single=lambda: self.features(1), kept=lambda: self.features(KEPT))
        for masks, which, goal in ((MASKS, "kept", "≥ 4"), (KEPT, "same", "–")):
            singly = [masks * t for t in s["single"]]
            row(f"CLIP features: {masks} masks one at a time over ours, the {which} {KEPT}", singly, s["kept"], goal)

    def sentences(self) -> None:
        vae, image = make_vae("cpu"), torch.zeros(1, 3, self.side, self.side)
        s = in_turn(
            1,
            encode=lambda: vae.encode(image), official=self.official, single=lambda: self.features(1),
            ours=lambda: self.ours(SENTENCES), kept=lambda: self.features(KEPT),
        )  # fmt: skip
        (encode,), (official,), (single,), (ours,), (kept,) = s.values()
        again = SENTENCES * (encode + official + MASKS * single)
        row(f"{SENTENCES} sentences: all anew for each over ours", [again], [encode + ours + kept], "≥ 8")


PARTS = ("capture", "score", "clip", "sentences")


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all if none is named")
    parser.add_argument("--side", type=int, default=256, help="side of the image in pixels")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no part {', '.join(unknown)}: choose of {', '.join(PARTS)}")
    torch.manual_seed(0)
    bench = Bench(options.side, options.rounds)
    print(
        f"| CPU seconds at {options.side} px, {options.rounds} rounds | ratio (least–most) | goal |\n|---|---|---|",
        flush=True,
    )
    for part in options.parts or PARTS:
        getattr(bench, part)()


if __name__ == "__main__":
    main()
