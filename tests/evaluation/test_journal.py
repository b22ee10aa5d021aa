"""The journal believes nothing that its run did not write: each refusal names the line, and loses nothing."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from harness import FakeModel, lines, run

import refdiff_lite
from refdiff_lite.datasets.toyref import load_toyref
from refdiff_lite.evaluation.journal import Journal, code_digest
from refdiff_lite.files import data_dir


@pytest.fixture(scope="module")
def data():
    return load_toyref("val")[:4]


def part(out):
    (path,) = (out / "parts").iterdir()
    return path


def files(out):
    return {p.relative_to(out): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


def refused(out, data, said, model=None, **kwargs):
    """The run is refused with these words, before any image is looked at, and no file changes."""
    before, model = files(out), model or FakeModel()
    with pytest.raises(ValueError, match=said):
        run(out, data, model, **kwargs)
    assert model.asked == 0
    assert files(out) == before


def change(old, new):
    def spoil(line):
        assert old in line
        return line.replace(old, new, 1)

    return spoil


SPOILED = {
    "a digit": change(b'"intersection": ', b'"intersection": 1'),
    "a hit": change(b'"hit": true', b'"hit": false'),
    "the image": change(b'"image_id": ', b'"image_id": 9'),
    "the run": change(b'"run": "', b'"run": "0'),
    "the checksum": change(b'{"sum": "', b'{"sum": "0'),
    "no checksum": lambda line: b"{" + line[28:],
    "half of it": lambda line: line[: len(line) // 2],
    "zeros": lambda line: b"\0" * len(line),
    "not UTF-8": lambda line: line[:60] + b"\xff" + line[61:],
    "a list": lambda line: b"[" + line + b"]",
    "a number": lambda line: b"17",
    "nothing": lambda line: b"",
    "Windows' line end": lambda line: line + b"\r",
    "another order": lambda line: json.dumps(json.loads(line), sort_keys=True).encode(),
    "nested too deeply": lambda line: b"[" * 100_000,
}


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_a_line_that_was_changed_is_named_and_can_be_deleted(tmp_path, data, spoil, number):
    run(tmp_path, data)
    before, content = lines(tmp_path), part(tmp_path).read_bytes().splitlines()
    spoiled = [spoil(line) if n == number else line for n, line in enumerate(content, 1)]
    part(tmp_path).write_bytes(b"\n".join(spoiled) + b"\n")
    refused(tmp_path, data, rf"line {number} of \S+jsonl is damaged or was changed: delete that line")
    part(tmp_path).write_bytes(b"".join(line + b"\n" for n, line in enumerate(content, 1) if n != number))
    model = FakeModel()
    run(tmp_path, data, model)  # as it was told
    assert (model.asked, lines(tmp_path)) == (1, before)


def reseal(out, changes):
    """Write the lines again with other rows, and with checksums that fit them."""
    content = [json.loads(line) for line in part(out).read_bytes().splitlines()]
    path = part(out)
    path.unlink()
    samples = {s.image_id: s for s in load_toyref("val")}
    journal = Journal(out)
    for number, line in enumerate(content):
        journal.run = line["run"]
        journal.append(path.stem, samples[line["image_id"]], changes(line["rows"]) if number == 1 else line["rows"])


@pytest.mark.parametrize(
    "changes",
    [
        lambda rows: rows[:-1],
        lambda rows: rows[1:],
        lambda rows: [*rows, rows[0]],
        lambda rows: [rows[0], *rows[:-1]],
        lambda rows: [],
        lambda rows: [r | {"variant": "ds"} for r in rows],
        lambda rows: [{**r, "sent_id": r["sent_id"] + 1} for r in rows],
    ],
)
def test_every_image_has_the_rows_that_it_should_have(tmp_path, data, changes):
    run(tmp_path, data)
    reseal(tmp_path, changes)
    refused(
        tmp_path, data, r"line 2 of \S+jsonl has not one row for each of the \d+ sentences and variants of image \d+"
    )


OTHERS = {
    "config": {"model": FakeModel(seed=1)},
    "weights": {"model": FakeModel(weight=0.5)},
    "variants": {"variants": ["full"]},
    "layers": {"model": FakeModel(layers="down")},
    "side": {"model": FakeModel(side=64)},
    "CLIP's norm": {"model": FakeModel(clip_std=torch.full((3,), 0.2))},
    "precision": {"model": FakeModel(dtype=torch.float16)},
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_lines_without_their_record_are_adopted_by_their_own_run_alone(tmp_path, data, other):
    before = run(tmp_path, data)
    (tmp_path / "run.json").unlink()
    refused(tmp_path, data, r"line 1 of \S+jsonl belongs to another run .*Take that file away", **other)
    model = FakeModel()
    assert run(tmp_path, data, model) == before
    assert model.asked == 0
    assert (tmp_path / "run.json").is_file()


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_parts_of_two_runs_do_not_mix(tmp_path, data, other):
    """As README says shards are brought together, but one was run otherwise."""
    run(tmp_path / "a", data, shard=(1, 2))
    run(tmp_path / "b", data, **other, shard=(2, 2))
    shutil.copy(part(tmp_path / "b"), tmp_path / "a" / "parts")
    refused(tmp_path / "a", data, r"line 1 of \S*shard2of2\S* belongs to another run")
    (tmp_path / "a" / "parts" / part(tmp_path / "b").name).unlink()
    assert run(tmp_path / "a", data)["complete"]


def test_shards_are_brought_together_by_copying_parts(tmp_path, data):
    whole = run(tmp_path / "whole", data)
    for i in (1, 2, 3):
        run(tmp_path / str(i), data, shard=(i, 3))
        shutil.copytree(tmp_path / str(i) / "parts", tmp_path / "all" / "parts", dirs_exist_ok=True)
    shutil.copy(part(tmp_path / "1"), tmp_path / "all" / "parts" / "again.jsonl")  # counts once
    model = FakeModel()
    assert run(tmp_path / "all", data, model) == whole
    assert model.asked == 0
    assert lines(tmp_path / "all") == lines(tmp_path / "whole")


def test_two_lines_that_disagree_are_refused(tmp_path, data):
    run(tmp_path, data)
    shutil.copy(part(tmp_path), tmp_path / "kept")
    reseal(tmp_path, lambda rows: [r | {"intersection": r["intersection"] + 1} for r in rows])
    shutil.move(tmp_path / "kept", tmp_path / "parts" / "other.jsonl")
    refused(tmp_path, data, r"line 2 of \S+ and a line before it disagree on image \d+: delete the one")


@pytest.mark.parametrize("content", [b"{", b"[1]", b'"x"', b"null", b"\xff\xfe", b"", b"[" * 100_000])
def test_a_damaged_record_is_told_and_not_needed(tmp_path, data, content):
    before = run(tmp_path, data)
    (tmp_path / "run.json").write_bytes(content)
    refused(tmp_path, data, r"run\.json is damaged .*: delete it")
    (tmp_path / "run.json").unlink()
    assert run(tmp_path, data) == before


@pytest.mark.parametrize("key", ["config", "weights", "variants", "code", "versions", "networks", "dtype"])
def test_a_changed_record_is_refused(tmp_path, data, key):
    run(tmp_path, data)
    record = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(record | {key: "x"}))
    refused(tmp_path, data, f"holds another run: {key} was .*--fresh")
    del record[key]
    (tmp_path / "run.json").write_text(json.dumps(record))
    refused(tmp_path, data, f"holds another run: {key} was null")


def spoil_code(package, how):
    path = package / "fusion.py"
    if how == "sign":
        path.write_text(path.read_text().replace("+", "-", 1))
    elif how == "renamed":
        path.rename(package / "melting.py")
    elif how == "deleted":
        path.unlink()
    elif how == "added":
        (package / "new" / "module.py").parent.mkdir()
        (package / "new" / "module.py").write_text("")
    elif how == "moved line":
        (package / "a.py").write_text("x\n" + (package / "a.py").read_text())
    elif how == "line ends":
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    elif how == "no code":
        (package / "page.html").write_text("x")


@pytest.mark.parametrize(
    ("how", "counts"),
    [("sign", True), ("renamed", True), ("deleted", True), ("added", True), ("moved line", True),
     ("line ends", False), ("no code", False)],
)  # fmt: skip
def test_a_change_of_code_counts(tmp_path, how, counts):
    (tmp_path / "fusion.py").write_text("a = 1 + 2\nb = 3\n")
    (tmp_path / "a.py").write_text("c = 4\n")
    before = code_digest(tmp_path)
    assert before == code_digest(tmp_path)
    spoil_code(tmp_path, how)
    assert (code_digest(tmp_path) != before) is counts


def test_a_run_of_changed_code_is_refused(tmp_path, data):
    run(tmp_path, data)
    with patch("refdiff_lite.evaluation.plan.code_digest", return_value="other"):
        refused(tmp_path, data, r"code was .* now \"other\" \(code: the package's source files have changed\).*--fresh")
        assert run(tmp_path, data, fresh=True)["images"] == 4


@pytest.mark.slow
def test_the_command_notices_a_flipped_sign(tmp_path):
    package = Path(refdiff_lite.__file__).parent
    shutil.copytree(package, tmp_path / "refdiff_lite", ignore=shutil.ignore_patterns("__pycache__", "_data"))
    (tmp_path / "data").symlink_to(data_dir())
    command = [sys.executable, "-m", "refdiff_lite.evaluation", "toyref", "--variant", "full", "--limit", "1"]

    def once(*more):
        return subprocess.run(
            [*command, "--out", "out", *more], cwd=tmp_path, capture_output=True, text=True, env=None, timeout=300,
        )  # fmt: skip

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", str(tmp_path))
        first = once()
        assert first.returncode == 0, first.stderr
        path = tmp_path / "refdiff_lite" / "fusion.py"
        path.write_text(path.read_text() + "\n_changed = -1\n")
        second = once()
        assert second.returncode == 2
        assert second.stderr.count("\n") == 1
        assert "source files have changed" in second.stderr
        assert once("--fresh").returncode == 0


class Killed(BaseException):
    """As SIGKILL: nothing after it runs."""


@pytest.mark.parametrize("step", range(12))
def test_a_fresh_run_killed_early_leaves_no_new_labels_beside_old_results(tmp_path, data, step):
    """Killed before each of its changes to the folder in turn."""
    run(tmp_path, data)
    (tmp_path / "report.html").write_text("as drawn")
    old, told, count = files(tmp_path), json.loads((tmp_path / "run.json").read_text()), 0

    def until_killed(change):
        def one(*args, **kwargs):
            nonlocal count
            count += 1
            if count > step:
                raise Killed
            return change(*args, **kwargs)

        return one

    journal = "refdiff_lite.evaluation.journal."
    with (
        patch(f"{journal}shutil.rmtree", until_killed(shutil.rmtree)),
        patch(f"{journal}write_text", until_killed(refdiff_lite.files.write_text)),
        patch.object(Path, "unlink", until_killed(Path.unlink)),
        pytest.raises(Killed),
    ):
        run(tmp_path, data, FakeModel(seed=1), fresh=True)
    left = files(tmp_path)
    results = [n for n in ("results.jsonl", "summary.json", "table.md", "table.tex", "report.html") if Path(n) in left]
    record = left.get(Path("run.json"))
    assert not results or record == old[Path("run.json")]
    assert record is None or json.loads(record) == told or not [p for p in left if p.parts[0] == "parts"]
    assert run(tmp_path, data, FakeModel(seed=1), fresh=True)["seed"] == 1


def test_a_new_run_drops_what_an_older_one_without_record_left(tmp_path, data):
    run(tmp_path, data)
    shutil.rmtree(tmp_path / "parts")
    (tmp_path / "run.json").unlink()
    with pytest.raises(Killed):
        run(tmp_path, data, FakeModel(seed=1, fail=(1,), error=Killed()))
    assert not (tmp_path / "summary.json").exists()


def test_other_data_name_the_line(tmp_path, data):
    run(tmp_path, data)
    changed = [data[0], replace(data[1], categories=("x", *data[1].categories[1:])), *data[2:]]
    refused(tmp_path, changed, rf"the annotations of image {data[1].image_id} have changed since line 2 of")
