import copy
import json
import math

import numpy as np
import pytest
import torch

from refdiff_lite.toy import training
from refdiff_lite.toy.muon import orthogonal
from refdiff_lite.toy.scenes import TINTS, make_scene
from refdiff_lite.toy.train_clip import fill, train_clip
from refdiff_lite.toy.train_unet import recolour, say, train_unet
from refdiff_lite.toy.train_vae import encode_all, make_vae, psnr, train_decoder, train_vae
from refdiff_lite.toy.training import learning_rate, load_scenes, to_tensor, train


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def run(folder, stop_at=None, **changes):
    """Fit a line to noise; returns the model and the steps at which it was handed out."""
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)

    def loss(generator, rng):
        x = torch.randn(8, 3, generator=generator)
        y = torch.from_numpy(rng.normal(size=(8, 2))).float()
        value = (model(x) - y).square().mean()
        return value, {"twice": 2 * value.item()}

    options = {"steps": 20, "lr": 0.05, "every": 5, "ema": 0.9} | changes
    return model, list(train(model, loss, folder, stop_at=stop_at, **options))


@pytest.mark.parametrize("muon", [0, 0.05])
def test_a_resumed_run_ends_with_the_same_bits(tmp_path, muon):
    whole, yielded = run(tmp_path / "whole", muon=muon)
    assert yielded == [5, 10, 15, 20]
    half, first = run(tmp_path / "parts", muon=muon, stop_at=10)
    resumed, second = run(tmp_path / "parts", muon=muon)
    assert first + second == yielded
    assert torch.equal(weights(resumed), weights(whole))
    assert not torch.equal(weights(half), weights(whole))


def test_stopping_between_checkpoints_saves_as_well(tmp_path):
    assert run(tmp_path / "parts", stop_at=7)[1] == [5, 7]
    resumed = run(tmp_path / "parts")[0]
    assert torch.equal(weights(resumed), weights(run(tmp_path / "whole")[0]))


def test_a_finished_run_is_loaded_not_repeated(tmp_path):
    whole, _ = run(tmp_path)
    again, yielded = run(tmp_path)
    assert yielded == []
    assert torch.equal(weights(again), weights(whole))
    assert not again.training


@pytest.mark.parametrize("shape", [(6, 40), (40, 6), (8, 8)])
def test_muons_update_is_nearly_orthogonal(shape):
    torch.manual_seed(0)
    g = 30 * torch.randn(shape)
    u, _, v = torch.linalg.svd(g, full_matrices=False)
    found = torch.linalg.svdvals(orthogonal(g))
    assert found.min() > 0.3
    assert found.max() < 1.3
    same = u.T @ orthogonal(g) @ v.T  # diagonal: the singular vectors stay
    assert same.diag().min() > 0.3
    assert (same - same.diag().diag()).abs().max() < 1e-3


def test_muon_takes_the_matrices_and_adamw_the_rest(tmp_path):
    torch.manual_seed(0)
    model = torch.nn.ModuleDict(
        {
            "conv": torch.nn.Conv2d(3, 8, 3),
            "conv_out": torch.nn.Conv2d(8, 3, 1),
            "word_embedding": torch.nn.Embedding(5, 3),
        }
    ).to(memory_format=torch.channels_last)

    def loss(generator, rng):
        x = model["word_embedding"](torch.arange(5)).mean(0)[None, :, None, None].expand(1, 3, 4, 4)
        return model["conv_out"](model["conv"](x)).square().mean(), {}

    before = {k: p.detach().clone() for k, p in model.named_parameters()}
    for _ in train(model, loss, tmp_path, steps=1, lr=1e-9, muon=0.1, warmup=1, ema=0.0):
        pass
    moved = {k for k, p in model.named_parameters() if (p - before[k]).abs().max() > 1e-6}
    assert moved == {"conv.weight"}


def test_another_seed_other_weights(tmp_path):
    assert not torch.equal(weights(run(tmp_path / "a")[0]), weights(run(tmp_path / "b", seed=1)[0]))


def test_log_and_checkpoint(tmp_path):
    run(tmp_path, stop_at=10, report=lambda model: {"training": float(model.training)})
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows] == [5, 10]
    assert all(r["training"] == 0 for r in rows)
    assert rows[0]["twice"] == pytest.approx(2 * rows[0]["loss"], abs=1e-4)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.pt", "log.jsonl"]
    run(tmp_path)
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 4


def test_the_model_handed_out_holds_the_average(tmp_path):
    torch.manual_seed(0)
    model = torch.nn.Linear(1, 1, bias=False)
    raw, seen = [], []

    def loss(generator, rng):
        raw.append(model.weight.item())
        return -model.weight.sum(), {}

    for _ in train(model, loss, tmp_path, steps=12, lr=0.01, every=4, ema=0.5):
        seen.append(model.weight.item())
        assert not model.training
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert model.weight.item() == seen[-1] == state["average"]["weight"].item()
    raw.append(state["model"]["weight"].item())
    assert raw == sorted(raw)  # the loss only ever falls
    average = raw[0]
    for step, value in enumerate(raw[1:]):
        keep = min(0.5, (1 + step) / (10 + step))
        average = keep * average + (1 - keep) * value
    assert seen[-1] == pytest.approx(average, rel=1e-5)


def test_frozen_parameters_stay(tmp_path):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    model[0].requires_grad_(False)
    before = [weights(part) for part in model]
    for _ in train(model, lambda *_: (model(torch.ones(1, 2)).square().sum(), {}), tmp_path, steps=5, lr=0.1):
        pass
    assert torch.equal(weights(model[0]), before[0])
    assert not torch.equal(weights(model[1]), before[1])


def test_learning_rate_rises_stays_and_falls():
    rates = np.array([learning_rate(s, 1000, 2.0) for s in range(1000)])
    assert rates[0] == pytest.approx(0.02)
    np.testing.assert_allclose(np.diff(rates[:100]), 0.02)
    assert (rates[99:700] == 2).all()
    assert (np.diff(rates[701:]) < 0).all()
    assert rates[850] == pytest.approx(1)  # half of the fall
    assert rates[-1] < 1e-3
    assert learning_rate(1000, 1000, 2.0) == 0


@pytest.mark.parametrize("steps", [1, 5, 50])
def test_learning_rate_of_short_runs(steps):
    assert all(0 < learning_rate(s, steps, 1.0) <= 1 for s in range(steps))


def test_to_tensor():
    images = np.array([0, 255, 51], np.uint8).reshape(1, 1, 1, 3).repeat(2, 1)
    x = to_tensor(images)
    assert x.shape == (1, 3, 2, 1)
    torch.testing.assert_close(x[0, :, 0, 0], torch.tensor([-1, 1, -0.6]))


def test_psnr():
    a = torch.zeros(1, 3, 4, 4)
    assert psnr(a, a + 0.2) == pytest.approx(20)  # a tenth of the range


class InProcess:
    """A pool without processes, so that drawing a few scenes does not cost seconds of imports."""

    def Pool(self):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def imap(self, function, jobs, chunksize):
        return map(function, jobs)


@pytest.fixture
def in_process(monkeypatch):
    monkeypatch.setattr(training, "get_context", lambda kind: InProcess())


def test_scenes_are_drawn_once(tmp_path, in_process, monkeypatch):
    images, things = load_scenes(tmp_path / "a", "val", 3, 32)
    assert things == [make_scene("val", i, 32).things for i in range(3)]
    np.testing.assert_array_equal(images, [make_scene("val", i, 32).image for i in range(3)])
    monkeypatch.setattr(training, "get_context", None)  # a second drawing would fail
    again, same = load_scenes(tmp_path / "a", "val", 3, 32)
    np.testing.assert_array_equal(again, images)
    assert same == things


def test_a_drawing_that_was_interrupted_starts_anew(tmp_path, in_process, monkeypatch):
    def fail(job):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "_scene", fail)
    with pytest.raises(KeyboardInterrupt):
        load_scenes(tmp_path, "val", 2, 32)
    monkeypatch.undo()
    monkeypatch.setattr(training, "get_context", lambda kind: InProcess())
    images, _ = load_scenes(tmp_path, "val", 2, 32)
    np.testing.assert_array_equal(images[1], make_scene("val", 1, 32).image)


@pytest.mark.slow
def test_scenes_drawn_by_processes(tmp_path):
    images, things = load_scenes(tmp_path, "val", 3, 32)
    assert things == [make_scene("val", i, 32).things for i in range(3)]
    np.testing.assert_array_equal(images[2], make_scene("val", 2, 32).image)


def test_latents_are_kept_unscaled(tmp_path, vae):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    found = encode_all(vae, pixels, tmp_path / "latents.pt")
    expected = vae.encode(to_tensor(pixels)).latent_dist.mode() * vae.config.scaling_factor
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-2)
    torch.testing.assert_close(encode_all(vae, pixels[:0], tmp_path / "latents.pt"), found)
    assert [p.name for p in tmp_path.iterdir()] == ["latents.pt"]


@pytest.mark.parametrize(("look_at", "share"), [("named", 1.0), ("others", 0.0)])
def test_localisation_counts_the_nouns_whose_map_finds_them(monkeypatch, vae, unet, clip, tokenizer, look_at, share):
    from refdiff_lite.toy import train_unet as module
    from refdiff_lite.toy.train_clip import text_encoder

    scenes = (make_scene("val", i) for i in range(9))
    scene = next(s for s in scenes if len({t.category for t in s.things}) == len(s.things))
    masks = iter(scene.masks)

    def word_map(maps, where, size):
        assert maps.maps
        assert where
        assert size == scene.image.shape[:2]
        mask = torch.from_numpy(next(masks)).float()
        return mask if look_at == "named" else torch.from_numpy(scene.masks.any(0)).float() - mask

    monkeypatch.setattr(module, "word_map", word_map)
    assert module.localisation(vae, unet, text_encoder(clip, tokenizer), tokenizer, [scene])["localisation"] == share
    assert next(masks, None) is None


def test_a_closeup_on_black_fills_its_picture_and_others_stay():
    black = np.zeros((32, 32, 3), np.uint8)
    assert fill(black) is black
    black[4:12, 20:24] = 200, 0, 0  # 8 high, 4 wide
    filled = fill(black)
    assert filled.shape == black.shape
    assert (filled[..., 0] > 150).all()
    for image in (make_scene("closeup", i, 64).image for i in range(8)):
        filled = fill(image)
        on_black = (image.max(-1) <= 16).mean() > 0.02
        assert (filled is image) != on_black
        assert filled[[0, -1]].max((1, 2)).min() > 16  # it reaches all four edges
        assert filled[:, [0, -1]].max((0, 2)).min() > 16


def test_what_the_unet_is_told():
    things = make_scene("val", 1).things
    boat = next(t for t in things if t.tint)
    rng = np.random.default_rng(0)
    told = [say(things, rng, tints=0.0) for _ in range(400)]
    assert told.count("") == pytest.approx(40, abs=20)
    assert told.count(boat.category) > 80  # bare nouns are of tinted things
    assert all(told.count(t.category) < 20 for t in things if t is not boat)
    assert not any(tint in x.split() for x in told for tint in TINTS)
    assert sum(boat.tint in say(things, rng, tints=1.0).split() for _ in range(40)) > 10


def test_recolouring_turns_hues_and_keeps_shapes_and_grey():
    image = np.full((1, 8, 8, 3), 128, np.uint8)
    image[0, :4] = 220, 40, 40  # red above, grey below
    turned = recolour(image.repeat(20, 0), np.random.default_rng(0))
    np.testing.assert_array_equal(turned[:, 4:], image[:, 4:].repeat(20, 0))
    above = turned[:, :4].astype(int)
    assert (above == above[:, :1, :1]).all()
    assert (above.max(-1) == 220).all()  # the value stays
    assert (above[..., 0] < 220).any(axis=(1, 2)).sum() >= 19  # hardly any is still red
    assert len(np.unique(above[:, 0, 0], axis=0)) > 10


@pytest.mark.slow
def test_the_real_networks_resume_bit_equal(tmp_path, in_process, tokenizer, monkeypatch):
    from refdiff_lite.toy import train_clip as clip_module
    from refdiff_lite.toy import train_unet as unet_module
    from refdiff_lite.toy import train_vae as vae_module
    from refdiff_lite.toy.train_clip import make_clip, text_encoder

    monkeypatch.setattr(vae_module, "make_vae", lambda: make_vae((8, 8, 8, 8)))
    monkeypatch.setattr(vae_module, "BATCH", 4)
    monkeypatch.setattr(unet_module, "BATCH", 2)
    monkeypatch.setattr(clip_module, "BATCH", 4)
    monkeypatch.setattr(clip_module, "save_tokenizer", lambda folder: tokenizer)
    monkeypatch.setattr(clip_module, "LOOKED_AT", 2)
    monkeypatch.setattr(unet_module, "LOOKED_AT", 2)

    def vae(folder, **changes):
        return train_vae(folder, steps=4, scenes=100, **changes)

    def decoder(folder, **changes):
        model = copy.deepcopy(fixed)
        encoder = weights(model.encoder)
        train_decoder(folder, model, steps=4, scenes=100, **changes)
        assert torch.equal(weights(model.encoder), encoder)
        assert not torch.equal(weights(model.decoder), weights(fixed.decoder))
        return model

    def unet(folder, **changes):
        torch.manual_seed(0)
        text = text_encoder(make_clip(len(tokenizer)), tokenizer)
        before = weights(text)
        model = train_unet(folder, fixed, text, tokenizer, steps=4, scenes=100, **changes)
        assert not torch.equal(weights(text), before)
        return torch.nn.ModuleList([model, text])

    def clip(folder, **changes):
        return train_clip(folder, steps=4, scenes=100, closeups=40, **changes)[0]

    fixed = vae(tmp_path / "a").requires_grad_(False)
    assert fixed.config.scaling_factor != 0.18215
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "scenes").symlink_to(tmp_path / "a" / "scenes")
    for name, make in {"vae": vae, "decoder": decoder, "unet": unet, "clip": clip}.items():
        whole = make(tmp_path / "a")
        make(tmp_path / "b", stop_at=2)
        resumed = make(tmp_path / "b")
        assert torch.equal(weights(resumed), weights(whole)), name
        log = (tmp_path / "b" / name / "log.jsonl").read_text().splitlines()
        assert [json.loads(row)["step"] for row in log] == [2, 4]
        assert all(math.isfinite(v) for row in log for v in json.loads(row).values())
