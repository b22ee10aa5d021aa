"""The explorer over a traced generation shows the record's own numbers."""

import numpy as np
import pytest
import torch

from refdiff_lite.record import Record
from refdiff_lite.trace import trace
from refdiff_lite.widgets.attention import AttentionExplorer
from refdiff_lite.widgets.slices import MEAN, Slice, word_maps
from refdiff_lite.widgets.traced import attention_of

PROMPT = "a dog left of a cat"


@pytest.fixture(scope="module")
def pipe():
    from refdiff_lite.networks import load

    return load("toy").sd


def traced(pipe, **which):
    with trace(pipe, **which) as record:
        pipe(
            PROMPT, num_inference_steps=3, height=64, width=96, guidance_scale=3.0, output_type="pil",
            generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
    return record


@pytest.mark.parametrize("scores", ["softmax", "logits"])
def test_slices_are_the_records_maps(pipe, scores, tmp_path):
    record = Record.load(traced(pipe, steps=[0, 2], heads="each", scores=scores).save(tmp_path / "r.safetensors"))
    plain = record if scores == "softmax" else traced(pipe, steps=[0, 2], heads="each")
    attention = attention_of(record)
    assert attention.words == ("start", "a", "dog", "left", "of", "a", "cat", "end")
    assert (attention.words[attention.head], len(attention.timesteps)) == ("dog", 2)
    layer = record.layers[-1]
    for head in (MEAN, 1):
        found = word_maps(attention, Slice(layer, head, 1, "probabilities"))[2]
        truth = plain.scores_of("dog", step=2, layer=layer, head=None if head == MEAN else head, pieces="last")
        np.testing.assert_allclose(found, truth, atol=1e-5)
    explorer = AttentionExplorer(attention, layer=layer, pinned=[2])
    assert explorer.maps().shape[0] == 9  # with the padding
    assert len(explorer.figure().axes) == 2  # the picture, and the word that is pinned
    explorer.close()


def test_a_mean_over_steps_is_one_step(pipe):
    record = traced(pipe)
    attention = attention_of(record)
    assert len(attention.cross) == len(attention.timesteps) == 1
    found = word_maps(attention, Slice(record.layers[0], MEAN, 0, "probabilities"))[2]
    np.testing.assert_allclose(found, record.scores_of("dog", layer=record.layers[0], pieces="last"), atol=1e-5)


def test_what_cannot_be_explored_is_said(pipe):
    with pytest.raises(ValueError, match="all tokens"):
        attention_of(traced(pipe, words=["dog"]))
    record = traced(pipe)
    record.images = []
    with pytest.raises(ValueError, match="the pipeline gave none"):
        attention_of(record)


def test_what_clip_does_not_read_is_said_and_the_head_can_be_named(pipe):
    long = "a dog " + "left of a cat near a tree " * 6
    with trace(pipe) as record:
        pipe(long, num_inference_steps=1, height=64, width=64, output_type="pil")
    attention = attention_of(record)
    assert attention.words[attention.head] == "dog"
    assert attention.unread.endswith("near a tree")
    named = attention_of(record, head="cat")
    assert named.words[named.head] == "cat"
    with pytest.raises(ValueError, match="'bird' is not a word"):
        attention_of(record, head="bird")
    with trace(pipe) as record:
        pipe("small " * 30 + "cat", num_inference_steps=1, height=64, width=64, output_type="pil")
    assert attention_of(record).head == 1  # where the view starts; the picture is painted already
    with pytest.raises(ValueError, match="'cat' lies behind"):
        attention_of(record, head="cat")


def test_another_encoders_tokens_are_no_padding(pipe):
    from dataclasses import replace

    record = traced(pipe)
    reach = len(record.prompts[0][0].tokens) + 4
    record.prompts = [[*record.prompts[0], replace(record.prompts[0][0], encoder="t5", tokens=((reach, 0, 1),))]]
    attention = attention_of(record)
    assert attention.names[-2:] == ("padding", "other encoder")
    where = Slice(record.layers[0])
    np.testing.assert_allclose(word_maps(attention, where).sum(0), 1, atol=1e-5)
    alone = word_maps(replace(attention, reach=None), where)
    np.testing.assert_allclose(word_maps(attention, where)[-2:].sum(0), alone[-1], atol=1e-5)


@pytest.mark.parametrize("name", ["flux", "qwen", "lumina2", "sd3", "sdxl"])
def test_prompts_of_every_kind_of_encoder_can_be_explored(pipes, name):
    """T5 has no start token, language models have a template around the prompt; each word shows its own maps."""
    from tiny_pipelines import paint

    tiny, call = pipes(name)
    with trace(tiny, over="own") as record:
        paint(tiny, call, PROMPT)
    record.images = [np.zeros((48, 80, 3), np.uint8)]
    attention = attention_of(record)
    assert attention.words == ("start", "a", "dog", "left", "of", "a", "cat", "end")
    layer, encoder = record.layers[-1], record.prompts[0][0].encoder
    found = word_maps(attention, Slice(layer, MEAN, 0, "probabilities"))
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-4)
    for place, word in ((2, "dog"), (6, "cat")):
        read = record.scores_of(word, layer=layer, pieces="last", encoder=encoder)
        np.testing.assert_allclose(found[place], read, atol=1e-5)
    if name == "flux":
        assert found[0].max() < 1e-9
    explorer = AttentionExplorer(attention)
    assert len(explorer.figure().axes) >= 2
    explorer.close()
