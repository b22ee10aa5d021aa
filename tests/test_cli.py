"""The command line as a user meets it."""

import json
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from builders import Evil, as_pickle, write_images
from PIL import Image
from skimage import data as photos
from typer.testing import CliRunner

from refdiff_lite.cli import app
from refdiff_lite.files import data_dir
from refdiff_lite.networks import hub
from refdiff_lite.networks.doctor import report

IMAGE = data_dir() / "toyref" / "test" / "images" / "030000.jpg"
run = CliRunner()


def test_segment_writes_all_four_files(tmp_path):
    found = run.invoke(app, ["segment", str(IMAGE), "the tree on the left", "--out", str(tmp_path)])
    assert found.exit_code == 0, found.output
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mask.png", "overlay.png", "panel.png", "result.json"]
    mask = np.asarray(Image.open(tmp_path / "mask.png"))
    assert mask.shape == (128, 128)
    assert set(np.unique(mask)) <= {0, 255}
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["head"], result["cues"], result["config"]["seed"]) == ("tree", ["left"], 0)
    assert result["area"] == pytest.approx((mask > 0).mean(), abs=1e-5)


@pytest.mark.parametrize("name", ["chelsea", "coffee", "astronaut", "rocket"])
def test_a_photo_runs_and_the_limits_are_said(tmp_path, name):
    Image.fromarray(getattr(photos, name)()).save(tmp_path / "photo.png")
    found = run.invoke(app, ["segment", str(tmp_path / "photo.png"), f"the {name}", "--out", str(tmp_path / "out")])
    assert found.exit_code == 0, found.output
    assert "know only the 45 things" in found.output
    assert Image.open(tmp_path / "out" / "mask.png").size == Image.open(tmp_path / "photo.png").size


@pytest.mark.parametrize("expression", ["猫", "😀😀 cat 😀", "the $x^2$ <b>cat", "on the left"])
def test_odd_expressions_work(tmp_path, expression):
    found = run.invoke(app, ["segment", str(IMAGE), expression, "--out", str(tmp_path)])
    assert found.exit_code == 0, found.output
    assert (tmp_path / "panel.png").stat().st_size > 10_000


def test_doubt_and_unread_text_are_said(tmp_path):
    found = run.invoke(app, ["segment", str(IMAGE), "woman tennis player", "--out", str(tmp_path)])
    assert "unsure of the head word" in found.output
    assert json.loads((tmp_path / "result.json").read_text())["doubt"]
    found = run.invoke(app, ["segment", str(IMAGE), "tree " + "very " * 30 + "far", "--out", str(tmp_path)])
    assert "not read" in found.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no-such.png", "cat"], "no image file at no-such.png"),
        ([str(IMAGE), "   "], "has no word"),
        ([str(IMAGE), "!!! 😀"], "has no word"),
        ([str(IMAGE), "x" * 10_000], "10000 characters"),
        ([str(IMAGE), "cat", "--variant", "g", "--proposals", "oracle"], "no proposal network"),
        ([str(IMAGE), "cat", "--proposals", "oracle"], "go together"),
        ([str(IMAGE), "cat", "--head", "dog"], "not a word of"),
        ([str(IMAGE), "cat", "--clip", "laion"], 'the networks of "toy" are fixed'),
        ([str(IMAGE), "cat", "--sam", "huge", "--proposals", "sam"], 'the networks of "toy" are fixed'),
        ([str(IMAGE), "cat", "--preset", "sd15", "--sam", "huge"], "--proposals sam: give both"),
        ([__file__, "cat"], "not an image"),
        ([str(IMAGE), "cat", "--out", __file__ + "/below"], "cannot write"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, monkeypatch, arguments, said):
    monkeypatch.setattr("refdiff_lite.pipeline.load", lambda *_, **__: pytest.fail("slow work before the check"))
    out = [] if "--out" in arguments else ["--out", str(tmp_path / "out")]
    found = run.invoke(app, ["segment", *arguments, *out])
    assert found.exit_code == 2
    assert said in found.output
    assert found.output.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", [["segment", str(IMAGE), "cat"], ["evaluate", "toyref", "--limit", "1"]])
def test_choices_of_networks_reach_the_loader(tmp_path, monkeypatch, command):
    asked = []

    def load(name, **choices):
        asked.append((name, choices))
        raise OSError("enough")

    monkeypatch.setattr("refdiff_lite.pipeline.load", load)
    command += ["--preset", "sd15", "--proposals", "sam", "--out", str(tmp_path)]
    assert "enough" in run.invoke(app, command).output
    run.invoke(app, [*command, "--clip", "laion", "--sam", "huge", "--low-memory", "--dtype", "float32"])
    assert asked == [
        ("sd15", dict(clip=None, sam=None, low_memory=False, dtype=None)),
        ("sd15", dict(clip="laion", sam="huge", low_memory=True, dtype="float32")),
    ]


def test_evaluate_writes_a_line_per_expression_and_a_summary(tmp_path):
    command = ["evaluate", "toyref", "--style", "noun", "--variant", "gs", "--limit", "3", "--out", str(tmp_path)]
    found = run.invoke(app, command)
    assert found.exit_code == 0, found.output
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["n"] == len(rows) > 0
    assert summary["accuracy"] == pytest.approx(np.mean([r["hit"] for r in rows]))
    assert {"oIoU", "mIoU", "Pr@0.5", "accuracy", "n", "seed"} <= summary.keys()
    again = run.invoke(app, [*command, "--seed", "1"])
    assert (again.exit_code, again.output.count("\n")) == (2, 1)
    assert "holds another run: config was" in again.output
    tables = {"table.md", "table.tex", "report.html", "run.json"}
    assert tables <= {p.name for p in tmp_path.iterdir()}


def test_evaluate_refcoco_from_its_files(tmp_path):
    """One image is missing: it is told, and counts as IoU 0."""
    as_pickle(tmp_path)
    write_images(tmp_path / "train2014", ids=(7,))
    command = [
        "evaluate",
        "refcoco",
        "--data-dir",
        str(tmp_path),
        "--variant",
        "largest",
        "--out",
        str(tmp_path / "out"),
    ]
    found = run.invoke(app, command)
    assert found.exit_code == 0, found.output
    assert "1 of 2 images are missing, they count as IoU 0: 3" in found.output
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["n"], summary["errors"], summary["missing_images"]) == (5, 1, [3])
    assert "| Ref-Diff (2023) | oIoU | 35.16 |" in found.output
    assert "3 references here, 3811 were published" in found.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["coco"], "choose toyref, refcoco"),
        (["refcoco"], "choose its folder with --data-dir"),
        (["refcoco", "--data-dir", "nowhere"], "no folder or zip of images"),
        (["refcoco", "--data-dir", "nowhere", "--style", "noun"], "--style is for toyref alone"),
        (["toyref", "--split", "train"], "choose one of val"),
        (["toyref", "--style", "odd"], "choose one of noun"),
        (["toyref", "--shard", "2"], "write i/n"),
    ],
)
def test_evaluate_refuses_what_it_does_not_know(tmp_path, monkeypatch, arguments, said):
    monkeypatch.setattr("refdiff_lite.pipeline.load", lambda *_, **__: pytest.fail("slow work before the check"))
    found = run.invoke(app, ["evaluate", *arguments, "--out", str(tmp_path)])
    assert found.exit_code == 2
    assert said in found.output


def test_doctor_names_versions_presets_and_device():
    found = run.invoke(app, ["doctor"])
    assert found.exit_code == 0
    for word in ("python", "torch", "diffusers", "ipywidgets", "device", "disk"):
        assert f"\n{word} " in f"\n{found.output}"
    assert "preset toy       ready, offline" in found.output


def test_doctor_says_what_to_do_about_each_gap(monkeypatch, tmp_path):
    gib = 2**30
    monkeypatch.setattr("refdiff_lite.networks.doctor.versions", lambda names: {"anywidget": "missing"})
    monkeypatch.setattr("refdiff_lite.networks.doctor.device_and_dtype", lambda: (torch.device("cuda"), torch.float16))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (5 * gib, 16 * gib))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "T4")
    monkeypatch.setattr("refdiff_lite.networks.doctor.data_dir", lambda: tmp_path)
    monkeypatch.setattr(hub.Weights, "missing", lambda self: list(self.files))
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    said = dict(report())
    assert said["anywidget"] == "missing <- pip install anywidget"
    assert said["device"].startswith("cuda, float16")
    assert said["GPU memory"] == "5.0 of 16.0 GiB free"
    assert said["preset toy"] == "weights are missing <- install again, or make train-toy"
    assert said["preset sd15"] == (
        "weights of Stable Diffusion, CLIP, SAM are missing, 3.1 GB <- unset HF_HUB_OFFLINE, then refdiff-lite "
        "download sd15; GPU memory is short <- --low-memory"
    )
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (15 * gib, 16 * gib))
    monkeypatch.setattr(hub.Weights, "missing", lambda self: [])
    assert dict(report())["preset sd15"] == "ready, offline; fits T4"


def evil_pickle(root):
    (root / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps([Evil(os.system, f"touch {root / 'trace'}")]))


def evil_zip(root):
    with zipfile.ZipFile(root / "train2014.zip", "w") as archive:
        archive.writestr("../evil.jpg", b"x")


def height(value):
    def write(root):
        path = root / "refcoco" / "instances.json"
        path.write_text(path.read_text().replace('"height": 40', f'"height": {value}'))

    return write


def looping_images(root):
    (root / "train2014").rename(root / "images")
    (root / "train2014").symlink_to(root / "train2014")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (evil_pickle, "is refused: it names"),
        (evil_zip, "its member '../evil.jpg' points outside"),
        (height("NaN"), "is not sound JSON"),
        (height("1e999"), "is not sound JSON"),
        (height("9" * 400), "image 7 of"),
        (looping_images, "no folder or zip of images"),
    ],
)
def test_hostile_data_are_refused_in_one_line_and_nothing_else_happens(tmp_path, monkeypatch, spoil, said):
    monkeypatch.setattr("refdiff_lite.pipeline.load", lambda *_, **__: pytest.fail("slow work before the check"))
    data = tmp_path / "data"
    as_pickle(data)
    write_images(data / "train2014")
    spoil(data)
    before = sorted(tmp_path.rglob("*"))
    found = run.invoke(app, ["evaluate", "refcoco", "--data-dir", str(data), "--out", str(tmp_path / "out")])
    assert (found.exit_code, found.output.count("\n")) == (2, 1), found.output
    assert said in found.output
    assert len(found.output) < 600
    assert sorted(p for p in tmp_path.rglob("*") if p != tmp_path / "out") == before


@pytest.mark.slow
def test_demo_draws_one_grid(tmp_path):
    found = run.invoke(app, ["demo", "--out", str(tmp_path)])
    assert found.exit_code == 0, found.output
    assert (tmp_path / "demo.png").exists()
    assert "8 expressions by 4 variants" in found.output


def test_a_head_behind_the_text_encoders_window_is_one_line(tmp_path):
    found = run.invoke(app, ["segment", str(IMAGE), "cat " * 200, "--out", str(tmp_path)])
    assert found.exit_code == 2
    assert "shorten the expression" in found.output
    assert not list(tmp_path.iterdir())


def test_oracle_masks_come_from_a_coco_file(tmp_path):
    command = ["segment", str(IMAGE), "the car on the right", "--proposals", "oracle", "--out", str(tmp_path)]
    found = run.invoke(app, [*command, "--oracle", str(data_dir() / "toyref" / "test" / "instances.json")])
    assert found.exit_code == 0, found.output
    assert "2 oracle proposals" in found.output


@pytest.mark.parametrize(
    ("content", "said"), [("[1]", "not a COCO"), ("{", "Expecting"), ('{"images": []}', "no masks")]
)
def test_a_file_without_coco_masks_is_one_line(tmp_path, content, said):
    (tmp_path / "x.json").write_text(content)
    found = run.invoke(
        app, ["segment", str(IMAGE), "cat", "--proposals", "oracle", "--oracle", str(tmp_path / "x.json")]
    )
    assert found.exit_code == 2
    assert said in found.output
