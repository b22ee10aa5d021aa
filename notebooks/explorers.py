# ---
# title: A tour of the explorers
# minutes: 30
# cpu: 1
# goals:
#   - see where every word of a sentence looks, and what every pixel listens to
#   - tell what one changed word does to the maps of the others, and which words a text encoder lets look at which
#   - watch two scores become one mask, and turn every knob of the way
#   - follow a picture through the noise and back
#   - look through the results of a run, the worst first
# ---
# %% tags=["setup"]
from refdiff_lite import lesson

PRESET = "toy"
lesson.start(PRESET)

# %%
import json
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
from IPython.display import display

from refdiff_lite import RefDiff
from refdiff_lite.datasets.toyref import load_toyref
from refdiff_lite.evaluation.run import evaluate
from refdiff_lite.files import data_dir
from refdiff_lite.widgets import (
    AttentionComparison,
    AttentionExplorer,
    Gallery,
    InversionExplorer,
    SegmentationPlayground,
    TextExplorer,
)

data = load_toyref("test", limit=12)
sample = max(data, key=lambda s: len(s.masks))
model = RefDiff.from_preset(PRESET)
scene = model.set_image(sample.path, oracle=sample.masks)

# %% [markdown]
# Six pictures that answer at once, for looking into Ref-Diff while you work. Each is a widget, a still picture (what
# you see where no widget can run, as on GitHub), and one HTML file to hand out.
#
# **Keys** in all six: Tab goes from part to part, arrows walk, Enter chooses, Escape lets go.

# %% [markdown]
# ## 1 · Where every word looks
#
# Cross-attention gives every pixel a share for every token (lesson 3). Hover a word to see its shares over the image.
# Hover a pixel to see them the other way round, as bars under the words, with the pixel's own self-attention beside
# (lesson 4). The shares of all words add up to 100 %, with those of the tokens that mean nothing: `start`, `end` and
# the padding behind them. Click words to compare them, drag over a picture to ask which words listen in a region, and
# open the overview to see every layer, head and timestep at once. At first you see the mean of the layers that the
# method reads, as it was recorded. *The method's own map* is what it makes of that: stretched to $[0, 1]$.
#
# **Try it**: pin the head word and the adjective. Which thing does each of them find? Then look at the `start` token,
# which means nothing. Where does it look, and why would a pixel listen to it?

# %%
sentence = max((r.text for r in sample.records), key=len)
attention = AttentionExplorer.from_scene(scene, sentence)
display(attention)

# %% [markdown]
# What you choose in the widget is kept in the Python object, so Python can go on from there, and can choose for you:
# `attention.pinned = [3]`. It also answers the last question. A pixel's shares sum to 1 and must go somewhere. Where no
# word fits, they go to words that say nothing.

# %%
maps, things = np.asarray(attention.maps()), np.any(sample.masks, 0)
rows, columns = (np.arange(n) * things.shape[k] // n for k, n in enumerate(maps.shape[1:]))
on_things = things[rows][:, columns]
start = maps[0]
print(attention)
lesson.claim(
    "the start token is heard more on the ground than on the things", start[~on_things].mean() > start[on_things].mean()
)

# %% [markdown]
# ## 2 · Two sentences, word by word
#
# The same picture, and two sentences that differ in one word. Choose a word: the third picture shows what the change
# did to its map.
#
# **Try it**: go through the words and read the ends of the blue and orange scale. If "left" for "right" changes the
# maps so little, where does the method get the side from (lesson 6)?

# %%
comparison = AttentionComparison.from_scenes((scene, sentence), (scene, sentence.replace("right", "left")))
first, second = (AttentionExplorer(recorded).maps() for recorded in comparison.both)
lesson.claim("the change moves no map by more than one percentage point", np.abs(first - second).max() < 0.01)
display(comparison)

# %% [markdown]
# ## 3 · What the words look at among themselves
#
# Before any picture, the text encoder lets each token look at itself and at those before it. So later words carry
# earlier ones with them (lesson 3).
#
# **Try it**: hover the last word, then stop counting the start token. Which heads let most tokens look at
# themselves, and which let most of them look at one word?

# %%
text = TextExplorer.from_networks(model.networks, sentence, token=len(sentence.split()))
lesson.claim("no token looks at one that comes after it", not np.triu(text.shares(), 1).any())
display(text)

# %% [markdown]
# ## 4 · Which mask does a sentence mean?
#
# Every proposal gets $S_G$ from the word's map and $S_D$ from CLIP, and $S$ is their weighted sum (lesson 7). Turn α
# and β and watch when the winner changes: that is how far the answer depends on a constant. Type a sentence of your
# own, or click another word to make it the head.
#
# **Try it**: which variants still find the thing when you swap left for right?

# %%
truth = {r.text: sample.masks[r.target] for r in sample.records}
playground = SegmentationPlayground(scene, sentence, truth=truth)
display(playground)

# %% [markdown]
# ## 5 · Through the noise and back
#
# Random noise forgets the picture. DDIM inversion looks for the noise that leads back to it, with a small error in each
# step. Repeating each step until it agrees with itself removes nearly all of that error (lesson 2). Slide to the
# middle: can you still make out the picture?

# %%
inversion = InversionExplorer.from_scene(scene, steps=6)
display(inversion)

# %% [markdown]
# How much is "nearly all"? Over 32 test scenes and ten steps (`make measure`):

# %%
measures = json.loads((data_dir() / "models" / "toy" / "measures.json").read_text())
plain, repeated = (measures[f"DDIM inversion, 10 steps, {way}, PSNR dB"] for way in ("plain", "fixed-point"))
print(f"there and back: plain {plain['value']:.1f} dB, repeated {repeated['value']:.1f} dB")
lesson.claim(
    "repeating gains more than 20 dB: less than a hundredth of the squared error is left",
    repeated["low"] - plain["high"] > 20,
)

# %% [markdown]
# ## 6 · Results, one by one
#
# A mean IoU hides more than it says (lesson 8). `refdiff-lite evaluate` writes a folder, and the gallery reads it.
# Given the model as well, it adds what a run does not keep: word maps and scores.

# %%
folder = Path(mkdtemp())
evaluate(model, data[:4], ["full"], "felzenszwalb", folder, {"data": "toyref", "split": "test"})
gallery = Gallery.from_run(folder, model=model)
display(gallery)

# %% [markdown]
# Look at the worst first, and ask of each: was the wrong object chosen, or the right one badly outlined? A **twin** is
# another object of the same kind.

# %% tags=["nbval-check-output"]
print(len(gallery.items), "results,", gallery.order, "first")

# %% [markdown]
# ## Hand one out
#
# `attention.save_html("attention.html")` writes one file that anyone can open, without Python and without a network.
# The playground's file knows the sentences that you asked before you saved it.
