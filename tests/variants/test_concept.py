import pytest
import torch

from refdiff_lite import RefDiff
from refdiff_lite.config import RefDiffConfig
from refdiff_lite.datasets.toyref import load_toyref
from refdiff_lite.networks import Networks
from refdiff_lite.toy.dit import NO_T5, load_dit, velocity, words
from refdiff_lite.toy.scenes import categories
from refdiff_lite.variants import concept
from refdiff_lite.variants.concept import beside, concept_states, constants, products, share


def test_products_join_the_heads():
    pixels = torch.tensor([[[[1.0, 0.0]], [[0.0, 2.0]]]])  # two heads of one pixel
    concepts = torch.tensor([[[[3.0, 9.0], [0.0, 1.0]], [[9.0, 4.0], [1.0, 0.0]]]])
    assert products(pixels, concepts).tolist() == [[[3 + 8, 0]]]


def test_a_pixel_is_shared_out_among_the_concepts():
    found = share(torch.tensor([[[0.0, 0.0], [2.0, 0.0]]]))
    assert found.flatten().tolist() == pytest.approx([0.5, 0.880797])


def test_the_toys_rivals_are_its_kinds():
    assert constants("toy").rivals == constants("toy-dit").rivals == categories()
    assert constants("sd15").rivals[0] == "background"


@pytest.fixture(scope="module")
def sample():
    return next(s for s in load_toyref("test", "noun") if s.records)


def test_a_unet_paints_the_same_with_concepts_beside_its_text(nets, sample):
    scene = RefDiff(nets).set_image(sample.path)
    unet, x, text = nets.sd.unet, scene.noised[0], scene.model.encode_prompt(["a cat"])
    states = concept_states(scene, ["dog", "pizza"])
    with torch.no_grad():
        plain = unet(x, 50, text).sample
        with beside(unet, states, "up_blocks") as found:
            torch.testing.assert_close(unet(x, 50, text).sample, plain, rtol=0, atol=1e-5)
        torch.testing.assert_close(unet(x, 50, text).sample, plain, rtol=0, atol=0)  # the hooks are gone
    assert found
    assert all(name.startswith("up_blocks") and m.shape[-1] == 2 for name, m in found.items())


@pytest.fixture(scope="module")
def dit(nets):
    return Networks(load_dit(), nets.clip, nets.clip_tokenizer, nets.clip_mean, nets.clip_std, 128, call=dict(NO_T5))


def test_neither_prompt_nor_picture_sees_a_concept_in_joint_attention(dit, sample):
    scene = RefDiff(dit, RefDiffConfig.paper()).set_image(sample.path)
    x, t = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([0.1])
    a, b = concept_states(scene, ["dog", "pizza"]), concept_states(scene, ["dog", "star"])
    with torch.no_grad():
        text, other = words(dit.sd, ["a cat"]), words(dit.sd, ["two large boats"])
        plain = velocity(dit.sd, x, t, text)
        with beside(dit.sd.transformer, a, r"blocks\.0$") as first:
            torch.testing.assert_close(velocity(dit.sd, x, t, text), plain, rtol=0, atol=2e-5)
        with beside(dit.sd.transformer, b, r"blocks\.0$") as second:
            velocity(dit.sd, x, t, text)
        with beside(dit.sd.transformer, a, r"blocks\.0$") as third:
            velocity(dit.sd, x, t, other)
    (one,), (two,), (three,) = first.values(), second.values(), third.values()
    assert one.shape == (8, 8, 2)
    assert not torch.allclose(one[..., 1], two[..., 1], atol=1e-3)  # concepts do see each other, and pizza is no star
    assert not torch.allclose(one, three, atol=1e-4)  # the pixels' side changes with the prompt


def test_concepts_do_not_see_the_prompt(dit, sample, monkeypatch):
    """With pixels held, what a concept gets is the same under any prompt."""
    scene = RefDiff(dit, RefDiffConfig.paper()).set_image(sample.path)
    got = []
    monkeypatch.setattr(
        concept, "products", lambda pixels, concepts: got.append(concepts) or products(pixels, concepts)
    )
    x, t = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([0.1])
    for prompt in ("a cat", "two large boats"):
        with torch.no_grad(), beside(dit.sd.transformer, concept_states(scene, ["dog"]), r"blocks\.0$"):
            velocity(dit.sd, x, t, words(dit.sd, [prompt]))
    blocks = len(dit.sd.transformer.transformer_blocks)
    torch.testing.assert_close(got[0], got[blocks])  # of the first block, where the picture is still the same


@pytest.mark.parametrize("variant", ["refam", "concept", "hybridgl", "relations"])
def test_every_successor_runs_on_a_transformer(dit, sample, variant):
    model = RefDiff(dit, RefDiffConfig.paper(layers=r"blocks\.0$"))
    result = model.set_image(sample.path, oracle=sample.masks).segment(sample.records[0].text, variant)
    assert result.best == int(result.scores["S"].argmax())
    assert result.word_map.max() == pytest.approx(1, abs=1e-4)


def test_a_family_without_a_way_is_refused_by_name(nets, sample):
    class FluxTransformer2DModel:
        pass

    fake = type("Fake", (), {"denoiser": FluxTransformer2DModel(), "own_pass": False})()
    scene = type("Scene", (), {"model": type("Model", (), {"networks": fake}), "config": RefDiffConfig()})()
    with pytest.raises(ValueError, match='"concept" cannot append concepts to the text of a FluxTransformer2DModel'):
        concept.concept_map(scene, "a cat", ["cat", "dog"])
