"""Other answers to the exercises of lesson 6: right ones, written in other ways and types, and wrong ones."""

from itertools import pairwise

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention, softmax

INF = float("inf")


def box_where(mask):
    rows, columns = torch.where(mask)
    return rows.min(), rows.max() + 1, columns.min(), columns.max() + 1


def box_numpy(mask):
    y, x = np.nonzero(mask.numpy())
    return [y.min(), y.max() + 1, x.min(), x.max() + 1]


def box_slow(mask):
    rows = [i for i in range(mask.shape[0]) if mask[i].any()]
    columns = [i for i in range(mask.shape[1]) if mask[:, i].any()]
    return np.array([rows[0], rows[-1] + 1, columns[0], columns[-1] + 1])


def box_without_end(mask):
    y, x = np.nonzero(mask.numpy())
    return y.min(), y.max(), x.min(), x.max()


def box_counts(mask):
    y, x = np.nonzero(mask.numpy())
    return y.min(), len(set(y)), x.min(), len(set(x))


def matrix_blocks(patch_masks):
    n, p = patch_masks.shape
    top = torch.cat([torch.eye(n).bool(), patch_masks], 1)
    bottom = torch.cat([torch.zeros(p, n).bool(), torch.ones(p, p).bool()], 1)
    return torch.where(torch.cat([top, bottom]), 0.0, -INF)


def matrix_numpy(patch_masks):
    n, p = patch_masks.shape
    bias = np.full((n + p, n + p), -np.inf)
    bias[n:, n:] = 0
    bias[range(n), range(n)] = 0
    bias[:n, n:][patch_masks.numpy()] = 0
    return bias


def matrix_log(patch_masks):
    n, p = patch_masks.shape
    allowed = torch.block_diag(torch.eye(n), torch.ones(p, p))
    allowed[:n, n:] = patch_masks.float()
    return allowed.log()


def matrix_large(patch_masks):
    return matrix_blocks(patch_masks).clamp_min(-10)


def matrix_ones(patch_masks):
    return (matrix_blocks(patch_masks) == 0).float()


def layer_sdpa(q, keys, values, inside):
    return scaled_dot_product_attention(q[None], keys[None], values[None], inside[None])[0]


def layer_renormalised(q, keys, values, inside):
    logits = (q @ keys.T / q.shape[-1] ** 0.5).double()
    weights = (logits - logits.max(-1, keepdim=True).values).exp() * inside
    return (weights / weights.sum(-1, keepdim=True)) @ values.double()


def layer_loop(q, keys, values, inside):
    rows = []
    for query, seen in zip(q, inside, strict=True):
        rows.append((softmax(keys[seen] @ query / len(query) ** 0.5, 0) @ values[seen]).tolist())
    return rows


def layer_ten(q, keys, values, inside):
    return (q @ keys.T / q.shape[1] ** 0.5).where(inside, torch.tensor(-10.0)).softmax(-1) @ values


def layer_mean(q, keys, values, inside):
    return torch.stack([values[seen].mean(0) for seen in inside])


def ramp_grid(cue, height, width):
    y, x = np.mgrid[:height, :width]
    along = x / (width - 1) if cue in ("left", "right") else y / (height - 1)
    return 1 - along if cue in ("left", "top") else along


def ramp_list(cue, height, width):
    rows = [[1 - j / (width - 1) for j in range(width)] for _ in range(height)]
    if cue in ("top", "bottom"):
        rows = [[1 - i / (height - 1)] * width for i in range(height)]
    return [row[::-1] for row in rows] if cue == "right" else rows[::-1] if cue == "bottom" else rows


def ramp_outer(cue, height, width):
    across, down = torch.linspace(0, 1, width), torch.linspace(0, 1, height)
    one, other = torch.ones(width), torch.ones(height)
    return {
        "left": torch.outer(other, 1 - across),
        "right": torch.outer(other, across),
        "top": torch.outer(1 - down, one),
        "bottom": torch.outer(down, one),
    }[cue]


def ramp_not_to_zero(cue, height, width):
    return 0.5 + 0.5 * torch.as_tensor(ramp_grid(cue, height, width))


def ramp_by_size(cue, height, width):
    """1 - x / width: does not reach 0."""
    y, x = np.mgrid[:height, :width]
    along = x / width if cue in ("left", "right") else y / height
    return 1 - along if cue in ("left", "top") else along


def range_roots(masked, crop, k):
    masked, crop = np.asarray(masked, float), np.asarray(crop, float)
    others = [i for i in range(len(crop)) if i != k]
    ends = {0.0, 1.0}
    for i in others:
        slope = (masked[k] - masked[i]) - (crop[k] - crop[i])
        if slope:
            ends.add(float(np.clip((crop[i] - crop[k]) / slope, 0, 1)))
    ends = sorted(ends)
    won = []
    for a, b in pairwise(ends):
        middle = (a + b) / 2
        if int(np.argmax(middle * masked + (1 - middle) * crop)) == k:
            won += [a, b]
    return [min(won), max(won)] if won else []


def range_program(masked, crop, k):
    from scipy.optimize import linprog

    rows = [i for i in range(len(crop)) if i != k]
    a = [[-((masked[k] - masked[i]) - (crop[k] - crop[i]))] for i in rows]
    b = [crop[k] - crop[i] for i in rows]
    ends = [linprog([sign], a, b, bounds=(0, 1)) for sign in (1, -1)]
    return tuple(e.x[0] for e in ends) if all(e.success for e in ends) else ()


def range_vector(masked, crop, k):
    lead0, lead1 = np.delete(crop[k] - crop, k), np.delete(masked[k] - masked, k)
    if ((lead0 < 0) & (lead1 < 0)).any():
        return np.array([])
    with np.errstate(all="ignore"):
        tie = lead0 / (lead0 - lead1)
    low = tie[lead0 < 0].max(initial=0)
    high = tie[lead1 < 0].min(initial=1)
    return np.array([low, high]) if low < high else np.array([])


def range_ends(masked, crop, k):
    """Looks at beta 0 and 1 only."""
    won = [b for b, s in ((0, crop), (1, masked)) if int(np.argmax(s)) == k]
    return (won[0], won[-1]) if won else ()


RIGHT = {
    "check_box": [box_where, box_numpy, box_slow],
    "check_attention_mask": [matrix_blocks, matrix_numpy, matrix_log],
    "guess_bool_mask": [0.5],
    "check_masked_attention": [layer_sdpa, layer_renormalised, layer_loop],
    "check_ramp": [ramp_grid, ramp_list, ramp_outer],
    "check_winning_range": [range_roots, range_program, range_vector],
}
WRONG = {
    "check_box": [box_without_end, box_counts, lambda mask: (0, mask.shape[0], 0, mask.shape[1])],
    "check_attention_mask": [matrix_large, matrix_ones],
    "check_masked_attention": [layer_ten, layer_mean],
    "check_ramp": [ramp_not_to_zero, ramp_by_size],
    "check_winning_range": [range_ends, lambda masked, crop, k: (0.0, 1.0)],
}
