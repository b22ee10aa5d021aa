# ---
# title: Attention without cross-attention
# minutes: 60
# cpu: 0.5
# goals:
#   - say what stands in one sequence in a diffusion transformer, and cut its attention into four quarters
#   - compute one block's joint attention by hand, and find the words' maps in it
#   - measure how little of a pixel's attention goes to words, and what that does to maps
#   - choose a block on one set of pictures and test it on another
#   - tell sinks, registers and magnets apart, and look for them
# ---
# %% tags=["setup"]
from refdiff_lite import lesson

PRESET = "toy"
lesson.start(PRESET)

# %%
import json
from contextlib import ExitStack, contextmanager, nullcontext

import matplotlib.pyplot as plt
import numpy as np
import torch

from refdiff_lite import RefDiff
from refdiff_lite.attention import min_max, record_attention, resize
from refdiff_lite.checks import joint_attention as checks
from refdiff_lite.datasets.toyref import load_toyref
from refdiff_lite.evaluation.metrics import interval
from refdiff_lite.evaluation.summary import percent
from refdiff_lite.expression import token_positions
from refdiff_lite.files import data_dir
from refdiff_lite.fusion import generative_score
from refdiff_lite.look import look
from refdiff_lite.toy.dit import NO_T5, load_dit, velocity, words
from refdiff_lite.toy.phrases import Phrase, caption, names_one
from refdiff_lite.toy.scenes import make_scene
from refdiff_lite.toy.train_dit import caption_losses, encode
from refdiff_lite.viz import show_image, show_map, show_mask
from refdiff_lite.widgets import AttentionExplorer
from refdiff_lite.widgets.traced import attention_of

# %% [markdown]
# Stable Diffusion 3, FLUX and most models since 2024 are **transformers**, and they have no cross-attention. Words and
# pixels stand in *one* sequence, and everything attends to everything. Where, then, is the map of a word?
#
# We bundle a small one of Stable Diffusion 3's class, `toy-dit`, trained on the same pictures and captions as the toy
# UNet. It is so small that this lesson runs it on the CPU, whatever the preset.

# %% [markdown]
# ## 1 · Toy numbers: one sequence, four quarters
#
# Two pixels and three words. Each has a query and a key; pixels and words have projections of their own, but the softmax
# runs over all five keys.

# %% tags=["nbval-check-output"]
pixels, texts = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 2.0], [1.0, 0.0], [0.0, 0.0]])
sequence = torch.cat([pixels, texts])  # queries and keys are the same here, to keep the numbers few
toy = (sequence @ sequence.T).softmax(-1)
print("rows ask, columns are asked:")
print(np.round(toy.numpy(), 2))
print("first pixel to pixels, to words:", [round(float(toy[0, part].sum()), 2) for part in (slice(2), slice(2, 5))])

# %% [markdown]
# The upper left quarter is what lesson 4 calls self-attention: pixels to pixels. The upper right one, pixels to words,
# is the old cross-attention, but **its rows no longer sum to 1**: words compete with pixels. The lower left one is new:
# words look at pixels. In the lower right one words read each other while the picture is made.

# %% [markdown]
# ## 2 · One block by hand
#
# A hook catches what goes into a block's attention: pixels and words, each already normalised.

# %%
pipe = load_dit()
blocks = list(pipe.transformer.transformer_blocks)
sentence, t = "the small chair on the right", 0.3
scene = make_scene("val", 0)
places = {
    word: token_positions(pipe.tokenizer, sentence, (sentence.index(word), sentence.index(word) + len(word)))
    for word in ("small", "chair", "right")
}


def noised(scene, t, seed=0):
    """(1 - t) x0 + t noise: rectified flow mixes picture and noise along a straight line."""
    x0 = encode(pipe, scene)
    return (1 - t) * x0 + t * torch.randn(x0.shape, generator=torch.Generator().manual_seed(seed))


inputs = {}
hooks = [
    block.attn.register_forward_pre_hook(
        lambda m, args, given, i=i: inputs.update({i: (given["hidden_states"], given["encoder_hidden_states"])}),
        with_kwargs=True,
    )
    for i, block in enumerate(blocks)
]
with torch.no_grad(), record_attention(pipe.transformer) as cross:
    velocity(pipe, noised(scene, t), torch.tensor([t]), words(pipe, [sentence]))
for hook in hooks:
    hook.remove()
seen, said = inputs[1]
print(f"pixels {tuple(seen.shape)}, words {tuple(said.shape)}")

# %% [markdown]
# A patch of 2×2 latents is one "pixel" here, so 64 of them stand before 24 tokens. (FLUX puts the words first. Nothing in
# the numbers tells you which it is.)

# %%
attn = blocks[1].attn


def heads(x):
    """(1, n, heads * d) -> (heads, n, d)"""
    return x[0].unflatten(-1, (attn.heads, -1)).transpose(0, 1)


with torch.no_grad():
    q = torch.cat([heads(attn.to_q(seen)), heads(attn.add_q_proj(said))], 1)
    k = torch.cat([heads(attn.to_k(seen)), heads(attn.add_k_proj(said))], 1)
joint = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1).mean(0)  # mean over the heads
print("one block's attention:", tuple(joint.shape))
n = seen.shape[1]
recorded = cross.maps["transformer_blocks.1"][0].flatten(0, 1)
torch.testing.assert_close(joint[:n, n:], recorded, atol=1e-5, rtol=1e-4)


# %% [markdown]
# `record_attention(kind="cross")` is the upper right quarter; `"self"`, `"reverse"` and `"text"` are the other three. So
# one name serves both kinds of model, as long as you remember what shares in the softmax.


# %%
def all_blocks(scene, text, t):
    """The joint attention of every block, mean over heads: (blocks, n + tokens, n + tokens)."""
    rows = []
    record = {}
    with torch.no_grad(), ExitStack() as stack:
        for kind in ("self", "cross", "reverse", "text"):
            record[kind] = stack.enter_context(record_attention(pipe.transformer, kind=kind))
        velocity(pipe, noised(scene, t), torch.tensor([t]), words(pipe, [text]))
    for name in record["self"].maps:
        upper = [record[kind].maps[name][0].flatten(0, 1) for kind in ("self", "cross")]
        to_pixels = record["reverse"].maps[name][0].flatten(0, 1).T
        rows.append(torch.cat([torch.cat(upper, 1), torch.cat([to_pixels, record["text"].maps[name][0]], 1)]))
    return torch.stack(rows)


every = all_blocks(scene, sentence, t)
torch.testing.assert_close(every[1], joint, atol=1e-5, rtol=1e-4)
figure, axes = plt.subplots(1, 2, figsize=(8.5, 3.9))
for ax, block in zip(axes, (0, 3), strict=True):
    image = ax.imshow(every[block].clamp_min(1e-5).log10(), vmin=-4, vmax=0)
    ax.axhline(n - 0.5, color="w", lw=1)
    ax.axvline(n - 0.5, color="w", lw=1)
    ax.set(title=f"block {block}", xlabel="asked: pixels, then words", ylabel="asking: pixels, then words")
figure.colorbar(image, ax=axes, shrink=0.8, label="log10 of attention")
lesson.show(
    "Two 88 by 88 matrices with a cross that cuts off the last 24 rows and columns. In block 3 the upper right part is dark: pixels hardly look at words."
)

# %% [markdown]
# ### Exercise 12.1 · One softmax for all
# **Difficulty** ●●○○○ · **Time** 10 minutes
#
# Given queries and keys of pixels and of words for one head, return what the pixels pay to the words: (pixels, words). The
# softmax runs over all keys, pixels first.
#
# <details><summary>Hint</summary>
#
# Only the pixels' queries are needed, but all the keys. Cut after the softmax, not before.
# </details>


# %% tags=["exercise"]
def my_pixels_to_words(q_pixels, k_pixels, k_words):
    """q_pixels, k_pixels: (n, d). k_words: (tokens, d). Returns (n, tokens)."""
    ### BEGIN SOLUTION
    k = torch.cat([torch.as_tensor(k_pixels), torch.as_tensor(k_words)])
    attention = (torch.as_tensor(q_pixels) @ k.T / k.shape[1] ** 0.5).softmax(-1)
    return attention[:, len(k_pixels) :]
    ### END SOLUTION


checks.check_pixels_to_words(my_pixels_to_words)

# %% tags=["answer"]
each = [my_pixels_to_words(q[i, :n], k[i, :n], k[i, n:]) for i in range(len(q))]
mine = torch.stack([torch.as_tensor(x).float() for x in each]).mean(0)
side = int(n**0.5)
figure, axes = plt.subplots(1, 4, figsize=(9, 2.4))
show_image(scene.image, axes[0], sentence)
for ax, (word, keys) in zip(axes[1:], places.items(), strict=True):
    show_map(min_max(mine[:, keys[-1]].reshape(side, side)), scene.image, ax, f'"{word}", block 1')
lesson.show("The scene and three maps of block 1, on a grid of 8 by 8 pixels.")
torch.testing.assert_close(mine, recorded, atol=1e-5, rtol=1e-4)

# %% [markdown]
# ## 3 · How much do pixels give to words?
#
# ### Exercise 12.2 · Predict: the words' share
# **Difficulty** ●●○○○ · **Time** 3 minutes
#
# In a UNet's cross-attention a pixel gives all it has to words. Here 64 pixels and 24 words compete. Of a pixel's
# attention, mean over the six blocks, do the words get (a) about a quarter, as their number would have it, (b) more, (c)
# less than a tenth?
#
# <details><summary>Hint</summary>
#
# What does a pixel need more often to guess the noise: the caption, or its neighbours?
# </details>

# %% tags=["exercise"]
### BEGIN SOLUTION
guess = "c"
### END SOLUTION

checks.guess_share(guess)

# %%
some = [make_scene("val", i) for i in range(8)]
quarters = torch.stack([all_blocks(s, sentence, t) for s in some])  # (scenes, blocks, n + tokens, n + tokens)
to_words = quarters[:, :, :n, n:].sum(-1).mean((0, 2))
to_pixels = quarters[:, :, n:, :n].sum(-1).mean((0, 2))
share = float(to_words.mean())
checks.guess_share.against("c" if share < 0.1 else "b" if share > 24 / 88 else "a")
figure, ax = plt.subplots(figsize=(6, 2.6))
at = np.arange(len(blocks))
ax.bar(at - 0.2, 100 * to_words, 0.4, color=lesson.BLUE, label="pixels to words")
ax.bar(at + 0.2, 100 * to_pixels, 0.4, color=lesson.ORANGE, label="words to pixels")
ax.set(xlabel="block", ylabel="of the attention, %", ylim=(0, 119))
ax.legend(ncols=2, loc="upper right")
lesson.show(
    "Six pairs of bars. Pixels give words about a tenth in block 0 and a few percent or less in all others; words give pixels more than half in every block."
)
print("pixels to words, by block, %:", np.round(100 * to_words.numpy(), 1))
print("words to pixels, by block, %:", np.round(100 * to_pixels.numpy(), 1))
lesson.claim("mean over the blocks, words get less than a tenth of a pixel's attention", share < 0.1)
lesson.claim("the first block gives them the most", int(to_words.argmax()) == 0)
lesson.claim(
    "that is about a tenth; every other block gives less than 5 %",
    0.08 < to_words[0] < 0.14 and to_words[1:].max() < 0.05,
)
lesson.claim("words give pixels more than half of theirs in every block", to_pixels.min() > 0.5)
lesson.claim(
    "in every block words look at pixels more than pixels look at words", bool((to_pixels > 3 * to_words).all())
)

# %% [markdown]
# A map that is stretched from its least to its greatest value hides this: block 3's looks as bright as block 0's. One way
# out is to share out **among the words alone** (`over="own"`), as a UNet does. Then a pixel that gave words one
# thousandth counts as much as one that gave them a tenth. Is that better? We measure, on nouns of 40 val scenes with
# true masks.


# %%
def nouns_found(scenes, kind="cross", over="all", scores="softmax", t=0.3):
    """For each noun that names one thing: does the mean map of all blocks prefer its mask? And the image of each."""
    hits, images, generator = [], [], torch.Generator().manual_seed(0)
    for number, s in enumerate(scenes):
        x0 = encode(pipe, s)
        x = (1 - t) * x0 + t * torch.randn(x0.shape, generator=generator)
        for i, thing in enumerate(s.things):
            noun = thing.category
            if not names_one(Phrase(noun), s.things, i):
                continue
            with torch.no_grad(), record_attention(pipe.transformer, "", kind, scores, over=over) as record:
                velocity(pipe, x, torch.tensor([t]), words(pipe, [noun]))
            last = token_positions(pipe.tokenizer, noun, (0, len(noun)))[-1]
            c = torch.stack([resize(m[0, ..., last], (128, 128)) for m in record.maps.values()]).mean(0)
            hits.append(int(generative_score(c, torch.from_numpy(s.masks)).argmax()) == i)
            images.append(number)
    return np.array(hits), images


val = [make_scene("val", i) for i in range(40)]
ways = {
    "pixel to word, over all": {},
    "pixel to word, over words": {"over": "own"},
    "pixel to word, logits": {"scores": "logits"},
    "word to pixel": {"kind": "reverse"},
    "output · output": {"kind": "output"},
}
found = {name: nouns_found(val, **way) for name, way in ways.items()}
for name, (hits, images) in found.items():
    low, high = interval(hits, images)
    print(f"{name:28} {100 * hits.mean():3.0f} % ({100 * low:.0f} to {100 * high:.0f}), n = {len(hits)}")
chance = np.mean(
    [1 / len(s.things) for s in val for i, x in enumerate(s.things) if names_one(Phrase(x.category), s.things, i)]
)
print(f"{'chance':28} {100 * chance:3.0f} %")
rate = {name: hits.mean() for name, (hits, _) in found.items()}
best = rate["pixel to word, over all"]
lesson.claim("from pixel to word, over all keys, most nouns are found", best > 0.65)
lesson.claim("no other way finds more", best == max(rate.values()))
lesson.claim("the words' own views find far fewer", max(rate["word to pixel"], rate["output · output"]) < best - 0.15)

# %% [markdown]
# ## 4 · Why are the words' views so poor?
#
# Words look at pixels with most of their attention, yet their maps are poor. And what words *get* from the pixels, which
# [ConceptAttention](https://arxiv.org/abs/2502.04320) compares with what pixels get, is poor too. Here is a suspicion: in
# this small network little depends on it. Look at the lengths of what flows from block to block.

# %%
lengths = {}
hooks = [
    block.register_forward_hook(
        lambda m, a, out, i=i: lengths.update({i: [None if x is None else x.norm(dim=-1).median().item() for x in out]})
    )
    for i, block in enumerate(blocks)
]
with torch.no_grad():
    velocity(pipe, noised(scene, t), torch.tensor([t]), words(pipe, [sentence]))
for hook in hooks:
    hook.remove()
for i, (text_length, pixel_length) in lengths.items():
    print(
        f"after block {i}: a pixel's vector {pixel_length:5.0f}, a word's",
        "not used any more" if text_length is None else f"{text_length:6.0f}",
    )
longer = lengths[0][0] / lengths[0][1]
lesson.claim("a word's vector is more than ten times as long as a pixel's", longer > 10)

# %% [markdown]
# What a block adds to a word is small beside what is there. So take it away altogether: **freeze the words**. Whatever
# the blocks add to them is set to zero, and pixels read the same words in every block, as in a UNet.


# %%
@contextmanager
def frozen_words():
    """No block changes the words any more."""
    handles = []
    for block in blocks:
        handles.append(
            block.attn.register_forward_hook(lambda m, a, out: (out[0], 0 * out[1]) if isinstance(out, tuple) else out)
        )
        if block.ff_context is not None:
            handles.append(block.ff_context.register_forward_hook(lambda m, a, out: 0 * out))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


free, images = found["pixel to word, over all"]
assert len(free) == 79
with frozen_words():
    frozen, _ = nouns_found(val)
change = frozen.astype(float) - free
low, high = interval(change, images, bounds=(-1, 1))
print(
    f"nouns found: free {100 * free.mean():.0f} %, frozen {100 * frozen.mean():.0f} %; change {100 * change.mean():+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"
)
lesson.claim("freezing the words loses no noun that we could prove", low < 0 < high or low >= 0)

# %% [markdown]
# 79 nouns tell little, so ask the loss, too. How much does the **right caption** save, against the next scene's caption: with
# words that are rewritten, and with frozen ones?

# %%
x0 = torch.cat([encode(pipe, s) for s in val])
captions = [caption(s.things, np.random.default_rng(i), everything=1.0) for i, s in enumerate(val)]
saved = {}
for name, how in {"free": nullcontext, "frozen": frozen_words}.items():
    with how():
        right, wrong = caption_losses(pipe, x0, captions, 0.7)
    saved[name] = float(1 - right.mean() / wrong.mean())
print("of the loss at t = 0.7 the right caption saves:", {k: f"{100 * v:.1f} %" for k, v in saved.items()})
lesson.claim("frozen words keep more than nine tenths of that", saved["frozen"] > 0.9 * saved["free"])

# %% [markdown]
# Frozen words serve nearly as well. So most of what a caption does here it does by *de facto* cross-attention: pixels
# read words, and what words read of pixels counts for little. Then little of the loss has shaped it, and maps made of it
# mean little. Lesson 13 meets this again: ConceptAttention lives on what words read, and is weak here.
#
# That says nothing about FLUX. It says **which experiment to make** before you trust a map of another direction: switch
# that direction off, and see whether the model misses it.

# %% [markdown]
# ### Exercise 12.3 · Repair: words first, or pixels first?
# **Difficulty** ●●●○○ · **Time** 10 minutes
#
# This function should cut the pixels-to-words quarter out of a joint matrix for both orders. It raises no error for
# Stable Diffusion 3, where pixels come first; it only returns the wrong numbers. Repair it.
#
# ```python
# def my_quarter(attention, tokens, text_first):
#     return attention[tokens:, :tokens]
# ```
#
# <details><summary>Hint</summary>
#
# Try it on a 5×5 matrix whose entry is 10 · row + column.
# </details>


# %% tags=["exercise"]
def my_quarter(attention, tokens, text_first):
    """attention: (n + tokens, n + tokens). Returns what pixels pay to words, (n, tokens)."""
    ### BEGIN SOLUTION
    if text_first:
        return attention[tokens:, :tokens]
    return attention[:-tokens, -tokens:]
    ### END SOLUTION


checks.check_quarter(my_quarter)

# %% tags=["answer"]
right, wrong = (torch.as_tensor(my_quarter(every[1], 24, first)) for first in (False, True))
figure, axes = plt.subplots(1, 2, figsize=(5, 2.5))
for ax, (title, m) in zip(axes, {"pixels first": right, "as if words came first": wrong}.items(), strict=True):
    show_map(min_max(m[:, places["chair"][-1]].reshape(side, side)), scene.image, ax, title)
lesson.show("The map of chair, cut right and cut wrong: both look like maps.")
torch.testing.assert_close(right, recorded, atol=1e-5, rtol=1e-4)

# %% [markdown]
# Both look like maps; only one is. A picture does not tell that its axes are wrong. A test against the recorder does.

# %% [markdown]
# ## 5 · Which block, at which noise?
#
# [Seg4Diff](https://arxiv.org/abs/2509.18096) reads one *expert* block of Stable Diffusion 3. Has ours one? Here are all
# blocks at all noise levels, on 160 val scenes.

# %%
measures = json.loads((data_dir() / "models" / "toy-dit" / "measures.json").read_text())
table = measures["val, nouns found by t and block"]
grid = 100 * np.array(list(table.values()))
figure, ax = plt.subplots(figsize=(6, 3))
image = ax.imshow(grid, vmin=29, vmax=100, aspect="auto")
for (row, column), value in np.ndenumerate(grid):
    ax.text(column, row, f"{value:.0f}", ha="center", va="center", color="w" if value < 70 else "k", fontsize=8)
ax.set(
    xticks=range(grid.shape[1]),
    xticklabels=[*range(grid.shape[1] - 1), "all"],
    yticks=range(len(table)),
    yticklabels=list(table),
    xlabel="block",
    ylabel="noise t",
)
figure.colorbar(image, label="nouns found on val, %")
lesson.show(
    "A table of seven noise levels by six blocks and their mean. The mean is best nearly everywhere; little noise is better than much."
)
single, mean = grid[:, :-1].max(1), grid[:, -1]
lesson.claim(
    "at every noise up to 0.7 the mean of all blocks finds more than the best single block",
    bool((mean[:6] > single[:6]).all()),
)
lesson.claim("at t = 0.9 much less is found than at t = 0.3", mean[-1] < mean[2] - 20)

# %%
chosen = measures["chosen"]
on_test = {name: measures[f"noun, all, {name}"] for name in ("chosen blocks", "all blocks")}
print(f"best of {2 ** (grid.shape[1] - 1) - 1} sets on val: blocks {chosen['blocks']} at t = {chosen['t']}")
for name, told in on_test.items():
    print(f"on test, {name:13}: {100 * told['value']:.1f} % ({100 * told['low']:.0f} to {100 * told['high']:.0f})")
lesson.claim(
    "on test the chosen set has no advantage over all blocks that its interval would bear out",
    on_test["chosen blocks"]["low"] <= on_test["all blocks"]["value"],
)

# %% [markdown]
# Whoever tries 63 sets on a few hundred nouns finds some luck. The preset still reads the chosen blocks, for so the rule
# has it: choose here, report there, and do not look back. The next exercise shows how large such luck can be.

# %% [markdown]
# ### Exercise 12.4 · How much of the best is luck?
# **Difficulty** ●●●●○ · **Time** 20 minutes
#
# Suppose that all blocks are equally good. Given hits on val and on test for many imagined studies, return by how much the
# share of the block that is best on val (the first of equals) falls on test, mean over the studies.
#
# <details><summary>Hint</summary>
#
# In each study: shares by block on val, its argmax, that block's share on val and on test.
# </details>


# %% tags=["exercise"]
def my_luck(val_hits, test_hits):
    """Both (studies, blocks, nouns), of 0 and 1. Returns a number."""
    ### BEGIN SOLUTION
    val, test = np.mean(val_hits, -1), np.mean(test_hits, -1)
    best = val.argmax(1)
    rows = np.arange(len(val))
    return float((val[rows, best] - test[rows, best]).mean())
    ### END SOLUTION


checks.check_luck(my_luck)

# %% tags=["answer"]
rng = np.random.default_rng(0)
luck = {
    (tried, nouns): 100 * my_luck(*(rng.random((2, 200, tried, nouns)) < 0.8))
    for tried in (6, 63)
    for nouns in (40, 363)
}
for (tried, nouns), points in luck.items():
    print(f"best of {tried:2}, {nouns:3} nouns: {points:.1f} points of luck")
lesson.claim("more tries, more luck", luck[63, 40] > luck[6, 40] and luck[63, 363] > luck[6, 363])
lesson.claim("more nouns, less luck", luck[6, 363] < luck[6, 40] / 2)

# %% [markdown]
# ## 6 · Sinks, registers, magnets
#
# Three things can spoil a map. A **sink** is a token that takes what nobody needs, such as the padding of lesson 11. A
# **register** is a pixel that a large transformer misuses to keep notes: its vector is far longer than others', and all
# look at it. **Magnets** are words that [RefAM](https://arxiv.org/abs/2509.22650) appends so that they become the sink.

# %%
crowd = {"pixels": quarters[:, :, :n, :n], "words": quarters[:, :, n:, :n]}  # who asks; the pixels are asked
received = {who: part.mean(2) for who, part in crowd.items()}  # (scenes, blocks, n)
peaks = {who: (r.amax(-1) / r.mean(-1)).mean(0) for who, r in received.items()}
for who, by_block in peaks.items():
    print(f"the pixel that {who} look at most, over the mean pixel, by block:", np.round(by_block.numpy(), 1))
strongest = received["words"][:, 1].argmax(-1)
print("the words' favourite in eight scenes, block 1:", strongest.tolist())
vectors = []
hook = blocks[3].register_forward_hook(lambda m, a, out: vectors.append(out[1][0].norm(dim=-1)))
with torch.no_grad():
    for s in some:
        velocity(pipe, noised(s, t), torch.tensor([t]), words(pipe, [sentence]))
hook.remove()
ratio = max(float(x.max() / x.median()) for x in vectors)
print(f"longest pixel vector over the median: {ratio:.2f}")
lesson.claim(
    "pixels spread their looks over the pixels: none gets four times the mean", bool((peaks["pixels"] < 4).all())
)
lesson.claim(
    "words crowd on one pixel: in most blocks it gets more than five times the mean",
    int((peaks["words"] > 5).sum()) >= 4,
)
lesson.claim("it is another pixel in most scenes", len(set(strongest.tolist())) >= 4)
lesson.claim("no pixel's vector is twice as long as the median", ratio < 2)

# %% [markdown]
# So there is a sink, but only for the words: whatever they are, they look at the same one pixel. That is what made the
# maps of section 3's other direction poor. Registers in the sense of long vectors there are none; large transformers
# have them.

# %% [markdown]
# Now the text's side: of what pixels pay to words, who gets it?

# %%
magnets = sentence + " . with to pink"
content = [key for keys in places.values() for key in keys]
spoken = len(pipe.tokenizer(sentence).input_ids) - 1  # where the sentence ends
others = [key for key in range(1, spoken) if key not in content]
groups = {}
for text in (sentence, magnets):
    last = len(pipe.tokenizer(text).input_ids) - 1
    paid = torch.stack([all_blocks(s, text, t) for s in some])[:, :, :n, n:].mean((0, 1, 2))
    paid = paid / paid.sum()
    groups[text] = {
        "start": float(paid[0]), "the, on, the": float(paid[others].sum()), "small, chair, right": float(paid[content].sum()),
        "magnets": float(paid[spoken:last].sum()), "end and padding": float(paid[last:].sum()),
    }  # fmt: skip
figure, ax = plt.subplots(figsize=(7, 1.9))
for row, parts in enumerate(groups.values()):
    left = 0
    for (name, width), colour in zip(parts.items(), lesson.PALETTE, strict=False):
        ax.barh(row, 100 * width, left=100 * left, color=colour, label=name if row == 0 else None)
        left += width
ax.set(
    yticks=[0, 1], yticklabels=["the sentence", "with magnets"], xlabel="of what pixels pay to words, %", xlim=(0, 100)
)
ax.invert_yaxis()
ax.legend(ncols=5, loc="lower center", bbox_to_anchor=(0.45, 1))
lesson.show(
    "Two bars. In the sentence alone more than half goes to the end and the padding. With magnets these two get far less, and most of what the magnets take comes from there; the sentence's own words lose some, too."
)
plain, drawn = groups.values()
print({name: (round(plain[name], 2), round(drawn[name], 2)) for name in plain})
lesson.claim("without magnets more than half goes to the end token and the padding", plain["end and padding"] > 0.5)
lesson.claim(
    "the magnets take their share from there",
    drawn["magnets"] > 0.2 and plain["end and padding"] - drawn["end and padding"] > drawn["magnets"] / 2,
)
own = [x["the, on, the"] + x["small, chair, right"] for x in (plain, drawn)]
lesson.claim(
    "the sentence's own words lose some of theirs and keep more than two thirds", 2 / 3 * own[0] < own[1] < own[0]
)

# %% [markdown]
# Magnets do what their name says, but here they take mostly from the padding, which no map shows anyway. RefAM's models have no
# such padding: there a sink forms on a word or on the end mark, and magnets help. Whether a remedy helps depends on
# whether the illness is there.

# %% [markdown]
# ## 7 · Ref-Diff on the transformer
#
# The method asks for a map `c`, not for cross-attention. So the rest stays as it was: the preset's name is all that
# changes.

# %%
dit, unet = RefDiff.from_preset("toy-dit"), RefDiff.from_preset("toy")
picks = [(s, next(r for r in s.records if r.style == "toyref")) for s in load_toyref("val")[3:6]]
figure, axes = plt.subplots(3, 4, figsize=(8.5, 6.6))
for row, (sample, record) in zip(axes, picks, strict=True):
    truth = sample.masks[record.target]
    for columns, (name, model) in zip((row[:2], row[2:]), {"UNet": unet, "transformer": dit}.items(), strict=True):
        result = model.set_image(sample.image(), oracle=sample.masks).segment(record.text, "gs")
        show_map(result.word_map, sample.image(), columns[0], f"{name}: {result.expression.head}")
        show_mask(result.mask, sample.image(), columns[1], record.text if name == "UNet" else "", truth)
lesson.show(
    "Three sentences; for each the map and the mask of the UNet and of the transformer. The transformer's maps are coarser."
)

# %%
tables = {
    name: json.loads((data_dir() / "models" / folder / "successors.json").read_text())["runs"]["test, oracle"]
    for name, folder in {"UNet": "toy", "transformer": "toy-dit"}.items()
}
for variant in ("gs", "full"):
    for name, told in tables.items():
        cell = told[variant]["noun"]
        found_of = percent(cell["accuracy"], *cell["accuracy_95"])
        print(f"{variant:5}{name:12} nouns, true masks: {found_of}, n = {cell['n']}")
weaker = tables["transformer"]["gs"]["noun"], tables["UNet"]["gs"]["noun"]
lesson.claim(
    "by its map alone the transformer finds fewer nouns than the UNet", weaker[0]["accuracy"] < weaker[1]["accuracy"]
)
lesson.claim("with CLIP beside it (full) it finds nearly all", tables["transformer"]["full"]["noun"]["accuracy"] > 0.95)

# %% [markdown]
# Is the transformer the worse reader, or has it just read less? Both were trained on the same pictures. This is how
# well nouns were found on the way, over **training compute**; a step of the transformer costs about half a step of the
# UNet.

# %%
emergence = json.loads((data_dir() / "models" / "toy-dit" / "emergence.json").read_text())
figure, ax = plt.subplots(figsize=(6.4, 3.2))
for (name, told), colour in zip(emergence.items(), (lesson.BLUE, lesson.ORANGE), strict=True):
    _, compute, where, low, high = (np.array(x) for x in zip(*told["rows"], strict=True))
    ax.plot(compute / 1e12, 100 * where, color=colour, label=f"{name}, read at {told['noise']}")
    ax.fill_between(compute / 1e12, 100 * low, 100 * high, color=colour, alpha=0.15, lw=0)
ax.axhline(100 * chance, color="0.5", ls=":")
ax.set(xscale="log", ylim=(0, 100), xlabel="training compute, 10¹² operations", ylabel="nouns found on val, %")
ax.legend(loc="upper left")
lesson.show("Two rising curves with wide bands, which overlap where both are drawn; dotted, chance.")
cost = [emergence[name]["flops a step"] for name in ("transformer", "UNet")]
assert 0.45 < cost[0] / cost[1] < 0.55


def found_at(name, compute):
    """The log's line that lies closest to this compute."""
    return min(emergence[name]["rows"], key=lambda row: abs(row[1] - compute))


last = emergence["UNet"]["rows"][-1]
near = found_at("transformer", last[1])
for name, row in (("UNet", last), ("transformer", near)):
    print(
        f"{name:12} after {row[1] / 1e12:.0f}·10¹² operations ({row[0]} steps): {100 * row[2]:.0f} % ({100 * row[3]:.0f} to {100 * row[4]:.0f})"
    )
begin, end = (
    np.mean([row[2] for row in emergence["transformer"]["rows"][part]]) for part in (slice(3), slice(-3, None))
)
lesson.claim("the transformer's share rises from its first lines to its last by more than 20 points", end > begin + 0.2)
lesson.claim("where the UNet's log ends, the two bands overlap", last[3] < near[4] and near[3] < last[4])

# %% [markdown]
# At equal compute the two find about as many nouns, as far as 79 of them can tell. The bundled UNet finds more because it
# has been trained for longer. So "transformers read worse" is nothing that these two could show; it would have been the
# headline, had we compared the finished networks alone.
#
# **Try it.** Hover over words and pixels; step through the blocks. The explorer shares out among the words alone, so that
# its numbers add up; how little that is of the whole, section 3 told.

# %%
record = look(pipe, scene.image, sentence, noise=0.3, call=NO_T5)
AttentionExplorer(attention_of(record), pinned=[3])

# %% [markdown]
# On a GPU the same two lines read Stable Diffusion 3, FLUX or Qwen-Image ([families](../docs/howto/networks.md)):
#
# ```python
# from diffusers import StableDiffusion3Pipeline
# from refdiff_lite.look import look
#
# pipe = StableDiffusion3Pipeline.from_pretrained("stabilityai/stable-diffusion-3-medium-diffusers", torch_dtype=torch.float16).to("cuda")
# record = look(pipe, "photo.jpg", "the small cat on the left", layers=r"transformer_blocks\.9$")  # Seg4Diff's block
# ```

# %% [markdown]
# <details><summary><b>What can go wrong</b></summary>
#
# - **The wrong quarter.** Pixels first or words first: both give pictures.
# - **A share that is no share.** Over all keys, a word's map may sum to a thousandth. Print it before you stretch it.
# - **A direction that nothing uses.** Switch it off; if the model does not miss it, do not read it.
# - **An expert by luck.** Choose on val, report on test, and say among how many you chose.
# - **A remedy without the illness.** Look for sinks and registers before you filter them.
# </details>

# %% [markdown]
# ## Recap
#
# Answer from memory, then unfold.
#
# 1. What shares in the softmax of a joint block, and what does that do to the words' maps?
# 2. How did we find out that what words read is not used?
# 3. Why is the best of 63 sets of blocks on val no proof that these blocks are better?
#
# <details><summary>Answers</summary>
#
# 1. All pixels and all words. A pixel gives words little, so that maps have small values, and their sum differs from
#    pixel to pixel.
# 2. We froze the words: nouns were found as before, and the right caption saved nearly as much.
# 3. Among 63 equally good sets some look good by luck, the more so the fewer nouns there are.
# </details>
#
# **Open question.** How would you train this transformer so that what words read *does* matter, and how would you show
# that it worked?
#
# **References.** Esser et al., *Scaling rectified flow transformers* (Stable Diffusion 3, [arXiv
# 2403.03206](https://arxiv.org/abs/2403.03206)). Helbling et al., *ConceptAttention* ([arXiv
# 2502.04320](https://arxiv.org/abs/2502.04320)). *Seg4Diff* ([arXiv 2509.18096](https://arxiv.org/abs/2509.18096)). *RefAM*
# ([arXiv 2509.22650](https://arxiv.org/abs/2509.22650)). In the code: [`attention.py`](../refdiff_lite/attention.py),
# [`reading.py`](../refdiff_lite/reading.py), [`dit.py`](../refdiff_lite/toy/dit.py). Symbols: [the
# glossary](../docs/glossary.md).
