"""Checks of lesson 9."""

from collections.abc import Callable

import torch

from . import Check, Guess

guess_sum = Guess("the sum of ten thousand ones in half precision")


def _logits() -> list[tuple]:
    """Logits of several lengths: harmless, too large for exp, and so negative that every exp is 0."""
    rows = ([1.0, 0.5, -1.0], [12.0, 11.0, 3.0, 0.0], [60000.0, 59968.0], [-30.0, -31.0, -29.0, -33.0, -30.5])
    return [(torch.tensor(row, dtype=torch.float16),) for row in rows]


def _shares(logits: torch.Tensor) -> torch.Tensor:
    shifted = (logits - logits.max()).exp()
    return shifted / shifted.sum()


check_softmax = Check(
    _shares,
    {
        "the logits are clipped: two that both were larger than the limit come out alike; shift instead": (
            lambda logits: _shares(logits.clamp(-10, 10))
        ),
        "divided by the maximum, the logits keep no distance; subtract it": (
            lambda logits: _shares(logits / logits.abs().max())
        ),
        "the exponentials must be divided by their sum": lambda logits: (logits - logits.max()).exp(),
    },
    "the largest exponential is exp(0) = 1: nothing overflows, and what underflows has no share worth keeping",
    cases=_logits,
    tolerance=1e-2,
)


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
    cases=[(512, 8, 1, 2), (1024, 5, 2, 4), (384, 3, 4, 1)],
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


def plan(free: float, parts: Parts, sentences: int, fixed: str = "") -> tuple[str, int]:
    """The mode and the largest batch that fit; ``fixed`` is for mistakes, it names what is forgotten."""

    def most(mode: str, batch: int) -> float:
        grown = {n: (w, a * (batch if n == "UNet" or fixed == "all grow" else 1)) for n, (w, a) in parts.items()}
        if fixed == "UNet alone":
            grown = {"UNet": grown["UNet"]}
        weights = sum(w for w, _ in (parts if fixed == "UNet alone" else grown).values())
        return weights + max(a for _, a in grown.values()) if mode == "all" else peak(grown, True)

    for mode in ("low", "all") if fixed == "low first" else ("all", "low"):
        batches = [b for b in range(1, (10_000 if fixed == "no limit" else sentences) + 1) if most(mode, b) <= free]
        if batches:
            return mode, max(batches)
    return "none", 0


def _plans() -> list[tuple]:
    small = {"UNet": (16.0, 5.0), "VAE": (2.0, 13.0), "CLIP": (3.0, 7.0)}
    large = {"VAE": (1.0, 9.0), "UNet": (8.0, 2.0), "SAM": (12.0, 3.0), "CLIP": (4.0, 4.0)}
    return [(free, small, 4) for free in (12, 20, 22, 30, 34, 38, 90)] + [
        (free, large, 7) for free in (13, 15, 17, 26, 40)
    ]


check_plan = Check(
    plan,
    {
        "only the UNet's moment was looked at: a crop or a mask needs its memory, too": (
            lambda free, parts, sentences: plan(free, parts, sentences, "UNet alone")
        ),
        "only the UNet's activations grow with the batch": lambda free, parts, sentences: plan(
            free, parts, sentences, "all grow"
        ),
        "all weights stay on the GPU wherever that leaves room for one sentence: low-memory mode comes second": (
            lambda free, parts, sentences: plan(free, parts, sentences, "low first")
        ),
        "a batch larger than the number of sentences is of no use": lambda free, parts, sentences: plan(
            free, parts, sentences, "no limit"
        ),
    },
    "known before a GPU is rented: the mode, and how many sentences share a pass",
    cases=_plans,
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
