"""The arithmetic of the official code's CLIP branches, written a second time from its description in docs/official.md.

Plain numpy in float64, Pillow for the one resize, and open_clip's own transformer with the whole attention mask: nothing
of ``refdiff_lite`` is used, so that the library can be held against it.
"""

import numpy as np
import torch
from PIL import Image


def ramp(width, cue):
    """1 to 0 over the first two thirds of the width (rounded down), 0 on the rest; mirrored for "right"."""
    line = np.zeros(width)
    line[: width * 2 // 3] = np.linspace(1, 0, width * 2 // 3)
    return line if cue == "left" else line[::-1]


def nearest(mask, rows, columns):
    """The mask at the first pixel of each of rows × columns equal fields of the whole image."""
    height, width = mask.shape
    return mask[np.ix_(np.arange(rows) * height // rows, np.arange(columns) * width // columns)]


def _cubic(distance, a=-0.75):
    x = abs(distance)
    near, far = ((a + 2) * x - (a + 3)) * x**2 + 1, (((x - 5) * x + 8) * x - 4) * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


def _stretch(trained, wanted):
    """(wanted, trained): weights that stretch a line by (wanted + 0.1) / trained, edges repeated."""
    out = np.zeros((wanted, trained))
    for i in range(wanted):
        place = (i + 0.5) * trained / (wanted + 0.1) - 0.5
        for tap in range(int(np.floor(place)) - 1, int(np.floor(place)) + 3):
            out[i, np.clip(tap, 0, trained - 1)] += _cubic(place - tap)
    return out


def class_tokens(clip, levels, mean, std, patch_masks=None):
    """Features of length 1, (N, D), of an image (H, W, 3) uint8 at its own size; patches that are not whole are lost.

    Args:
        patch_masks: (N, rows × columns) bool; None for one class token that sees all and is seen by all.
    """
    visual = clip.double().visual
    size, trained = visual.patch_size[0], visual.grid_size[0]
    rows, columns = levels.shape[0] // size, levels.shape[1] // size
    image = ((levels / 255 - mean) / std)[: rows * size, : columns * size]
    pieces = image.reshape(rows, size, columns, size, 3).transpose(0, 2, 4, 1, 3).reshape(rows * columns, -1)
    patches = pieces @ visual.conv1.weight.detach().numpy().reshape(visual.conv1.weight.shape[0], -1).T
    table = visual.positional_embedding.detach().numpy()
    places = table[1:]
    if (rows, columns) != (trained, trained) or levels.shape[0] != levels.shape[1]:
        grid = table[1:].reshape(trained, trained, -1)
        places = np.einsum("ra,cb,abd->rcd", _stretch(trained, rows), _stretch(trained, columns), grid)
        places = places.reshape(rows * columns, -1)
    start = visual.class_embedding.detach().numpy() + table[0]
    n, p = (1, len(patches)) if patch_masks is None else patch_masks.shape
    bias = np.zeros((n + p, n + p))
    if patch_masks is not None:
        bias[:, :n] = -np.inf  # nobody sees a class token ...
        bias[range(n), range(n)] = 0  # ... but itself
        bias[:n, n:] = np.where(patch_masks, 0, -np.inf)
    hidden = torch.from_numpy(np.concatenate([np.tile(start, (n, 1)), patches + places])[None])
    with torch.no_grad():
        hidden = visual.transformer(visual.ln_pre(hidden), attn_mask=torch.from_numpy(bias))
        found = (visual.ln_post(hidden[0, :n]) @ visual.proj).numpy()
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def hard(clip, image, masks, cue, mean, std):
    """The crop branch: dimmed, masked, 8 bits, tight, shorter side at CLIP's, the longer rounded down."""
    side, found = clip.visual.image_size[0], []
    dimmed = image if cue is None else image * ramp(image.shape[1], cue)[None, :, None]
    for mask in masks:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        crop = (dimmed * mask[..., None]).astype(np.uint8)[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        short = min(crop.shape[:2])
        size = [int(side * n / short) for n in crop.shape[1::-1]]
        crop = np.asarray(Image.fromarray(crop).resize(size, Image.Resampling.BILINEAR))
        found.append(class_tokens(clip, crop, mean, std)[0])
    return np.stack(found)


def soft(clip, image, masks, mean, std):
    """The branch of masked class tokens: the image as it is, one token for each mask."""
    size = clip.visual.patch_size[0]
    rows, columns = image.shape[0] // size, image.shape[1] // size
    inside = np.stack([nearest(m, rows, columns).ravel() for m in masks])
    return class_tokens(clip, image, mean, std, inside)
