"""Other answers to the exercises of lesson 8."""

import functools
import re

import numpy as np
import torch


def interval_weights(a, b, images, draws):
    """Each image's sum and count, weighted by how often it was drawn."""
    ids = np.unique(images)
    sums = np.array([(b - a)[images == i].sum() for i in ids])
    sizes = np.array([(images == i).sum() for i in ids])
    times = (np.asarray(draws)[:, :, None] == ids).sum(1)
    return np.percentile((times @ sums) / (times @ sizes), [2.5, 97.5])


def interval_lists(a, b, images, draws):
    by_image = {}
    for x, y, i in zip(a, b, images, strict=True):
        by_image.setdefault(int(i), []).append(y - x)
    means = []
    for line in draws:
        drawn = [x for i in line for x in by_image[int(i)]]
        means.append(sum(drawn) / len(drawn))
    return [np.quantile(means, 0.025), np.quantile(means, 0.975)]


def interval_torch(a, b, images, draws):
    a, b, images = (torch.as_tensor(x) for x in (a, b, images))
    means = torch.stack([torch.cat([(b - a)[images == i] for i in line]).mean() for line in torch.as_tensor(draws)])
    return tuple(means.quantile(torch.tensor([0.025, 0.975], dtype=means.dtype)))


def interval_by_sentence(a, b, images, draws):
    rng = np.random.default_rng(0)
    means = [(b - a)[rng.integers(0, len(a), len(a))].mean() for _ in range(len(draws))]
    return np.percentile(means, (2.5, 97.5))


def interval_normal(a, b, images, draws):
    change = b - a
    half = 1.96 * change.std() / len(change) ** 0.5
    return change.mean() - half, change.mean() + half


def cache_library(requests, answer):
    remembered = functools.cache(answer)
    return [remembered(*request) for request in requests]


def cache_first(requests, answer):
    """All different requests first, in any order."""
    known = {request: answer(*request) for request in set(requests)}
    return tuple(known[request] for request in requests)


def cache_nested(requests, answer):
    cache, answers = {}, []
    for ref, sentence in requests:
        sentences = cache.setdefault(ref, {})
        if sentence not in sentences:
            sentences[sentence] = answer(ref, sentence)
        answers.append(sentences[sentence])
    return np.array(answers)


def cache_none(requests, answer):
    return [answer(*request) for request in requests]


def cache_setdefault(requests, answer):
    cache = {}
    return [cache.setdefault(request, answer(*request)) for request in requests]


def kept_indices(scores, keep):
    where = np.flatnonzero(keep)
    return where[scores[where].argmax()]


def kept_masked(scores, keep):
    return torch.tensor(scores).masked_fill(~torch.tensor(keep), -torch.inf).argmax()


def kept_max(scores, keep):
    return max((i for i in range(len(scores)) if keep[i]), key=lambda i: scores[i])


def kept_minimum(scores, keep):
    """The lowest score minus 1: low enough, for any scores."""
    return int(np.where(keep, scores, scores.min() - 1e12).argmax())


def cue_pattern(sentence):
    found = re.search(r"\b(left|right)\b(?! of\b)", sentence)
    return found[1] if found else "none"


def cue_index(sentence):
    words = sentence.split()
    for i, word in enumerate(words):
        if word in {"left", "right"} and words[i + 1 : i + 2] != ["of"]:
            return np.str_(word)
    return "none"


def cue_padded(sentence):
    """Places of ' left ' and ' right ' in the padded sentence, relations blanked out."""
    padded = f" {sentence} ".replace(" left of ", " - ").replace(" right of ", " - ")
    at = {side: padded.find(f" {side} ") for side in ("left", "right")}
    at = {side: place for side, place in at.items() if place >= 0}
    return min(at, key=at.get) if at else "none"


def cue_of_anywhere(sentence):
    """Any 'of' in the sentence silences it."""
    words = sentence.split()
    return "none" if "of" in words else next((w for w in words if w in ("left", "right")), "none")


RIGHT = {
    "guess_ahead": ["(C)"],
    "check_paired_interval": [interval_weights, interval_lists, interval_torch],
    "check_cache": [cache_library, cache_first, cache_nested],
    "check_best_kept": [kept_indices, kept_masked, kept_max, kept_minimum],
    "check_cue": [cue_pattern, cue_index, cue_padded],
}
WRONG = {
    "check_paired_interval": [interval_by_sentence, interval_normal],
    "check_cache": [cache_none, cache_setdefault],
    "check_best_kept": [lambda scores, keep: int(np.where(keep, scores, -1e9).argmax()), lambda scores, keep: 0],
    "check_cue": [cue_of_anywhere, lambda sentence: "left"],
}
