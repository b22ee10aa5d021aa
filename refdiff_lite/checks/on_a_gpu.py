"""Checks of lesson 9."""

from collections.abc import Callable
from itertools import pairwise

from . import Check


def attention_bytes(side: int, heads: int, factor: int, size: int) -> int:
    """Bytes of one self-attention matrix, all heads, on a grid ``factor`` times coarser than the latents."""
    tokens = (side // 8 // factor) ** 2
    return heads * tokens**2 * size


check_attention_bytes = Check(
    attention_bytes,
    {
        "every pixel looks at every pixel: the number of tokens is squared": lambda side, heads, factor, size: (
            heads * (side // 8 // factor) ** 2 * size
        ),
        "each head has a matrix of its own": lambda side, heads, factor, size: (side // 8 // factor) ** 4 * size,
        "the UNet sees latents, not pixels: a side has an eighth as many": lambda side, heads, factor, size: (
            heads * (side // factor) ** 4 * size
        ),
        "those are numbers, not bytes": lambda side, heads, factor, size: heads * (side // 8 // factor) ** 4,
    },
    "twice the side, sixteen times the bytes: resolution is what costs memory",
    cases=[(512, 8, 1, 2), (1024, 8, 2, 4), (128, 4, 1, 4)],
)

Parts = dict[str, tuple[float, float]]


def peak(parts: Parts, low_memory: bool) -> float:
    """The most that lies on the GPU: all weights and one network's activations, or one network at a time."""
    if low_memory:
        return max(weights + activations for weights, activations in parts.values())
    return sum(weights for weights, _ in parts.values()) + max(activations for _, activations in parts.values())


def _both(parts: Parts) -> tuple[list[float], list[float]]:
    return [w for w, _ in parts.values()], [a for _, a in parts.values()]


def _activations_stay(parts: Parts, low_memory: bool) -> float:
    weights, activations = _both(parts)
    return peak(parts, True) if low_memory else sum(weights) + sum(activations)


def _separate(parts: Parts, low_memory: bool) -> float:
    weights, activations = _both(parts)
    return max(weights) + max(activations) if low_memory else peak(parts, False)


def _weights_stay(parts: Parts, low_memory: bool) -> float:
    return peak(parts, False)


check_peak = Check(
    peak,
    {
        "activations go when a network is done: only the largest counts, not their sum": _activations_stay,
        "the largest weights and the largest activations may be two networks': take the maximum of the sums": _separate,
        "in low-memory mode the other networks' weights are not on the GPU": _weights_stay,
    },
    "right: what is on the GPU at the same time counts, nothing else",
    cases=[
        ({"UNet": (1.6, 0.5), "VAE": (0.2, 1.3), "CLIP": (0.3, 1.7)}, low)
        for low in (False, True)
    ]
    + [({"UNet": (3.0, 0.2), "VAE": (1.0, 2.0)}, low) for low in (False, True)],
)  # fmt: skip


def loads(used: list[str]) -> int:
    """How often a network comes onto the GPU, where only the one in use may stay."""
    return sum(before != after for before, after in pairwise([None, *used]))


check_loads = Check(
    loads,
    {
        "a network comes more than once, if another was used between: count changes, not names": lambda used: len(
            set(used)
        ),
        "a network that is used twice in a row stays": len,
        "the very first one has to come as well": lambda used: loads(used) - 1,
    },
    "each change moves a network over the bus: order the work so that there are few",
    cases=[
        (["vae", "text_encoder", "unet", "clip", "clip"],),
        (["text_encoder", "unet", "text_encoder", "unet"],),
        (["clip", "clip", "unet", "clip"],),
    ],
)


class FakeGpu:
    """A GPU with a clock of its own: ``run`` only queues a second of work, and the first one takes six."""

    def __init__(self) -> None:
        self._now = self._done = 0.0
        self._warm = False

    def run(self) -> None:
        self._done = max(self._now, self._done) + (1.0 if self._warm else 6.0)
        self._warm = True
        self._now += 0.01

    def synchronise(self) -> None:
        self._now = max(self._now, self._done)

    def clock(self) -> float:
        return self._now


def _timer(warm_up: bool = True, wait_before: bool = True, wait_after: bool = True, share: bool = True) -> Callable:
    def seconds(new_gpu: Callable[[], FakeGpu], repeats: int) -> float:
        gpu = new_gpu()
        if warm_up:
            gpu.run()
        if wait_before:
            gpu.synchronise()
        start = gpu.clock()
        for _ in range(repeats):
            gpu.run()
        if wait_after:
            gpu.synchronise()
        return (gpu.clock() - start) / (repeats if share else 1)

    return seconds


check_seconds = Check(
    _timer(),
    {
        "the first pass is slow: run once before the clock starts": _timer(warm_up=False),
        "run only queues the work: synchronise before you read the clock at the end": _timer(wait_after=False),
        "the warm-up is still running when the clock starts: synchronise there too": _timer(wait_before=False),
        "that is all passes together: divide by their number": _timer(share=False),
    },
    "warm up, wait, start the clock, run, wait, stop the clock: one second a pass",
    cases=lambda: [(FakeGpu, 4), (FakeGpu, 10)],
)
