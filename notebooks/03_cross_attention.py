# ---
# title: "Cross-attention: from a word to its pixels"
# minutes: 60
# cpu: 1
# gpu: 2
# goals:
#   - compute attention between pixels and words by hand, and get the UNet's own numbers
#   - read maps of heads, layers and timesteps, and say what each is good for
#   - turn a word's attention into the map $c$ of the paper
#   - measure which layer and which timestep find things best
# ---
# %% tags=["setup"]
from refdiff_lite import lesson

PRESET = "toy"
lesson.start(PRESET)

# %%
import json

import matplotlib.pyplot as plt
import numpy as np
import torch
from einops import rearrange
from IPython.display import Image, display

from refdiff_lite import RefDiff
from refdiff_lite.attention import min_max, record_attention, resize, word_map
from refdiff_lite.checks import cross_attention as checks
from refdiff_lite.datasets.toyref import load_toyref
from refdiff_lite.evaluation.metrics import bootstrap
from refdiff_lite.expression import parse, token_positions
from refdiff_lite.files import data_dir
from refdiff_lite.fusion import generative_score
from refdiff_lite.latents import add_noise
from refdiff_lite.networks.compat import cross_attention_modules
from refdiff_lite.viz import show_image, show_map
from refdiff_lite.widgets import AttentionExplorer

# %% [markdown]
# A diffusion model is told what to paint by a sentence. Somewhere in the network the words must meet the pixels. They
# meet in **cross-attention**, and nowhere else. This lesson goes to that place, and writes down who looks at whom.

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
logits = q @ k.T / 2**0.5
shares = logits.softmax(-1)
for pixel, row in enumerate(shares):
    print(f'pixel {pixel}: {row[0]:.2f} to "dog", {row[1]:.2f} to "apple"')

# %% [markdown]
# Pixel 0 asks for what "dog" offers, pixel 1 for what "apple" offers, pixel 2 cannot decide. What the pixel then *gets*
# is the mix of the words' *values* $v$, weighted by these shares; that is how the text changes the picture. We need
# only the shares. Read down a **column**, they are a map: how much does each pixel look at "dog"?

# %% tags=["nbval-check-output"]
v = torch.tensor([[10.0], [-10.0]])
print("what each pixel gets:", [round(x, 1) for x in (shares @ v).flatten().tolist()])
print('map of "dog":        ', [round(x, 2) for x in shares[:, 0].tolist()])

# %% [markdown]
# ### Exercise 3.1 · Attention
# **Difficulty** ●○○○○ · **Time** 5 minutes
#
# Write it for any numbers of pixels and words.
#
# <details><summary>Hint</summary>
#
# `q @ k.T` has one row per pixel. Over which dimension must the shares sum to 1?
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
# behind, and fills up to a fixed length. The text encoder then turns every token into a vector, and lets each token
# look back at those **before** it.

# %% tags=["nbval-check-output"]
model = RefDiff.from_preset(PRESET)
tokenizer, unet, scheduler = model.networks.sd.tokenizer, model.networks.sd.unet, model.networks.sd.scheduler
ids = tokenizer("the purple dog").input_ids
print([tokenizer.decode([i]).strip() for i in ids], "filled up to", tokenizer.model_max_length)

# %% [markdown]
# ### Exercise 3.2 · Where is the dog?
# **Difficulty** ●○○○○ · **Time** 2 minutes
#
# At which position of the sequence stands "dog"?
#
# <details><summary>Hint</summary>
#
# Count from 0, and count all that you see in the list above.
# </details>

# %% tags=["exercise"]
### BEGIN SOLUTION
position = 3
### END SOLUTION

checks.check_position(position)

# %% [markdown]
# A search for the letters "man" would find them in "woman". The library uses the tokenizer's character offsets instead.
# And a rare word is cut into **several** pieces: then the last piece is read, since it has seen those before it.

# %% tags=["nbval-check-output"]
for sentence, head in (("the purple dog", "dog"), ("woman and man", "man"), ("one hippopotamus", "hippopotamus")):
    span = parse(sentence, head).span
    found = token_positions(tokenizer, sentence, span)
    print(
        f"{head:13} in {sentence!r:20}", "one piece" if len(found) == 1 else "several pieces", "from position", found[0]
    )

# %% [markdown]
# ## 3 · One map, by hand
#
# Now the real thing. We run the UNet once over the noised picture (lesson 1), and listen at one cross-attention module:
# what comes in?

# %%
sample = load_toyref("val", limit=11)[10]
scene = model.set_image(sample.path)
x0, image = scene.latents, scene.image
noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0)).to(x0)
prompt = "the purple dog"


def look(prompt, t, layers=""):
    """Attention maps of one UNet call over the picture, noised to timestep t."""
    with record_attention(unet, layers) as maps, torch.no_grad():
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
# `to_q` and `to_k` are two learned matrices. The result is cut into *heads*: several small attentions side by side,
# each free to look for something else. Ten lines, and they give the numbers that the library recorded:

# %%
h, w = maps.maps[name].shape[1:3]
with torch.no_grad():
    q = rearrange(module.to_q(seen["pixels"]), "1 (h w) (head d) -> head h w d", h=h, head=module.heads)
    k = rearrange(module.to_k(seen["words"]), "1 word (head d) -> head word d", head=module.heads)
logits = torch.einsum("n h w d, n k d -> n h w k", q, k).float() / q.shape[-1] ** 0.5
heads = logits.softmax(-1)

torch.testing.assert_close(heads.mean(0), maps.maps[name][0])

# %% [markdown]
# `record_attention` does exactly this, *beside* the running UNet, so the UNet's output does not change by one bit. It
# averages the heads at once and keeps sums over calls, so memory does not grow.

# %% tags=["nbval-check-output"]
total = heads.sum(-1)
print("every pixel shares out 1:", bool((total - 1).abs().max() < 1e-4))
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
plt.show()

# %%
for i, token in enumerate(tokens):
    print(f"{token:7} mean share {float(shares[..., i].mean()):.3f}")
print(f"filling mean share {float(shares[..., 5:].sum(-1).mean()):.3f}, all together")

# %% [markdown]
# Shares sum to 1, so a pixel that has no use for any word must still put its attention *somewhere*. Often that is the
# start token, a place to rest; or the filling at the end. So what counts is not how much a word gets, but **where it
# gets more than elsewhere**. Hence min-max, for each map by itself:

# %%
figure, axes = plt.subplots(1, 3, figsize=(5.2, 2))
for ax, i in zip(axes, (1, 2, 3), strict=True):
    show_map(min_max(resize(shares[..., i], image.shape[:2])), image, ax, f'"{tokens[i]}", stretched')

# %% [markdown]
# Look for the rim: is it the thing's, or is it a blob around it? Then look at "purple", and even at "the": they have
# maps too, and they need not be about their own meaning. Ref-Diff reads one token only, the head word, and hopes that
# it carries the most.

# %% [markdown]
# ## 5 · Heads, layers, timesteps
#
# Each map so far was a mean. Before we average, look at what goes in. First the **heads** of this one layer, for "dog":

# %%
figure, axes = plt.subplots(1, len(heads) + 1, figsize=(9, 2) if len(heads) > 4 else (7, 1.7))
for i, ax in enumerate(axes[:-1]):
    show_map(min_max(heads[i, ..., 3].cpu()), None, ax, f"head {i}")
show_map(min_max(shares[..., 3]), None, axes[-1], "mean of heads")
plt.show()

# %% [markdown]
# Heads divide the work: some look at things, some at the ground, some at rims. The paper takes the mean of all. That is
# simple, and it dilutes the heads that know. Now **layers** against **timesteps**:

# %%
names = list(maps.maps)
names = names[:: max(1, len(names) // 6)][:7]
steps = [1, 101, 301, 601]
figure, axes = plt.subplots(len(steps), len(names), figsize=(9, 5.4))
for row, t in zip(axes, steps, strict=True):
    maps = look(prompt, t)
    for ax, name in zip(row, names, strict=True):
        short = name.replace("_blocks.", " ").replace(".attentions.", ".").replace("_block", "")
        show_map(
            min_max(maps.maps[name][0, ..., 3].cpu()), None, ax, f"{short}\nt = {t}" if t == steps[0] else f"t = {t}"
        )

# %% [markdown]
# From left to right the maps go down into the UNet, to its bottom, and up again. Coarse grids cannot draw a rim,
# however well they know the thing. From top to bottom the noise grows: at high $t$ the network has to guess where a dog
# *might* be, and its maps follow the noise. Where would *you* read?

# %% tags=["nbval-check-output"]
maps = look(prompt, 101)
grids = {tuple(m.shape[1:3]) for m in maps.maps.values()}
print(len(maps.maps), "layers, grids", sorted(grids, reverse=True))
print(maps.kind, maps.scores, "of", maps.calls, "call")

# %% [markdown]
# ### Look for yourself
#
# In a running notebook the next picture answers. Hover a word to see its map. Then hover the picture: bars under the words say
# what that pixel listens to. Click "purple" and "dog" to pin both. What does a pixel of the apple listen to? Does the answer
# hold in another layer, another head, at another noise?

# %%
AttentionExplorer.from_scene(scene, prompt)

# %% [markdown]
# ## 6 · From word to map
#
# The paper's recipe: take the head word's column in some layers, resize each to the picture (bilinear), take the mean,
# and stretch the mean to $[0, 1]$:
#
# $$c = \frac{\bar a - \min \bar a}{\max \bar a - \min \bar a}$$

# %% [markdown]
# ### Exercise 3.3 · The word map
# **Difficulty** ●●○○○ · **Time** 10 minutes
#
# Write it. `resize(map, size)` and `min_max(map)` are imported.
#
# <details><summary>Hint</summary>
#
# `torch.stack(list_of_maps).mean(0)` needs maps of one size: so resize before the mean, and stretch after it.
# </details>


# %% tags=["exercise"]
def my_word_map(layers, size):
    """layers: list of (h, w) maps of different sizes. Returns (H, W) in [0, 1]."""
    ### BEGIN SOLUTION
    return min_max(torch.stack([resize(m, size) for m in layers]).mean(0))
    ### END SOLUTION


checks.check_word_map(my_word_map)

# %%
layers = [m[0, ..., 3] for m in maps.maps.values()]
by_hand = min_max(torch.stack([resize(m, scene.size) for m in layers]).mean(0))
torch.testing.assert_close(by_hand, word_map(maps, [3], scene.size))

# %% [markdown]
# Why does it matter whether you stretch before or after the mean? Before it, every layer has the same say, also one
# that sees nothing and whose tiny ripples are blown up. Toy numbers:

# %% tags=["nbval-check-output"]
clear, ripples = torch.tensor([[0.0, 0.8]]), torch.tensor([[0.02, 0.01]])
after = min_max((clear + ripples) / 2)
before = (min_max(clear) + min_max(ripples)) / 2
print("stretch after the mean (paper):    ", [round(x, 2) for x in after.flatten().tolist()])
print("stretch before the mean (official):", [round(x, 2) for x in before.flatten().tolist()])

# %% [markdown]
# ### The head word
#
# Which word should be read? Compare sentences about the same picture:

# %%
asked = [
    ("dog", "dog"),
    ("the purple dog", "dog"),
    ("the purple dog", "purple"),
    ("penguin", "penguin"),
    ("apple", "apple"),
]
figure, axes = plt.subplots(1, len(asked), figsize=(9, 2.1))
for ax, (sentence, head) in zip(axes, asked, strict=True):
    c, _ = scene.word_map(parse(sentence, head))
    show_map(c, image, ax, f'"{head}" in\n"{sentence}"')

# %% [markdown]
# "dog" alone may light up on both dogs. Does "purple" in front of it change the map of "dog"? It can, for the text
# encoder lets "dog" look back at "purple"; whether it does enough is another question. This is why Ref-Diff does not
# stop at diffusion: telling two dogs apart is CLIP's part (lesson 6).

# %% [markdown]
# ## 7 · Which layer, which timestep? Measure it
#
# Enough of looking. Take val scenes, ask for every noun that is unique in its scene, and give the true masks as
# proposals. A map is right if $S_G$ (mean inside minus mean outside, lesson 7) is highest for the thing that is named.
# One UNet call gives all layers at once.


# %%
def hits_of(sample, t):
    """For every unique noun of a scene: layer -> whether its map picks the right mask."""
    here, masks = model.set_image(sample.path), torch.from_numpy(sample.masks)
    nouns = [r for r in sample.records if r.style == "noun"]
    x0 = here.latents
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0)).to(x0)
    rows = []
    for r in nouns:
        with record_attention(unet) as maps, torch.no_grad():
            unet(add_noise(scheduler, x0, noise, t), t, model.encode_prompt([r.text]))
        token = token_positions(tokenizer, r.text, parse(r.text).span)[-1]
        columns = {n: resize(m[0, ..., token], here.size).cpu() for n, m in maps.maps.items()}
        columns["mean of all"] = torch.stack(list(columns.values())).mean(0)
        rows.append({n: int(generative_score(min_max(c), masks).argmax()) == r.target for n, c in columns.items()})
    return rows


# %%
some, steps = load_toyref("val", limit=16), [1, 51, 101, 301, 601]
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
plt.show()

# %%
best_name, best_t = (int(i) for i in np.unravel_index(accuracy.argmax(), accuracy.shape))
rows = table[steps[best_t]]
ids = [s.image_id for s in some for r in s.records if r.style == "noun"]
low, high = bootstrap([row[names[best_name]] for row in rows], ids)
print(f"{len(rows)} nouns, chance {100 * chance:.0f} %")
print(
    f"highest: {names[best_name]} at t = {steps[best_t]}, {100 * accuracy.max():.0f} % ({100 * low:.0f} to {100 * high:.0f})"
)

# %% [markdown]
# Colours start at chance: dark means that the layer knows nothing. Two warnings before you crown a winner. The interval
# of a single cell is wide, so most neighbours are *not* different. And the highest of forty cells is too high by
# selection. This is why constants are chosen on val and reported on test: `make tune` has done so for the toy preset,
# with more scenes.

# %% tags=["nbval-check-output"]
config = model.config
print("the preset is read at step", config.noise_step, "of", config.num_steps, "with", config.scores)

# %% [markdown]
# ## 8 · How attention emerged
#
# Nobody taught the UNet where things are: it saw pictures with captions, and one loss, the error of the predicted
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
figure, axes = plt.subplots(1, len(kept), figsize=(3.3 * len(kept), 2.3), layout="constrained")
for ax, (key, label), colour in zip(axes, kept.items(), lesson.PALETTE, strict=False):
    for rows, line, name in ((log, "-", "bundled"), (scratch, ":", "from scratch")):
        ax.plot(
            [r["step"] for r in rows if key in r], [r[key] for r in rows if key in r], line, color=colour, label=name
        )
    ax.set_xlabel("training step")
    ax.locator_params("x", nbins=4)
    ax.set_title(label, fontsize=9)
axes[0].legend(frameon=False)
plt.show()

# %% [markdown]
# Solid: the bundled network, which grew in stages (`data/models/toy/README.md`; its first steps looked at words with frozen
# text, and did not count what they find). Dotted: the first steps of a training from scratch.
#
# And where three nouns of one scene look, early in a training from scratch and in the bundled network:

# %%
display(Image(data_dir() / "models" / "toy" / "emergence.png", width=640))

# %% [markdown]
# Compare *when* the curves move. The loss falls quickly, then hardly: most of it is about colours and texture, not
# words. What the caption is worth goes on growing. To profit from "dog" the UNet must bring the word to the dog's
# pixels, and nothing else in its training asks it to know where things are. Ref-Diff lives on this by-product.
#
# From step 10,250 on the two curves part. Until there a noun meant the usual colour of its kind, for noise hides shapes
# before it hides colours. Then recoloured pictures joined, and captions that say no tint: at first they help less,
# but their nouns must be found by shape.

# %% [markdown]
# <details><summary><b>What can go wrong</b></summary>
#
# - **Tokens off by one.** The start token counts. With a wrong position you get a map all the same, of another word.
# - **$(h, w)$ from a square root.** Grids are square only if pictures are. The library takes them from the latents.
# - **A flat map.** $(x - \min) / (\max - \min)$ is NaN where a map is constant: a small eps is needed.
# - **Logits or softmax?** The paper reads the softmax, the official code the logits before it. Both are here:
#   `scores="logits"`.
# - **Guidance.** With it, the batch is [empty, prompt]. Read the second row, or you read the attention of no prompt.
# </details>

# %% tags=["nbval-check-output"]
flat = torch.full((2, 2), 0.5)
print("with eps:", min_max(flat).tolist(), "| without:", ((flat - flat.min()) / (flat.max() - flat.min())).tolist()[0])

# %% [markdown]
# ## Recap
#
# - Cross-attention is where words meet pixels: $\mathrm{softmax}(qk^\top/\sqrt d)$, one row per pixel, one column per
#   token.
# - A column is a map. Heads, layers and timesteps differ; the paper averages heads and layers and reads at low $t$.
# - The word map $c$: resize, mean, stretch. It says where the head word is felt, not which of two dogs is meant.
# - Which layer and $t$ to read is a measurement, with intervals, on val.
#
# **References.** Vaswani et al., *Attention Is All You Need* ([arXiv 1706.03762](https://arxiv.org/abs/1706.03762)).
# Hertz et al., *Prompt-to-Prompt* ([arXiv 2208.01626](https://arxiv.org/abs/2208.01626)). Tang et al., *What the DAAM*
# ([arXiv 2210.04885](https://arxiv.org/abs/2210.04885)). Ni et al., *Ref-Diff* ([arXiv
# 2308.16777](https://arxiv.org/abs/2308.16777)), section 3. In the code: `refdiff_lite/attention.py`,
# `refdiff_lite/expression.py`.
