# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---
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

# %% [markdown]
# ## Question 1 · A margin (4 points)
#
# By how much does the best score lead the second best? With a single proposal the lead is its score; with none it is 0.


# %%
def margin(scores):
    """scores: (N,) numbers. Returns a number."""
    ### BEGIN SOLUTION
    ordered = np.sort(np.asarray(scores, float))[::-1]
    if len(ordered) == 0:
        return 0.0
    return float(ordered[0] - (ordered[1] if len(ordered) > 1 else 0.0))
    ### END SOLUTION


# %% [markdown]
# ## Question 2 · Sentences about what is not there (5 points)
#
# `scenes` is a list of sets of nouns: the things of each picture. Pair every picture with nouns that are absent: for picture i
# take, in alphabetical order, the first `each` nouns that occur in some other picture and not in picture i.


# %%
def absent_nouns(scenes, each=2):
    """scenes: list of sets of nouns. Returns a list of lists of nouns."""
    ### BEGIN SOLUTION
    every = sorted(set().union(*scenes)) if scenes else []
    return [[noun for noun in every if noun not in here][:each] for here in scenes]
    ### END SOLUTION


# %% [markdown]
# ## Question 3 · A threshold (6 points)
#
# Given numbers of things that are there and of things that are not, find the threshold that separates them best: say "there" if the
# number is at least the threshold. Best is the greatest **balanced accuracy**, the mean of the shares of right answers among those
# that are there and among those that are not. Try every given number as threshold; of equals take the smallest.


# %%
def best_threshold(there, absent):
    """there, absent: lists of numbers. Returns (threshold, balanced accuracy)."""
    ### BEGIN SOLUTION
    found = []
    for t in sorted({*map(float, there), *map(float, absent)}):
        right = (np.mean(np.asarray(there) >= t) + np.mean(np.asarray(absent) < t)) / 2
        found.append((float(right), -t))
    right, t = max(found)
    return -t, right
    ### END SOLUTION


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


# %%
def say_no(limit=12):
    """Returns {"margin": ..., "largest": ...}: balanced accuracy on test, thresholds chosen on val."""
    ### BEGIN SOLUTION
    found = {}
    for name, number in {"margin": margin, "largest": max}.items():
        threshold, _ = best_threshold(*collect("val", limit, number))
        found[name] = balanced_accuracy(*collect("test", limit, number), threshold)
    return found
    ### END SOLUTION


# %% [markdown]
# In two sentences: which number is better, and would you trust it on photographs? (Read by a person; see the rubric.)
