"""The recorder beside a plain pass: CPU seconds in turn, operations and peak memory, at Stable Diffusion 1.5's and FLUX's size.

Operations and memory are counted on the device "meta", for whole models at 1024 pixels; seconds are taken for what a CPU can
compute, the whole UNet at 256 pixels and one double block of FLUX at its true width.
"""

import argparse
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from bench_time import in_turn, row
from common import _fill, flops, make_text_encoder, make_unet, peak_memory
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from refdiff_lite.attention import record_attention
from refdiff_lite.files import data_dir
from refdiff_lite.networks import PRESETS
from refdiff_lite.networks.families import FAMILIES
from refdiff_lite.trace import trace

WORDS = 512
DEFAULT = FAMILIES["FluxTransformer2DModel"].layers


def make_flux(double: int = 19, single: int = 38, device: str = "meta") -> Any:
    """FLUX.1's transformer, 3072 wide, 24 heads; 12 billion parameters at its full depth."""
    from diffusers import FluxTransformer2DModel

    with torch.device("meta"):
        flux = FluxTransformer2DModel(num_layers=double, num_single_layers=single, guidance_embeds=True)
    return _fill(flux, device, torch.float32)


def flux_inputs(side: int, device: str = "meta") -> dict[str, Any]:
    """One picture of this side in pixels, and 512 words. The ids have values on "meta" too: the grid is read from them."""
    n = side // 16
    ids = torch.zeros(n, n, 3)
    ids[..., 1], ids[..., 2] = torch.arange(n)[:, None], torch.arange(n)[None]
    tensors = dict(hidden_states=(1, n * n, 64), encoder_hidden_states=(1, WORDS, 4096), pooled_projections=(1, 768))
    blank = {name: torch.full(shape, 0.1, device=device) for name, shape in tensors.items()}
    return blank | dict(
        timestep=torch.full((1,), 0.5, device=device), guidance=torch.ones(1, device=device),
        img_ids=ids.reshape(-1, 3), txt_ids=torch.zeros(WORDS, 3),
    )  # fmt: skip


class KeepAll(TorchFunctionMode):
    """The baseline: probabilities of every head of every layer and every call, all kept."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[torch.Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            q, k = args[:2] if args else (kwargs["query"], kwargs["key"])
            self.kept.append((q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1))
        return func(*args, **kwargs)


@contextmanager
def nothing() -> Any:
    yield


def passes(
    model: Any, inputs: dict[str, Any], steps: int = 1, around: Callable[[], Any] = nothing
) -> Callable[[], None]:
    def run() -> None:
        with torch.no_grad(), around():
            for _ in range(steps):
                model(**inputs)

    return run


def unet_inputs(side: int, device: str = "meta", rows: int = 1) -> dict[str, Any]:
    x, text = ((rows, 4, side // 8, side // 8), (rows, 77, 768))
    return dict(
        sample=torch.full(x, 0.1, device=device), timestep=1, encoder_hidden_states=torch.full(text, 0.1, device=device)
    )


def counted() -> None:
    print("| counted at 1024 px | operations | peak memory | the same, 4 steps | every head kept: memory | 4 steps |")
    print("|---|---|---|---|---|---|")
    unet, flux = make_unet(), make_flux()
    for name, model, inputs, layers in (
        ("SD 1.5, all 16 layers", unet, unet_inputs(1024), ""),
        ("FLUX.1, blocks 15–18 of 57 (default)", flux, flux_inputs(1024), DEFAULT),
    ):
        recorded = lambda: record_attention(model, layers, max_bytes=2**40)  # noqa: B023, E731
        more = flops(passes(model, inputs, 1, recorded)) / flops(passes(model, inputs))
        plain = peak_memory(passes(model, inputs))
        ours, longer = (peak_memory(passes(model, inputs, n, recorded)) - plain for n in (1, 4))
        every, many = (peak_memory(passes(model, inputs, n, KeepAll)) - plain for n in (1, 4))
        mb = [f"+ {x / 1e6:,.0f} MB" for x in (ours, longer, every, many)]
        print(f"| {name} | {more:.3f} | {' | '.join(mb)} |")


def compare(rounds: int, model: Any, inputs: dict[str, Any], what: str, goal: str) -> None:
    found = in_turn(
        rounds,
        plain=passes(model, inputs),
        ours=passes(model, inputs, 1, lambda: record_attention(model)),
        every=passes(model, inputs, 1, KeepAll),
    )
    row(what, found["ours"], found["plain"], goal)
    row("the same, every head kept", found["every"], found["plain"], "–")


def timed(rounds: int, side: int) -> None:
    print(f"\n| CPU seconds over a plain pass, {rounds} rounds | median (extremes) | goal |\n|---|---|---|")
    torch.manual_seed(0)
    what = f"FLUX, one double block at {side} px, recorded (of 57 the default records 4)"
    compare(rounds, make_flux(1, 0, "cpu"), flux_inputs(side, "cpu"), what, "–")
    compare(rounds, make_unet("cpu"), unet_inputs(256, "cpu"), "SD 1.5 at 256 px, all 16 layers (default)", "≤ 1.10")


def sd15_pipeline() -> Any:
    """Stable Diffusion 1.5's UNet and text encoder with random weights, the toy's tokenizer, no VAE."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(data_dir() / PRESETS["toy"].sd / "tokenizer")
    tokenizer.model_max_length = 77
    scheduler = DDIMScheduler(steps_offset=1, clip_sample=False)
    pipe = StableDiffusionPipeline(
        None,
        make_text_encoder("cpu"),
        tokenizer,
        make_unet("cpu"),
        scheduler,
        None,
        None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def generated(rounds: int) -> None:
    """Whole generations: ours beside a plain one, and beside attention-map-diffusers where that is installed."""
    pipe = sd15_pipeline()

    def paint(steps: int) -> None:
        pipe(
            "a dog left of a cat", num_inference_steps=steps, height=256, width=256, output_type="latent",
            guidance_scale=1.0, generator=torch.Generator().manual_seed(0),
        )  # fmt: skip

    held: dict[str, list[float]] = {}

    def ours(steps: int) -> None:
        with trace(pipe) as record:
            paint(steps)
        held.setdefault("ours", []).append(sum(4 * m.numel() for m in record.maps.values()))

    def peer(steps: int) -> None:
        from attention_map_diffusers.attention_capture import AttentionCapture

        with AttentionCapture(pipe, timesteps="all") as capture:
            paint(steps)
        kept = {id(t): t.nbytes for r in capture.records for t in vars(r).values() if isinstance(t, torch.Tensor)}
        held.setdefault("peer", []).append(sum(kept.values()))
        capture.compute()

    things: dict[str, Any] = {"ours": ours}
    if find_spec("attention_map_diffusers"):
        things["peer"] = peer
    found = in_turn(rounds, plain=lambda: paint(2), **{name: partial(run, 2) for name, run in things.items()})
    print(
        f"\n| a generation of 2 steps at 256 px, CPU seconds over a plain one, {rounds} rounds | median (extremes) | goal |"
    )
    print("|---|---|---|")
    row("trace, maps of all 16 layers", found["ours"], found["plain"], "≤ 1.10")
    if "peer" in things:
        row("attention-map-diffusers, all steps, with its maps", found["peer"], found["plain"], "–")
    print("\n| MB held for the maps | 2 steps | 4 steps |\n|---|---|---|")
    for name, run in things.items():
        run(4)
        print(f"| {name} | {held[name][0] / 1e6:.1f} | {held[name][-1] / 1e6:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", type=int, default=512, help="pixels of FLUX's picture")
    parser.add_argument("what", nargs="*", default=["counted", "timed", "generated"])
    args = parser.parse_args()
    if "counted" in args.what:
        counted()
    if "timed" in args.what:
        timed(args.rounds, args.side)
    if "generated" in args.what:
        generated(args.rounds)


if __name__ == "__main__":
    main()
