"""Other right answers to lesson 4's exercises, and wrong ones."""

import numpy as np
import torch


def view_by_slices(attention, row, column):
    h, w = attention.shape[0], attention.shape[1]
    return torch.stack([attention[row, column, i * w : (i + 1) * w] for i in range(h)])


def flow_by_power(word, matrix, steps):
    word = torch.linalg.matrix_power(matrix, steps) @ word
    return (word - word.min()) / (word.max() - word.min())


def flow_in_numpy(word, matrix, steps):
    found = word.numpy()
    for _ in range(steps):
        found = np.einsum("ij,j->i", matrix.numpy(), found)
    return (found - found.min()) / np.ptp(found)


def end_by_deflation(word, matrix):
    """Take the mean out and the length down after every step, in double."""
    x, a = word.double(), matrix.double()
    for _ in range(3000):
        x = a @ x
        x = x - x.mean()
        x = x / x.norm()
    return (x - x.min()) / (x.max() - x.min())


def end_by_squaring(word, matrix):
    """Square the matrix of differences again and again."""
    a = matrix.double() - matrix.double()[:1]  # kills the constant, keeps differences from pixel 0
    for _ in range(9):
        a = a @ a
        a = a / a.abs().max()
    x = a @ word.double()
    return ((x - x.min()) / (x.max() - x.min())).numpy()


RIGHT = {
    "guess_flow": ["(C)"],
    "check_view": [
        view_by_slices,
        lambda a, row, column: a.unflatten(2, a.shape[:2])[row, column].numpy(),
        lambda a, row, column: view_by_slices(a, row, column).tolist(),
    ],
    "check_flow": [flow_by_power, flow_in_numpy, lambda *args: flow_by_power(*args).tolist()],
    "check_end": [end_by_deflation, end_by_squaring, lambda *args: end_by_deflation(*args).float()],
    "check_nearest": [
        lambda rows, centres: ((rows[:, None] - centres) ** 2).sum(-1).argmin(-1),
        lambda rows, centres: np.array(
            [np.argmin([np.linalg.norm(r - c) for c in centres.numpy()]) for r in rows.numpy()]
        ),
        lambda rows, centres: [min(range(len(centres)), key=lambda j: float((r - centres[j]).norm())) for r in rows],
    ],
}
WRONG = {
    "check_view": [lambda a, row, column: view_by_slices(a, row, column).T, lambda a, row, column: a[row]],
    "check_flow": [
        lambda word, matrix, steps: flow_by_power(word, matrix.T, steps),
        lambda word, matrix, steps: flow_by_power(word, matrix, steps) * 2,
    ],
    "check_end": [
        lambda word, matrix: 1 - end_by_deflation(word, matrix),
        lambda word, matrix: torch.full_like(word, 0.5),
        lambda word, matrix: end_by_deflation(word, matrix) - 0.5,
    ],
    "check_nearest": [
        lambda rows, centres: torch.cdist(rows, centres),
        lambda rows, centres: (rows @ centres.T).argmax(1),
        lambda rows, centres: torch.cdist(rows, centres).argmin(1) + 1,
    ],
}
