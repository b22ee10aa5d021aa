"""Networks of SD 1.5's shape, untrained and tiny: what the toy's own shape cannot show."""

import copy
import json
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import open_clip
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
    UNet2DConditionModel,
)  # fmt: skip
from torch._subclasses.fake_tensor import FakeTensorMode

from refdiff_lite import RefDiff, RefDiffConfig, attention, ranking
from refdiff_lite.config import PAPER_VARIANTS, VARIANTS
from refdiff_lite.latents import ddim_timesteps
from refdiff_lite.networks import Networks, hub, loading
from refdiff_lite.networks import clip as towers
from refdiff_lite.networks.compat import cross_attention_modules, load_sam, self_attention_modules


@pytest.fixture(scope="module")
def photo():
    picture = np.full((90, 120, 3), (40, 120, 60), np.uint8)
    picture[20:60, 10:50] = (200, 30, 30)
    picture[30:80, 70:110] = (30, 30, 200)
    return picture


@pytest.fixture(scope="module")
def masks():
    found = np.zeros((2, 90, 120), bool)
    found[0, 20:60, 10:50] = found[1, 30:80, 70:110] = True
    return found


@pytest.mark.parametrize("preset", ["paper", "official"])
def test_every_variant_runs_on_a_photo_that_is_not_square(sd15_nets, photo, masks, preset):
    config = getattr(RefDiffConfig, preset)(min_area=0)
    scene = RefDiff(sd15_nets, config).set_image(photo, oracle=masks)
    for variant in VARIANTS:
        result = scene.segment("the red thing on the left", variant)
        assert result.mask.shape == (90, 120)
        assert result.mask.any()
        assert np.isfinite(result.word_map).all()
    assert scene.latents.shape[-2:] == ((16, 16) if preset == "official" else (8, 8))
    assert len(scene.segment("the red thing", "gs", "self-attention").proposals) >= 1


def test_several_sentences_in_one_batch_equal_one_by_one(sd15_nets, photo, masks):
    texts = ["the red thing", "the blue one on the right", "a thing"]
    for config in (RefDiffConfig.paper(), RefDiffConfig.paper(propagate=1)):
        together = RefDiff(sd15_nets, config).set_image(photo, oracle=masks).segment_all(texts)
        for text, found in zip(texts, together, strict=True):
            alone = RefDiff(sd15_nets, config).set_image(photo, oracle=masks).segment(text)
            np.testing.assert_allclose(found.word_map, alone.word_map, atol=1e-4)
            for name, s in found.scores.items():
                torch.testing.assert_close(s, alone.scores[name], atol=1e-5, rtol=0)


def test_one_batch_does_it_and_nothing_is_done_twice(sd15_nets, photo, masks, monkeypatch):
    runs, texts = [], []
    unet = sd15_nets.sd.unet
    handle = unet.register_forward_pre_hook(lambda m, args: runs.append(len(args[0])))
    encode_text = towers.encode_text
    monkeypatch.setattr(towers, "encode_text", lambda *a: texts.append(a[2:]) or encode_text(*a))
    scene = RefDiff(sd15_nets, RefDiffConfig.paper()).set_image(photo, oracle=masks)
    sentences = ["the red thing", "the blue thing", "a thing"]
    scene.segment_all(sentences)
    for variant in PAPER_VARIANTS:
        scene.segment("the red thing", variant)
    handle.remove()
    assert runs == [3]
    assert [t[0] for t in texts] == sentences


def test_clip_sees_only_what_the_filter_keeps(sd15_nets, photo, masks, monkeypatch):
    seen = []
    crops = ranking.crops
    monkeypatch.setattr(ranking, "crops", lambda pixels, masks, *a: seen.append(len(masks)) or crops(pixels, masks, *a))
    scene = RefDiff(sd15_nets, RefDiffConfig.paper(keep_largest=1)).set_image(photo, oracle=masks)
    assert len(scene.segment("the red thing", "ds").proposals) == 1
    assert seen == [1]


def test_min_area_is_in_pixels_of_the_input(sd15_nets):
    large, mask = np.zeros((512, 2048, 3), np.uint8), np.zeros((1, 512, 2048), bool)
    mask[0, :100, :100] = True  # a quarter of its 10000 pixels are left at the working size
    for area, count in ((10_000, 1), (10_100, 0)):
        scene = RefDiff(sd15_nets, RefDiffConfig.paper(min_area=area)).set_image(large, oracle=mask)
        assert len(scene.proposals("oracle")) == count


# Which networks


def test_layers_of_the_preset_are_those_of_sd15():
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768)
    cross, own = cross_attention_modules(unet), self_attention_modules(unet)
    assert len(cross) == len(own) == 16
    preset = loading.PRESETS["sd15"]
    ups = [f"up_blocks.{{}}.attentions.{i}" for i in range(3)]
    downs = [f"down_blocks.{{}}.attentions.{i}" for i in range(2)]
    found = {n for n in cross if re.search(preset.layers, n)}
    assert found == {d.format(2) for d in downs} | {u.format(1) for u in ups}
    found = {n for n in own if re.search(preset.self_layers, n)}
    assert found == {d.format(1) for d in downs} | {u.format(2) for u in ups}


def test_sd15_loads_from_its_files(sd15_shape, clip, clip_tokenizer, clip_dir, tmp_path, monkeypatch):
    """Half-precision safetensors, PNDM, a model index that names a safety checker whose files are not there."""
    copy.deepcopy(sd15_shape.unet).half().save_pretrained(tmp_path / "unet", variant="fp16")
    copy.deepcopy(sd15_shape.vae).half().save_pretrained(tmp_path / "vae", variant="fp16")
    copy.deepcopy(sd15_shape.text_encoder).half().save_pretrained(tmp_path / "text_encoder", variant="fp16")
    for part in ("tokenizer", "scheduler"):
        getattr(sd15_shape, part).save_pretrained(tmp_path / part)
    index = {k: list(v) for k, v in sd15_shape.config.items() if isinstance(v, (list, tuple))}
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    index["feature_extractor"] = ["transformers", "CLIPFeatureExtractor"]
    index["_class_name"] = "StableDiffusionPipeline"
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    fetched = []
    monkeypatch.setattr(hub, "check", fetched.append)
    monkeypatch.setattr(hub, "fetch", lambda name: fetched.append(name) or tmp_path)
    _, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{clip_dir}")
    asked = []
    parts = (copy.deepcopy(clip), clip_tokenizer, preprocess)
    monkeypatch.setattr(loading, "_open_clip", lambda *a: asked.append(a) or parts)
    nets = loading.load("sd15", sam="huge")
    assert fetched == [["sd15", "openai"], "sd15", "openai"]
    assert asked == [("ViT-B-16-quickgelu", str(tmp_path / "open_clip_model.safetensors"))]
    assert (nets.name, nets.side, nets.sam_id) == ("sd15", 512, "sam-huge")
    device, dtype = loading.device_and_dtype()
    for part in (nets.sd.unet, nets.sd.vae, nets.sd.text_encoder, nets.clip.visual.conv1):
        assert {p.device.type for p in part.parameters()} == {device.type}
        assert {p.dtype for p in part.parameters()} == {dtype}
        assert not part.training
    assert ddim_timesteps(nets.scheduler, 20)[:3] == [1, 51, 101]
    other = loading.load("sd15", clip="laion")
    assert asked[-1][0] == "ViT-B-16"
    assert other.sam_id == "sam-base"
    with pytest.raises(ValueError, match="choose openai or laion"):
        loading.load("sd15", clip="ViT-L-14")
    with pytest.raises(ValueError, match='is for "sd15"'):
        loading.load("toy", sam="base")


def pretend(nets, **changes):
    """The networks with some of the pipeline's parts exchanged."""
    sd = SimpleNamespace(**{n: getattr(nets.sd, n) for n in ("unet", "vae", "scheduler", "text_encoder")} | changes)
    return replace(nets, sd=sd)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(scheduler=DDIMScheduler(prediction_type="v_prediction")), "'v_prediction', not noise"),
        (dict(scheduler=DDIMScheduler(prediction_type="sample")), "'sample', not noise"),
        (dict(scheduler=FlowMatchEulerDiscreteScheduler()), "FlowMatchEulerDiscreteScheduler has no noise schedule"),
        (dict(scheduler=EDMEulerScheduler()), "EDMEulerScheduler has no noise schedule"),
        (dict(scheduler=DDPMScheduler(beta_schedule="sigmoid")), "DDPMScheduler has no noise schedule"),
        (dict(scheduler=DPMSolverMultistepScheduler(use_flow_sigmas=True)), "has no noise schedule that DDIM knows"),
    ],
)
def test_other_kinds_of_diffusion_models_are_refused(sd15_nets, changes, said):
    with pytest.raises(ValueError, match=rf"{said}.*SD 1\.4, 1\.5 or 2\.1-base"):
        RefDiff(pretend(sd15_nets, **changes))


def test_an_ip_adapter_is_refused(sd15_nets):
    with torch.device("meta"):
        unet = UNet2DConditionModel(block_out_channels=(32, 32, 32, 32), encoder_hid_dim=8)
    unet.register_to_config(encoder_hid_dim_type="ip_image_proj")  # as load_ip_adapter does
    with pytest.raises(ValueError, match=r"unload_ip_adapter\(\) first"):
        RefDiff(pretend(sd15_nets, unet=unet))


def test_a_textual_inversion_of_several_vectors_is_refused_and_of_one_is_read(sd15_shape, sd15_nets, photo):
    sd = copy.deepcopy(sd15_shape)
    sd.load_textual_inversion({"<toy>": torch.randn(2, 32)})
    sd.load_textual_inversion({"<one>": torch.randn(1, 32)})
    scene = RefDiff(replace(sd15_nets, sd=sd), RefDiffConfig.paper()).set_image(photo)
    with pytest.raises(ValueError, match=r"'<toy> on the left' has a textual inversion of several vectors"):
        scene.segment("<toy> on the left", "g")
    assert np.isfinite(scene.segment("<one> on the left", "g").word_map).all()


def test_inpainting_is_refused(sd15_nets):
    with torch.device("meta"):
        unet = UNet2DConditionModel(in_channels=9, block_out_channels=(32, 32, 32, 32))
    with pytest.raises(ValueError, match="9 channels, not 4"):
        RefDiff(pretend(sd15_nets, unet=unet))


def test_a_clip_without_a_class_token_is_refused(sd15_nets):
    with pytest.raises(ValueError, match=r"Linear without a class token.*ViT-B-16"):
        RefDiff(replace(sd15_nets, clip=SimpleNamespace(visual=torch.nn.Linear(1, 1))))


def test_sd2_kind_upcast_and_linear_projection(noise):
    """SD 2.1-base: heads by width, linear projections; q k^T is taken in fp32."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        block_out_channels=(16, 32, 32, 32),
        cross_attention_dim=24,
        attention_head_dim=(2, 4, 4, 4),
        use_linear_projection=True,
        norm_num_groups=8,
        upcast_attention=True,
    ).eval()
    with attention.record_attention(unet) as record, torch.no_grad():
        unet(noise(1, 4, 8, 8), 1, noise(1, 5, 24))
    assert len(record.maps) == 16
    assert all(torch.isfinite(m).all() for m in record.maps.values())


# Devices


def test_low_memory_holds_one_network_at_a_time(sd15_nets, photo, masks, monkeypatch):
    there, most, moved = set(), [], []

    def track(self, part, device):
        (there.discard if device == torch.device("cpu") else there.add)(part)
        most.append(len(there))
        moved.append(part)

    monkeypatch.setattr(Networks, "_place", track)
    nets = replace(sd15_nets, low_memory=True, target=torch.device("cpu:0"))
    RefDiff(nets).set_image(photo, oracle=masks).segment_all(["the red thing", "the blue thing"])
    assert max(most) == 1
    assert moved == ["vae", "vae", "text_encoder", "text_encoder", "unet", "unet", "clip"]


def test_no_tensor_is_made_on_the_wrong_device(sd15_shape, clip, clip_tokenizer, tokenizer, photo, monkeypatch):
    """On a pretended CUDA device, where tensors have no values but may not meet those of another device."""
    monkeypatch.setattr(Networks, "check_finite", lambda self, part, x: x)  # a fake tensor holds no numbers
    configs = {n: dict(getattr(sd15_shape, n).config) for n in ("unet", "vae")}
    # Numbers of the schedule, which without values nothing could read.
    monkeypatch.setattr("refdiff_lite.latents.alpha_bar", lambda scheduler, t: 0.9)
    for module in ("scene", "inversion"):
        monkeypatch.setattr(
            f"refdiff_lite.{module}.ddim_timesteps", lambda scheduler, n: list(range(1, 1000, 1000 // n))
        )
    crops = ranking.crops(torch.rand(3, 90, 120), torch.ones(3, 90, 120, dtype=torch.bool), 64, "square")
    with FakeTensorMode(allow_non_fake_inputs=True):
        with torch.device("cuda"):
            unet, vae = (type(getattr(sd15_shape, n)).from_config(c).eval() for n, c in configs.items())
            text = type(sd15_shape.text_encoder)(sd15_shape.text_encoder.config).eval()
            visual = open_clip.CLIP(128, *_clip_configs(clip)).eval()
        sd = type(sd15_shape)(
            vae, text, tokenizer, unet, sd15_shape.scheduler, None, None, requires_safety_checker=False
        )
        half = torch.full((3,), 0.5, device="cuda")
        nets = Networks(sd, visual, clip_tokenizer, half, half, 64, r"up_blocks\.1", self_layers="up")
        assert nets.device.type == "cuda"
        for config in (RefDiffConfig.official(), RefDiffConfig.paper(noise="ddim")):
            scene = RefDiff(nets, config).set_image(photo)
            found = scene.unet_pass(["the red thing", "a thing"], ("cross", "self"))
            made = [scene.latents, *scene.noised, *found[0]["cross"].maps.values(), *found[1]["self"].maps.values()]
            word = attention.word_map(found[0]["cross"], [1], scene.size)
            made += [word, attention.propagate(word, found[0]["self"])]
            made += [towers.encode_images(visual, crops, half, half)]
            pixels, masks = torch.rand(3, 90, 120), torch.ones(4, 90, 120, dtype=torch.bool)
            made += [towers.encode_masks(visual, pixels, masks, (64, 80), half, half)]
            made += [towers.encode_text(visual, clip_tokenizer, "the red thing", "thing")]
            assert {t.device.type for t in made} == {"cuda"}


def _clip_configs(clip):
    from refdiff_lite.toy.train_clip import TEXT, VISION

    return VISION, TEXT | {"vocab_size": clip.vocab_size}


# SAM


@pytest.fixture(scope="module")
def sam_folder(tmp_path_factory):
    from transformers import SamConfig, SamImageProcessor, SamModel

    torch.manual_seed(0)
    config = SamConfig(
        vision_config=dict(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=64, patch_size=16, output_channels=16,
            window_size=2, global_attn_indexes=[1], mlp_dim=32, num_pos_feats=8,
        ),
        prompt_encoder_config=dict(hidden_size=16, image_size=64, patch_size=16, image_embedding_size=4),
        mask_decoder_config=dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, mlp_dim=16, iou_head_hidden_dim=16),
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("sam")
    SamModel(config).save_pretrained(folder)
    SamImageProcessor(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_sam_runs_as_transformers_has_it(sam_folder, photo, dtype):
    from refdiff_lite.proposals import sam

    generator = load_sam(str(sam_folder), torch.device("cpu"), dtype)
    assert generator.model.dtype == dtype
    everything = dict(pred_iou_thresh=-9, stability_score_thresh=0)
    masks = sam(photo, lambda *a, **k: generator(*a, points_per_crop=4, **k, **everything), points_per_batch=4)
    assert masks.shape[1:] == (90, 120)
    assert masks.dtype == torch.bool
    assert len(masks) >= 1
    nothing = dict(pred_iou_thresh=9)
    masks = sam(photo, lambda *a, **k: generator(*a, points_per_crop=4, **k, **nothing), points_per_batch=4)
    assert masks.shape == (0, 90, 120)


def test_sams_masks_are_computed_once_for_an_image(sd15_nets, photo, tmp_path, monkeypatch):
    monkeypatch.setenv("REFDIFF_CACHE", str(tmp_path))
    calls = []

    def generator(image, points_per_batch):
        calls.append(1)
        return {"masks": [np.eye(90, 120) > 0]}

    nets = replace(sd15_nets, sam_id="sam-base")
    nets.__dict__["sam"] = generator
    found = [RefDiff(nets).set_image(photo).proposals("sam") for _ in range(2)]
    assert len(calls) == 1
    assert torch.equal(*(p.masks for p in found))
    RefDiff(nets).set_image(photo[::-1].copy()).proposals("sam")
    assert len(calls) == 2
