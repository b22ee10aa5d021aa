# ---
# title: Fusion, two scores become one
# minutes: 85
# cpu: 1
# goals:
#   - compute S_G, S_D and S by hand, and predict at which alpha the winner changes
#   - say why alpha = 0.1 can still let S_G decide, and how a sum can be right where both of its parts are wrong
#   - choose alpha on val with paired intervals, and see how choosing flatters
#   - compare the variants g, gs, ds and full, and sort failures by their cause
# ---
# %% tags=["setup"]
from refdiff_lite import lesson

PRESET = "toy"
lesson.start(PRESET)

# %%
import json
from itertools import pairwise
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import torch

from refdiff_lite import RefDiff, RefDiffConfig
from refdiff_lite.checks import fusion as checks
from refdiff_lite.datasets.toyref import load_toyref
from refdiff_lite.evaluation.metrics import bootstrap, interval
from refdiff_lite.files import data_dir
from refdiff_lite.fusion import fuse, generative_score
from refdiff_lite.viz import show_map, show_mask
from refdiff_lite.widgets import SegmentationPlayground

# %% [markdown]
# Two judges have looked at every proposal. Diffusion says how brightly a word lights it up. CLIP says how well a
# cut-out fits the sentence. Ref-Diff's last step is a weighted sum, $S = \alpha S_G + (1-\alpha) S_D$, and an argmax.
# It is one line of code. This lesson is about what goes on inside it.

# %% [markdown]
# ## The generative score, by hand
#
# $S_G(i)$ is the mean of the word map $c$ inside $M_i$ minus its mean outside. Here are maps of 3 × 4 pixels for two
# words. For the proposal "left half" and the word "cat":

# %% tags=["nbval-check-output"]
maps = {
    "cat": torch.tensor([[0.9, 0.8, 0.2, 0.1], [1.0, 0.9, 0.1, 0.1], [0.7, 0.7, 0.2, 0.1]]),
    "dog": torch.tensor([[0.1, 0.3, 0.5, 0.6], [0.2, 0.4, 0.9, 1.0], [0.1, 0.3, 0.6, 0.8]]),
}
halves = torch.zeros(2, 3, 4, dtype=torch.bool)
halves[0, :, :2] = halves[1, :, 2:] = True
inside, outside = (0.9 + 0.8 + 1.0 + 0.9 + 0.7 + 0.7) / 6, (0.2 + 0.1 + 0.1 + 0.1 + 0.2 + 0.1) / 6
print(f"inside {inside:.2f}, outside {outside:.2f}, S_G = {inside - outside:.2f}")
torch.testing.assert_close(generative_score(maps["cat"], halves)[0], torch.tensor(inside - outside))

# %% [markdown]
# ### Exercise 7.1 · The generative score
# **Difficulty** ●●○○○ · **Time** 10 minutes
#
# Write $S_G$ for all proposals at once. Mind two odd ones: a mask that covers everything has no outside, and an empty
# one no inside. The mean of nothing counts as 0.
#
# <details><summary>Hint</summary>
#
# A mean is a sum divided by a count. `clamp_min(1)` keeps a count of 0 from dividing. A loop over the masks is fine.
# </details>


# %% tags=["exercise"]
def s_g(c, masks):
    """c: (H, W) map, masks: (N, H, W) bool. Returns S_G, (N,); the mean over no pixels is 0."""
    ### BEGIN SOLUTION
    flat, c = masks.flatten(1).float(), c.flatten()
    inside, area = flat @ c, flat.sum(1)
    return inside / area.clamp_min(1) - (c.sum() - inside) / (len(c) - area).clamp_min(1)
    ### END SOLUTION


checks.check_generative_score(s_g)

# %% tags=["answer"]
figure, axes = plt.subplots(1, 3, figsize=(8, 2.2))
for ax, (word, c) in zip(axes[:2], maps.items(), strict=True):
    show_map(c.numpy(), None, ax, f'c of "{word}"')
    ax.axvline(1.5, color="w", linewidth=2)
for k, (word, c) in enumerate(maps.items()):
    axes[2].bar(np.arange(2) + 0.4 * k - 0.2, np.asarray(s_g(c, halves)), 0.38, label=word)
axes[2].set_xticks([0, 1], ["left", "right"])
axes[2].axhline(0, color="k", linewidth=0.5)
axes[2].set(xlabel="proposal", ylabel="your S_G")
axes[2].legend()
lesson.show(
    "Two small maps, cat bright on the left, dog on the right. Bars: cat scores +0.7 on the left and -0.7 on the right, dog -0.5 and +0.5."
)
scores = {word: np.asarray(s_g(c, halves)) for word, c in maps.items()}
lesson.claim(
    "two halves that fill the image have opposite scores", all(np.allclose(s[0], -s[1]) for s in scores.values())
)
lesson.claim("the cat's map has more contrast, and so longer bars", abs(scores["cat"][0]) > abs(scores["dog"][0]))

# %% [markdown]
# The white line parts the two proposals. What is inside for one is outside for the other, so their scores are opposite.
# And the size of $S_G$ tells how clear-cut the map is.
#
# Why subtract the outside? A map that is bright everywhere says nothing, so its score should be 0:

# %% tags=["nbval-check-output"]
c = maps["cat"]
for name, changed in {"c": c, "c + 0.5": c + 0.5, "0.5 c": 0.5 * c, "flat": torch.full_like(c, 0.8)}.items():
    inside_only = torch.stack([changed[m].mean() for m in halves])
    score = generative_score(changed, halves)
    print(f"{name:8} S_G {score.numpy().round(2) + 0.0}  inside only {inside_only.numpy().round(2)}")
whole = generative_score(c, halves)
torch.testing.assert_close(generative_score(c + 0.5, halves), whole)  # a constant changes nothing
torch.testing.assert_close(generative_score(0.5 * c, halves), 0.5 * whole)  # stretching the map stretches the score
perfect = halves[0].float()
odd = torch.stack([halves[0], ~halves[0], torch.ones(3, 4, dtype=torch.bool), torch.zeros(3, 4, dtype=torch.bool)])
for name, score in zip(
    ("the thing", "all but the thing", "everything", "nothing"), generative_score(perfect, odd), strict=True
):
    print(f"perfect map, {name:18} S_G = {float(score) + 0.0:+.2f}")

# %% [markdown]
# Since $c$ lies in [0, 1], $S_G$ lies in [−1, 1], and both ends need a perfect map. "Everything" scores the mean of the
# map. Where the map is bright all over, that can beat a real proposal, so generators drop masks that fill half of the
# image.

# %% [markdown]
# ## Paper-sized numbers
#
# What do scores look like with the real networks? CLIP ViT-B/16 gives nearly every image and text a cosine between 0.2
# and 0.3, while $S_G$ of a good map may reach 0.5. Take three proposals with scores of this size:

# %% tags=["nbval-check-output"]
g = torch.tensor([0.55, 0.10, 0.35])
d = torch.tensor([0.24, 0.28, 0.26])
print("proposal   S_G    S_D")
for k in range(3):
    print(f"{'ABC'[k]:8} {g[k]:6.2f} {d[k]:6.2f}")
print("S_G alone takes", "ABC"[int(g.argmax())], "and S_D alone takes", "ABC"[int(d.argmax())])

# %% [markdown]
# ### Exercise 7.2 · Predict: who wins?
# **Difficulty** ●●○○○ · **Time** 3 minutes
#
# At α = 0.08, close to the paper's 0.1, who has the highest $S = \alpha S_G + (1-\alpha) S_D$: A, B or C? Commit
# yourself before you compute anything.
#
# <details><summary>Hint</summary>
#
# There is none: guess. The next cell tells.
# </details>

# %% tags=["exercise"]
### BEGIN SOLUTION
guess = "b"
### END SOLUTION

checks.guess_winner(guess)

# %%
alphas = np.linspace(0, 0.3, 61)
figure, ax = plt.subplots(figsize=(5.5, 2.8))
for k in range(3):
    ax.plot(
        alphas, (1 - alphas) * float(d[k]) + alphas * float(g[k]), label=f"proposal {'ABC'[k]}", ls=("-", ":", "--")[k]
    )
for x, name in ((0.08, "0.08"), (0.1, "paper")):
    ax.axvline(x, color="k", linewidth=0.8)
    ax.annotate(name, (x, 0.32), fontsize=8, ha="right" if x < 0.1 else "left")
ax.set(xlabel="α", ylabel="S", xlim=(0, 0.3))
ax.legend(loc="lower right", bbox_to_anchor=(1, 0.1))
lesson.show("S over alpha: three straight lines. B leads first, then C for a short stretch around 0.08, then A.")
leader = {x: "ABC"[int(fuse(g, d, x, 1 - x).argmax())] for x in (0.0, 0.08, 0.1, 1.0)}
checks.guess_winner.against(leader[0.08])
lesson.claim("B leads at 0, C at 0.08, A at 0.1 and at 1", list(leader.values()) == ["B", "C", "A", "A"])

# %% [markdown]
# Each proposal's score is a straight line from its $S_D$ to its $S_G$. Where two lines cross, two proposals tie. And
# look at 0.08: **neither judge's favourite wins.** C is second for both, and for a moment the sum prefers a good second
# to two firsts. Remember C; it will come back in a picture.

# %% [markdown]
# ### Exercise 7.3 · Where the winner changes
# **Difficulty** ●●○○○ · **Time** 10 minutes
#
# Two proposals, A with the better $S_G$ and B with the better $S_D$. At which α do they tie?
#
# <details><summary>Hint</summary>
#
# Set the two sums equal and collect the terms: the gap in $S_G$ on one side, the gap in $S_D$ on the other.
# </details>


# %% tags=["exercise"]
def tie(g_a, d_a, g_b, d_b):
    """Scores of A and B as numbers, g_a > g_b and d_b > d_a. Returns alpha between 0 and 1."""
    ### BEGIN SOLUTION
    gap_g, gap_d = g_a - g_b, d_b - d_a
    return gap_d / (gap_g + gap_d)
    ### END SOLUTION


checks.check_tie(tie)

# %% [markdown]
# Every pair of proposals is a point on this map. The colour is your α at which the two tie.

# %% tags=["answer"]
for a, b in ((2, 1), (0, 1), (0, 2)):
    print(f"{'ABC'[a]} and {'ABC'[b]} tie at alpha = {tie(float(g[a]), float(d[a]), float(g[b]), float(d[b])):.3f}")
gaps = np.linspace(0.01, 1, 60)
figure, ax = plt.subplots(figsize=(4.2, 2.8))
drawn = ax.imshow(
    [[float(tie(x, 0.0, 0.0, y)) for x in gaps] for y in gaps], origin="lower", extent=(0, 1, 0, 1), vmin=0, vmax=1
)
ax.plot(0.45, 0.04, "wo", markersize=4)
ax.annotate("A and B", (0.45, 0.04), (0.5, 0.08), color="w", fontsize=8)
ax.set(xlabel="gap in S_G", ylabel="gap in S_D")
figure.colorbar(drawn, ax=ax, label="α at which they tie")
lesson.show(
    "A map of alpha at the tie over the two gaps: dark, near 0, where the gap in S_D is small, bright where it is large. A and B lie in the dark strip at the bottom."
)

# %% [markdown]
# A tie at a small α means: the gap in $S_D$ is small beside the gap in $S_G$. So what decides is not the weight alone
# but weight times **spread**, the distance between a sentence's highest and lowest score:

# %% tags=["nbval-check-output"]
loud = {}
for name, weight, score in (("S_G", 0.1, g), ("S_D", 0.9, d)):
    spread = float(score.max() - score.min())
    loud[name] = weight * spread
    print(
        f"{name}: weight {weight:.1f} × spread {spread:.2f} = {loud[name]:.3f}; weight × largest score = {weight * float(score.max()):.3f}"
    )
lesson.claim("S_D makes up most of the sum, but S_G moves it more", loud["S_G"] > loud["S_D"])

# %% [markdown]
# With a tenth of the weight, $S_G$ speaks louder. "α = 0.1, so diffusion hardly matters" is a wrong reading of the
# paper: what all proposals have in common cannot change an argmax.
#
# The official code writes $0.7\,\text{crop} + 0.3\,\text{masked} + 0.05\,S_G$. The first two terms are $S_D$ with
# $\beta = 0.3$. The weights sum to 1.05, and dividing by that changes no argmax. So this is an α as well:

# %% tags=["nbval-check-output"]
for name, config in (("paper", RefDiffConfig.paper()), ("official", RefDiffConfig.official())):
    share = config.weight_g / (config.weight_g + config.weight_d)
    winner = "ABC"[int(fuse(g, d, config.weight_g, config.weight_d).argmax())]
    print(
        f"{name:9} weights {config.weight_g} and {config.weight_d}: alpha = {share:.4f}, beta = {config.beta}; takes {winner}"
    )
torch.testing.assert_close(fuse(g, d, 0.05, 1.0) / 1.05, fuse(g, d, 0.05 / 1.05, 1 / 1.05))

# %% [markdown]
# Half the α, and here another winner. But the official $S_G$ is another number as well, read from guided logits and not
# from a softmax (lesson 3). Weights may be compared only where the scores are the same.

# %% [markdown]
# ## On a scene
#
# Now C in a picture. The scene holds a penguin, a cup, a gift, a house and a chair, and the sentence is "the house that
# is left of the penguin". Every proposal is a point in the middle and a line on the right.

# %%
samples = load_toyref("val", limit=100)
model = RefDiff.from_preset(PRESET)
sample = samples[6]
scene = model.set_image(sample.path, oracle=sample.masks)
names = list(sample.categories)
a = model.config.weight_g / (model.config.weight_g + model.config.weight_d)


# %%
def judged(scene, sample, text):
    """S_G and S_D of the sample's true masks, (N,) arrays in the sample's order."""
    found = scene.segment(text, "full", "oracle")
    order = [int((found.proposals == m).all((1, 2)).argmax()) for m in sample.masks]
    return found.scores["S_G"].numpy()[order], found.scores["S_D"].numpy()[order]


def draw(text):
    """The scene with numbers, the plane of the two scores, and S over alpha; returns who wins at 0, at ours, and at 1."""
    g, d = judged(scene, sample, text)
    best = int((a * g + (1 - a) * d).argmax())
    _, (left, middle, right) = plt.subplots(1, 3, figsize=(9, 2.7))
    show_mask(sample.masks[best], scene.image, left, fill(text, 28))
    for k, mask in enumerate(sample.masks):
        left.text(
            *np.argwhere(mask).mean(0)[::-1],
            k,
            color="w",
            fontweight="bold",
            bbox={"fc": "k", "ec": "none", "pad": 1.5},
            fontsize=8,
        )
        middle.annotate(f" {k} {names[k]}", (g[k], d[k]), fontsize=8)
        right.plot([0, 1], [d[k], g[k]], label=f"{k} {names[k]}", ls=("-", ":", "--", "-.", "-")[k])
    middle.scatter(g, d, color=[lesson.RED if k == best else lesson.BLUE for k in range(len(g))])
    middle.set(xlabel="S_G", ylabel="S_D", title=f"red: highest S at α = {a:.1f}")
    middle.margins(0.25, 0.1)
    right.axvline(a, color="k", linewidth=0.8)
    right.set(xlabel="α", ylabel="S")
    right.legend(fontsize=7, loc="upper right", bbox_to_anchor=(1.55, 1.05))
    return int(d.argmax()), best, int(g.argmax())


# %%
third = draw("the house that is left of the penguin")
lesson.show(
    "The house is chosen. In the plane of scores the penguin is highest, the chair furthest right, the house second in both. Over alpha the house leads in the middle."
)
print("S_D alone:", names[third[0]], "- the sum:", names[third[1]], "- S_G alone:", names[third[2]])
lesson.claim(
    "CLIP takes the penguin, diffusion the chair, and the sum the house, which is right",
    [names[k] for k in third] == ["penguin", "house", "chair"],
)
word_map = scene.segment("the house that is left of the penguin").word_map
peaks = [float(word_map[mask].max()) for mask in sample.masks]
lesson.claim("the map's highest point lies on the house", names[int(np.argmax(peaks))] == "house")

# %% [markdown]
# CLIP is drawn to the landmark, as in lesson 6. Diffusion's map of "house" peaks on the house, but its *mean* is a hair
# higher on the chair. Both judges are wrong, and their sum is right. So a fusion is **not** limited to what one of its
# judges gets right. Two other sentences about the same scene show the ordinary cases, where one judge saves the other:

# %%
by_d, by_s, by_g = (names[k] for k in draw("the small chair that is right of the yellow cup"))
lesson.show(
    "The small chair is chosen. The cup has the highest S_D; the chair has the highest S_G and wins at our alpha."
)
print(f"S_D alone: {by_d} - the sum: {by_s} - S_G alone: {by_g}")
lesson.claim("diffusion saves the chair, on which CLIP alone fails", by_s == by_g == "chair" != by_d)
by_d, by_s, by_g = (names[k] for k in draw("right house"))
lesson.show("The house is chosen. It has the highest S_D; another thing has a slightly higher S_G.")
print(f"S_D alone: {by_d} - the sum: {by_s} - S_G alone: {by_g}")
lesson.claim("CLIP saves the house, on which diffusion alone fails", by_s == by_d == "house" != by_g)

# %% [markdown]
# **Try it.** In a running notebook, turn α from 0 to 1 and watch the ranking. Does the winner change where the lines
# above cross? Hover a row to see its mask. Then click another word to make it the head, and ask what each judge thinks
# of that.

# %%
truth = {r.text: sample.masks[r.target] for r in sample.records}
SegmentationPlayground(scene, "the house that is left of the penguin", truth=truth)

# %% [markdown]
# ## Collect once, mix often
#
# The costly parts, word maps and CLIP features, do not depend on α. So run the networks once over a hundred val images
# and keep $S_G$, $S_D$ and the IoU of every proposal. After that, any α is arithmetic.


# %%
def fits(masks, truth):
    """IoU of (N, H, W) bool masks with one (H, W) mask: (N,)."""
    shared, total = (masks & truth).sum((1, 2)), (masks | truth).sum((1, 2))
    return shared / np.maximum(total, 1)


rows = []
for s in samples:
    view, texts = model.set_image(s.path, oracle=s.masks), [record.text for record in s.records]
    found = {kind: view.segment_all(texts, "full", kind) for kind in ("oracle", "felzenszwalb")}
    thresholds = view.segment_all(texts, "g")
    for n, record in enumerate(s.records):
        truth = s.masks[record.target]
        row = {"image": s.image_id, "text": record.text, "picture": view.image, "truth": truth}
        for kind, results in found.items():
            scores, row["masks"] = results[n].scores, results[n].proposals
            row[kind] = (scores["S_G"].numpy(), scores["S_D"].numpy(), fits(row["masks"], truth))
        row["g"] = float(fits(thresholds[n].mask[None], truth)[0])
        rows.append(row)
images = [row["image"] for row in rows]
judges = [(*row["oracle"][:2], int(row["oracle"][2].argmax())) for row in rows]  # S_G, S_D, the right proposal
print(len(rows), "sentences about", len(samples), "images")

# %%
spreads = {name: [np.ptp(row[k]) for row in judges] for k, name in enumerate(("S_G", "S_D"))}
figure, ax = plt.subplots(figsize=(5.2, 2.6))
edges = np.linspace(0, max(map(max, spreads.values())), 25)
for (name, values), style in zip(spreads.items(), ("stepfilled", "step"), strict=True):
    label = f"{name}, median {np.median(values):.2f}"
    ax.hist(values, edges, histtype=style, alpha=0.6 if style == "stepfilled" else 1, linewidth=2, label=label)
ax.set(xlabel="highest minus lowest score of a sentence's proposals", ylabel="sentences")
ax.legend()
lesson.show("Histograms of the spreads of S_G and S_D over all sentences; both have their middle near 0.55.")
middle = {name: float(np.median(values)) for name, values in spreads.items()}
lesson.claim("the two medians differ by less than a tenth", abs(middle["S_G"] / middle["S_D"] - 1) < 0.1)
lesson.claim(
    "so at the toy's α, CLIP speaks more than three times as loud", (1 - a) * middle["S_D"] > 3 * a * middle["S_G"]
)

# %% [markdown]
# A small CLIP, trained on few kinds of thing, spreads its scores as widely as the map does, and many times wider than
# the big CLIP of our example. There, α = 0.1 gave diffusion the louder voice. Here even twice that does not. **An α is
# good for one pair of networks.**
#
# If both judges have the same favourite, so has the sum. Mixing can matter only where they *disagree*. How often is
# that, and who is right then?

# %%
right_g, right_d, right_s = (
    np.array([int(score.argmax()) == k for score, k in scores])
    for scores in (
        [(g, k) for g, d, k in judges],
        [(d, k) for g, d, k in judges],
        [(a * g + (1 - a) * d, k) for g, d, k in judges],
    )
)
cells = [[right_d & right_g, right_d & ~right_g], [~right_d & right_g, ~right_d & ~right_g]]
figure, ax = plt.subplots(figsize=(4, 2.8))
ax.imshow([[c.mean() ** 0.5 for c in line] for line in cells], cmap="Blues", vmin=0, vmax=1.2)
for i, line in enumerate(cells):
    for k, cell in enumerate(line):
        ax.text(k, i, f"{cell.sum()}\nS right: {right_s[cell].sum()}", ha="center", va="center")
ax.set_xticks([0, 1], ["S_G right", "S_G wrong"])
ax.set_yticks([0, 1], ["S_D right", "S_D wrong"])
ax.set_title(f"{len(rows)} sentences, true masks as proposals")
lesson.show(
    "A table of two by two: both right, only S_D right, only S_G right, both wrong, each with how often S is right."
)
same = [int(g.argmax()) == int(d.argmax()) for g, d, _ in judges]
kept = [int((a * g + (1 - a) * d).argmax()) == int(g.argmax()) for g, d, _ in judges]
lesson.claim("where both have the same favourite, S keeps it", all(k for k, s in zip(kept, same, strict=True) if s))
lesson.claim(
    "where one judge errs, S follows the right one more often than not",
    all(right_s[c].mean() > 0.5 for c in (cells[0][1], cells[1][0])),
)
lesson.claim("S is even right in a sentence where both judges are wrong", right_s[cells[1][1]].any())
print(f"right if the better judge were always believed: {(right_g | right_d).mean():.3f}; S: {right_s.mean():.3f}")

# %% [markdown]
# The lower left is what mixing can win, the upper right what it can lose. The printed number bounds every rule that
# *follows one of the two judges*. A sum is not such a rule: the lower right is not out of its reach, as the house
# showed. It is just rare.

# %% [markdown]
# ### Exercise 7.4 · Repair: a report that flatters
# **Difficulty** ●●○○○ · **Time** 10 minutes
#
# A colleague tunes α and reports the accuracy:
#
# ```python
# def report(val, test, alphas):
#     alpha = max(alphas, key=lambda a: accuracy(test, a))
#     return alpha, accuracy(test, alpha)
# ```
#
# `accuracy(rows, alpha)` is right. The report is not. Mend it, and write `accuracy` as well.
#
# <details><summary>Hint</summary>
#
# Which scenes may take part in the choice, and which in the report?
# </details>


# %% tags=["exercise"]
def honest_report(val, test, alphas):
    """val, test: lists of (s_g, s_d, right), two (N,) arrays and an index. Returns (the chosen alpha, the accuracy to report)."""

    ### BEGIN SOLUTION
    def accuracy(rows, alpha):
        return float(np.mean([int((alpha * g + (1 - alpha) * d).argmax()) == k for g, d, k in rows]))

    alpha = max(alphas, key=lambda a: accuracy(val, a))
    return alpha, accuracy(test, alpha)
    ### END SOLUTION


checks.check_honest_report(honest_report)

# %% [markdown]
# How much does the colleague's report flatter? Sixty times, draw ten images as val and ten others as test. Your
# function reports honestly; given test twice, it does what the colleague did.

# %% tags=["answer"]
rng, few = np.random.default_rng(0), [0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1]
honest, flattered = [], []
for _ in range(60):
    drawn = rng.permutation(np.unique(images))
    val, test = ([judges[n] for n in np.flatnonzero(np.isin(images, part))] for part in (drawn[:10], drawn[10:20]))
    honest.append(float(honest_report(val, test, few)[1]))
    flattered.append(float(honest_report(test, test, few)[1]))
figure, ax = plt.subplots(figsize=(4.8, 2.3))
ax.hist(100 * (np.array(flattered) - honest), 16, color=lesson.ORANGE)
ax.set(xlabel="points too high, by choosing on test", ylabel="draws of 20 images")
lesson.show("A histogram of how many points too high the report is: often 0, never below, at times several points.")
print(f"honest {np.mean(honest):.4f}, chosen on test {np.mean(flattered):.4f}")
lesson.claim(
    "choosing on test never reports less, and on average more",
    min(np.array(flattered) - honest) >= 0 and np.mean(flattered) > np.mean(honest),
)

# %% [markdown]
# ## The α sweep, with intervals
#
# Here is the accuracy over α. The band is a 95 % interval ([how](../docs/intervals.md)): whole images are drawn again,
# a thousand times.


# %%
def hits(alpha):
    """1 or 0 for each sentence."""
    return np.array([float((alpha * g + (1 - alpha) * d).argmax() == k) for g, d, k in judges])


alphas = np.array([0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1])
curve = np.array([hits(x).mean() for x in alphas])
band = np.array([interval(hits(x), images) for x in alphas])
figure, ax = plt.subplots(figsize=(6, 3))
ax.fill_between(alphas, band[:, 0], band[:, 1], color=lesson.SKY, alpha=0.35, label="95 % interval")
ax.plot(alphas, curve, "o-", markersize=4)
ax.set(xlabel="α (0: CLIP alone, ds; 1: diffusion alone, gs)", ylabel="accuracy")
ax.legend(loc="lower left")
lesson.show(
    "Accuracy over alpha with a band: it rises from 0 to a top near 0.2, then falls towards 1; the bands at 0 and at 0.2 overlap."
)
best = alphas[curve.argmax()]
at_best = band[curve.argmax()]
lesson.claim("the top lies between the ends, at 0.15 to 0.3", 0.15 <= best <= 0.3)
lesson.claim("the bands at 0 and at the top overlap", band[0, 1] > at_best[0])

# %% [markdown]
# The bands overlap. Does that mean that the best α cannot be told apart from 0? No. Both settings see the *same*
# sentences, easy and hard. Take the difference sentence by sentence, +1, 0 or −1, and the common part cancels:

# %%
for other in (0.0, 1.0):
    gain = hits(best) - hits(other)
    low, high = bootstrap(gain, images)
    print(
        f"best α {best} against {other:.0f}: gain {100 * gain.mean():+.1f} points, paired 95 % {100 * low:+.1f} to {100 * high:+.1f}"
    )
    lesson.claim(f"the paired interval tells the best α from {other:.0f}", low > 0)
one, other = (np.subtract(*bootstrap(hits(x), images)[::-1]) for x in (0.0, best))
low, high = bootstrap(hits(best) - hits(0.0), images)
print(f"width of the paired interval {high - low:.3f}; from two separate bands {np.hypot(one, other):.3f}")
lesson.claim("the paired interval is narrower than that of two separate runs", high - low < np.hypot(one, other))

# %% [markdown]
# One caution remains: the best of fourteen was chosen on these very sentences. How much does that flatter? Suppose
# fourteen settings are all equally good, 60 % right. Measure each on n sentences and report the best:

# %% tags=["nbval-check-output"]
rng = np.random.default_rng(0)
reported = {n: rng.binomial(n, 0.6, (400, 14)).max(1).mean() / n for n in (50, 500, 5000)}
for n, value in reported.items():
    print(f"{n:5d} sentences: the best of 14 equal settings reports {value:.2f} on average")
lesson.claim("with 50 sentences choosing alone reports at least 10 points too much", reported[50] > 0.7)

# %% [markdown]
# Nothing was gained, yet the report is higher, and the more so the fewer the sentences. Hence the rule of lesson 8:
# choose on val, report on test, once.

# %% [markdown]
# ### Exercise 7.5 · The exact plateau
# **Difficulty** ●●●●● · **Time** 30 minutes
#
# A grid of fourteen α may miss the best. Between 0 and 1 the accuracy changes only where two lines of some sentence
# cross. Find the α range with the highest accuracy *exactly*: return `(low, high, accuracy)`. If several ranges share
# the top, return the widest.
#
# <details><summary>Hint</summary>
#
# The right proposal of a sentence wins on one interval. Cut [0, 1] at the ends of all these intervals; between two cuts
# nothing changes. Merge neighbours with equal accuracy. Exercise 6.6 of lesson 6 is half of the way.
# </details>


# %% tags=["exercise"]
def best_plateau(rows):
    """rows: list of (s_g, s_d, right). Returns (low, high, accuracy) of the widest range of alpha that is right most often."""
    ### BEGIN SOLUTION
    cuts = {0.0, 1.0}
    for g, d, k in rows:
        for i in range(len(g)):
            start, end = d[k] - d[i], g[k] - g[i]
            if start * end < 0:
                cuts.add(float(start / (start - end)))
    cuts = sorted(cuts)
    ranges = []
    for low, high in pairwise(cuts):
        middle = (low + high) / 2
        right = sum(int((middle * g + (1 - middle) * d).argmax()) == k for g, d, k in rows)
        if ranges and ranges[-1][2] == right:
            ranges[-1][1] = high
        else:
            ranges.append([low, high, right])
    low, high, right = max(ranges, key=lambda r: (r[2], r[1] - r[0]))
    return low, high, right / len(rows)
    ### END SOLUTION


checks.check_best_plateau(best_plateau)

# %% tags=["answer"]
shown = judges[::4]
low, high, top = map(float, best_plateau(shown))
figure, ax = plt.subplots(figsize=(6, 2.4))
every = np.linspace(0, 1, 201)
ax.plot(every, [np.mean([(x * g + (1 - x) * d).argmax() == k for g, d, k in shown]) for x in every], linewidth=1)
ax.axvspan(low, high, color=lesson.ORANGE, alpha=0.5, label=f"your plateau: {low:.3f} to {high:.3f}, {top:.3f}")
ax.set(xlabel="α", ylabel="accuracy", title=f"every fourth sentence, n = {len(shown)}")
ax.legend(loc="lower left")
lesson.show(
    "A step curve of accuracy over alpha, jagged, with the widest of its highest steps shaded between about 0.1 and 0.3."
)

# %% [markdown]
# ## Four variants
#
# With real proposals now (Felzenszwalb), and all four variants: g cuts the word map; gs, ds and full rank the same
# proposals by $S_G$, $S_D$ and $S$.


# %%
def chosen_fit(row, weight):
    g, d, fit = row["felzenszwalb"]
    return float(fit[(weight * g + (1 - weight) * d).argmax()]) if len(fit) else 0.0


ious = {"g": [row["g"] for row in rows]}
ious |= {v: [chosen_fit(row, weight) for row in rows] for v, weight in (("gs", 1.0), ("ds", 0.0), ("full", a))}
ious["best proposal"] = [float(row["felzenszwalb"][2].max(initial=0)) for row in rows]
figure, ax = plt.subplots(figsize=(5.6, 2.8))
for k, (name, values) in enumerate(ious.items()):
    low, high = bootstrap(values, images, draws=500)
    mean = np.mean(values)
    ax.bar(k, mean, 0.6, color=lesson.PALETTE[k], hatch="//" if name == "best proposal" else None, alpha=0.85)
    ax.errorbar(k, mean, [[mean - low], [high - mean]], color="k", capsize=3)
    ax.text(k + 0.08, mean + 0.02, f"{mean:.2f}", fontsize=8)
ax.set_xticks(range(len(ious)), list(ious))
ax.set(ylabel="mIoU", ylim=(0, 1), title=f"{len(rows)} sentences of val, 95 % intervals")
lesson.show(
    "Bars of mIoU: g lowest, then gs, ds and full, each a little higher; a hatched bar for the best proposal is the ceiling."
)
steps = []
for a_name, b_name, about in (
    ("g", "gs", "better masks"),
    ("gs", "full", "CLIP added"),
    ("ds", "full", "diffusion added"),
):
    change = np.subtract(ious[b_name], ious[a_name])
    steps.append(change.mean())
    low, high = bootstrap(change, images)
    print(
        f"{about:16} {a_name:>2} to {b_name:4} {100 * change.mean():+5.1f} points, paired 95 % {100 * low:+.1f} to {100 * high:+.1f}"
    )
    lesson.claim(f"{b_name} beats {a_name}", low > 0)

# %% [markdown]
# Three steps. From g to gs: the same map, better masks. From gs to full: CLIP comes in. From ds to full: what diffusion
# adds to CLIP. The hatched bar is the ceiling of these proposals, which no ranking can pass. The paper's own steps, on
# RefCOCO val with SAM's masks:

# %% tags=["nbval-check-output"]
paper = {"g": 21.53, "gs": 29.82, "ds": 35.27, "full": 37.21}  # mIoU, percent
print(f"better masks, g to gs:       {paper['gs'] - paper['g']:+.1f}")
print(f"CLIP added, gs to full:      {paper['full'] - paper['gs']:+.1f}")
print(f"diffusion added, ds to full: {paper['full'] - paper['ds']:+.1f}")
lesson.claim("here as there, better masks bring most and diffusion least", steps[0] > steps[1] > steps[2] > 0)

# %% [markdown]
# Other images, other networks, other masks: their points and ours must not be compared, but signs and order may be, and
# they agree. Does it hold on scenes on which nothing was chosen? The committed run over ToyRef *test*, true masks as
# proposals (`make ablation`):

# %%
group = json.loads((data_dir() / "models" / "toy" / "ablation.json").read_text())["groups"]["variants, all styles"]
figure, ax = plt.subplots(figsize=(5.6, 2))
for k, row in enumerate(group.values()):
    change, (low, high) = 100 * row["change"], (100 * x for x in row["change_interval"])
    ax.errorbar(change, k, xerr=[[change - low], [high - change]], fmt="o", capsize=3, color=lesson.BLUE)
ax.axvline(0, color="k", linewidth=0.5)
ax.set_yticks(range(len(group)), list(group))
ax.invert_yaxis()
ax.set(xlabel=f"points against full, paired 95 %, n = {row['n']}")
lesson.show(
    "Changes against full on test: ds below by about 2 points, gs by 4, g by 9; ds with constants of its own is close to 0 and its interval holds 0."
)
lesson.claim("on test too, full beats g, gs and ds", max(group[v]["change_interval"][1] for v in ("g", "gs", "ds")) < 0)
low, high = group["ds, constants of its own"]["change_interval"]
lesson.claim("but ds with constants of its own and full cannot be told apart", low <= 0 <= high)

# %% [markdown]
# The last row is the sceptic's. The constants of full were tuned for full. Give CLIP alone constants tuned for *it*,
# and what diffusion adds shrinks to something that 160 scenes cannot tell from nothing. A fair comparison tunes both
# sides.

# %% [markdown]
# ## Failures, by cause
#
# "It failed" helps nobody. Every failure has a first cause, and each cause asks for another repair. Sort them: is there
# a good proposal at all? If so, which judge preferred another?


# %%
def cause(row):
    g, d, fit = row["felzenszwalb"]
    if not len(fit) or fit.max() < 0.5:
        return "no proposal fits"
    if fit[(a * g + (1 - a) * d).argmax()] >= 0.5:
        return "right"
    g_right, d_right = fit[g.argmax()] >= 0.5, fit[d.argmax()] >= 0.5
    return {(0, 0): "both misled", (1, 0): "CLIP misled", (0, 1): "diffusion misled"}.get(
        (g_right, d_right), "in the mix"
    )


causes = np.array([cause(row) for row in rows])
NAMES = ("no proposal fits", "both misled", "CLIP misled", "diffusion misled", "in the mix")
counts = {name: int((causes == name).sum()) for name in NAMES}
figure, ax = plt.subplots(figsize=(5.5, 2.3))
ax.barh(NAMES[::-1], list(counts.values())[::-1], color=lesson.ORANGE)
ax.xaxis.get_major_locator().set_params(integer=True)
for k, count in enumerate(list(counts.values())[::-1]):
    ax.text(count + 0.4, k, count, va="center", fontsize=8)
failed = int((causes != "right").sum())
ax.set(xlabel="sentences", title=f"{failed} failures of full among {len(rows)} sentences (IoU < 0.5)")
lesson.show("Bars of failures by cause; that no proposal fits is by far the most common.")
lesson.claim("more than half of the failures lack a proposal that fits", counts["no proposal fits"] > failed / 2)
lesson.claim("no failure arose in the mix alone", counts["in the mix"] == 0)

# %% [markdown]
# - *No proposal fits*: repair the generator (lesson 5). The ranking is blameless.
# - *Both misled*: neither judge's favourite is right. Better networks, or a lucky α.
# - *CLIP misled*: diffusion was right and was outvoted. A larger α would save it.
# - *Diffusion misled*: CLIP was right. A smaller α would.
# - *In the mix*: each judge has a good favourite, yet a bad third won by being second twice. It can happen; on these
#   scenes it did not.

# %%
gallery = []
for name in NAMES:  # at most two of a cause, each from another image
    seen = {images[n]: n for n in np.flatnonzero(causes == name)[::-1]}
    gallery += [(name, n) for n in sorted(seen.values())[:2]]
figure, axes = plt.subplots(2, 4, figsize=(9, 5.2))
for ax in axes.flat:
    ax.set_axis_off()
for ax, (name, n) in zip(axes.flat, gallery, strict=False):
    row, (g, d, fit) = rows[n], rows[n]["felzenszwalb"]
    mask = row["masks"][(a * g + (1 - a) * d).argmax()] if len(fit) else np.zeros_like(row["truth"])
    show_mask(mask, row["picture"], ax, f"{name}:\n{fill(row['text'], 26)}")
    ax.contour(row["truth"], levels=[0.5], colors="w", linewidths=1.2, linestyles="--")
lesson.show(
    "Eight failures by cause: the chosen mask is lit with an orange rim, the mask that was meant has a dashed white one."
)

# %% [markdown]
# Lit, with an orange rim: what was chosen. White and dashed: what was meant. Compare with the cause above each picture.
# And ask whether you, with this sentence, would have been sure.

# %% [markdown]
# <details><summary><b>What can go wrong</b></summary>
#
# - Mixing scores of different scales and reading the weight as a share. Multiply by the spread.
# - `score * keep` to drop proposals: if the kept scores are negative, a dropped one with 0 wins ([fault
#   4](../docs/faults.md#fault-4), lesson 8).
# - Tuning α on test, or on so few sentences that the best of fourteen is luck.
# - Deciding by eye whether two bands overlap. Take the interval of the paired difference.
# - A change of networks without a new sweep. The old α has lost its meaning.
# </details>

# %% [markdown]
# ## Recap
#
# Answer from memory, then unfold.
#
# 1. α is 0.1. Name what you must know before you can say which judge decides.
# 2. How can a sum be right where both judges are wrong?
# 3. Two bands overlap. Why may the settings still be told apart?
#
# <details><summary>Answers</summary>
#
# 1. The spreads of $S_G$ and $S_D$ over a sentence's proposals. Weight times spread counts.
# 2. If the right proposal is second for both, and their favourites are poor for the other judge.
# 3. Both saw the same sentences. In the paired difference, what is easy or hard for both cancels.
# </details>
#
# **Open question.** Would a fusion without units be better? Bring each sentence's $S_G$ and $S_D$ to mean 0 and
# deviation 1, so that α really is a share. What would be gained, what would be lost, and for which sentences? Predict,
# then measure it with `judges`.
#
# **Where next.** Lesson 8 takes the word "better" apart: which mean, over what, how sure?
#
# **References.** Ni et al., *Ref-Diff*, [arXiv 2308.16777](https://arxiv.org/abs/2308.16777). Efron and Tibshirani, *An
# introduction to the bootstrap* (1993). What
# `official()` follows: [docs/official.md](../docs/official.md). In the code: [fusion.py](../refdiff_lite/fusion.py). Symbols: [the
# glossary](../docs/glossary.md).
