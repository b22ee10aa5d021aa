"""The command line as a user meets it."""

import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from builders import Evil, as_pickle, family, write_images
from PIL import Image
from skimage import data as photos
from typer.testing import CliRunner

import refdiff_lite
from refdiff_lite.cli import app
from refdiff_lite.files import data_dir

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
    assert found.exit_code == 3, found.output  # more than a tenth of the rows failed
    assert "1 of 2 images are missing, they count as IoU 0: 3" in found.output
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["n"], summary["errors"], summary["missing_images"]) == (5, 1, [3])
    assert "SAM ViT-H | oIoU | 35.16 |" in found.output
    assert "3 references here, 3811 were published" in found.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["coco"], "choose toyref, photos, refcoco"),
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
    ("content", "said"),
    [
        ("[1]", "not COCO's"),
        ("{", "not sound JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"images": []}', "no list of annotations"),
        ('{"images": [], "annotations": []}', "no masks for 030000.jpg"),
        ('{"images": [{"id": 1, "file_name": "030000.jpg", "height": 9, "width": 9}], "annotations": [{"id": 1, "image_id": 1}]}', "9×9"),
        ('{"images": [{"id": 1, "file_name": "030000.jpg", "height": 128, "width": 128}], "annotations": [{"id": 1, "image_id": 1,'
         '"segmentation": {"size": [128, 128], "counts": "zzzzzzzzzzzz"}}]}', "annotation 1: damaged segmentation"),
        ('{"images": [{"id": 1, "file_name": "030000.jpg", "height": 128, "width": 128}], "annotations": [{"id": 1, "image_id": 1,'
         '"segmentation": {"size": [128000, 128000], "counts": [16384000000]}}]}', "annotation 1: damaged segmentation"),
    ],
)  # fmt: skip
def test_a_file_without_coco_masks_is_one_line(tmp_path, monkeypatch, content, said):
    monkeypatch.setattr("refdiff_lite.pipeline.load", lambda name: pytest.fail("slow work before the check"))
    (tmp_path / "x.json").write_text(content)
    found = run.invoke(
        app, ["segment", str(IMAGE), "cat", "--proposals", "oracle", "--oracle", str(tmp_path / "x.json")]
    )
    assert (found.exit_code, found.output.count("\n")) == (2, 1), found.output
    assert said in found.output


def test_an_oracle_belongs_to_the_pixels_as_stored(tmp_path):
    """A picture that EXIF turns: its masks, and so the answer, lie where the stored pixels are."""
    stored, exif = np.full((64, 96, 3), 90, np.uint8), Image.Exif()
    stored[8:40, 60:90] = (200, 30, 30)
    exif[0x0112] = 3
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    box = {"id": 1, "image_id": 1, "segmentation": [[60, 8, 90, 8, 90, 40, 60, 40]]}
    image = {"id": 1, "file_name": "a.png", "height": 64, "width": 96}
    (tmp_path / "x.json").write_text(json.dumps({"images": [image], "annotations": [box]}))
    command = ["segment", str(tmp_path / "a.png"), "the car", "--proposals", "oracle", "--out", str(tmp_path / "out")]
    found = run.invoke(app, [*command, "--oracle", str(tmp_path / "x.json")])
    assert found.exit_code == 0, found.output
    mask, shown = (np.asarray(Image.open(tmp_path / "out" / name)) for name in ("mask.png", "overlay.png"))
    assert mask[24, 75] == 255
    assert shown[24, 75].tolist() == [200, 30, 30]


@pytest.mark.parametrize("name", ["mask.png", "overlay.png", "panel.png"])
@pytest.mark.parametrize("link", [None, os.symlink, os.link])
def test_the_input_is_never_written_over(tmp_path, monkeypatch, name, link):
    monkeypatch.setattr("refdiff_lite.pipeline.load", lambda name: pytest.fail("slow work before the check"))
    Image.open(IMAGE).save(tmp_path / name)
    before, given = (tmp_path / name).read_bytes(), tmp_path / name
    if link:
        given = tmp_path / "given.png"
        link(tmp_path / name, given)
    found = run.invoke(app, ["segment", str(given), "cat", "--out", str(tmp_path)])
    assert (found.exit_code, found.output.count("\n")) == (2, 1), found.output
    assert "is the input and would be written over" in found.output
    assert (tmp_path / name).read_bytes() == before


def test_an_oracle_named_result_json_is_never_written_over(tmp_path):
    source = (data_dir() / "toyref" / "test" / "instances.json").read_text()
    (tmp_path / "result.json").write_text(source)
    command = ["segment", str(IMAGE), "cat", "--proposals", "oracle", "--oracle", str(tmp_path / "result.json")]
    found = run.invoke(app, [*command, "--out", str(tmp_path)])
    assert found.exit_code == 2
    assert (tmp_path / "result.json").read_text() == source


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([b"a\xff.png", b"cat", b"--out", b"out\xff"], 0, "-> out\\udcff/"),
        ([b"no\xff.png", b"cat"], 2, "no image file at no\\udcff.png"),
        ([b"a\xff.png", b"ca\xfft"], 2, "Unicode text"),
        ([b"a\xff.png", b"cat", b"--head", b"\xff"], 2, "Unicode text"),
    ],
)
def test_arguments_that_are_no_utf_8(tmp_path, arguments, code, said):
    """Real arguments of a real process: they come as halves of surrogate pairs."""
    (tmp_path / os.fsdecode(b"a\xff.png")).write_bytes(IMAGE.read_bytes())
    command = [sys.executable, "-m", "refdiff_lite.cli", "segment", *map(os.fsdecode, arguments)]
    root = str(Path(refdiff_lite.__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": root, "PYTHONIOENCODING": "utf-8"}
    found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert found.returncode == code, found.stderr
    assert said in found.stdout + found.stderr
    assert "Traceback" not in found.stderr


def test_evaluate_tells_damaged_annotations_and_goes_on(tmp_path):
    """One sentence that no file can take, one object without a mask, one reference without an image."""
    as_pickle(tmp_path)
    write_images(tmp_path / "train2014")
    instances, refs = family()
    refs[0]["sentences"][1]["sent"] = "man \ud800"
    refs[1]["image_id"] = 9
    instances["annotations"][1]["segmentation"] = {"size": [40, 60], "counts": "P" * 1000}
    (tmp_path / "refcoco" / "instances.json").write_text(json.dumps(instances))
    (tmp_path / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps(refs))
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
    assert "2 sentences have damaged annotations, they count as IoU 0" in found.output
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    errors = {row["sent_id"]: row["error"] for row in rows if "error" in row}
    assert len(rows) == 5
    assert sorted(errors) == [11, 20, 30]
    for number, said in ((11, "not Unicode"), (20, "know no image 9"), (30, "damaged segmentation")):
        assert said in errors[number]
    assert not any("0x" in error for error in errors.values())
