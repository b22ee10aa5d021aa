"""Other right answers to lesson 3's exercises, and wrong ones."""

import numpy as np
import torch
from torch.nn.functional import interpolate, scaled_dot_product_attention


def by_powers(q, k):
    logits = torch.einsum("nd,md->nm", q, k) / np.sqrt(q.shape[-1])
    powers = (logits - logits.amax(1, keepdim=True)).exp()
    return powers / powers.sum(1, keepdim=True)


def token_by_words(text, word, offsets):
    at = 0
    for each in text.split():
        start, at = text.index(each, at), text.index(each, at) + len(each)
        if each == word:
            break
    return [i for i, (a, b) in enumerate(offsets) if b > a and start <= a and b <= at][-1]


def token_from_behind(text, word, offsets):
    padded = f" {text} ".index(f" {word} ")
    end = padded + len(word)
    return len(offsets) - 1 - next(i for i, (a, b) in enumerate(offsets[::-1]) if a < b <= end)


def map_by_sum(layers, size):
    total = sum(interpolate(m[None, None], size, mode="bilinear", align_corners=False)[0, 0] for m in layers)
    return (total - total.min()) / (total.max() - total.min())


def column_by_logs(q, keys, token):
    total, wanted = torch.full((len(q),), -torch.inf, dtype=torch.float64), None
    for i, key in enumerate(keys):
        logit = (q.double() @ key.double()) / q.shape[1] ** 0.5
        total = torch.logaddexp(total, logit)
        wanted = logit if i == token else wanted
    return (wanted - total).exp()


def column_in_blocks(q, keys, token):
    seen = [q.numpy() @ key.numpy() / np.sqrt(q.shape[1]) for key in keys]
    top = np.max(seen, 0)
    return np.exp(seen[token] - top) / sum(np.exp(s - top) for s in seen)


RIGHT = {
    "guess_which": ["(c)"],
    "check_attention": [
        by_powers,
        lambda q, k: scaled_dot_product_attention(q, k, torch.eye(len(k))),
        lambda q, k: by_powers(q, k).numpy(),
    ],
    "check_position": [np.int64(3), torch.tensor(3), 3.0],
    "check_token": [token_by_words, token_from_behind, lambda *args: torch.tensor(token_by_words(*args))],
    "check_word_map": [map_by_sum, lambda *args: map_by_sum(*args).numpy(), lambda *args: map_by_sum(*args).double()],
    "check_column": [column_by_logs, column_in_blocks, lambda *args: column_by_logs(*args).tolist()],
}
WRONG = {
    "check_attention": [lambda q, k: by_powers(q, k).T, lambda q, k: by_powers(2 * q, k), lambda q, k: q @ k.T],
    "check_position": [1, "dog", 3.5, [3, 4]],
    "check_token": [
        lambda text, word, offsets: token_by_words(text, word, offsets) - 1,
        lambda text, word, offsets: text.split().index(word),
        lambda text, word, offsets: len(offsets) - 2,
    ],
    "check_word_map": [
        lambda layers, size: map_by_sum(layers[-1:], size),
        lambda layers, size: map_by_sum(layers, size) / 2,
    ],
    "check_column": [
        lambda q, keys, token: by_powers(q, torch.stack(list(keys)))[0],
        lambda q, keys, token: by_powers(q, torch.stack(list(keys))).sum(1),
        lambda q, keys, token: (q @ torch.stack(list(keys)).T)[:, token],
    ],
}
