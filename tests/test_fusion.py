import pytest
import torch

from refdiff_lite.fusion import choose, fuse, generative_score, score


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


@pytest.mark.parametrize("shape", [(480, 640), (1024, 768)])
@pytest.mark.parametrize("value", [0.7, 1e-3, 1.0])
def test_a_mask_of_nearly_everything_keeps_its_digits(shape, value):
    """The outside as "all minus inside" would be a difference of two sums of 300,000 terms."""
    c = torch.full(shape, value)
    masks = torch.ones(3, *shape, dtype=torch.bool)
    masks[1, 0, 0] = masks[2, -1, :3] = False
    torch.testing.assert_close(generative_score(c, masks), torch.tensor([value, 0, 0]), atol=1e-6, rtol=0)
    torch.testing.assert_close(generative_score(c, ~masks), torch.tensor([-value, 0, 0]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("threads", [1, 2])
def test_scores_do_not_depend_on_the_threads(threads):
    generator = torch.Generator().manual_seed(0)
    c, masks = torch.rand(480, 640, generator=generator), torch.rand(4, 480, 640, generator=generator) > 0.001
    expected = torch.stack([c[m].double().mean() - c[~m].double().mean() for m in masks]).float()
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        torch.testing.assert_close(generative_score(c, masks), expected, atol=2e-6, rtol=0)
    finally:
        torch.set_num_threads(before)


def test_each_variant_maximises_its_own_score():
    s_g, s_d, otsu = (torch.tensor(x) for x in ([0.1, 0.2], [0.4, 0.3], [0.9, 0.5]))
    found = {v: score(v, s_g, s_d, 0.25, 0.5, otsu).tolist() for v in ("g", "gs", "ds", "full")}
    expected = {"g": otsu, "gs": s_g, "ds": s_d, "full": 0.25 * s_g + 0.5 * s_d}
    assert found == {v: e.tolist() for v, e in expected.items()}
    assert score("g", s_g, s_d, 0.25, 0.5).tolist() == s_g.tolist()


def test_the_first_of_the_best_is_chosen_and_nothing_of_nothing():
    assert choose(torch.tensor([-3.0, -1.0, -2.0, -1.0])) == 1
    assert choose(torch.zeros(0)) is None


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_scores_that_are_not_finite_choose_nothing(bad):
    with pytest.raises(ValueError, match="1 of 3 scores are not finite"):
        choose(torch.tensor([0.5, bad, 0.1]))
