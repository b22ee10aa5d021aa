"""Other right answers to lesson 2's exercises, and wrong ones."""

from functools import reduce
from itertools import pairwise


def by_index(move, predict, x, levels):
    for i in range(len(levels) - 1):
        noise = predict(x, levels[i])
        x = move(x, noise, levels[i], levels[i + 1])
    return x


def by_recursion(move, predict, x, levels):
    if len(levels) == 1:
        return x
    a, to, *rest = levels
    return by_recursion(move, predict, move(x, predict(x, a), a, to), [to, *rest])


def by_reduce(move, predict, x, levels):
    return reduce(lambda y, pair: move(y, predict(y, pair[0]), *pair), pairwise(levels), x)


def fixed_by_while(move, predict, x, a, to, repeats):
    noise = predict(x, a)
    while repeats >= 0:
        found = move(x, noise, a, to)
        noise, repeats = predict(found, to), repeats - 1
    return found


def fixed_by_recursion(move, predict, x, a, to, repeats):
    if repeats == 0:
        return move(x, predict(x, a), a, to)
    return move(x, predict(fixed_by_recursion(move, predict, x, a, to, repeats - 1), to), a, to)


def pair_by_index(move, predict, x, y, levels):
    for i in range(1, len(levels)):
        y = move(y, predict(x, levels[i - 1]), levels[i - 1], levels[i])
        x = move(x, predict(y, levels[i]), levels[i - 1], levels[i])
    return [x, y]


def pair_by_recursion(move, predict, x, y, levels):
    if len(levels) < 2:
        return x, y
    y = move(y, predict(x, levels[0]), levels[0], levels[1])
    return pair_by_recursion(move, predict, move(x, predict(y, levels[1]), levels[0], levels[1]), y, levels[1:])


def numpy_too(function):
    return lambda *args: function(*args).numpy()


RIGHT = {
    "guess_worst": ["B)"],
    "check_invert": [by_index, by_recursion, by_reduce, numpy_too(by_index)],
    "check_why": ["(c)", "C", " c. ", "c)"],
    "check_fixed_point": [fixed_by_while, fixed_by_recursion, numpy_too(fixed_by_while)],
    "check_way_back": [
        lambda move, predict, x, levels: by_index(move, predict, x, levels[::-1]),
        lambda move, predict, x, levels: by_recursion(move, predict, x, list(reversed(levels))),
        lambda move, predict, x, levels: by_reduce(move, predict, x, sorted(levels)).numpy(),
    ],
    "check_unpaint_pair": [
        pair_by_index,
        pair_by_recursion,
        lambda *args: tuple(t.numpy() for t in pair_by_index(*args)),
    ],
}
WRONG = {
    "check_invert": [
        lambda move, predict, x, levels: move(x, predict(x, levels[0]), levels[0], levels[-1]),
        lambda move, predict, x, levels: [by_index(move, predict, x, levels[: i + 1]) for i in range(len(levels))],
        lambda move, predict, x, levels: reduce(
            lambda y, pair: move(y, predict(y, pair[1]), *pair), pairwise(levels), x
        ),
    ],
    "check_why": ["b", "cd", 3],
    "check_fixed_point": [
        lambda move, predict, x, a, to, repeats: fixed_by_recursion(move, predict, x, a, to, repeats + 1),
        lambda move, predict, x, a, to, repeats: fixed_by_recursion(
            move, predict, x, a, to, repeats - 1 if repeats else 0
        ),
        lambda move, predict, x, a, to, repeats: predict(fixed_by_while(move, predict, x, a, to, repeats), to),
    ],
    "check_way_back": [
        lambda move, predict, x, levels: x,
        lambda move, predict, x, levels: move(x, predict(x, levels[-1]), levels[-1], levels[0]),
    ],
    "check_unpaint_pair": [
        lambda *args: pair_by_index(*args)[::-1],
        lambda move, predict, x, y, levels: (by_index(move, predict, x, levels), by_index(move, predict, y, levels)),
        lambda *args: pair_by_index(*args)[0],
    ],
}
