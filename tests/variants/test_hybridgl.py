from math import exp

import numpy as np
import pytest
import torch

from refdiff_lite.expression import parse
from refdiff_lite.proposals import Proposals
from refdiff_lite.variants.hybridgl import HybridGL, coherence, further, relation_score, score

NONE = np.zeros((5, 5, 3), np.uint8)


def test_coherence_by_hand():
    heat = torch.tensor([[4.0, 0.0], [2.0, 2.0]])  # its mean is 2
    masks = torch.tensor([[[True, False], [False, False]], [[False, False], [True, True]]])
    inside, outside = (2.0, 1.0), (2 / 3, 1.0)
    expected = [0.2 * i - 1.8 * o for i, o in zip(inside, outside, strict=True)]
    assert coherence(heat, masks, 1.8).tolist() == pytest.approx(expected)


def test_relation_score_by_hand():
    holds = torch.tensor([[False, True], [True, True]])
    sums = [0.6 * 0.2, 0.4 * 0.5 + 0.4 * 0.2]
    total = sum(exp(x) for x in sums)
    found = relation_score(torch.tensor([0.6, 0.4]), torch.tensor([0.5, 0.2]), holds)
    assert found.tolist() == pytest.approx([exp(x) / total for x in sums])


def test_further_compares_mine_with_theirs():
    assert further(torch.tensor([1.0, 3.0]), torch.tensor([2.0])).tolist() == [[False], [True]]


class Scene:
    """Five columns of a picture; CLIP's scores are given, "the dog" is the third column."""

    size = (5, 5)

    def __init__(self, s_d):
        self.s_d = torch.tensor(s_d)

    def word_map(self, expression):
        return torch.ones(5, 5)

    def discriminative_scores(self, expression, proposals):
        assert expression.cues == ()
        return torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0]) if expression.head == "dog" else self.s_d.clone()


def columns():
    masks = torch.eye(5, dtype=torch.bool)[:, None, :].expand(5, 5, 5).contiguous()
    return Proposals("own", masks, NONE)


@pytest.mark.parametrize(("side", "best"), [("left", 1), ("right", 3)])
def test_both_sides_fire(side, best):
    """The official code's "right" never does."""
    scene = Scene([0.0, 0.1, 0.0, 0.1, 0.0])
    found = score(scene, parse(f"the cup {side} of the dog"), columns(), HybridGL())
    assert int(found.s.argmax()) == best


def test_what_is_not_among_the_best_three_by_clip_stays_below():
    found = score(Scene([0.1, 0.5, 0.4, 0.2, 0.3]), parse("the cup"), columns(), HybridGL())
    assert sorted(found.s.argsort(descending=True)[:3].tolist()) == [1, 2, 4]
    assert found.s.argsort(descending=True)[3:].tolist() == [3, 0]


def test_few_masks_do_not_shrink_what_comes_after():
    """The official code's k stays small."""
    few = Proposals("own", columns().masks[:1], NONE)
    assert len(score(type("One", (Scene,), {})([0.1]), parse("the cup"), few, HybridGL()).s) == 1
    found = score(Scene([0.1, 0.5, 0.4, 0.2, 0.3]), parse("the cup"), columns(), HybridGL())
    assert (found.s > -10).sum() == 3


def test_the_largest_of_the_best_three():
    masks = columns().masks.clone()
    masks[2, :, :] |= masks[3]
    found = score(
        Scene([0.0, 0.3, 0.29, 0.0, 0.3]), parse("the largest cup"), Proposals("own", masks, NONE), HybridGL()
    )
    related = found.s - 0.6 * coherence(torch.ones(5, 5), masks, 1.8)
    assert int(related.argmax()) == 2
