# ---
# title: A sentence becomes a mask
# minutes: 20
# cpu: 1
# gpu: 1
# goals:
#   - turn a sentence into a mask with five lines
#   - read the figure that explains a result, panel by panel
#   - say what the four variants of Ref-Diff have in common and where they part
# ---
# %% tags=["setup"]
from refdiff_lite import lesson

PRESET = "toy"
lesson.start(PRESET)

# %%
import matplotlib.pyplot as plt
import numpy as np

from refdiff_lite import RefDiff
from refdiff_lite.checks import quickstart as checks
from refdiff_lite.datasets.toyref import load_toyref
from refdiff_lite.evaluation.metrics import iou
from refdiff_lite.expression import parse
from refdiff_lite.viz import show_image, show_map, show_mask

# %% [markdown]
# Stable Diffusion was trained to paint what a caption says. Nobody ever showed it which pixels a word means. And yet,
# to put a cat where the cat belongs, it must somehow connect the word "cat" to those pixels. **Ref-Diff** (Ni et al.
# 2023) reads this connection out, and uses it to find the thing that a sentence names, in a picture that already
# exists.
#
# The task is called *referring image segmentation*: image and sentence in, mask out. *Zero-shot* means: no network here
# has ever seen a sentence together with a mask.

# %% [markdown]
# ## Five lines
#
# The picture comes from ToyRef, our small data set. Two of its things are dogs, so "dog" alone would not do.

# %%
sample = load_toyref("val", limit=11)[10]

model = RefDiff.from_preset(PRESET)
scene = model.set_image(sample.path)
result = scene.segment("the purple dog")

figure, (left, right) = plt.subplots(1, 2, figsize=(5.2, 2.7))
show_image(scene.image, left, "in: a picture")
show_mask(result.mask, scene.image, right, 'out: "the purple dog"')
plt.show()
# %% [markdown]
# `set_image` does what depends on the picture alone; ask as many sentences as you like afterwards. The mask is a plain
# array of booleans in the picture's own size.

# %% tags=["nbval-check-output"]
print(result.mask.shape, result.mask.dtype)
print(result.expression)

# %% [markdown]
# **Try it.** Change the sentences in the next cell and run it again. ToyRef knows 45 kinds of thing, seven tints, sizes
# and places. What does it do with a thing that is not there?

# %%
sentences = ["the dog on the left", "penguin", "the apple under the penguin", "the cat"]
figure, axes = plt.subplots(1, 4, figsize=(8.4, 2.4))
for ax, sentence in zip(axes, sentences, strict=True):
    show_mask(scene.segment(sentence).mask, scene.image, ax, sentence)

# %% [markdown]
# There is no cat, and still you get a mask: Ref-Diff takes the **best** proposal, however bad it is. It never says
# "no". Remember that when you use it.

# %% [markdown]
# ## Why this mask? The whole story in one figure
#
# Every intermediate is kept, and `plot` shows them.

# %%
result.plot()

# %% [markdown]
# Read it from the top.
#
# 1. **Tokens.** The sentence as the text encoder reads it. The *head word*, marked, is the thing that is named.
# 2. **Word map** $c$. Where does the UNet look for that word while it denoises the picture? (Lessons 1 to 4.)
# 3. **Proposals.** Masks that might be the answer; where they come from knows nothing of the sentence. (Lesson 5.)
# 4. **Scores.** $S_G$ asks diffusion: how bright is the word map inside the mask, compared with outside? $S_D$ asks
#    CLIP: how well does what is inside fit the sentence? (Lesson 6.) $S$ mixes them. (Lesson 7.)
# 5. **Mask.** The proposal with the highest $S$.

# %% [markdown]
# The same as numbers, the best proposal first:

# %%
order = result.scores["S"].argsort(descending=True)
print("proposal     S_G     S_D       S")
for i in order.tolist():
    print(f"{i:8d}" + "".join(f"{float(result.scores[name][i]):8.3f}" for name in ("S_G", "S_D", "S")))

# %% [markdown]
# The package ships the constants that the paper gives, and those chosen for the toy networks on ToyRef's val split. The
# weight of $S_G$ is called $\alpha$. It is small in both: $S_D$ leads, $S_G$ helps.

# %% tags=["nbval-check-output"]
from refdiff_lite import RefDiffConfig

print("paper: alpha =", RefDiffConfig.paper().weight_g, " beta =", RefDiffConfig.paper().beta)
print("stages: S_G in [-1, 1], one number for each of", len(result.masks), "proposals")

# %% [markdown]
# ### Exercise 0.1 · The last line of Ref-Diff
# **Difficulty** ●○○○○ · **Time** 5 minutes
#
# Write the rule that chooses: $S = \alpha\, S_G + (1 - \alpha)\, S_D$, then the proposal with the highest $S$.
#
# <details><summary>Hint</summary>
#
# `argmax` of a tensor is a tensor with one number in it; `int(...)` makes it an index.
# </details>


# %% tags=["exercise"]
def choose(s_g, s_d, alpha):
    """Index of the best proposal. s_g, s_d: (N,) tensors, one score per proposal."""
    ### BEGIN SOLUTION
    s = alpha * s_g + (1 - alpha) * s_d
    return int(s.argmax())
    ### END SOLUTION


checks.check_choose(choose)

# %% [markdown]
# ## From a sentence to its parts
#
# Ref-Diff needs two things from the sentence: the **head word**, whose attention is read, and **cues**: words that say
# where in the picture to look. A direction that relates two things ("left *of* the dog") is no cue: the cat left of the
# dog may well be on the right of the picture.

# %% tags=["nbval-check-output"]
for sentence in ("the small cat on the left", "left of the dog", "the cat left of the dog", "woman in red"):
    parsed = parse(sentence)
    print(f"{sentence:28} head: {parsed.head:8} cues: {', '.join(parsed.cues) or '–'}")

# %% [markdown]
# ### Exercise 0.2 · Be the parser
# **Difficulty** ●●○○○ · **Time** 5 minutes
#
# Without running `parse`: what are head and cues of *"the cup on the right, left of the gift"*?
#
# <details><summary>Hint</summary>
#
# Which thing is asked for? Then look at each direction word, and at the word behind it.
# </details>

# %% tags=["exercise"]
### BEGIN SOLUTION
head = "cup"
cues = ("right",)
### END SOLUTION

checks.check_head({"head": head, "cues": cues})

# %% [markdown]
# ## Four variants
#
# The paper builds its method up from parts, and so can you:
#
# | variant | proposals | ranked by |
# |---|---|---|
# | `g` | thresholds of the word map itself | diffusion alone |
# | `gs` | a proposal generator | diffusion ($S_G$) |
# | `ds` | a proposal generator | CLIP ($S_D$) |
# | `full` | a proposal generator | both ($S$) |

# %%
sentence, target = "the purple dog", sample.masks[1]
results = {variant: scene.segment(sentence, variant) for variant in ("g", "gs", "ds", "full")}
figure, axes = plt.subplots(1, 5, figsize=(9, 2.3))
show_map(results["g"].word_map, scene.image, axes[0], 'word map of "dog"')
for ax, (variant, found) in zip(axes[1:], results.items(), strict=True):
    show_mask(found.mask, scene.image, ax, f"{variant}: IoU {iou(found.mask, target):.2f}")

# %% [markdown]
# The word map belongs to the word "dog", so both dogs may light up in it; the colour must come from elsewhere. `g` can
# only cut this map at a height, so its rim is soft and it may take both. `gs` picks a clean mask, by the same map.
# `ds` and `full` ask CLIP, which has read the whole sentence.

# %% tags=["nbval-check-output"]
for variant, found in results.items():
    print(f"{variant:5} {found.proposals:13}", "uses CLIP" if found.scores["S_D"].any() else "diffusion alone")

# %% [markdown]
# ### Exercise 0.3 · How good is a mask?
# **Difficulty** ●○○○○ · **Time** 5 minutes
#
# The numbers above the pictures are the *intersection over union* of the mask with the true one. Write it.
#
# <details><summary>Hint</summary>
#
# `mask & truth` and `mask | truth` are arrays of booleans, and `.sum()` counts their pixels.
# </details>


# %% tags=["exercise"]
def my_iou(mask, truth):
    """mask, truth: (H, W) bool arrays. Returns a number from 0 to 1."""
    ### BEGIN SOLUTION
    return (mask & truth).sum() / (mask | truth).sum()
    ### END SOLUTION


checks.check_iou(my_iou)

# %% [markdown]
# Toy numbers before pixels: a mask of four pixels against a truth of four pixels that share two. Work it out first,
# then run.

# %% tags=["nbval-check-output"]
mask, truth = np.array([[1, 1, 0], [1, 1, 0]], bool), np.array([[0, 1, 1], [0, 1, 1]], bool)
print(f"{(mask & truth).sum()} shared, {(mask | truth).sum()} in all, IoU {iou(mask, truth):.2f}")
print(f"of a mask with itself {iou(mask, mask):.0f}, with its opposite {iou(mask, ~mask):.0f}")

# %% [markdown]
# <details><summary><b>What can go wrong</b></summary>
#
# - The thing is not there: you get a mask all the same.
# - The head word is found by a short rule. If it errs, say it yourself: `scene.segment("the dog that barks",
#   head="dog")`.
# - No proposal covers the thing: then nothing that follows can repair it (lesson 5).
# - The toy networks know ToyRef and nothing else. On a photograph the code runs, but the masks mean little: there you
#   need `PRESET = "sd15"`, a GPU, and lesson 9.
# </details>

# %% tags=["nbval-check-output"]
print(parse("the thing that barks").head, "->", parse("the thing that barks", head="barks").head)

# %% [markdown]
# ## Recap
#
# - A referring expression becomes a mask in two moves: something proposes masks, something else ranks them.
# - Diffusion ranks by attention to the **head word**, CLIP by how well a cut-out fits the **sentence**.
# - The result is the best of what was proposed, never "nothing".
#
# **Where next.** Lesson 1 opens the diffusion model: what is a latent, and why must noise be added
# before attention can be read? In a hurry, go on with lesson 3, where a word becomes a map.
#
# **References.** Ni et al., *Ref-Diff: Zero-shot Referring Image Segmentation with Generative Models*, [arXiv
# 2308.16777](https://arxiv.org/abs/2308.16777). Kazemzadeh et al., *ReferItGame* (2014), where the task's data come
# from. All words and symbols: [the glossary](../docs/glossary.md).
