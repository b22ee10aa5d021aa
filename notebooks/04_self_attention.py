# ---
# title: "Self-attention: which pixels belong together"
# minutes: 45
# cpu: 1
# gpu: 3
# goals:
#   - draw one pixel's view of the picture
#   - let a word's map flow along self-attention, and see when that is too much
#   - cut a picture into segments without a word and without a segmenter
#   - measure what self-attention adds to Ref-Diff
# ---
# %% tags=["setup"]
from refdiff_lite import lesson

PRESET = "toy"
lesson.start(PRESET)

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
from einops import rearrange
from scipy.cluster.vq import kmeans2

from refdiff_lite import RefDiff, RefDiffConfig
from refdiff_lite.attention import min_max, propagate, record_attention, resize
from refdiff_lite.checks import self_attention as checks
from refdiff_lite.datasets.toyref import load_toyref
from refdiff_lite.evaluation.metrics import bootstrap, iou
from refdiff_lite.expression import parse
from refdiff_lite.networks.compat import self_attention_modules
from refdiff_lite.proposals import felzenszwalb, self_attention
from refdiff_lite.viz import show_image, show_map
from refdiff_lite.widgets import AttentionExplorer

# %% [markdown]
# In cross-attention pixels look at words. In **self-attention** pixels look at pixels. No word takes part; and yet, to
# paint a coherent dog, the parts of the dog must know of each other. Ref-Diff itself does not read self-attention. We
# do, for two ends: to mend word maps, and to propose segments.

# %% [markdown]
# ## 1 · Toy numbers: four pixels in a row
#
# Queries *and* keys come from the pixels now: $a = \mathrm{softmax}(qk^\top/\sqrt d)$ has one row and one column for
# every pixel. Take four pixels; the first two belong to one thing, the last two to another:

# %% tags=["nbval-check-output"]
pixels = torch.tensor([[2.0, 0.0], [1.8, 0.2], [0.0, 2.0], [0.2, 1.8]])
toy = (pixels @ pixels.T / 2**0.5).softmax(-1)
for row in toy:
    print("looks at:", [round(x, 2) for x in row.tolist()], "sum", round(float(row.sum()), 2))

# %% [markdown]
# Two blocks appear. Like looks at like, and nobody had to name the things. Every row sums to 1, as before.

# %% [markdown]
# ## 2 · The UNet's own
#
# One UNet call over the noised picture, with an empty prompt. The library records as in lesson 3, with `kind="self"`.

# %%
model = RefDiff.from_preset(PRESET)
unet = model.networks.sd.unet
sample = load_toyref("val", limit=11)[10]
scene = model.set_image(sample.path)
image, t = scene.image, scene.timesteps[model.config.noise_step]
name = "up_blocks.1.attentions.0"
module, seen = self_attention_modules(unet)[name], {}
handle = module.register_forward_pre_hook(lambda m, args, kwargs: seen.update(pixels=args[0]), with_kwargs=True)

with record_attention(unet, kind="self") as maps, torch.no_grad():
    unet(scene.noised[0], t, model.encode_prompt([""]))
handle.remove()

# %% [markdown]
# By hand, from what came in; the only change from lesson 3 is that the keys come from the same place as the queries:

# %%
h, w = maps.maps[name].shape[1:3]
with torch.no_grad():
    q, k = (
        rearrange(m(seen["pixels"]), "1 n (head d) -> head n d", head=module.heads) for m in (module.to_q, module.to_k)
    )
heads = (torch.einsum("h q d, h k d -> h q k", q, k).float() / q.shape[-1] ** 0.5).softmax(-1)
by_hand = rearrange(heads.mean(0), "(h w) keys -> h w keys", h=h)

torch.testing.assert_close(by_hand, maps.maps[name][0])

# %% tags=["nbval-check-output"]
for layer, m in maps.maps.items():
    print(f"{layer:27} grid {tuple(m.shape[1:3])}, {m.shape[1] * m.shape[2]} × {m.shape[3]} numbers")

# %% [markdown]
# The number of entries is the *square* of the number of pixels. At 64×64 latents this is 16.8 million for one head of
# one layer. So `record_attention` averages heads at once, and its `layers` takes only what is wanted.

# %% [markdown]
# ### Exercise 4.1 · A pixel's view
# **Difficulty** ●○○○○ · **Time** 5 minutes
#
# The recorded array is `(h, w, h*w)`: for the pixel at (row, column), how much does it look at each pixel, row by row?
# Make its view a map. The check uses a grid that is not square.
#
# <details><summary>Hint</summary>
#
# `attention[row, column]` has `h*w` numbers, and `reshape` fills a map row by row.
# </details>


# %% tags=["exercise"]
def my_view(attention, row, column):
    """attention: (h, w, h*w). Returns the (h, w) map of where this pixel looks."""
    ### BEGIN SOLUTION
    h, w = attention.shape[:2]
    return attention[row, column].reshape(h, w)
    ### END SOLUTION


checks.check_view(my_view)

# %% [markdown]
# ## 3 · One pixel's view of the picture
#
# Choose a pixel in the middle of each thing, and one on the ground. The cross marks who is looking:

# %%
finest = max((m.shape[1:3] for m in maps.maps.values()), key=lambda size: size[0] * size[1])
attention = torch.stack([m[0] for m in maps.maps.values() if m.shape[1:3] == finest]).mean(0).cpu()
h, w = finest
things = resize(torch.from_numpy(sample.masks).float(), (h, w))
inside = torch.nn.functional.avg_pool2d(torch.cat([things, 1 - things.sum(0, keepdim=True)])[None], 5, 1, 2)[0]
points = [divmod(int(m.argmax()), w) for m in inside]

figure, axes = plt.subplots(1, 5, figsize=(9, 2.1))
for ax, (row, column), label in zip(axes, points, [*sample.categories, "ground"], strict=True):
    view = min_max(attention[row, column].reshape(h, w))
    show_map(resize(view, scene.size), image, ax, f"seen from: {label}")
    ax.plot(
        (column + 0.5) * scene.size[1] / w, (row + 0.5) * scene.size[0] / h, "+", color="white", markersize=12, mew=2.5
    )

# %% [markdown]
# Each pixel looks most at itself and near itself. Beyond that, pixels on a thing tend to see their own thing, and the
# ground sees ground. See also who else lights up: the other dog? Things of a like colour? Likeness, not identity, is
# what attention knows.

# %% [markdown]
# **Try it.** In a running notebook, move the mouse over a picture of the next cell: the last one shows where that pixel looks, and
# bars under the words what it listens to. Cross a thing's rim slowly. Does the view jump, or does it flow? Arrow keys walk
# pixel by pixel.

# %%
row, column = points[0]
AttentionExplorer.from_scene(scene, "the purple dog", pixel=[(row + 0.5) / h, (column + 0.5) / w])

# %% [markdown]
# ## 4 · Let the word's map flow
#
# A word map is often bright on a part of a thing only, on a face or a leg. Let each pixel ask those that it looks at,
# and take the mean of what they say:
#
# $$c' = A\,c$$
#
# $A$ is the self-attention matrix, one row per pixel. On the four toy pixels, only the first has been found:

# %% tags=["nbval-check-output"]
c = torch.tensor([1.0, 0.0, 0.0, 0.0])
for step in range(5):
    print(f"after {step} steps:", [round(x, 2) for x in c.tolist()])
    c = toy @ c

# %% [markdown]
# After one step the second pixel knows, too: it belongs to the same thing. But look on: with every step some of it
# leaks over, and all values drift towards one number. A mean of means of means is flat. **One or two steps mend, many
# erase.**

# %% [markdown]
# ### Exercise 4.2 · Propagation
# **Difficulty** ●●○○○ · **Time** 10 minutes
#
# Let a flat map flow for some steps, then stretch it to [0, 1].
#
# <details><summary>Hint</summary>
#
# `matrix @ word` gives every pixel the mean of the pixels that *it* looks at. Stretch: subtract the minimum, divide by
# the range.
# </details>


# %% tags=["exercise"]
def my_propagate(word, matrix, steps):
    """word: (n,), matrix: (n, n) with rows that sum to 1. Returns (n,) in [0, 1]."""
    ### BEGIN SOLUTION
    for _ in range(steps):
        word = matrix @ word
    return (word - word.min()) / (word.max() - word.min())
    ### END SOLUTION


checks.check_flow(my_propagate)

# %%
c, _ = scene.word_map(parse("apple"))
matrix = rearrange(attention, "h w keys -> (h w) keys")
by_hand = min_max((matrix @ resize(c, (h, w)).flatten()).reshape(h, w))
torch.testing.assert_close(by_hand, propagate(c, maps).cpu(), atol=1e-4, rtol=1e-4)

# %%
words, counts = ("apple", "penguin", "dog"), (0, 1, 2, 5, 20)
figure, axes = plt.subplots(len(words), len(counts), figsize=(8, 5))
for row, word in zip(axes, words, strict=True):
    c, _ = scene.word_map(parse(word))
    for ax, steps in zip(row, counts, strict=True):
        shown = propagate(c, maps, steps).cpu() if steps else c
        show_map(resize(shown, scene.size), image, ax, f'"{word}", {steps} steps')

# %% [markdown]
# The left column is the map as it was. One step fills gaps and calms the ground. Later steps bleed into neighbours and
# into things that look alike; what is left in the end says which pixels are looked at by everybody, and nothing about
# the word. The stretch to [0, 1] hides how little contrast remains, so print it:

# %% tags=["nbval-check-output"]
flat = resize(scene.word_map(parse("apple"))[0], (h, w)).flatten()
spread = [float((torch.linalg.matrix_power(matrix, n) @ flat).std()) for n in counts]
print("contrast falls with every step:", spread == sorted(spread, reverse=True))
print("a constant map stays as it is: ", bool((matrix @ torch.ones(h * w) - 1).abs().max() < 1e-3))

# %% [markdown]
# ## 5 · Segments without a word
#
# If pixels of one thing look at the same places, then their *rows* of $A$ are alike. So group the rows: each row is a
# point, and **k-means** finds groups of near points. It repeats two moves: give every point to its nearest centre; put
# every centre into the middle of its points.

# %% [markdown]
# ### Exercise 4.3 · Half of k-means
# **Difficulty** ●●○○○ · **Time** 5 minutes
#
# Write the first move.
#
# <details><summary>Hint</summary>
#
# `torch.cdist(rows, centres)` is the table of all distances, one row per point.
# </details>


# %% tags=["exercise"]
def my_nearest(rows, centres):
    """rows: (n, d), centres: (k, d). Returns (n,) indices of the nearest centres."""
    ### BEGIN SOLUTION
    return torch.cdist(rows, centres).argmin(1)
    ### END SOLUTION


checks.check_nearest(my_nearest)

# %%
rows = np.sqrt(matrix.numpy())  # between roots of shares, distance is Hellinger's: made for rows that sum to 1
figure, axes = plt.subplots(1, 5, figsize=(9, 2.1))
show_image(image, axes[0], "picture")
for ax, clusters in zip(axes[1:], (2, 4, 6, 10), strict=True):
    _, ids = kmeans2(rows, clusters, seed=np.random.default_rng(0), minit="++")
    ax.imshow(ids.reshape(h, w), cmap="cividis")
    ax.set_title(f"{clusters} groups")
    ax.set_axis_off()

# %% [markdown]
# Colours are only names here. With two groups you may see thing and ground; with more, the ground falls apart as well,
# since it is large and its far ends do not look at each other. No number of groups is right for every picture. As
# **proposals** (lesson 5) this does not matter much: bad ones lose when they are ranked. What matters is that each
# thing has one good one.

# %% tags=["nbval-check-output"]
masks = self_attention(maps, scene.size)
print("proposals:", masks.dtype, tuple(masks.shape[1:]), "each one connected region, some:", len(masks) > 1)
print("largest at most half of the picture:", bool(masks.float().mean((1, 2)).max() <= 0.5))


# %%
def best_ious(sample):
    """For every true mask: best IoU among self-attention's proposals and among Felzenszwalb's."""
    here = model.set_image(sample.path)
    kinds = here.proposals("self-attention"), felzenszwalb(here.image)
    return [[max((iou(p, truth) for p in ps.numpy()), default=0.0) for ps in kinds] for truth in sample.masks]


some = load_toyref("val", limit=24)
table = [(s.image_id, *row) for s in some for row in best_ious(s)]
ids, *columns = zip(*table, strict=True)
for label, values in zip(("self-attention", "Felzenszwalb"), columns, strict=True):
    low, high = bootstrap(values, ids)
    print(
        f"{label:15} mean best IoU {np.mean(values):.2f} (95 % interval {low:.2f} to {high:.2f}), {len(values)} things"
    )

# %% [markdown]
# The grid sets a limit: a thing of 30 pixels is not four cells wide in the toy's latents, and no rim can be finer than
# a cell. Felzenszwalb works at full resolution, on colour, and ToyRef's calm grounds are kind to it. On photographs its
# colours mislead it more, and there self-attention of a large UNet (64×64 cells) has a better chance.

# %% tags=["nbval-check-output"]
print("a cell is", scene.size[0] // h, "pixels wide")

# %% [markdown]
# ## 6 · What does it add?
#
# Does propagation help Ref-Diff to pick the right thing? Same count as in lesson 3: val scenes, unique nouns, true
# masks as proposals, diffusion alone (`gs`). The config has a switch for it.


# %%
def hits(config):
    """(image, right?) for every noun, with word maps made by this config."""
    one, found = RefDiff(model.networks, config), []
    for s in some:
        here = one.set_image(s.path, oracle=s.masks)
        truth = here.proposals("oracle")
        for r in [r for r in s.records if r.style == "noun"]:
            best = truth[here.segment(r.text, "gs").best].numpy()
            found.append((s.image_id, iou(best, s.masks[r.target]) > 0.5))
    return found


results = {steps: hits(model.config.replace(propagate=steps)) for steps in (0, 1, 2, 5)}

# %%
figure, ax = plt.subplots(figsize=(4.2, 2.4))
for steps, found in results.items():
    ids, right = zip(*found, strict=True)
    mean, (low, high) = np.mean(right), bootstrap(right, ids)
    ax.errorbar(
        steps, 100 * mean, [[100 * (mean - low)], [100 * (high - mean)]], marker="o", capsize=3, color=lesson.BLUE
    )
chance = np.mean([1 / len(s.masks) for s in some for r in s.records if r.style == "noun"])
ax.axhline(100 * chance, linestyle=":", color=lesson.RED, label="chance")
ax.set(xlabel="steps of propagation", ylabel="nouns found, %", ylim=(0, 105), xticks=list(results))
ax.legend()
plt.show()

# %%
base = np.array([right for _, right in results[0]], float)
for steps in (1, 2, 5):
    change = np.array([right for _, right in results[steps]], float) - base
    low, high = bootstrap(change, [i for i, _ in results[steps]])
    print(
        f"{steps} steps against none: {100 * change.mean():+.0f} points (95 % interval {100 * low:+.0f} to {100 * high:+.0f})"
    )

# %% [markdown]
# The bars of the figure overlap, but they are about the *same* nouns. So compare noun by noun, as the printed lines do:
# an interval of the **change** is narrower. Only where it leaves out zero has propagation done something that this many
# nouns can show. `make ablation` asks the same of all of ToyRef test.

# %% tags=["nbval-check-output"]
print(
    "the paper propagates:",
    RefDiffConfig.paper().propagate,
    "times; the official code:",
    RefDiffConfig.official().propagate,
)

# %% [markdown]
# <details><summary><b>What can go wrong</b></summary>
#
# - **Rows or columns?** `matrix @ c` collects from where a pixel looks. The transpose sends to where it looks: another
#   map, and pixels that everybody looks at become bright.
# - **Memory.** All heads of 64×64 self-attention are 0.5 GB in fp32, for one layer. At 1024 px it is sixteen times as
#   much: the official code's fault no. 9.
# - **Non-square pictures.** `(w, h)` for `(h, w)` gives a map that looks plausible, and is wrong.
# - **Groups change with the seed** of k-means. The library fixes it.
# </details>

# %% [markdown]
# ## Recap
#
# - Self-attention has a row for every pixel: where does it look? Mostly at what is like it.
# - $Ac$ mends a word map with one or two steps and erases it with many.
# - Groups of like rows are segments, at the resolution of the latents.
# - None of this is in the paper. What it adds must be measured, noun by noun, with an interval.
#
# **References.** Tumanyan et al., *Plug-and-Play Diffusion Features* ([arXiv
# 2211.12572](https://arxiv.org/abs/2211.12572)), on what self-attention holds. Wang et al., *Diffusion Model is
# Secretly a Training-free Open Vocabulary Semantic Segmenter* ([arXiv 2309.02773](https://arxiv.org/abs/2309.02773)),
# on refining word maps with it. In the code: `refdiff_lite/attention.py`, `refdiff_lite/proposals.py`.
