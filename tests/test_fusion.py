import pytest
import torch

from refdiff_lite.fusion import fuse, generative_score


def test_generative_score_by_hand():
    c = torch.tensor([[1.0, 0.5], [0.25, 0.0]])
    masks = torch.tensor([[[1, 0], [0, 0]], [[1, 1], [0, 0]], [[0, 0], [1, 1]], [[1, 1], [1, 0]]]).bool()
    expected = torch.tensor([1 - 0.25, 0.75 - 0.125, 0.125 - 0.75, 1.75 / 3])
    torch.testing.assert_close(generative_score(c, masks), expected)


def test_generative_score_against_boolean_indexing():
    generator = torch.Generator().manual_seed(0)
    c, masks = torch.rand(9, 13, generator=generator), torch.rand(6, 9, 13, generator=generator) > 0.7
    expected = torch.stack([c[m].mean() - c[~m].mean() for m in masks])
    torch.testing.assert_close(generative_score(c, masks), expected)
    torch.testing.assert_close(generative_score(c, ~masks), -expected)


def test_an_empty_side_counts_as_zero():
    c = torch.full((4, 4), 0.5)
    sides = torch.stack([torch.zeros(4, 4), torch.ones(4, 4)]).bool()
    torch.testing.assert_close(generative_score(c, sides), torch.tensor([-0.5, 0.5]))
    assert generative_score(c, sides[:0]).shape == (0,)


def test_half_precision_maps_give_float32_scores():
    c = torch.rand(64, 64, generator=torch.Generator().manual_seed(0))
    masks = (c > 0.5)[None]
    found = generative_score(c.half(), masks)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, generative_score(c, masks), atol=1e-3, rtol=0)


@pytest.mark.parametrize(("g", "d"), [(0.1, 0.9), (0.05, 1.0), (1, 0), (0, 1)])
def test_fuse_is_the_weighted_sum(g, d):
    s_g, s_d = torch.tensor([1.0, -0.5]), torch.tensor([0.2, 0.3])
    torch.testing.assert_close(fuse(s_g, s_d, g, d), torch.tensor([g + 0.2 * d, -0.5 * g + 0.3 * d]))
