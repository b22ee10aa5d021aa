"""Other answers to the exercises of lesson 9."""

import numpy as np
import torch


def softmax_torch(logits):
    return torch.softmax(logits, 0)


def softmax_log(logits):
    return (logits - logits.logsumexp(0)).exp()


def softmax_numpy(logits):
    shifted = logits.numpy() - logits.numpy().max()
    return np.exp(shifted) / np.exp(shifted).sum()


def softmax_books(logits):
    return logits.exp() / logits.exp().sum()


def softmax_mean(logits):
    """Shifted by the mean: overflows where one is far above the rest, and is right elsewhere."""
    shifted = (logits - logits.float().mean().half() - 5).exp()
    return shifted / (shifted.sum() + 1e-3)


def bytes_power(side, heads, factor, size):
    return heads * size * (side / (8 * factor)) ** 4


def bytes_tensor(side, heads, factor, size):
    grid = torch.empty(side // 8 // factor, side // 8 // factor, device="meta")
    return torch.tensor(heads * grid.numel() ** 2 * size)


def bytes_numpy(side, heads, factor, size):
    return np.prod([side // 8 // factor] * 4, dtype=np.int64) * heads * size


def peak_loop(parts, low_memory):
    together, worst = sum(w for w, _ in parts.values()), 0
    for weights, activations in parts.values():
        worst = max(worst, (weights if low_memory else together) + activations)
    return worst


def peak_numpy(parts, low_memory):
    w, a = np.array(list(parts.values())).T
    return (w + a).max() if low_memory else w.sum() + a.max()


def peak_tensor(parts, low_memory):
    w, a = torch.tensor(list(parts.values()), dtype=torch.float64).unbind(1)
    return (w + a).amax() if low_memory else w.sum() + a.amax()


def plan_algebra(free, parts, sentences):
    """Without trying a batch: divide what is left by the activations of a sentence."""
    total = sum(w for w, _ in parts.values())
    weights, each = parts["UNet"]
    rest = [pair for name, pair in parts.items() if name != "UNet"]
    for mode, held in (("all", None), ("low", 0)):
        base = total if held is None else weights
        if all((total if held is None else w) + a <= free for w, a in rest) and free >= base + each:
            return mode, min(sentences, int((free - base) // each))
    return "none", 0


def plan_list(free, parts, sentences):
    return list(plan_algebra(free, parts, sentences))


def plan_numpy(free, parts, sentences):
    mode, batch = plan_algebra(free, parts, sentences)
    return np.str_(mode.upper()), np.int64(batch)


def plan_one(free, parts, sentences):
    mode, batch = plan_algebra(free, parts, sentences)
    return mode, min(batch, 1)


def timer(new_gpu, repeats):
    gpu = new_gpu()
    gpu.run()
    gpu.synchronise()
    start = gpu.clock()
    for _ in range(repeats):
        gpu.run()
    gpu.synchronise()
    return np.float64(gpu.clock() - start) / repeats


def timer_each(new_gpu, repeats):
    """Waits after every pass, and takes the mean."""
    gpu, times = new_gpu(), []
    for _ in range(repeats + 1):
        gpu.synchronise()
        start = gpu.clock()
        gpu.run()
        gpu.synchronise()
        times.append(gpu.clock() - start)
    return np.mean(times[1:])


def timer_median(new_gpu, repeats):
    gpu, times = new_gpu(), []
    for _ in range(repeats + 1):
        start = gpu.clock()
        gpu.run()
        gpu.synchronise()
        times.append(gpu.clock() - start)
    return torch.tensor(times[1:], dtype=torch.float64).median()


def timer_on_two(new_gpu, repeats):
    """Warms up another GPU than the one that is timed."""
    new_gpu().run()
    gpu = new_gpu()
    start = gpu.clock()
    for _ in range(repeats):
        gpu.run()
    gpu.synchronise()
    return (gpu.clock() - start) / repeats


RIGHT = {
    "guess_sum": [2048],
    "check_softmax": [softmax_torch, softmax_log, softmax_numpy],
    "check_attention_bytes": [bytes_power, bytes_tensor, bytes_numpy],
    "check_peak": [peak_loop, peak_numpy, peak_tensor],
    "check_plan": [plan_algebra, plan_list, plan_numpy],
    "check_seconds": [timer, timer_each, timer_median],
}
WRONG = {
    "check_softmax": [softmax_books, softmax_mean],
    "check_attention_bytes": [lambda side, heads, factor, size: 0],
    "check_peak": [lambda parts, low_memory: sum(map(sum, parts.values()))],
    "check_plan": [plan_one, lambda free, parts, sentences: ("none", 0)],
    "check_seconds": [timer_on_two],
}
