"""One axis for two networks: compute is counted, and the rows are the logs'."""

import itertools
import json

import pytest
import torch

from refdiff_lite.files import data_dir
from studies import emergence


def test_operations_are_counted():
    a, b = torch.ones(3, 4), torch.ones(4, 5)
    assert emergence.flops(lambda: a @ b) == 2 * 3 * 4 * 5


@pytest.fixture(scope="module")
def found():
    return emergence.curves()


def test_what_is_committed_is_what_the_logs_say(found):
    assert json.loads((data_dir() / "models" / "toy-dit" / "emergence.json").read_text()) == found


def test_rows_rise_along_compute_and_hold_their_interval(found):
    for told in found.values():
        steps, compute, share, low, high = zip(*told["rows"], strict=True)
        assert list(compute) == [s * told["flops a step"] for s in steps]
        assert all(a < b for a, b in itertools.pairwise(steps))
        assert all(a <= x <= b for a, x, b in zip(low, share, high, strict=True))


def test_the_picture_has_both(found):
    (ax,) = emergence.draw(found).axes
    assert [line.get_label().split(",")[0] for line in ax.lines[:2]] == ["UNet", "transformer"]
