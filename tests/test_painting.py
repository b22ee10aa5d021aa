"""refdiff-lite trace: a picture, and where each of its words went."""

import numpy as np
import pytest
from PIL import Image
from tiny_pipelines import NEGATIVE, PROMPT
from typer.testing import CliRunner

from refdiff_lite.record import Record


def test_the_command_paints_and_writes_everything(tmp_path):
    from refdiff_lite.cli import app

    found = CliRunner().invoke(
        app,
        ["trace", PROMPT, "--negative", NEGATIVE, "--steps", "3", "--by-step", "--word", "dog", "--out", str(tmp_path)],
    )
    assert found.exit_code == 0, found.output
    names = ["explorer.html", "image.png", "record.safetensors", "steps.png", "word-0-dog.png", "words.png"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    record = Record.load(tmp_path / "record.safetensors")
    assert record.steps == [0, 1, 2]
    assert {sign for sign, _, _ in record.maps} == {"+", "-"}
    np.testing.assert_array_equal(record.images[0], np.asarray(Image.open(tmp_path / "image.png")))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--word", "zebra"], "'zebra' is not in the prompt"),
        (["--model", "/no/such/folder"], "/no/such/folder"),
        (["--dtype", "float8"], "choose bfloat16, float32 or float16"),
        (["--layers", "nothing"], "matches none of"),
        (["--out", "/proc/no"], "/proc/no"),
    ],
)
def test_wrong_input_costs_one_line(tmp_path, options, said):
    from refdiff_lite.cli import app

    found = CliRunner().invoke(app, ["trace", PROMPT, "--steps", "1", "--out", str(tmp_path), *options])
    assert found.exit_code == 2
    assert said in found.output.replace("\n", " ")
    assert "Traceback" not in found.output
