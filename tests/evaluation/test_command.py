"""``refdiff-lite evaluate``: what is refused before any work, and what its exit code says."""

import json
import re

import pytest
from builders import as_pickle, write_images
from harness import FakeModel
from typer.testing import CliRunner

from refdiff_lite.cli import app
from refdiff_lite.evaluation.journal import Journal

command = CliRunner()


@pytest.fixture
def model(monkeypatch):
    """Networks that answer at once, in place of those of every preset; counts how often they are loaded."""
    fake = FakeModel()
    fake.loaded = 0

    def from_preset(name, config, **choices):
        fake.loaded += 1
        fake.config = config
        return fake

    monkeypatch.setattr("refdiff_lite.pipeline.RefDiff.from_preset", from_preset)
    monkeypatch.setattr("refdiff_lite.evaluation.run.write_report", lambda *args: None)
    return fake


def evaluate(out, *arguments):
    return command.invoke(app, ["evaluate", *map(str, arguments), "--out", str(out)])


def tree(out):
    return {p.relative_to(out): p.is_file() and p.read_bytes() for p in out.rglob("*")}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--limit", 2, "--shard", "3/3"], "shard 3/3 of 2 images is empty"),
        (["--shard", "0/2"], "there is no shard 0/2"),
        (["--shard", "3/2"], "there is no shard 3/2"),
        (["--shard", "200/200"], "is empty"),
        (["--shard", "1/" + "9" * 5000], "write i/n"),
        (["--shard", "-1/2"], "write i/n"),
        (["--split", "unseen", "--style", "toyref+x"], "choose one of noun"),
        (["--seed", 2**64], "seed"),
        (["--seed", 2**63], "seed"),
        (["--seed", -1], "seed"),
        (["--seed", 10**400], "seed"),
    ],
)
def test_refused_at_once_and_without_a_trace(tmp_path, model, arguments, said):
    found = evaluate(tmp_path / "out", "toyref", *arguments)
    assert (found.exit_code, found.output.count("\n")) == (2, 1), found.output
    assert said in found.output
    assert len(found.output) < 500
    assert model.loaded == 0
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("spoil", ["config", "variants", "code", "shard", "record"])
def test_another_run_in_the_folder_is_refused_before_networks_are_loaded(tmp_path, model, monkeypatch, spoil):
    arguments = ["toyref", "--limit", 3, "--variant", "full"]
    assert evaluate(tmp_path, *arguments).exit_code == 0
    model.loaded, before = 0, tree(tmp_path)
    if spoil == "config":
        arguments += ["--seed", 1]
    elif spoil == "variants":
        arguments += ["--variant", "largest"]
    elif spoil == "code":
        monkeypatch.setattr("refdiff_lite.evaluation.plan.code_digest", lambda: "other")
    elif spoil == "shard":
        arguments += ["--shard", "4/4"]
    else:
        (tmp_path / "run.json").write_text("{")
        before = tree(tmp_path)
    found = evaluate(tmp_path, *arguments)
    assert (found.exit_code, found.output.count("\n")) == (2, 1), found.output
    assert model.loaded == 0
    assert tree(tmp_path) == before


def test_a_shard_at_work_refuses_another_before_networks_are_loaded(tmp_path, model, monkeypatch):
    """As if another process held it: in one process a lock is shared."""
    monkeypatch.setattr("refdiff_lite.evaluation.journal.FileLock", separate_locks())
    with Journal(tmp_path).at_work((1, 2)):
        before = tree(tmp_path)
        for arguments in (["--shard", "1/2"], ["--shard", "1/3"], [], ["--shard", "2/2", "--fresh"]):
            found = evaluate(tmp_path, "toyref", *arguments)
            assert (found.exit_code, found.output.count("\n")) == (2, 1), found.output
            assert "at work on shard1of2" in found.output
            assert tree(tmp_path) == before
    assert model.loaded == 0


def separate_locks():
    from filelock import FileLock

    return lambda path, timeout=-1, is_singleton=False: FileLock(path, timeout=timeout)


def test_a_variant_that_comes_twice_is_evaluated_once(tmp_path, model):
    arguments = ["toyref", "--limit", 2, "--variant", "gs", "--variant", "largest"]
    once, twice = evaluate(tmp_path / "a", *arguments), evaluate(tmp_path / "b", *arguments, "--variant", "gs")
    assert once.exit_code == twice.exit_code == 0
    for name in ("results.jsonl", "summary.json", "run.json", "table.md"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize(("failing", "code"), [(0, 0), (1, 0), (2, 3), (10, 3)])
def test_the_exit_code_says_that_many_failed(tmp_path, model, failing, code):
    """Of 10 images: up to a tenth of the rows may fail."""
    model.fail = range(1, failing + 1)
    arguments = ["toyref", "--limit", 10, "--variant", "largest", "--style", "noun"]
    for _ in range(2):  # from the journal, too
        found = evaluate(tmp_path, *arguments)
        assert found.exit_code == code, found.output
        rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
        failed = sum("error" in r for r in rows)
        assert (f"{failed} of {len(rows)} rows failed" in found.output) is (failing > 0)
        assert (failed > len(rows) / 10) is (code == 3)
        assert (tmp_path / "table.md").is_file()
    assert evaluate(tmp_path, *arguments, "--retry").exit_code == 0


def test_help_tells_the_exit_codes():
    said = " ".join(
        re.sub(r"[│\n]", " ", command.invoke(app, ["evaluate", "--help"], env={"COLUMNS": "120"}).output).split()
    )
    assert "Exit code 0" in said
    assert "3: all is written, but more than a tenth" in said


def test_missing_images_are_counted_among_those_that_are_asked_for(tmp_path, model):
    as_pickle(tmp_path)
    write_images(tmp_path / "train2014", ids=(7,))
    arguments = ["refcoco", "--data-dir", tmp_path, "--variant", "largest"]
    found = evaluate(tmp_path / "one", *arguments, "--limit", 1)
    assert found.exit_code == 2
    assert "none of the 1 images is there" in found.output
    found = evaluate(tmp_path / "both", *arguments)
    assert found.exit_code == 3
    assert "1 of 2 images are missing, they count as IoU 0: 3" in found.output


def test_one_image_by_the_real_networks(tmp_path):
    found = evaluate(tmp_path, "toyref", "--limit", 1, "--variant", "full", "--variant", "largest")
    assert found.exit_code == 0, found.output
    assert (tmp_path / "report.html").is_file()
