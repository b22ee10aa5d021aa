# ---
# title: "Cross-attention: from a word to its pixels"
# minutes: 90
# cpu: 0.3
# goals:
#   - compute attention between pixels and words by hand, and get the UNet's own numbers
#   - read maps of heads, layers and timesteps, and say what each is good for
#   - turn a word's attention into the map $c$ of the paper
#   - show what a word takes over from the words before it, and what it does not
# ---
# %% tags=["setup"]
from refdiff_lite import lesson

PRESET = "toy"
lesson.start(PRESET)

# %%
import json
import re

import matplotlib.pyplot as plt
import numpy as np
import torch
from einops import rearrange
from IPython.display import Image, display
from torch.nn.functional import scaled_dot_product_attention

from refdiff_lite import RefDiff
from refdiff_lite.attention import min_max, record_attention, resize, word_map
from refdiff_lite.checks import cross_attention as checks
from refdiff_lite.datasets.toyref import load_toyref
from refdiff_lite.evaluation.metrics import interval
from refdiff_lite.expression import parse, token_positions
from refdiff_lite.files import data_dir
from refdiff_lite.fusion import generative_score
from refdiff_lite.latents import add_noise
from refdiff_lite.networks.compat import cross_attention_modules
from refdiff_lite.viz import show_image, show_map
from refdiff_lite.widgets import AttentionExplorer

# %% [markdown]
# A diffusion model is told what to paint by a sentence. Somewhere in the network the words must meet the pixels. They
# meet in **cross-attention**, and nowhere else. In this lesson you go there and write down who looks at whom.

# %% [markdown]
# ## 1 · Toy numbers: three pixels, two words
#
# Every pixel asks a question, the *query* $q$; every word offers a label, the *key* $k$. Where they fit, their dot
# product is large. A softmax turns the dot products of one pixel into shares that sum to 1:
#
# $$a = \mathrm{softmax}\!\left(\frac{q\,k^\top}{\sqrt d}\right)$$

# %% tags=["nbval-check-output"]
q = torch.tensor([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]])  # three pixels, d = 2
k = torch.tensor([[1.0, 0.0], [0.0, 1.0]])  # two words: "dog", "apple"
shares = scaled_dot_product_attention(q, k, torch.eye(2))  # with the unit matrix as values it returns the shares
for pixel, row in enumerate(shares):
    print(f'pixel {pixel}: {row[0]:.2f} to "dog", {row[1]:.2f} to "apple"')

# %% [markdown]
# Pixel 0 asks for what "dog" offers, pixel 1 for what "apple" offers, pixel 2 cannot decide. What a pixel then *gets*
# is the mix of the words' *values* $v$, weighted by these shares; this is how the text changes the picture. We need
# only the shares. Read down a **column** and you have a map: how much does each pixel look at "dog"?

# %% tags=["nbval-check-output"]
v = torch.tensor([[10.0], [-10.0]])
print("what each pixel gets:", [round(x, 1) for x in (shares @ v).flatten().tolist()])
print('map of "dog":        ', [round(x, 2) for x in shares[:, 0].tolist()])

# %% [markdown]
# ### Exercise 3.1 · Attention
# **Difficulty** ●●○○○ · **Time** 8 minutes
#
# Write it for any numbers of pixels and words, and for keys and queries of any length $d$.
#
# <details><summary>Hint</summary>
#
# The table of dot products has one row per pixel. Over which dimension must the shares sum to 1?
# </details>


# %% tags=["exercise"]
def my_attention(q, k):
    """q: (pixels, d), k: (words, d). Returns (pixels, words)."""
    ### BEGIN SOLUTION
    return (q @ k.T / q.shape[1] ** 0.5).softmax(-1)
    ### END SOLUTION


checks.check_attention(my_attention)

# %% [markdown]
# ## 2 · Words are tokens
#
# The UNet never sees words. A tokenizer cuts the sentence into *tokens*, puts a start token in front and an end token
# behind, and fills up to a fixed length. The text encoder then turns every token into a vector. In doing so, each
# token may look back at those **before** it, never at those behind. Remember this; it will matter.

# %% tags=["nbval-check-output"]
model = RefDiff.from_preset(PRESET)
tokenizer, unet, scheduler = model.networks.tokenizer, model.networks.sd.unet, model.networks.scheduler
ids = tokenizer("the purple dog").input_ids
print([tokenizer.decode([i]).strip() for i in ids], "filled up to", tokenizer.model_max_length)

# %% [markdown]
# ### Exercise 3.2 · Where is the dog?
# **Difficulty** ●○○○○ · **Time** 2 minutes
#
# At which position of the sequence is "dog"?
#
# <details><summary>Hint</summary>
#
# Count from 0, and count everything in the list above.
# </details>

# %% tags=["exercise"]
### BEGIN SOLUTION
position = 3
### END SOLUTION

checks.check_position(position)

# %% [markdown]
# A rare word is cut into **several** pieces. Then the last one is read, since it has seen those before it.

# %% tags=["nbval-check-output"]
for sentence, head in (("the purple dog", "dog"), ("woman and man", "man"), ("one hippopotamus", "hippopotamus")):
    found = token_positions(tokenizer, sentence, parse(sentence, head).span)
    print(
        f"{head:13} in {sentence!r:20}", "one piece" if len(found) == 1 else "several pieces", "from position", found[0]
    )

# %% [markdown]
# ### Exercise 3.3 · Repair: the wrong word
# **Difficulty** ●●●○○ · **Time** 15 minutes
#
# A tokenizer also tells where each token begins and ends in the text; the start token gets `(0, 0)`. This function
# should return the position of the token to read. In "woman and man" it reads the wrong word, as the official code
# does ([fault 6](../docs/faults.md#fault-6)), and of a word in pieces it takes the first.
#
# ```python
# def my_token(text, word, offsets):
#     start = text.index(word)
#     return next(i for i, (a, b) in enumerate(offsets) if a <= start < b)
# ```
#
# <details><summary>Hint</summary>
#
# `re.search(r"\bman\b", text)` finds whole words, and its result has `.start()` and `.end()`. Which tokens overlap
# with this stretch?
# </details>


# %% tags=["exercise"]
def my_token(text, word, offsets):
    """offsets: (start, end) of every token in the text. Returns the position of the word's last token."""
    ### BEGIN SOLUTION
    found = re.search(rf"\b{re.escape(word)}\b", text)
    return max(i for i, (a, b) in enumerate(offsets) if a < found.end() and b > found.start())
    ### END SOLUTION


checks.check_token(my_token)

# %% tags=["answer"]
for sentence, word in (("woman and man", "man"), ("the purple dog", "dog"), ("one hippopotamus", "hippopotamus")):
    offsets = tokenizer(sentence, return_offsets_mapping=True)["offset_mapping"]
    assert my_token(sentence, word, offsets) == token_positions(tokenizer, sentence, parse(sentence, word).span)[-1]
print("your positions are the library's")

# %% [markdown]
# ## 3 · One map, by hand
#
# Now the real thing. We run the UNet once over the noised picture (lesson 1), and listen at one cross-attention
# module: what comes in?

# %%
sample = load_toyref("val", limit=11)[10]
scene = model.set_image(sample.path)
x0, image = scene.latents, scene.image
truth = torch.from_numpy(sample.masks)  # brown dog, purple dog, penguin, apple
noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0)).to(x0)
prompt = "the purple dog"


def look(prompt, t, layers="", **more):
    """Attention maps of one UNet call over the picture, noised to timestep t."""
    with record_attention(unet, layers, **more) as maps, torch.no_grad():
        unet(add_noise(scheduler, x0, noise, t), t, model.encode_prompt([prompt]))
    return maps


# %%
name = "up_blocks.1.attentions.0"
module = cross_attention_modules(unet)[name]
seen = {}


def listen(module, args, kwargs):
    seen.update(pixels=args[0], words=kwargs["encoder_hidden_states"])


handle = module.register_forward_pre_hook(listen, with_kwargs=True)
maps = look(prompt, 101)
handle.remove()

# %% [markdown]
# `to_q` and `to_k` are two learned matrices. Their results are cut into *heads*: several small attentions side by
# side, each free to look for something else. On a GPU they come in half precision; we go on in float, as the library
# does.

# %%
h, w = maps.maps[name].shape[1:3]
with torch.no_grad():
    q = rearrange(module.to_q(seen["pixels"]), "1 (h w) (head d) -> head (h w) d", h=h, head=module.heads).float()
    k = rearrange(module.to_k(seen["words"]), "1 word (head d) -> head word d", head=module.heads).float()
unit = torch.eye(k.shape[1], device=k.device).expand(len(k), -1, -1)
heads = rearrange(scaled_dot_product_attention(q, k, unit), "head (h w) word -> head h w word", h=h)
torch.testing.assert_close(heads.mean(0), maps.maps[name][0], atol=1e-4, rtol=1e-3)
print(
    "four heads averaged: the numbers that the library recorded" if len(heads) == 4 else f"{len(heads)} heads averaged"
)

# %% tags=["answer"]
mine = torch.stack([torch.as_tensor(my_attention(*one)) for one in zip(q, k, strict=True)]).mean(0)
torch.testing.assert_close(rearrange(mine, "(h w) word -> h w word", h=h), maps.maps[name][0], atol=1e-4, rtol=1e-3)
figure, ax = plt.subplots(figsize=(2.2, 2.2))
show_map(min_max(rearrange(mine, "(h w) word -> h w word", h=h)[..., 3]).cpu(), None, ax, 'your map of "dog"')
lesson.show("The map of dog, computed by your attention from the UNet's queries and keys.")

# %% [markdown]
# `record_attention` does the same *beside* the running UNet, so the UNet's output does not change by one bit. It
# averages the heads at once and keeps sums over calls, so memory does not grow.

# %%
total = heads.sum(-1)
assert (total - 1).abs().max() < 1e-3, "every pixel shares out 1"
with torch.no_grad():
    x, text = add_noise(scheduler, x0, noise, 101), model.encode_prompt([prompt])
    plain = unet(x, 101, text).sample
    with record_attention(unet):
        recorded = unet(x, 101, text).sample
print("output unchanged:", torch.equal(plain, recorded))

# %% [markdown]
# ## 4 · A map for every token
#
# One column per token. First all tokens on the same scale:

# %%
tokens = ["start", "the", "purple", "dog", "end"]
shares = maps.maps[name][0].cpu()
figure, axes = plt.subplots(1, 6, figsize=(9, 1.9))
show_image(image, axes[0], "picture")
for i, (ax, token) in enumerate(zip(axes[1:], tokens, strict=True)):
    drawn = ax.imshow(shares[..., i], vmin=0, vmax=float(shares[..., :5].max()))
    ax.set_title(f'"{token}"')
    ax.set_axis_off()
figure.colorbar(drawn, ax=axes, label="share", shrink=0.8)
lesson.show(
    "Five maps on one scale. Only that of dog has bright pixels, on the purple dog; the others are evenly dark."
)

# %%
for i, token in enumerate(tokens):
    print(f"{token:7} mean share {float(shares[..., i].mean()):.3f}, highest {float(shares[..., i].max()):.3f}")
filling = float(shares[..., 5:].sum(-1).mean())
print(f"filling mean share {filling:.3f}, all of it together")
lesson.claim("most attention goes to the filling", filling > 0.5)
lesson.claim('"dog" gets no more than others on the mean, but far more at its peak',
             shares[..., 3].mean() < shares[..., 0].mean() and shares[..., 3].max() > 5 * shares[..., 0].max())  # fmt: skip

# %% [markdown]
# Shares sum to 1, so a pixel that has no use for any word must still put its attention *somewhere*. Here that place
# is the filling at the end; in larger models it is often the start token. So what counts is not how much a word gets,
# but **where it gets more than elsewhere**. Hence min-max, for each map by itself:

# %%
figure, axes = plt.subplots(1, 3, figsize=(5.2, 2))
for ax, i in zip(axes, (1, 2, 3), strict=True):
    show_map(min_max(resize(shares[..., i], image.shape[:2])), image, ax, f'"{tokens[i]}", stretched')
lesson.show(
    'Stretched maps: "the" is bright everywhere but on the purple dog; "purple" forms a ring around it; "dog" fills it.'
)

# %%
stretched = {
    token: generative_score(min_max(resize(shares[..., i], scene.size)), truth) for i, token in enumerate(tokens)
}
for token in ("the", "purple", "dog"):
    print(f"{token:7} mean inside minus outside, for each thing:", [round(float(v), 2) for v in stretched[token]])
lesson.claim('"the" avoids the purple dog, "dog" fills it', stretched["the"][1] < -0.3 and stretched["dog"][1] > 0.3)

# %% [markdown]
# "Dog" fills the purple dog and leaves out the other. We come back to that. "The" says nothing about a thing, yet has
# a clear map: it shows what "dog" has left over. And "purple" is brightest around the dog rather than on it. A map
# need not be about the word's own meaning. Ref-Diff reads one token only, the head word's, and hopes that it carries
# the most.

# %% [markdown]
# ## 5 · Heads, layers, timesteps
#
# Each map so far was a mean. Before we average, look at what goes in. First the **heads** of this one layer, for
# "dog":

# %%
figure, axes = plt.subplots(1, len(heads) + 1, figsize=(9, 2) if len(heads) > 4 else (7, 1.7))
for i, ax in enumerate(axes[:-1]):
    show_map(min_max(heads[i, ..., 3].cpu()), None, ax, f"head {i}")
show_map(min_max(shares[..., 3]), None, axes[-1], "mean of heads")
lesson.show(
    "Four heads, all bright on the purple dog: one on its middle only, one on all of it. The mean looks like the last."
)

# %%
by_head = [generative_score(min_max(resize(one[..., 3].cpu(), scene.size)), truth)[1] for one in heads]
print("inside minus outside of the purple dog, by head:", [round(float(s), 2) for s in by_head])
lesson.claim("every head looks at the purple dog", min(by_head) > 0.25)
lesson.claim("the best head has at least half as much again as the worst", max(by_head) > 1.5 * min(by_head))

# %% [markdown]
# Here the heads do not divide the work between things and ground: all four look at the dog, some at more of it than
# others. The paper takes the mean of all. This is simple, and the sharpest head could do slightly better. In a large
# model heads may well differ more; look. Now **layers** against **timesteps**:

# %%
names = list(maps.maps)
names = names[:: max(1, len(names) // 6)][:7]
steps, quality = [1, 101, 301, 601], {}
figure, axes = plt.subplots(len(steps), len(names), figsize=(9, 5.4))
for row, t in zip(axes, steps, strict=True):
    at_t = look(prompt, t)
    for ax, layer in zip(row, names, strict=True):
        drawn = min_max(at_t.maps[layer][0, ..., 3].cpu())
        quality[layer, t] = float(generative_score(resize(drawn, scene.size), truth)[1])
        short = layer.replace("_blocks.", " ").replace(".attentions.", ".").replace("_block", "")
        show_map(drawn, None, ax, f"{short}\nt = {t}" if t == steps[0] else f"t = {t}")
lesson.show(
    "Maps of dog for seven layers and four timesteps. The layer up 1.0 shows a clean dog throughout, the middle ones patches."
)

# %%
for layer in names:
    print(f"{layer:28}", "  ".join(f"{quality[layer, t]:+.2f}" for t in steps))
lesson.claim("the layer up 1.0 is the best at every timestep, and gets better with noise",
             all(quality[name, t] == max(quality[n, t] for n in names) for t in steps)
             and quality[name, 601] > quality[name, 1])  # fmt: skip

# %% [markdown]
# From left to right the maps go down into the UNet, to its bottom, and up again. On an 8 × 8 grid no outline can be
# drawn; the two layers at the bottom hardly know the dog at all. From top to bottom the noise grows. One would expect
# the maps to get worse. In the cleanest layer the opposite happens, perhaps because with more noise the UNet has more
# need of the word. But this is one picture of a dog in a striking colour. Section 8 measures.

# %%
print(len(maps.maps), "layers, grids", sorted({tuple(m.shape[1:3]) for m in maps.maps.values()}, reverse=True))
print(maps.kind, maps.scores, "of", maps.calls, "call")

# %% [markdown]
# ### Look for yourself
#
# In a running notebook the next picture answers. Hover a word to see its map. Then hover the picture: bars under the
# words say what that pixel listens to. Click "purple" and "dog" to pin both. What does a pixel of the apple listen
# to? Does the answer hold in another layer, another head, at another noise?

# %%
AttentionExplorer.from_scene(scene, prompt)

# %% [markdown]
# ## 6 · From word to map
#
# The paper's recipe: take the head word's column in some layers, resize each to the picture (bilinear), take the
# mean, and stretch the mean to $[0, 1]$:
#
# $$c = \frac{\bar a - \min \bar a}{\max \bar a - \min \bar a}$$

# %% [markdown]
# ### Exercise 3.4 · The word map
# **Difficulty** ●●○○○ · **Time** 10 minutes
#
# Write it. `resize(map, size)` and `min_max(map)` are imported.
#
# <details><summary>Hint</summary>
#
# What can be averaged only after it has the same size? And what must come last, so that the result lies in $[0, 1]$?
# </details>


# %% tags=["exercise"]
def my_word_map(layers, size):
    """layers: list of (h, w) maps of different sizes. Returns (H, W) in [0, 1]."""
    ### BEGIN SOLUTION
    return min_max(torch.stack([resize(m, size) for m in layers]).mean(0))
    ### END SOLUTION


checks.check_word_map(my_word_map)

# %% tags=["answer"]
mine = torch.as_tensor(my_word_map([m[0, ..., 3] for m in maps.maps.values()], scene.size)).float()
torch.testing.assert_close(mine, word_map(maps, [3], scene.size), atol=1e-4, rtol=1e-3)
show_map(mine.cpu(), image, title='your map c of "dog", all layers').figure.set_size_inches(2.4, 2.4)
lesson.show("Your word map of dog over the picture: bright on the purple dog.")

# %% [markdown]
# Why does it matter whether you stretch before or after the mean? Before it, every layer has the same say, even one
# that sees nothing, whose tiny ripples are blown up. Toy numbers: a clear map of two pixels, and one that only
# ripples.

# %% tags=["nbval-check-output"]
clear, ripples = torch.tensor([[0.0, 0.8]]), torch.tensor([[0.02, 0.01]])
print("stretch after the mean (paper):    ", [round(x, 2) for x in min_max(clear + ripples).flatten().tolist()])
stretched_first = (min_max(clear) + min_max(ripples)).flatten() / 2
print("stretch before the mean (official):", [round(x, 2) for x in stretched_first.tolist()])

# %% [markdown]
# ## 7 · What "dog" knows of "purple"
#
# The map above belongs to "dog" in *"the purple dog"*. The picture holds two dogs.
#
# ### Exercise 3.5 · Predict: which dog?
# **Difficulty** ●●○○○ · **Time** 3 minutes
#
# Compare the map of "dog" in *"dog"* and in *"the purple dog"*. Does "purple" in front change where "dog" looks? (a)
# No: a word is a word, both dogs light up alike. (b) A little: both light up, the purple one more. (c) Almost only
# the purple dog is left.
#
# <details><summary>Hint</summary>
#
# Which tokens may "dog" look at in the text encoder?
# </details>

# %% tags=["exercise"]
### BEGIN SOLUTION
guess = "b"
### END SOLUTION

checks.guess_which(guess)

# %%
asked = [
    ("dog", "dog"),
    ("the purple dog", "dog"),
    ("the purple dog", "purple"),
    ("the dog on the left", "dog"),
    ("apple", "apple"),
]
figure, axes = plt.subplots(1, len(asked), figsize=(9, 2.1))
scores = {}
for ax, (sentence, head) in zip(axes, asked, strict=True):
    c = scene.word_map(parse(sentence, head))
    scores[sentence, head] = generative_score(c, truth)
    show_map(c, image, ax, f'"{head}" in\n"{sentence}"')
lesson.show(
    '"dog" alone lights up both dogs. In "the purple dog" only the purple one. In "the dog on the left" both again.'
)

# %%
for (sentence, head), s in scores.items():
    print(
        f"{head:7} in {sentence:20}",
        "  ".join(f"{n} {v:+.2f}" for n, v in zip(sample.categories, s.tolist(), strict=True)),
    )
alone, tinted, placed = scores["dog", "dog"], scores["the purple dog", "dog"], scores["the dog on the left", "dog"]
checks.guess_which.against("c" if tinted[0] < 0.1 < tinted[1] else "b" if tinted[1] > tinted[0] else "a")
lesson.claim('"dog" alone lights up both', min(alone[0], alone[1]) > 0.25)
lesson.claim('in "the purple dog" it lights up the purple one alone', tinted[1] > 0.4 and tinted[0] < 0.05)
lesson.claim('in "the dog on the left" it lights up both, for "left" comes after it', min(placed[0], placed[1]) > 0.15)

# %% [markdown]
# This is a discovery. Diffusion reads one word, and yet tells two dogs apart. Who told it? Perhaps the text encoder,
# which may have written "purple" into the vector of "dog". Or "purple" acts in the UNet, next to "dog". An experiment
# decides: exchange the two vectors of "dog", and leave every other word in its place.


# %%
def dog_map(text, token):
    """S_G of every thing, for the map of one token under an encoded prompt."""
    with record_attention(unet, "up") as found, torch.no_grad():
        unet(scene.noised[0], scene.timesteps[model.config.noise_step], text)
    return generative_score(word_map(found, [token], scene.size).cpu(), truth)


with_tint, plain = model.encode_prompt(["the purple dog"]), model.encode_prompt(["the dog"])
given, taken = plain.clone(), with_tint.clone()
given[0, 2], taken[0, 3] = with_tint[0, 3], plain[0, 2]  # "dog" is token 2 of "the dog", 3 of "the purple dog"
exchanged = {
    '"the dog"': dog_map(plain, 2),
    '"the dog", with the vector from "the purple dog"': dog_map(given, 2),
    '"the purple dog", with the vector from "the dog"': dog_map(taken, 3),
}
for label, s_g in exchanged.items():
    print(f"{label:50} brown dog {s_g[0]:+.2f}, purple dog {s_g[1]:+.2f}")
lone, told, untold = exchanged.values()
lesson.claim("the vector alone carries the tint", told[0] < 0.05 < 0.4 < told[1])
lesson.claim(
    'without it the word "purple" in the prompt does nothing for "dog"', bool((untold - lone).abs().max() < 0.1)
)

# %% [markdown]
# It was the text encoder. And since it lets a token look only at those **before** it, a word that comes after the
# noun cannot write anything into it. What of words before the noun that say a size or a place? Count, on scenes with
# two of a kind:


# %%
def modifier(record, kind):
    """tint, size or place, if the expression is one such word and the noun; else None."""
    words = [w for w in record.text.split() if w != "the"]
    sorts = {"tint": "red yellow green blue purple pink".split(), "size": ["small", "large"],
             "place": "left leftmost right rightmost upper top lower bottom".split()}  # fmt: skip
    return next((s for s, known in sorts.items() if len(words) == 2 and words[0] in known and words[1] == kind), None)


rows = []
for one in load_toyref("val", limit=100):
    wanted = [(r, modifier(r, kind)) for r in one.records if one.categories.count(kind := one.categories[r.target]) > 1]
    wanted = [(r, sort) for r, sort in wanted if sort]
    here = model.set_image(one.path) if wanted else None
    for r, sort in wanted:
        kind = one.categories[r.target]
        twins = [i for i, c in enumerate(one.categories) if c == kind]
        masks = torch.from_numpy(one.masks[twins])
        with_word, bare = (generative_score(here.word_map(parse(text)), masks) for text in (r.text, kind))
        rows.append((one.image_id, sort, *(twins[int(s.argmax())] == r.target for s in (with_word, bare))))

# %%
figure, ax = plt.subplots(figsize=(4.6, 2.3))
shares_right = {}
for place, sort in enumerate(("tint", "size", "place")):
    ids, _, right, bare = zip(*[row for row in rows if row[1] == sort], strict=True)
    for shift, label, values in ((-0.1, "with the word", right), (0.1, "noun alone", bare)):
        low, high = interval(values, ids)
        mean, colour = np.mean(values), lesson.BLUE if shift < 0 else lesson.ORANGE
        ax.errorbar(place + shift, 100 * mean, [[100 * (mean - low)], [100 * (high - mean)]], fmt="o", capsize=3,
                    color=colour, label=label if not place else None)  # fmt: skip
        shares_right[sort, label] = mean, low, high
        print(
            f"{sort:6} {label:14} {100 * mean:3.0f} % ({100 * low:.0f} to {100 * high:.0f}) of {len(values)} expressions"
        )
ax.axhline(50, linestyle=":", color="grey")
ax.set(xticks=range(3), xticklabels=["tint", "size", "place"], ylabel="right one of its kind, %", ylim=(0, 105))
ax.legend()
lesson.show(
    "The map picks the right one of its kind: with a tint always, with a size in about 7 of 10 cases, with a place in about 6."
)

# %%
lesson.claim(
    "a tint before the noun picks the right one far more often than not", shares_right["tint", "with the word"][1] > 0.7
)
lesson.claim(
    "with the noun alone it is mostly the other: the one in its usual colour",
    shares_right["tint", "noun alone"][2] < 0.5,
)
size, place = shares_right["size", "with the word"], shares_right["place", "with the word"]
lesson.claim("a size helps, but less than a tint", size[1] > 0.5 and size[0] < shares_right["tint", "with the word"][1])
lesson.claim("for a place the interval contains one half: chance", place[1] < 0.5 < place[2])
lesson.claim("here a tint is right always, a size in about 7 of 10 cases, a place in about 6",
             shares_right["tint", "with the word"][0] == 1 and abs(size[0] - 0.7) < 0.05 and abs(place[0] - 0.6) < 0.05)  # fmt: skip

# %% [markdown]
# A tint is passed on, and always points the right way here. A size is passed on half-heartedly, and of a place these
# scenes show no trace. This fits how the UNet learned: the colour of a thing changes what must be painted on its own
# pixels, while "left" only makes sense next to something else. So Ref-Diff cannot stop at diffusion. To tell the left
# dog from the right one is the job of CLIP and its positional bias (lesson 6).

# %% [markdown]
# ## 8 · Which layer, which timestep? Measure it
#
# Enough of looking. Take val scenes, ask for every noun that is unique in its scene, and give the true masks as
# proposals. A map is right if $S_G$ (mean inside minus mean outside, lesson 7) is highest for the thing that is
# named. One UNet call gives all layers at once.


# %%
def hits_of(sample, t):
    """For every unique noun of a scene: layer -> whether its map picks the right mask."""
    here, masks, found = model.set_image(sample.path), torch.from_numpy(sample.masks), []
    x0 = here.latents
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0)).to(x0)
    for r in [r for r in sample.records if r.style == "noun"]:
        with record_attention(unet) as maps, torch.no_grad():
            unet(add_noise(scheduler, x0, noise, t), t, model.encode_prompt([r.text]))
        token = token_positions(tokenizer, r.text, parse(r.text).span)[-1]
        columns = {n: resize(m[0, ..., token], here.size).cpu() for n, m in maps.maps.items()}
        columns["mean of all"] = torch.stack(list(columns.values())).mean(0)
        found.append({n: int(generative_score(min_max(c), masks).argmax()) == r.target for n, c in columns.items()})
    return found


some, steps = load_toyref("val", limit=12), [1, 101, 301, 601]
table = {t: [row for sample in some for row in hits_of(sample, t)] for t in steps}
names = list(table[1][0])
accuracy = np.array([[np.mean([row[n] for row in table[t]]) for t in steps] for n in names])
chance = np.mean([1 / len(s.masks) for s in some for r in s.records if r.style == "noun"])

# %%
figure, ax = plt.subplots(figsize=(5.6, 0.36 * len(names) + 1))
drawn = ax.imshow(100 * accuracy, vmin=100 * chance, vmax=100, aspect="auto")
ax.set(xticks=range(len(steps)), xticklabels=steps, yticks=range(len(names)), yticklabels=names, xlabel="timestep t")
for (y, x), value in np.ndenumerate(accuracy):
    ax.text(x, y, f"{100 * value:.0f}", ha="center", va="center", fontsize=8, color="black" if value > 0.7 else "white")
figure.colorbar(drawn, label="nouns found, %")
lesson.show(
    "Nouns found by layer and timestep. Two layers at the bottom are near chance; up 0.1, up 1.0 and the mean find more than eight in ten at t up to 301."
)

# %%
best = np.unravel_index(accuracy.argmax(), accuracy.shape)
ids = [s.image_id for s in some for r in s.records if r.style == "noun"]
low, high = interval([row[names[best[0]]] for row in table[steps[best[1]]]], ids)
print(f"{len(ids)} nouns, chance {100 * chance:.0f} %")
print(
    f"highest: {names[best[0]]} at t = {steps[best[1]]}, {100 * accuracy.max():.0f} % ({100 * low:.0f} to {100 * high:.0f})"
)
lesson.claim("even the highest cell's interval is over 10 points wide", high - low > 0.1)
of_layer = dict(zip(names, accuracy[:, :3], strict=True))  # at t = 1, 101 and 301
good = [
    v.min() for n, v in of_layer.items() if n in ("up_blocks.0.attentions.1", "up_blocks.1.attentions.0", "mean of all")
]
dark = [v.max() for n, v in of_layer.items() if n in ("mid_block.attentions.0", "up_blocks.0.attentions.0")]
lesson.claim("up 0.1, up 1.0 and the mean find more than eight in ten there, the bottom less than four in ten",
             min(good) > 0.8 and max(dark) < 0.4)  # fmt: skip

# %% [markdown]
# The colours start at chance: dark means that the layer knows nothing. Two warnings before you crown a winner. With
# so few nouns, a cell and its neighbours cannot be told apart. And the highest of thirty cells is too high because it
# was selected. This is why constants are chosen on val and reported on test. Here is the same question, asked on all
# of ToyRef test:

# %%
rows = json.loads((data_dir() / "models" / "toy" / "ablation.json").read_text())["groups"]["attention, gs, noun"]
noise_rows = {int(n.split()[3]): r for n, r in rows.items() if n.startswith("noise at step")}
layer_rows = {n.removeprefix("layer "): r for n, r in rows.items() if n.startswith("layer ")} | {
    "all layers": rows["all layers"]
}
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.6), width_ratios=[1.2, 1])
for ax, chosen in ((left, layer_rows), (right, noise_rows)):
    v, (low, high) = (100 * np.array([r["value"] for r in chosen.values()]),
                      100 * np.array([r["interval"] for r in chosen.values()]).T)  # fmt: skip
    places = range(len(chosen)) if ax is left else [1 + 50 * step for step in chosen]
    if ax is left:
        ax.errorbar(v, places, xerr=[v - low, high - v], fmt="o", capsize=3)
        ax.set(yticks=places, yticklabels=list(chosen), xlabel="nouns found, %")
    else:
        ax.errorbar(places, v, yerr=[v - low, high - v], fmt="o-", capsize=3)
        ax.set(xlabel="timestep t", ylabel="nouns found, %")
lesson.show(
    "On test: layer up 0.1 and all layers near 96 %, up 1.0 90 %, middle layers near chance. By noise: flat to t = 201, then falling."
)

# %%
change = {step: r["change_interval"] for step, r in noise_rows.items()}
lesson.claim("between t = 1 and t = 201 noise makes no difference that 365 nouns could show",
             all(change[s][0] <= 0 <= change[s][1] for s in (0, 1, 2, 4)))  # fmt: skip
lesson.claim("at t = 401 and beyond fewer are found", max(change[8][1], change[12][1]) < 0)
of = {n: round(100 * r["value"]) for n, r in layer_rows.items()}
assert (of["up_blocks.0.attentions.1"], of["all layers"], of["up_blocks.1.attentions.0"]) == (96, 96, 90)
assert max(of["mid_block.attentions.0"], of["up_blocks.0.attentions.0"]) < 35
logits = rows["logits"]["change_interval"]
print(
    f"logits instead of softmax: {100 * rows['logits']['change']:+.1f} points ({100 * logits[0]:+.1f} to {100 * logits[1]:+.1f})"
)
lesson.claim("reading the logits, as the official code does, finds fewer", logits[1] < 0)

# %% [markdown]
# ### Exercise 3.6 · One column, one pass
# **Difficulty** ●●●●○ · **Time** 30 minutes
#
# The whole table of pixels × tokens need never be held in memory. Suppose the keys come one at a time, once. Compute
# the map of a single token, keeping only a few numbers for each pixel. The logits may be as large as 1000, so `exp`
# of them is infinite; your result must not be.
#
# <details><summary>Hint</summary>
#
# $e^{x}/\sum_j e^{x_j}$ does not change if the same number is subtracted from all logits. Subtract the largest seen
# *so far*. When a larger one comes, what must be done to the sum that you have?
# </details>


# %% tags=["exercise"]
def my_column(q, keys, token):
    """q: (pixels, d); keys: yields (d,) tensors, once. Returns the (pixels,) softmax share of this token."""
    ### BEGIN SOLUTION
    largest = torch.full((len(q),), -torch.inf)
    total = torch.zeros(len(q))
    for i, key in enumerate(keys):
        logit = q @ key / q.shape[1] ** 0.5
        higher = torch.maximum(largest, logit)
        total = total * (largest - higher).exp() + (logit - higher).exp()
        largest = higher
        if i == token:
            wanted = logit
    return (wanted - largest).exp() / total
    ### END SOLUTION


checks.check_column(my_column)

# %% tags=["answer"]
columns = [my_column(one_q.cpu(), iter(one_k.cpu()), 3) for one_q, one_k in zip(q, k, strict=True)]
mine = torch.stack([torch.as_tensor(column) for column in columns]).mean(0).float()
torch.testing.assert_close(mine.reshape(h, w), shares[..., 3], atol=1e-4, rtol=1e-3)
show_map(min_max(mine.reshape(h, w)), None, title='"dog", one pass').figure.set_size_inches(2.2, 2.2)
lesson.show("The map of dog from your one pass over the keys.")

# %% [markdown]
# ## 9 · How attention emerged
#
# Nobody taught the UNet where things are. It saw pictures with captions, and one loss, the error of the predicted
# noise. The log of its training was written as it ran:


# %%
def read_log(name):
    return [json.loads(line) for line in (data_dir() / "models" / "toy" / name).read_text().splitlines()]


log, scratch = read_log("unet-log.jsonl"), read_log("emergence-log.jsonl")
kept = {
    "loss": "loss",
    "gain_500": "error saved by the right caption, t = 500",
    "localisation": "nouns found, mean of all layers",
}
figure, axes = plt.subplots(1, len(kept), figsize=(9, 2.3), layout="constrained")
for ax, (key, label), colour in zip(axes, kept.items(), lesson.PALETTE, strict=False):
    for rows, line, run in ((log, "-", "bundled"), (scratch, ":", "from scratch")):
        ax.plot(
            [r["step"] for r in rows if key in r], [r[key] for r in rows if key in r], line, color=colour, label=run
        )
    ax.set_xlabel("training step")
    ax.locator_params("x", nbins=4)
    ax.set_title(label, fontsize=9)
axes[0].legend()
lesson.show(
    "The loss falls fast, then slowly. The caption's benefit rises from 8 to 22 %, with a dip. Nouns found rise from half to nearly all."
)

# %%
value = {key: {r["step"]: r[key] for r in log if key in r} for key in kept}
loss, gain, nouns = (list(value[key].values()) for key in kept)
dip = [g for step, g in value["gain_500"].items() if 10_500 <= step <= 14_000]
assert (round(100 * gain[0]), round(100 * gain[-1]), log[-1]["step"]) == (8, 22, 17_200)
assert nouns[0] < 0.55 < 0.95 < nouns[-1]
lesson.claim("two thirds of the loss's fall happen in the first 2,000 of 17,200 steps",
             loss[0] - min(v for s, v in value["loss"].items() if s <= 2000) > 0.65 * (loss[0] - min(loss)))  # fmt: skip
lesson.claim("the caption's benefit at least doubles after the first measurement", gain[-1] > 2 * gain[0])
lesson.claim("after step 10,250 it drops for a while, and nouns are found more and more often meanwhile",
             max(dip) < value["gain_500"][10_250] and nouns[-1] > 1.1 * value["localisation"][10_250])  # fmt: skip

# %% [markdown]
# Solid: the bundled network, which grew in stages ([how](../data/models/toy/README.md)). In its first steps the text
# encoder was frozen, and what it finds was not counted. Dotted: the first steps of a training from scratch. Next,
# where three nouns of one scene look, early in a training from scratch and in the bundled network:

# %%
display(
    Image(data_dir() / "models" / "toy" / "emergence.png", width=640,
          alt="Maps of car, rabbit and fish after 250, 500 and 1,000 steps, and of the bundled network: from haze to the one thing.")
)  # fmt: skip

# %% [markdown]
# Compare *when* the curves move. The loss falls quickly, then hardly: most of it is about colours and texture, not
# words. The caption's benefit keeps growing. To profit from "dog" the UNet must bring the word to the dog's pixels;
# nothing else in its training asks it to know where things are. Ref-Diff lives on this by-product.
#
# After step 10,250 two curves part. Until then a noun stood for the usual colour of its kind, since noise hides
# shapes before it hides colours. Then recoloured pictures joined, and captions that mention no tint. At first a
# caption helps less, but nouns must now be found by shape.

# %% [markdown]
# <details><summary><b>What can go wrong</b></summary>
#
# - **Tokens off by one.** The start token counts. With a wrong position you get a map all the same, of another word.
# - **$(h, w)$ from a square root.** Grids are square only if pictures are. The library takes them from the latents.
# - **A flat map.** $(x - \min) / (\max - \min)$ is NaN where a map is constant. A small constant below the line
#   prevents it ([fault 8](../docs/faults.md#fault-8)).
# - **Half precision.** On a GPU `to_q` returns fp16. Multiplied in fp16, large logits lose their last digits, or
#   overflow; take the product in float.
# - **Logits or softmax?** The paper reads the softmax, the official code the logits before it. Both are here:
#   `scores="logits"`.
# - **Guidance.** With it, the batch is [empty, prompt]. Read the second row, or you read the attention of no prompt.
# </details>

# %% [markdown]
# ## Recap
#
# Answer from memory, then open.
#
# <details><summary>Which dimension does the softmax go over, and what is a map then?</summary>
#
# Over the tokens, for each pixel. A map is a column: one token, all pixels.
# </details>
# <details><summary>How does the paper get from attention to the word map c?</summary>
#
# Mean of heads; resize each layer; mean; stretch once, at the end.
# </details>
# <details><summary>Which dog does "dog" look at in "the purple dog", and why not the left one in "the dog on the left"?</summary>
#
# The purple one: the text encoder writes earlier words into later ones. "Left" comes too late, and even before the
# noun a place is hardly passed on.
# </details>
# <details><summary>Why is the best cell of a table too good?</summary>
#
# Because it was chosen for being high. Choose on val, report on test.
# </details>
#
# **Open question.** The map of "the" shows what "dog" has left over. Could the maps of words that mean nothing make
# the map of "dog" better? What would you compute, and what would you compare it with?
#
# **References.** Vaswani et al., *Attention Is All You Need* ([arXiv 1706.03762](https://arxiv.org/abs/1706.03762)).
# Hertz et al., *Prompt-to-Prompt* ([arXiv 2208.01626](https://arxiv.org/abs/2208.01626)). Tang et al., *What the
# DAAM* ([arXiv 2210.04885](https://arxiv.org/abs/2210.04885)). Ni et al., *Ref-Diff* ([arXiv
# 2308.16777](https://arxiv.org/abs/2308.16777)), section 3. In the code:
# [`attention.py`](../refdiff_lite/attention.py), [`expression.py`](../refdiff_lite/expression.py).
