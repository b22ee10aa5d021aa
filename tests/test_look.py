"""Looking at a given picture: one run of the denoiser, the same map that Ref-Diff reads, on any model with a sibling for it."""

import numpy as np
import pytest
import tiny
import tiny_pipelines
import torch

from refdiff_lite.look import look
from refdiff_lite.networks.words import model_of

PICTURE = np.random.default_rng(0).integers(0, 255, (48, 80, 3), dtype=np.uint8)


def test_the_map_is_close_to_the_one_that_ref_diff_reads():
    """Other noise and another timestep, so not the same; yet the same word, layers and kind of attention."""
    from refdiff_lite import RefDiff
    from refdiff_lite.datasets.toyref import load_toyref
    from refdiff_lite.expression import parse

    model, found = RefDiff.from_preset("toy"), []
    for sample in load_toyref("val", "noun", 5):
        expression = parse(sample.records[0].text)
        record = look(model.networks.sd, sample.path, expression.text, layers=r"up_blocks\.0")
        mine, theirs = record.word_map(expression.head), model.set_image(sample.path).word_map(expression).numpy()
        assert mine.shape == theirs.shape
        found.append(np.corrcoef(mine.ravel(), theirs.ravel())[0, 1])
    assert np.mean(found) > 0.9
    assert min(found) > 0.7


@pytest.mark.parametrize(("name", "channels"), [("sd1", 4), ("sdxl", 4), ("sd3", 4), ("flux", 1)])
def test_one_run_that_stops_behind_the_last_wanted_layer(name, channels):
    torch.manual_seed(0)
    plain, _ = tiny_pipelines.PIPELINES[name]()
    vae = tiny.make(
        "AutoencoderKL", block_out_channels=(4,) * 4, down_block_types=("DownEncoderBlock2D",) * 4, norm_num_groups=2,
        up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=channels, layers_per_block=1, shift_factor=0.1,
    )  # fmt: skip
    more = dict(requires_safety_checker=False) if name == "sd1" else {}
    pipe = type(plain)(**plain.components | dict(vae=vae), **more)
    model, ran = model_of(pipe), []
    blocks = model.up_blocks if hasattr(model, "up_blocks") else model.transformer_blocks
    handles = [b.register_forward_pre_hook(lambda *a, i=i: ran.append(i)) for i, b in enumerate(blocks)]
    options = dict(noise=0.5, layers="mid" if hasattr(model, "up_blocks") else r"^transformer_blocks\.0$")
    record = look(pipe, PICTURE, "a dog left of a cat", **options)
    assert ran == ([] if hasattr(model, "up_blocks") else [0])
    [h.remove() for h in handles]
    assert len(record.timesteps) == 1
    np.testing.assert_array_equal(record.images[0], PICTURE)
    assert record.word_map("dog").shape == (48, 80)
    again = look(pipe, PICTURE, "a dog left of a cat", **options)
    assert all(torch.equal(m, record.maps[k]) for k, m in again.maps.items())
    other = look(pipe, PICTURE, "a dog left of a cat", seed=1, **options)
    assert not torch.equal(next(iter(other.maps.values())), next(iter(record.maps.values())))


def test_what_cannot_be_looked_at_is_said_before_anything_runs():
    pipe, _ = tiny_pipelines.lumina2()
    with pytest.raises(ValueError, match="Lumina2Pipeline has no encoder for pictures"):
        look(pipe, PICTURE, "a dog")
    for noise in (0, 0.001, 1.5):
        with pytest.raises(ValueError, match=r"choose a share from 0\.02 to 1"):
            look(pipe, PICTURE, "a dog", noise=noise)
