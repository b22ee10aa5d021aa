# ---
# title: Proposals, masks that might be the answer
# minutes: 60
# cpu: 1
# gpu: 2
# goals:
#   - measure what a set of proposals allows at best, before any ranking
#   - say why the score S_G, free to choose a threshold, chooses a few pixels, and mend it with Otsu's criterion
#   - rebuild Felzenszwalb's segments, clusters of self-attention and SAM's filters on toy numbers
#   - store a mask as run lengths and read it back with pycocotools
# ---
# %% tags=["setup"]
from refdiff_lite import lesson

PRESET = "toy"
lesson.start(PRESET)

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
from pycocotools import mask as coco_mask

from refdiff_lite import RefDiff, RefDiffConfig, proposals
from refdiff_lite.checks import proposals as checks
from refdiff_lite.datasets.toyref import load_toyref
from refdiff_lite.evaluation.metrics import bootstrap, iou
from refdiff_lite.fusion import generative_score
from refdiff_lite.viz import show_image, show_map, show_mask

# %% [markdown]
# Ref-Diff never draws a mask. Something proposes masks $M_1, \dots, M_N$ without having read the sentence, then scores
# rank them. So there is a ceiling: if no proposal fits the thing that is named, the best ranking in the world must
# fail. This lesson builds four generators and measures their ceilings.

# %% [markdown]
# ## The ceiling, on toy numbers
#
# Two true objects on a 3 × 6 grid, and three proposals. How good could a perfect ranking be? For every object, look
# for the proposal that fits it best: $\text{best}(T) = \max_i \mathrm{IoU}(M_i, T)$.

# %% tags=["nbval-check-output"]
truths, masks = torch.zeros(2, 3, 6, dtype=torch.bool), torch.zeros(3, 3, 6, dtype=torch.bool)
truths[0, :2, :2] = truths[1, 1:, 3:] = True
masks[0, :2, :3] = masks[1, :, 3:] = masks[2, 2, :] = True
for m in masks:
    print("  ".join(f"{iou(m.numpy(), t.numpy()):.2f}" for t in truths))

# %% [markdown]
# Rows are proposals, columns objects: both objects have a proposal with an IoU of 0.67. The whole table is a single
# matrix product: flattened masks times flattened truths counts the shared pixels of every pair.


# %% tags=["nbval-check-output"]
def iou_table(masks, truths):
    """(N, K): IoU of N masks with K truths, all bool tensors of (·, H, W)."""
    a, b = masks.flatten(1).float(), truths.flatten(1).float()
    shared = a @ b.T
    return shared / (a.sum(1)[:, None] + b.sum(1) - shared).clamp_min(1)


one_by_one = torch.tensor([[iou(m.numpy(), t.numpy()) for t in truths] for m in masks])
torch.testing.assert_close(iou_table(masks, truths), one_by_one)
print("best IoU of each object:", iou_table(masks, truths).amax(0).numpy().round(2))

# %% [markdown]
# ### Exercise 5.1 · Recall
# **Difficulty** ●○○○○ · **Time** 5 minutes
#
# The *recall* of a generator at a threshold: the share of objects with at least one proposal whose IoU reaches it.
# Compute it from the table.
#
# <details><summary>Hint</summary>
#
# First the best proposal of each object (a maximum over which axis?), then the share of those that reach the threshold.
# </details>


# %% tags=["exercise"]
def recall(table, threshold):
    """table: (N, K) IoU of N proposals with K objects. Returns a number from 0 to 1."""
    ### BEGIN SOLUTION
    return float((table.amax(0) >= threshold).float().mean())
    ### END SOLUTION


checks.check_recall(recall)

# %% [markdown]
# ## 1 · Weak proposals: a map cut at nineteen heights
#
# The paper's cheapest generator needs no network beyond the UNet. It cuts the word map $c$ at fixed heights:
# $\{\,c \ge \mu\,\}$ for $\mu = 5\,\%, 10\,\%, \dots, 95\,\%$. These are the only proposals that know the word.

# %% tags=["nbval-check-output"]
row = torch.tensor([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.3, 0.2, 0.2, 0.1, 0.1, 0.1, 0.1, 0.0, 0.0, 0.0])
thing = torch.arange(16) < 6  # the true object: the first six pixels
levels = torch.arange(1, 20) / 20
by_hand = row[None, None] >= levels[:, None, None]
assert torch.equal(by_hand, proposals.weak(row[None]))
print("areas:", by_hand.sum((1, 2)).tolist())

# %% [markdown]
# Each mask lies inside the one before it: they are *nested*. Which one is best? The seventh to tenth cut at a height
# between the object's dimmest pixel and the ground's brightest: six pixels, no more. On a picture it looks like this;
# the map is a made-up soft blob, the true object the disc whose rim is drawn.

# %%
y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
distance = ((x - 30) ** 2 + (y - 34) ** 2).sqrt()
blob, disc = torch.exp(-((distance / 20) ** 2)), distance < 18
blob = (blob - blob.min()) / (blob.max() - blob.min())
weak = proposals.weak(blob)
figure, axes = plt.subplots(1, 6, figsize=(9, 1.9))
show_map(blob.numpy(), None, axes[0], "map c")
for ax, k in zip(axes[1:], (0, 4, 9, 14, 18), strict=True):
    show_map(weak[k].float().numpy(), None, ax, f"c ≥ {levels[k]:.2f}\nIoU {iou(weak[k].numpy(), disc.numpy()):.2f}")
for ax in axes:
    ax.contour(disc, levels=[0.5], colors="w", linewidths=1.5)

# %% [markdown]
# Yellow is inside the mask. Somewhere in the middle the cut follows the white rim. Nobody tells us where: the height
# must be chosen by a score that does not know the truth.

# %% [markdown]
# ## Why S_G, left to choose, wants almost nothing
#
# The paper chooses by the generative score, mean inside minus mean outside:
# $S_G(M) = \bar c_{\text{in}} - \bar c_{\text{out}}$. Work it out for the sixteen pixels above.

# %% tags=["nbval-check-output"]
print("threshold  area  inside  outside    S_G   IoU")
for k in (1, 5, 9, 13, 18):
    m = by_hand[k, 0]
    inside, outside = row[m].mean(), row[~m].mean()
    assert torch.isclose(inside - outside, generative_score(row[None], m[None, None])[0])
    fit = iou(m.numpy(), thing.numpy())
    print(f"{levels[k]:9.2f} {m.sum():5d} {inside:7.2f} {outside:8.2f} {inside - outside:6.2f} {fit:5.2f}")

# %% [markdown]
# The single brightest pixel wins, although six are right. This is no accident. Inside, every pixel is at least $\mu$;
# the outside holds only what is dimmer than the inside, so its mean is at most that of the whole map. Therefore
#
# $$S_G(\{c \ge \mu\}) \;\ge\; \mu - \bar c .$$
#
# At 95 % that is nearly the largest score there is, and **no object was needed** to get it.


# %% tags=["nbval-check-output"]
def bound_holds(c):
    scores, cuts = generative_score(c, proposals.weak(c)), torch.arange(1, 20) / 20
    return bool((scores >= cuts - c.mean() - 1e-6).all())


noise = torch.rand(64, 64, generator=torch.Generator().manual_seed(0))
print("row", bound_holds(row[None]), " blob", bound_holds(blob), " pure noise", bound_holds(noise))
print(f"pure noise, cut at 95 %: S_G = {generative_score(noise, proposals.weak(noise))[18]:.2f}")

# %% [markdown]
# ### Exercise 5.2 · Otsu's criterion
# **Difficulty** ●●○○○ · **Time** 10 minutes
#
# Otsu (1979) asks how far a cut separates the map into two groups, and counts how large the groups are: $\sigma_B^2 =
# p\,(1-p)\,(\bar c_{\text{in}} - \bar c_{\text{out}})^2$, where $p$ is the share of pixels inside. Write it for one
# mask.
#
# <details><summary>Hint</summary>
#
# `c[mask]` are the values inside, `c[~mask]` those outside; `mask.float().mean()` is $p$.
# </details>


# %% tags=["exercise"]
def between_class_variance(c, mask):
    """c: (H, W) map, mask: (H, W) bool with both sides non-empty. Returns a number as a tensor."""
    ### BEGIN SOLUTION
    p = mask.float().mean()
    return p * (1 - p) * (c[mask].mean() - c[~mask].mean()) ** 2
    ### END SOLUTION


checks.check_otsu(between_class_variance)

# %% [markdown]
# Why this formula? The variance of all pixels splits exactly in two: what is left within the groups, and what lies
# between them. Maximising the second part minimises the first: both groups become as even as they can. Check it on the
# row.

# %% tags=["nbval-check-output"]
for k in (1, 9, 18):
    m = by_hand[k, 0]
    p = m.float().mean()
    within = p * row[m].var(correction=0) + (1 - p) * row[~m].var(correction=0)
    between = proposals.otsu_choice(row[None], m[None, None])[0]
    torch.testing.assert_close(within + between, row.var(correction=0))
    print(f"threshold {levels[k]:.2f}: within {within:.3f} + between {between:.3f} = {row.var(correction=0):.3f}")

# %%
s_g, otsu = generative_score(blob, weak), proposals.otsu_choice(blob, weak)
fits = iou_table(weak, disc[None])[:, 0]
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.8))
for values, name in ((s_g / s_g.max(), "S_G"), (otsu / otsu.max(), "Otsu"), (fits / fits.max(), "IoU (the truth)")):
    left.plot(levels * 100, values, "o-", markersize=3, label=name)
left.set(xlabel="threshold μ in %", ylabel="share of its own maximum", title="what each score prefers")
left.legend()
right.hist(blob.flatten().numpy(), 40, color=lesson.SKY)
for score, name, style in ((s_g, "S_G", "--"), (otsu, "Otsu", "-")):
    right.axvline(levels[score.argmax()], color="k", linestyle=style, label=name)
right.set(xlabel="value of c", ylabel="pixels", title="where the map is cut")
_ = right.legend(loc="center")
# %% [markdown]
# $S_G$ climbs to the right end and stays there. Otsu's curve peaks in the middle, near the peak of the true IoU. In the
# histogram its cut (solid) parts the many dim pixels from the bright ones; that of $S_G$ (dashed) leaves nearly
# everything outside.

# %% tags=["nbval-check-output"]
from skimage.filters import threshold_otsu

chosen = {"S_G": s_g, "Otsu": otsu, "the truth": fits}
for name, score in chosen.items():
    k = int(score.argmax())
    print(f"{name:10} cuts at {levels[k]:.2f}: {int(weak[k].sum()):4d} pixels, IoU {fits[k]:.2f}")
print(f"scikit-image's Otsu, at any height: {threshold_otsu(blob.numpy(), nbins=100):.2f}")

# %% [markdown]
# The paper-named preset keeps the paper's rule; the toy preset uses Otsu, and says so. Now a real word map of one scene.

# %%
samples = load_toyref("val", limit=12)
model = RefDiff.from_preset(PRESET)
sample = samples[1]
scene = model.set_image(sample.path, oracle=sample.masks)
record = next(r for r in sample.records if r.style == "noun")
target = torch.from_numpy(sample.masks[record.target])[None]
result = scene.segment(record.text, "g")
c, cuts = torch.from_numpy(result.word_map), result.masks
rules = {
    "S_G": generative_score(c, cuts),
    "Otsu": proposals.otsu_choice(c, cuts),
    "best": iou_table(cuts, target)[:, 0],
}
figure, axes = plt.subplots(1, 4, figsize=(9, 2.5))
show_map(result.word_map, scene.image, axes[0], f'c of "{record.text}"')
for ax, (name, score) in zip(axes[1:], rules.items(), strict=True):
    mask = cuts[score.argmax()].numpy()
    show_mask(mask, scene.image, ax, f"{name}: {mask.sum()} px, IoU {iou(mask, target[0].numpy()):.2f}")

# %% [markdown]
# The same story: $S_G$ keeps a speck where the map is brightest, Otsu a region. "Best" is the cut that a ranking with
# second sight would take. It is the ceiling of weak proposals for this word; no cut can repair a map that glows in the
# wrong place. Over more nouns:

# %%
rows = {"S_G": [], "Otsu": [], "best of 19": []}
for sample in samples[:8]:
    scene = model.set_image(sample.path)
    for record in [r for r in sample.records if r.style == "noun"][:2]:
        found = scene.segment(record.text, "g")
        c, fits = torch.from_numpy(found.word_map), iou_table(found.masks, torch.from_numpy(sample.masks))
        fits = fits[:, record.target]
        for name, score in (("S_G", generative_score(c, found.masks)), ("Otsu", proposals.otsu_choice(c, found.masks))):
            rows[name].append(float(fits[score.argmax()]))
        rows["best of 19"].append(float(fits.max()))
for name, values in rows.items():
    print(f"{name:10} mean IoU {np.mean(values):.2f} over {len(values)} nouns")

# %% [markdown]
# ## 2 · Felzenszwalb: colour alone
#
# Now proposals that know nothing of words. Felzenszwalb and Huttenlocher (2004) see an image as a graph: pixels are
# nodes, neighbours are joined by an edge that weighs their difference in colour. Go through the edges from the
# lightest. Merge two segments $A$, $B$ if the edge between them is no heavier than what is usual inside each:
#
# $$w \le \min\big(\mathrm{Int}(A) + k/|A|,\; \mathrm{Int}(B) + k/|B|\big).$$


# %% tags=["nbval-check-output"]
def merge_row(values, k):
    """Segments of a row of grey values: the index of its first pixel for each."""
    root, size, internal = list(range(len(values))), [1] * len(values), [0.0] * len(values)
    edges = sorted((abs(values[i + 1] - values[i]), i) for i in range(len(values) - 1))
    for w, i in edges:
        a, b = root[i], root[i + 1]
        if w < min(internal[a] + k / size[a], internal[b] + k / size[b]):
            root = [a if r == b else r for r in root]
            size[a], internal[a] = size[a] + size[b], w
    return root


grey = [0.10, 0.13, 0.11, 0.50, 0.54, 0.51, 0.90]
for k in (0.01, 0.1, 2):
    print(f"k = {k:<4}", merge_row(grey, k))

# %% [markdown]
# $\mathrm{Int}$ is the heaviest edge inside a segment; $k/|A|$ lets small segments grow. Small $k$: every pixel for
# itself. Large $k$: one segment. scikit-image does this in two dimensions (its `scale` is $255\,k$); on one row it must
# agree.

# %%
from skimage.segmentation import felzenszwalb, find_boundaries

for k in (0.01, 0.1, 2):
    theirs = felzenszwalb(np.array([grey]), scale=255 * k, sigma=0, min_size=1, channel_axis=None)[0]
    ours = np.unique(merge_row(grey, k), return_inverse=True)[1]
    np.testing.assert_array_equal(ours, theirs)

sample = samples[10]
scene = model.set_image(sample.path, oracle=sample.masks)
figure, axes = plt.subplots(1, 4, figsize=(9, 2.5))
show_image(scene.image, axes[0], "image")
for ax, scale in zip(axes[1:], (5, 50, 500), strict=True):
    segments = felzenszwalb(scene.image, scale=scale, sigma=0.5, min_size=6)
    picture = scene.image.copy()
    picture[find_boundaries(segments, mode="inner")] = (255, 0, 200)
    show_image(picture, ax, f"scale {scale}: {segments.max() + 1} segments")

# %% [markdown]
# No scale is right. A small one shatters things and ground alike; a large one leaves fewer pieces, and may swallow what
# resembles the ground. Segments are parts; we want things. The library merges segments whose common border is no edge,
# calls the largest one the ground, and takes every connected rest as an object.

# %% tags=["nbval-check-output"]
picture = np.full((40, 60, 3), 230, np.uint8)
picture[8:30, 6:26] = (200, 30, 30)  # one red square …
picture[14:22, 12:20] = (250, 220, 60)  # … with a yellow heart
picture[10:34, 36:54] = (30, 60, 200)
found = proposals.felzenszwalb(picture)
heart = np.s_[:, 14:22, 12:20]
print(len(found), "proposals; share of the yellow heart in each:", found[heart].float().mean((1, 2)).tolist())

# %% [markdown]
# The heart is part of the red square, as a thing's parts should be. But "connected" has a price: two things that
# touch are one region. The remedy is a *watershed*. Measure every pixel's distance from the rim. Where two things touch
# there is a waist, and between two summits of the distance a pass: cut there.

# %%
from scipy.ndimage import distance_transform_edt

canvas = np.full((50, 90, 3), 225, np.uint8)
yy, xx = np.mgrid[:50, :90]
canvas[((xx - 28) ** 2 + (yy - 25) ** 2 < 20**2) | ((xx - 60) ** 2 + (yy - 25) ** 2 < 16**2)] = (200, 80, 30)
pieces = proposals.felzenszwalb(canvas)
depth = distance_transform_edt(pieces[0].numpy())
figure, axes = plt.subplots(1, 5, figsize=(9, 1.7), gridspec_kw={"width_ratios": [1, 1.25, 1, 1, 1]})
show_image(canvas, axes[0], "two discs touch")
axes[1].set_axis_off()
figure.colorbar(axes[1].imshow(depth), ax=axes[1], shrink=0.6).ax.set_ylabel("px", fontsize=8)
axes[1].set_title("distance to the rim")
for ax, mask, name in zip(axes[2:], pieces, ("the region", "first part", "second part"), strict=True):
    show_mask(mask.numpy(), canvas, ax, name)

# %% [markdown]
# The distance has two summits (bright), one in each disc, and a pass between them. Region and parts are **all**
# proposed, for the thing may really have a waist: whether a snowman is one or two is a question for the ranking.

# %% tags=["nbval-check-output"]
areas = pieces.flatten(1).sum(1).tolist()
print(f"{len(pieces)} proposals; the parts add up to the region: {areas[1] + areas[2] == areas[0]}")

# %% [markdown]
# ## 3 · Clusters of self-attention
#
# Lesson 4: a row of self-attention says where a pixel looks. Pixels of one thing look at the same places, so their rows
# are alike. Group the rows with k-means: no colour threshold, no calm ground needed. On six pixels, two clusters, two
# rounds by hand:

# %% tags=["nbval-check-output"]
rows = torch.tensor([[5, 4, 1, 1, 0, 0], [4, 5, 1, 0, 0, 0], [3, 3, 3, 1, 0, 0]]).float()
rows = torch.cat([rows, rows.flip(1)])
rows = rows / rows.sum(1, keepdim=True)  # each row sums to 1, as attention does
points = rows.sqrt()  # then Euclidean distance is the Hellinger distance of the two distributions
centres = points[[0, 1]]
for _ in range(3):
    group = torch.cdist(points, centres).argmin(1)
    print("groups", group.tolist())
    centres = torch.stack([points[group == g].mean(0) for g in (0, 1)])

# %% [markdown]
# A bad start, two pixels of one thing as centres; the groups fall into place all the same. Connected regions of each
# cluster become proposals; those under 0.4 % or over half of the image are dropped.

# %%
regions = scene.proposals("self-attention")
order = iou_table(regions, torch.from_numpy(sample.masks)).amax(1).argsort(descending=True)
figure, axes = plt.subplots(1, 5, figsize=(9, 2.1))
axes[0].imshow((regions.float() * torch.arange(1, len(regions) + 1)[:, None, None]).amax(0), cmap="tab20", vmin=0)
axes[0].set_axis_off()
axes[0].set_title(f"all {len(regions)} regions")
for ax, k in zip(axes[1:], order[[0, 1, 2, -1]].tolist(), strict=True):
    best = max(iou(regions[k].numpy(), m) for m in sample.masks)
    show_mask(regions[k].numpy(), scene.image, ax, f"best IoU {best:.2f}")

# %% [markdown]
# The rims are soft and blocky: one attention row stands for many pixels of the image, and the blocks are as large as
# that. The last panel is the worst region; on most scenes, a piece of ground. A ranking must tell it from a thing.

# %% [markdown]
# ## 4 · SAM, a network trained to propose
#
# The paper takes its proposals from Segment Anything: prompt it with a grid of 32 × 32 points, get three masks for
# each, and filter. No SAM comes with the toy preset, and the library says so:

# %%
try:
    print(len(scene.proposals("sam")), "masks from SAM")
except ValueError as error:
    print(error)

# %% [markdown]
# Its two filters can be understood without it. *Stability*: SAM gives a map of logits; cut it a little higher and a
# little lower. If the mask hardly changes, its rim is sharp, and it is kept. The IoU of the two cuts is the stability
# score.

# %% tags=["nbval-check-output"]
sharp, soft = 40 * (15.2 - distance), 0.4 * (15.2 - distance)  # logits: positive inside the disc
for name, logits in (("sharp rim", sharp), ("soft rim", soft)):
    low, high = logits > -1, logits > 1
    print(f"{name}: stability {iou(high.numpy(), low.numpy()):.2f}")

# %% [markdown]
# *Non-maximum suppression*: neighbouring points give the same thing again and again. Keep the most confident, drop what
# overlaps it, repeat. SAM compares boxes, which is cheaper than masks.


# %% tags=["nbval-check-output"]
def suppress(boxes, scores, threshold):
    left, kept = scores.argsort(descending=True).tolist(), []
    while left:
        kept.append(first := left.pop(0))
        left = [i for i in left if box_iou(boxes[[first]], boxes[[i]])[0, 0] <= threshold]
    return kept


from torchvision.ops import box_iou, nms

boxes = torch.tensor([[0, 0, 10, 10], [1, 0, 11, 10], [20, 5, 30, 15], [0, 0, 30, 15]]).float()
confidence = torch.tensor([0.8, 0.9, 0.7, 0.6])
assert suppress(boxes, confidence, 0.7) == nms(boxes, confidence, 0.7).tolist()
print("kept:", suppress(boxes, confidence, 0.7))

# %% [markdown]
# Box 0 is gone: it is box 1, shifted by a pixel. The last, a box around everything, stays. The official code then keeps
# the ten **largest** masks and drops those under 10 000 pixels, made for photographs of 1024 pixels. What would that do
# to ToyRef?

# %% tags=["nbval-check-output"]
official = RefDiffConfig.official()
truth = torch.from_numpy(sample.masks)
print("areas of the true objects:", sorted(truth.flatten(1).sum(1).tolist(), reverse=True))
print("kept by the official filter:", len(proposals.keep(truth, official.keep_largest, official.min_area)))
print("kept by the paper's preset:", len(proposals.keep(truth, None, 0)))

# %% [markdown]
# ## Who proposes best?
#
# Now measure: for every true object of our scenes the best IoU that each generator offers, and the recall. Intervals
# come from drawing whole images again (lesson 8). No sentence is involved.

# %%
KINDS = ("felzenszwalb", "self-attention")
ceiling, counts, images = {k: [] for k in KINDS}, dict.fromkeys(KINDS, 0), []
for s in samples:
    scene, truth = model.set_image(s.path), torch.from_numpy(s.masks)
    images += [s.image_id] * len(truth)
    for kind in KINDS:
        found = scene.proposals(kind)
        counts[kind] += len(found)
        ceiling[kind] += (iou_table(found, truth).amax(0) if len(found) else torch.zeros(len(truth))).tolist()
print("generator       masks/image   best IoU (95 %)       recall at 0.5")
for kind, best in ceiling.items():
    low, high = bootstrap(best, images)
    hit = np.mean(np.array(best) >= 0.5)
    print(f"{kind:15} {counts[kind] / len(samples):8.1f}      {np.mean(best):.2f} ({low:.2f}–{high:.2f}) {hit:15.2f}")

# %%
figure, ax = plt.subplots(figsize=(5, 2.8))
grid = np.linspace(0, 1, 101)
for (kind, best), style in zip(ceiling.items(), ("-", "--"), strict=True):
    ax.plot(grid, [(np.array(best) >= g).mean() for g in grid], style, label=kind)
ax.set(xlabel="IoU that a proposal must reach", ylabel="recall (share of objects)", ylim=(0, 1.03))
_ = ax.legend()
# %% [markdown]
# Read a curve from left to right: it falls slowly while the masks are good and drops where they end. Felzenszwalb was
# made for pictures like these, sharp things on a calm ground; a photograph of a crowd would turn the tables. Where does
# it fail?

# %%
best = np.array(ceiling["felzenszwalb"])
owner = [(s, k) for s in samples for k in range(len(s.masks))]
figure, axes = plt.subplots(1, 4, figsize=(9, 2.5))
for ax, n in zip(axes, best.argsort()[:4].tolist(), strict=True):
    s, k = owner[n]
    show_image(model.set_image(s.path).image, ax, f"{s.categories[k]}: best IoU {best[n]:.2f}")
    ax.contour(s.masks[k], levels=[0.5], colors="w", linewidths=1.5)

# %% [markdown]
# The four worst-served objects, their true rims white. Ask of each: does it touch another thing? Is its colour close to
# the ground's beside it, so that thing and ground were merged there? A ranking that "fails" on such a thing is
# blameless. Always measure the ceiling first.

# %% [markdown]
# ## How masks are stored: run lengths
#
# A mask of 640 × 480 has 307 200 bits, most of them repeated. COCO and RefCOCO store *run-length encoding* (RLE): walk
# down the **columns** and count: so many zeros, so many ones, so many zeros …

# %% tags=["nbval-check-output"]
small = np.array([[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 1, 1]], bool)
print("down the columns:", "".join(map(str, small.T.astype(int).ravel())))
print("runs: 3 zeros, 2 ones, 1 zero, 3 ones, 2 zeros, 1 one")

# %% [markdown]
# ### Exercise 5.3 · Run lengths
# **Difficulty** ●●●○○ · **Time** 10 minutes
#
# Write the encoder. The first run always counts zeros; it is 0 if the mask begins with a one.
#
# <details><summary>Hint</summary>
#
# `mask.T.ravel()` walks down the columns. Put a `False` in front, find the places where neighbours differ, and take
# differences of places: `np.flatnonzero(a[1:] != a[:-1])`, `np.diff`.
# </details>


# %% tags=["exercise"]
def run_lengths(mask):
    """mask: (H, W) bool array. Returns a list of ints that add up to H * W."""
    ### BEGIN SOLUTION
    flat = np.concatenate([[False], mask.T.ravel()])
    places = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff([0, *places, mask.size]).tolist()
    ### END SOLUTION


checks.check_run_lengths(run_lengths)

# %% [markdown]
# pycocotools squeezes these counts into a string of bytes. Both forms must decode to the same mask. Areas and IoU are
# computed on the runs, without unpacking.

# %% tags=["nbval-check-output"]
rle = coco_mask.encode(np.asfortranarray(small.astype(np.uint8)))
from_counts = coco_mask.frPyObjects({"size": [3, 4], "counts": [3, 2, 1, 3, 2, 1]}, 3, 4)
assert rle == from_counts
np.testing.assert_array_equal(coco_mask.decode(rle) > 0, small)
print(rle, " area", coco_mask.area(rle))
print("IoU with itself", coco_mask.iou([rle], [rle], [0])[0, 0])

# %% [markdown]
# **Gotcha.** pycocotools reads memory column by column, NumPy lays it row by row. It refuses such an array, which is
# kind. The unkind way is to reshape by hand: same counts, rows instead of columns, and a scrambled mask without any
# error.

# %% tags=["nbval-check-output"]
try:
    coco_mask.encode(small.astype(np.uint8))
except ValueError as error:
    print("refused:", error)
scrambled = coco_mask.decode(rle).ravel(order="F").reshape(3, 4) > 0  # forgot order="F" in the reshape
print(f"read row by row, its IoU with the truth is {iou(scrambled, small):.2f}")

# %% tags=["nbval-check-output"]
truth = samples[10].masks
sizes = [len(coco_mask.encode(np.asfortranarray(m.astype(np.uint8)))["counts"]) for m in truth]
print("bytes as bits: ", truth[0].size // 8, " as RLE:", sizes)

# %% [markdown]
# <details><summary><b>What can go wrong</b></summary>
#
# - You tune the ranking for a week, and the ceiling was the limit. Print recall and best IoU first.
# - A score that was made to rank *given* masks is used to *make* one ($S_G$ and thresholds): it runs to an extreme.
# - Polygons of one annotation overlap: decode with pycocotools and binarise with `> 0`, never sum.
# - A filter in pixels (10 000) is carried to images of another size. Filter by share of the image.
# - More proposals raise the ceiling but also the number of wrong answers that the ranking must turn down.
# </details>

# %% [markdown]
# ## Recap
#
# - Recall and best IoU are the ceiling of everything that follows; measure them before the ranking.
# - Cut at 95 %, any map gets a high $S_G$; Otsu weighs area and cuts in the middle.
# - Felzenszwalb merges by colour, clusters of self-attention by where pixels look, SAM was trained to propose.
# - Masks are stored as runs, down the columns, the first run zeros.
#
# **Where next.** Lesson 6 asks CLIP which proposal fits the sentence.
#
# **References.** Otsu, *A threshold selection method from gray-level histograms* (1979). Felzenszwalb and Huttenlocher,
# *Efficient graph-based image segmentation* (2004). Tian et al., *Diffuse, Attend and Segment*, [arXiv
# 2308.12469](https://arxiv.org/abs/2308.12469), on clusters of self-attention. Kirillov et al., *Segment Anything*,
# [arXiv 2304.02643](https://arxiv.org/abs/2304.02643). Symbols: [the glossary](../docs/glossary.md).
