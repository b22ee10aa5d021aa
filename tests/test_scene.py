"""One image through the stages: what is computed once, kept, refused and handed out."""

import numpy as np
import pytest
import torch

from refdiff_lite import RefDiff, RefDiffConfig
from refdiff_lite.datasets.toyref import load_toyref
from refdiff_lite.expression import parse
from refdiff_lite.scene import SENTENCES


@pytest.fixture(scope="module")
def scene(nets, sample):
    return RefDiff(nets).set_image(sample.path, oracle=sample.masks)


def test_scores_of_full_are_the_weighted_sum_of_the_parts(scene, sample):
    result, config = scene.segment(sample.records[0].text), scene.config
    s = config.weight_g * result.scores["S_G"] + config.weight_d * result.scores["S_D"]
    torch.testing.assert_close(result.scores["S"], s)
    gs, ds = (scene.segment(sample.records[0].text, v) for v in ("gs", "ds"))
    torch.testing.assert_close(gs.scores["S"], result.scores["S_G"])
    torch.testing.assert_close(ds.scores["S"], result.scores["S_D"])


def test_image_work_is_done_once(scene, sample, monkeypatch):
    scene.segment(sample.records[0].text)
    monkeypatch.setattr(scene.model.networks.sd.vae, "encode", lambda *a: pytest.fail("encoded again"))
    monkeypatch.setattr("refdiff_lite.networks.clip.encode_masks", lambda *a: pytest.fail("ranked again"))
    scene.segment(sample.records[1].text)


def test_ddim_noise_and_more_draws_change_the_map(nets, sample):
    def word_map(**changes):
        model = RefDiff(nets, RefDiffConfig.toy(**changes))
        return model.set_image(sample.path).segment(sample.records[0].text, "g").word_map

    base = word_map()
    assert not np.array_equal(base, word_map(noise="ddim"))
    assert not np.array_equal(base, word_map(draws=2))


@pytest.mark.parametrize("kind", ["felzenszwalb", "grouping", "self-attention", "oracle", "weak"])
def test_every_proposal_generator_runs(scene, sample, kind):
    result = scene.segment(sample.records[0].text, "full", kind)
    assert len(result.proposals) >= 1
    assert result.generator == kind


def test_non_square_image_keeps_its_shape(nets):
    image = (np.random.default_rng(0).uniform(size=(90, 300, 3)) * 255).astype(np.uint8)
    scene = RefDiff(nets).set_image(image)
    assert scene.latents.shape[-2:] == (4, 16)
    assert scene.segment("the cat", "g").mask.shape == (90, 300)


def test_large_image_is_worked_on_small_and_answered_large(nets):
    image = np.full((1500, 2100, 3), 200, np.uint8)
    image[300:900, 500:1000] = (200, 30, 30)
    result = RefDiff(nets).set_image(image).segment("the red apple")
    assert result.mask.shape == (1500, 2100)
    assert result.word_map.shape == (731, 1024)


def test_no_proposal_gives_an_empty_mask(nets):
    result = RefDiff(nets).set_image(np.full((128, 128, 3), 90, np.uint8)).segment("the cat")
    assert result.best is None
    assert not result.mask.any()
    assert result.to_dict()["best"] is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (dict(variant="best"), "choose one of g, gs, ds, full"),
        (dict(proposals="magic"), "choose one of weak"),
        (dict(variant="g", proposals="oracle"), "no proposal network"),
        (dict(proposals="sam"), "no SAM"),
        (dict(head="dog house"), "not a word of"),
    ],
)
def test_wrong_arguments_are_named(scene, arguments, said):
    with pytest.raises(ValueError, match=said):
        scene.segment("the cat", **arguments)


def test_oracle_needs_masks_of_the_image(nets, sample):
    with pytest.raises(ValueError, match="ground truth"):
        RefDiff(nets).set_image(sample.path).segment("the cat", "gs", "oracle")
    with pytest.raises(ValueError, match="masks must be"):
        RefDiff(nets).set_image(sample.path, oracle=np.zeros((2, 5, 5), bool))


def test_other_masks_are_ranked_by_their_own_features(nets):
    """After a segment the features of its masks are known; those of other masks must not be taken for them."""
    changed = asked = 0
    for s in load_toyref("test", "toyref", 36):
        scene = RefDiff(nets).set_image(s.path, oracle=s.masks)
        for record in s.records:
            parsed = parse(record.text)
            scene.segment(record.text, "ds")
            others = scene.proposals_of(np.roll(s.masks, 40, axis=2))
            found = scene.discriminative_scores(parsed, others)
            fresh = RefDiff(nets).set_image(s.path, oracle=np.roll(s.masks, 40, axis=2))
            expected = fresh.discriminative_scores(parsed, fresh.proposals("oracle"))
            torch.testing.assert_close(found, expected)
            changed += int(found.argmax()) != int(
                scene.discriminative_scores(parsed, scene.proposals("oracle")).argmax()
            )
            asked += 1
    assert asked >= 110
    assert changed > 20, "the masks must differ enough for this test to mean anything"


def test_proposals_changed_in_place_are_made_anew(nets, sample):
    scene = RefDiff(nets).set_image(sample.path, oracle=sample.masks)
    before = scene.segment(sample.records[0].text, "ds")
    scene.proposals("oracle").masks.zero_()
    assert scene.segment(sample.records[0].text, "ds") == before


def test_proposals_of_another_image_are_refused(nets, sample):
    one, other = (RefDiff(nets).set_image(sample.path, oracle=sample.masks) for _ in range(2))
    with pytest.raises(ValueError, match="another image"):
        one.discriminative_scores(parse("the cat"), other.proposals("oracle"))
    with pytest.raises(ValueError, match="another image"):
        one.segment("the cat", "gs", other.proposals("oracle"))


def test_no_proposals_of_ones_own_give_an_empty_mask(scene, sample):
    result = scene.segment(sample.records[0].text, "full", scene.proposals_of(sample.masks[:0]))
    assert (result.best, result.mask.any(), result.generator) == (None, False, "own")


@pytest.mark.parametrize("convert", [lambda m: m.astype(np.uint8) * 255, lambda m: m.astype(float), list,
                                     torch.from_numpy, lambda m: [{"segmentation": x} for x in m]])  # fmt: skip
def test_masks_of_every_usual_kind_give_the_same_answer(nets, sample, convert):
    text = sample.records[0].text
    expected = RefDiff(nets).set_image(sample.path, oracle=sample.masks).segment(text, "full")
    scene = RefDiff(nets).set_image(sample.path, oracle=convert(sample.masks))
    found = scene.segment(text, "full")
    assert found == expected
    assert (
        scene.segment(text, "full", scene.proposals_of(convert(sample.masks))).mask.tolist() == expected.mask.tolist()
    )


def test_a_generator_of_sentences_is_taken(scene, sample):
    texts = [r.text for r in sample.records]
    assert scene.segment_all(t for t in texts) == [scene.segment(t) for t in texts]
    assert scene.segment_all(texts[0]) == [scene.segment(texts[0])]


def test_word_maps_that_are_kept_are_few(nets, sample):
    scene = RefDiff(nets).set_image(sample.path)
    texts = [f"the {word} thing" for word in "a b c d e f g h i j k l m n o p q r s t u v w x y z".split()]
    scene.segment_all(texts, "gs")
    assert len(scene._word_maps) <= 2 * SENTENCES


def test_what_the_text_encoder_does_not_read_is_said(scene):
    result = scene.segment("the cat " + "very " * 40 + "far away")
    assert result.unread.endswith("very far away")
    assert result.to_dict()["unread"] == result.unread
    assert scene.segment("the cat").unread == ""
    assert "far" not in result.pieces
