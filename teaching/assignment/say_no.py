# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---
# %% [raw]
# # ASSIGNMENT CONFIG
# name: say_no
# init_cell: false
# export_cell: false
# tests:
#   ok_format: false

# %% [markdown]
# # Assignment: when should Ref-Diff say no?
#
# Ref-Diff always returns a mask, even for "the elephant" in a picture without one. You will find out how well its own numbers
# tell when a thing is missing. 20 points; about three hours. Everything runs on a laptop.
#
# Rules: fill in the four functions and write the answer at the end. You may add functions of your own; change nothing else. Do
# not look at test data before question 4. Wherever a question speaks of a list of numbers, it may also be a NumPy array. You are
# graded by hidden tests, which call your functions with other values than the examples do. Hand in this notebook.

# %%
import numpy as np

from refdiff_lite import RefDiff
from refdiff_lite.datasets.toyref import load_toyref

model = RefDiff.from_preset("toy")

# %% [raw]
# # BEGIN QUESTION
# name: q1
# points: 4

# %% [markdown]
# ## Question 1 · A margin (4 points)
#
# Each proposal has a score. By how much does the best score lead the second best? If two proposals share the best score, the lead
# is 0. With a single proposal the lead is the score itself, and with no proposal it is 0. Scores can be negative.
#
# Example: `margin([0.1, 0.6, 0.3])` is 0.3, up to rounding.

# %% [raw]
# # BEGIN SOLUTION


# %%
def margin(scores):
    """scores: list of N numbers, N may be 0. Returns a number."""
    # BEGIN SOLUTION
    ordered = np.sort(np.asarray(scores, float))[::-1]
    if len(ordered) == 0:
        return 0.0
    return float(ordered[0] - (ordered[1] if len(ordered) > 1 else 0.0))
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS

# %%
"""  # BEGIN TEST CONFIG
hidden: true
points: 1
"""  # END TEST CONFIG


def test_the_lead_of_the_best(margin):
    assert round(float(margin([0.2, 0.9, 0.5])), 6) == 0.4


# %%
"""  # BEGIN TEST CONFIG
hidden: true
points: 1
"""  # END TEST CONFIG


def test_negative_scores(margin):
    import numpy as np

    assert round(float(margin(np.array([-0.3, -0.1]))), 6) == 0.2


# %%
"""  # BEGIN TEST CONFIG
hidden: true
points: 1
"""  # END TEST CONFIG


def test_one_proposal_and_none(margin):
    assert [round(float(margin(x)), 6) for x in ([0.7], [])] == [0.7, 0.0]


# %%
"""  # BEGIN TEST CONFIG
hidden: true
points: 1
"""  # END TEST CONFIG


def test_two_that_are_equal(margin):
    assert round(float(margin([0.5, 0.5, 0.1])), 6) == 0.0


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION


# %% [raw]
# # BEGIN QUESTION
# name: q2
# points: 5

# %% [markdown]
# ## Question 2 · Sentences about what is not there (5 points)
#
# `scenes` is a list with one set of nouns for each picture: the things in it. For each picture find nouns that are absent. Collect
# the nouns that occur in some other picture but not in this one, sort them alphabetically, and keep the first `each`. If there are
# fewer, keep them all; there may be none.
#
# Return one list for each picture, in the order of the pictures. Without pictures, return an empty list. Leave `scenes` unchanged.
#
# Example: `absent_nouns([{"pen"}, {"pen", "key", "box"}])` is `[["box", "key"], []]`.

# %% [raw]
# # BEGIN SOLUTION


# %%
def absent_nouns(scenes, each=2):
    """scenes: list of sets of nouns; each: how many to keep. Returns a list of lists of nouns."""
    # BEGIN SOLUTION
    every = sorted(set().union(*scenes)) if scenes else []
    return [[noun for noun in every if noun not in here][:each] for here in scenes]
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS

# %%
"""  # BEGIN TEST CONFIG
hidden: true
points: 1
"""  # END TEST CONFIG


def test_nouns_of_other_pictures(absent_nouns):
    found = absent_nouns([{"cat", "dog"}, {"cup"}, {"dog", "owl"}])
    assert found == [["cup", "owl"], ["cat", "dog"], ["cat", "cup"]]


# %%
"""  # BEGIN TEST CONFIG
hidden: true
points: 1
"""  # END TEST CONFIG


def test_fewer_than_asked_for(absent_nouns):
    assert absent_nouns([{"a"}, {"a", "b", "c"}, {"c"}], each=5) == [["b", "c"], [], ["a", "b"]]


# %%
"""  # BEGIN TEST CONFIG
hidden: true
points: 1
"""  # END TEST CONFIG


def test_a_single_picture(absent_nouns):
    assert absent_nouns([{"x", "y"}]) == [[]]


# %%
"""  # BEGIN TEST CONFIG
hidden: true
points: 1
"""  # END TEST CONFIG


def test_the_scenes_stay_as_they_are(absent_nouns):
    scenes = [{"b", "c"}, {"a"}, {"d"}]
    assert absent_nouns(scenes, each=1) == [["a"], ["b"], ["a"]]
    assert scenes == [{"b", "c"}, {"a"}, {"d"}]


# %%
"""  # BEGIN TEST CONFIG
hidden: true
points: 1
"""  # END TEST CONFIG


def test_no_picture(absent_nouns):
    assert absent_nouns([]) == []


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION


# %% [raw]
# # BEGIN QUESTION
# name: q3
# points: 6

# %% [markdown]
# ## Question 3 · A threshold (6 points)
#
# You are given a number for each of some things that are in a picture, and for each of some that are not. The rule is: say "there"
# if the number is at least the threshold, and "absent" if it is below. Find the threshold with the greatest **balanced accuracy**.
# That is the mean of two shares: the share of right answers among the things that are there, and the share among those that are
# absent.
#
# Try every given number, of either list, as the threshold. If several are equally good, return the smallest. Neither list is empty.
#
# Example: `best_threshold([5, 8], [1, 6])` is `(5, 0.75)`. At 5, both things that are there are found, and one of the two absent
# things is refused. The threshold 8 is as good, but larger.

# %% [raw]
# # BEGIN SOLUTION


# %%
def best_threshold(there, absent):
    """there, absent: lists of numbers, not empty. Returns (threshold, balanced accuracy), two numbers."""
    # BEGIN SOLUTION
    found = []
    for t in sorted({*map(float, there), *map(float, absent)}):
        right = (np.mean(np.asarray(there) >= t) + np.mean(np.asarray(absent) < t)) / 2
        found.append((float(right), -t))
    right, t = max(found)
    return -t, right
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS

# %%
"""  # BEGIN TEST CONFIG
hidden: true
points: 1.2
"""  # END TEST CONFIG


def test_two_that_can_be_told_apart(best_threshold):
    assert tuple(map(float, best_threshold([3, 4, 5], [0, 1, 2]))) == (3.0, 1.0)


# %%
"""  # BEGIN TEST CONFIG
hidden: true
points: 1.2
"""  # END TEST CONFIG


def test_two_that_overlap(best_threshold):
    assert tuple(map(float, best_threshold([1, 3], [2, 0]))) == (1.0, 0.75)


# %%
"""  # BEGIN TEST CONFIG
hidden: true
points: 1.2
"""  # END TEST CONFIG


def test_many_there_and_one_absent(best_threshold):
    t, a = best_threshold([0.9] * 9 + [0.1], [0.5])
    assert (round(float(t), 6), round(float(a), 6)) == (0.9, 0.95)


# %%
"""  # BEGIN TEST CONFIG
hidden: true
points: 1.2
"""  # END TEST CONFIG


def test_nothing_can_be_told(best_threshold):
    assert tuple(map(float, best_threshold([2, 2], [2, 2]))) == (2.0, 0.5)


# %%
"""  # BEGIN TEST CONFIG
hidden: true
points: 1.2
"""  # END TEST CONFIG


def test_arrays(best_threshold):
    import numpy as np

    assert tuple(map(float, best_threshold(np.array([0.25, 0.75]), np.array([0.5])))) == (0.75, 0.75)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION


# %% [raw]
# # BEGIN QUESTION
# name: q4
# points: 5

# %% [markdown]
# ## Question 4 · Measure it (5 points)
#
# Which number tells better whether a thing is there: your `margin`, or simply the largest score (Python's `max`)?
#
# Two functions are given. `collect(split, limit, number)` takes the first `limit` pictures of a split and asks each for up to two
# nouns that are there and two that are absent, by your `absent_nouns`. The proposals are the true masks, and CLIP alone scores
# them ($S_D$). `number` is a function that turns the scores of one noun, an array, into one number. `collect` returns two lists:
# the numbers for what is there and those for what is absent. `balanced_accuracy(there, absent, threshold)` rates a threshold.
#
# Write `say_no(limit)`. For each of the two numbers, choose the threshold on val with your `best_threshold`, and compute the
# balanced accuracy of this threshold **on test**. Take `limit` pictures of either split. Return a dictionary with the keys
# `"margin"` and `"largest"` whose values are the two balanced accuracies on test. `say_no()` runs for about half a minute.


# %%
def collect(split, limit, number):
    samples = load_toyref(split, "noun", limit=limit)
    kinds = [set(s.categories) for s in samples]
    there, absent = [], []
    for sample, here, missing in zip(samples, kinds, absent_nouns(kinds), strict=True):
        scene = model.set_image(sample.image(), oracle=sample.masks)
        for nouns, numbers in ((sorted(here)[:2], there), (missing, absent)):
            numbers += [number(scene.segment(noun, "ds").scores["S_D"].numpy()) for noun in nouns]
    return there, absent


def balanced_accuracy(there, absent, threshold):
    return float((np.mean(np.asarray(there) >= threshold) + np.mean(np.asarray(absent) < threshold)) / 2)


# %% [raw]
# # BEGIN SOLUTION


# %%
def say_no(limit=12):
    """Returns {"margin": ..., "largest": ...}: balanced accuracy on test, thresholds chosen on val."""
    # BEGIN SOLUTION
    found = {}
    for name, number in {"margin": margin, "largest": max}.items():
        threshold, _ = best_threshold(*collect("val", limit, number))
        found[name] = balanced_accuracy(*collect("test", limit, number), threshold)
    return found
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS

# %%
"""  # BEGIN TEST CONFIG
hidden: true
points: 2.5
"""  # END TEST CONFIG


def test_on_real_pictures(say_no):
    given = say_no.__globals__  # the student's own answers to the other questions: no mistake counts twice
    expected = {}
    for name, number in (("margin", given["margin"]), ("largest", max)):
        threshold, _ = given["best_threshold"](*given["collect"]("val", 6, number))
        value = given["balanced_accuracy"](*given["collect"]("test", 6, number), threshold)
        expected[name] = round(float(value), 6)
    assert {name: round(float(value), 6) for name, value in say_no(limit=6).items()} == expected


# %%
"""  # BEGIN TEST CONFIG
hidden: true
points: 2.5
"""  # END TEST CONFIG


def test_the_threshold_comes_from_val_and_the_result_from_test(say_no):
    import numpy as np

    numbers = {
        ("val", "margin"): ([2.0, 3.0], [1.0]),
        ("test", "margin"): ([1.5, 2.5], [0.0, 1.0]),
        ("val", "largest"): ([5.0, 6.0], [4.0]),
        ("test", "largest"): ([6.0, 7.0], [5.5, 5.2]),
    }
    seen = set()

    def collect(split, limit, number):
        seen.add((split, limit))
        return numbers[split, "largest" if number(np.array([9.0, 5.0])) == 9 else "margin"]

    given = say_no.__globals__
    stubs = {
        "collect": collect,
        "margin": lambda scores: -1.0,
        "best_threshold": lambda there, absent: (min(there), 1.0),
    }
    kept = {name: given[name] for name in stubs}
    given.update(stubs)
    try:
        found = say_no(limit=3)
    finally:
        given.update(kept)
    assert {name: float(value) for name, value in found.items()} == {"margin": 0.75, "largest": 0.5}
    assert seen == {("val", 3), ("test", 3)}


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION


# %% [markdown]
# ## Your answer
#
# Run `say_no()`. Then write two sentences here: which number is better on test, with both values, and would you trust it on
# photographs, and why? A person reads them; they can cost up to two points of question 4.
