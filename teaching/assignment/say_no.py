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
# Rules: fill in the functions, change nothing else, and do not use test data before question 4. Hidden tests call your
# functions with other numbers.

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
# By how much does the best score lead the second best? With a single proposal the lead is its score; with none it is 0.

# %% [raw]
# # BEGIN SOLUTION


# %%
def margin(scores):
    """scores: (N,) numbers. Returns a number."""
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
    assert round(float(margin([-0.3, -0.1])), 6) == 0.2


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
# `scenes` is a list of sets of nouns: the things of each picture. Pair every picture with nouns that are absent: for picture i
# take, in alphabetical order, the first `each` nouns that occur in some other picture and not in picture i.

# %% [raw]
# # BEGIN SOLUTION


# %%
def absent_nouns(scenes, each=2):
    """scenes: list of sets of nouns. Returns a list of lists of nouns."""
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
    assert absent_nouns([{"a"}, {"a", "b"}], each=5) == [["b"], []]


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
    scenes = [{"b", "c"}, {"a"}]
    assert absent_nouns(scenes, each=1) == [["a"], ["b"]]
    assert scenes == [{"b", "c"}, {"a"}]


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
# Given numbers of things that are there and of things that are not, find the threshold that separates them best: say "there" if the
# number is at least the threshold. Best is the greatest **balanced accuracy**, the mean of the shares of right answers among those
# that are there and among those that are not. Try every given number as threshold; of equals take the smallest.

# %% [raw]
# # BEGIN SOLUTION


# %%
def best_threshold(there, absent):
    """there, absent: lists of numbers. Returns (threshold, balanced accuracy)."""
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
# `collect(split, limit, number)` gives the numbers of both kinds on a split, where `number(scores)` turns the scores of one
# sentence into one number. Choose the threshold on val, report the balanced accuracy **on test**, for your margin and for the
# largest S_D. Return both as a dictionary with the keys "margin" and "largest".


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
    found = say_no(limit=6)
    assert sorted(found) == ["largest", "margin"]
    assert all(0 <= v <= 1 for v in found.values())


# %%
"""  # BEGIN TEST CONFIG
hidden: true
points: 2.5
"""  # END TEST CONFIG


def test_the_threshold_comes_from_val_and_the_result_from_test(say_no):
    seen = []

    def collect(split, limit, number):
        seen.append(split)
        return ([1.0, 2.0, 3.0], [0.0]) if split == "val" else ([2.0, 0.5], [0.0, 1.5])

    kept = say_no.__globals__["collect"]
    say_no.__globals__["collect"] = collect
    try:
        found = say_no(limit=1)
    finally:
        say_no.__globals__["collect"] = kept
    assert found["largest"] == 0.5
    assert sorted(set(seen)) == ["test", "val"]


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION


# %% [markdown]
# In two sentences: which number is better, and would you trust it on photographs? (Read by a person; see the rubric.)
