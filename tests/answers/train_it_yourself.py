"""Other answers to the exercises of lesson 10."""

import numpy as np
import torch


def average_recursive(start, values, ema):
    if not len(values):
        return np.float64(start)
    step = len(values) - 1
    keep = min(ema, (1 + step) / (10 + step))
    return keep * average_recursive(start, values[:-1], ema) + (1 - keep) * values[-1]


def average_weights(start, values, ema):
    """As one weighted sum over all values."""
    keep = np.minimum(ema, (1 + np.arange(len(values))) / (10 + np.arange(len(values))))
    after = np.append(np.cumprod(keep[::-1])[::-1], 1.0)  # what is kept of each value to the end
    return after[0] * start + float(((1 - keep) * after[1:]) @ np.array(values))


def average_lerp(start, values, ema):
    mean = torch.tensor(start, dtype=torch.float64)
    for step, value in enumerate(values):
        mean = torch.lerp(torch.tensor(value, dtype=torch.float64), mean, min(ema, (1 + step) / (10 + step)))
    return mean


def average_max(start, values, ema):
    for step, value in enumerate(values):
        keep = max(ema, (1 + step) / (10 + step))
        start = keep * start + (1 - keep) * value
    return start


def loss_loop(logits, texts):
    total = 0.0
    for table in (logits, logits.T):
        shares = table.log_softmax(1)
        for i, row in enumerate(shares):
            equal = [j for j in range(len(texts)) if texts[j] == texts[i]]
            total -= float(row[equal].mean())
    return total / (2 * len(texts))


def loss_numpy(logits, texts):
    x, texts = logits.double().numpy(), np.array(texts)
    same = (texts[:, None] == texts).astype(float)
    target = same / same.sum(1, keepdims=True)
    rows, columns = (m - np.log(np.exp(m).sum(1, keepdims=True)) for m in (x, x.T))
    return -((target * rows).sum() + (target * columns).sum()) / (2 * len(x))


def loss_softmax(logits, texts):
    same = torch.tensor([[s == t for t in texts] for s in texts]).double()
    target = same.div(same.sum(0))
    terms = [-(target.T * table.double().softmax(1).log()).sum(1) for table in (logits, logits.T)]
    return torch.cat(terms).mean()


def loss_any_equal(logits, texts):
    """Any equal caption will do: the shares of all of them are added up first."""
    same = torch.tensor([[s == t for t in texts] for s in texts])
    return sum(-(table.softmax(1) * same).sum(1).log().mean() for table in (logits, logits.T)) / 2


def gain_sums(right, wrong):
    return (wrong.sum() - right.sum()) / wrong.sum()


def gain_numpy(right, wrong):
    return 1 - np.mean(right.numpy()) / np.mean(wrong.numpy())


def gain_weighted(right, wrong):
    """A mean of ratios is right, too, if each is weighed by its denominator."""
    return float(((1 - right / wrong) * wrong).sum() / wrong.sum())


RIGHT = {
    "check_sees": ["(B)", "b)", np.str_("b")],
    "check_average": [average_recursive, average_weights, average_lerp],
    "check_contrastive": [loss_loop, loss_numpy, loss_softmax],
    "guess_accuracy": [70],
    "check_gain": [gain_sums, gain_numpy, gain_weighted],
}
WRONG = {
    "check_sees": ["bc"],
    "check_average": [average_max],
    "check_contrastive": [loss_any_equal],
    "check_gain": [lambda right, wrong: float(1 - right.median() / wrong.median())],
}
