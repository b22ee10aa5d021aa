"""The harness: nothing lost, nothing counted twice, nothing mixed; and what the bundled networks must keep."""

import io
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from harness import CHEAP, FakeModel, lines, run
from matplotlib.figure import Figure
from PIL import Image
from pycocotools import mask as coco_mask

from refdiff_lite import RefDiff
from refdiff_lite.datasets.toyref import load_toyref
from refdiff_lite.evaluation.journal import Journal, weights_digest
from refdiff_lite.evaluation.report import show_intervals
from refdiff_lite.evaluation.run import METHODS, evaluate, evaluate_scene, table
from refdiff_lite.files import data_dir


@pytest.fixture(scope="module")
def data():
    return load_toyref("val")


def test_numbers_are_those_that_pycocotools_finds(tmp_path, data):
    """From the masks in results.jsonl and the data alone, with none of our metrics."""
    summary = run(tmp_path, data[:12])
    samples = {s.image_id: s for s in data[:12]}
    ious = {v: [] for v in CHEAP}
    sums = {v: [0, 0] for v in CHEAP}
    for row in map(json.loads, lines(tmp_path)):
        sample = samples[row["image_id"]]
        target = next(r.target for r in sample.records if r.sent_id == row["sent_id"])
        mine = {"size": list(sample.size), "counts": row["rle"].encode()}
        truth = sample.segmentations[target]
        ious[row["variant"]].append(coco_mask.iou([mine], [truth], [0])[0, 0])
        sums[row["variant"]][0] += coco_mask.area(coco_mask.merge([mine, truth], intersect=True))
        sums[row["variant"]][1] += coco_mask.area(coco_mask.merge([mine, truth]))
    for variant in CHEAP:
        found = summary["variants"][variant]["all"]
        assert found["mIoU"] == pytest.approx(np.mean(ious[variant]))
        assert found["oIoU"] == pytest.approx(sums[variant][0] / sums[variant][1])
        for x in (0.5, 0.6, 0.7, 0.8, 0.9):
            assert found[f"Pr@{x}"] == pytest.approx(np.mean(np.array(ious[variant]) >= x))
    assert summary["variants"]["oracle"]["all"]["mIoU"] == 1


def test_a_second_run_adds_nothing(tmp_path, data):
    first = run(tmp_path, data[:6])
    content, model = lines(tmp_path), FakeModel()
    assert run(tmp_path, data[:6], model) == first
    assert (model.asked, lines(tmp_path)) == (0, content)


def test_a_limit_can_be_raised_and_lowered(tmp_path, data):
    run(tmp_path / "all", data[:9])
    run(tmp_path / "grown", data[:9], limit=4)
    assert json.loads((tmp_path / "grown" / "summary.json").read_text())["complete"] is False
    model = FakeModel()
    run(tmp_path / "grown", data[:9], model)
    assert model.asked == 5
    assert lines(tmp_path / "grown") == lines(tmp_path / "all")
    assert run(tmp_path / "grown", data[:9], limit=2)["images"] == 2


def test_shards_add_up(tmp_path, data):
    whole = run(tmp_path / "whole", data[:10])
    assert run(tmp_path / "parts", data[:10], shard=(1, 3))["images"] == 4
    run(tmp_path / "parts", data[:10], shard=(3, 3))
    assert run(tmp_path / "parts", data[:10], shard=(2, 3)) == whole
    assert lines(tmp_path / "parts") == lines(tmp_path / "whole")


@pytest.mark.parametrize("shard", [(0, 2), (3, 2), (1, 0)])
def test_no_such_shard(tmp_path, data, shard):
    with pytest.raises(ValueError, match="there is no shard"):
        run(tmp_path, data[:1], shard=shard)


@pytest.mark.parametrize("kept", [0, 1, 100, -2, -1])
def test_a_torn_last_line_is_dropped_and_written_again(tmp_path, data, kept):
    run(tmp_path, data[:5])
    before = lines(tmp_path)
    (part,) = (tmp_path / "parts").iterdir()
    *whole, last = part.read_bytes().splitlines(keepends=True)
    part.write_bytes(b"".join(whole) + last[:kept])
    model = FakeModel()
    run(tmp_path, data[:5], model)
    assert (model.asked, lines(tmp_path)) == (1, before)
    assert len(part.read_bytes().splitlines()) == 5


def test_a_line_damaged_in_the_middle_is_told(tmp_path, data):
    run(tmp_path, data[:3])
    (part,) = (tmp_path / "parts").iterdir()
    first, *rest = part.read_bytes().splitlines(keepends=True)
    part.write_bytes(first[:50] + b"\n" + b"".join(rest))
    with pytest.raises(ValueError, match=r"line 1 of \S+ is damaged or was changed: delete that line"):
        run(tmp_path, data[:3])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": FakeModel(seed=1)}, r'config was {"seed": 0}, now {"seed": 1}'),
        ({"model": FakeModel(weight=0.5)}, "weights was"),
        ({"variants": CHEAP[:2]}, "variants was"),
    ],
)
def test_runs_are_not_mixed(tmp_path, data, change, said):
    run(tmp_path, data[:2])
    before = sorted(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    with pytest.raises(ValueError, match=said):
        run(tmp_path, data[:2], **change)
    assert sorted(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()) == before
    assert run(tmp_path, data[:2], **change, fresh=True)["images"] == 2


def test_other_data_are_not_mixed(tmp_path, data):
    run(tmp_path, data[:2])
    record = replace(data[0].records[0], text="another text")
    changed = [replace(data[0], records=(record, *data[0].records[1:])), data[1]]
    with pytest.raises(ValueError, match=f"annotations of image {data[0].image_id} have changed"):
        run(tmp_path, changed)


def test_every_weight_counts(data):
    model = FakeModel()
    before = weights_digest(model.networks)
    with torch.no_grad():
        model.networks.clip.bias[1] = 1e-6
    assert weights_digest(model.networks) != before


def test_failures_are_rows_with_their_reason_and_iou_0(tmp_path, data):
    blank = replace(data[0].records[0], text="!!!")
    bad_sentence = replace(data[0], records=(blank, *data[0].records[1:]))
    missing = replace(data[1], path=tmp_path / "none.jpg")
    damaged = replace(data[2], segmentations=({"size": [9, 9], "counts": ""}, *data[2].segmentations[1:]))
    samples = [bad_sentence, missing, damaged, data[3], data[4]]
    summary = run(tmp_path / "out", samples, FakeModel(fail=(3,)))
    rows = [json.loads(line) for line in lines(tmp_path / "out")]
    assert len(rows) == len(CHEAP) * sum(len(s.records) for s in samples)
    reasons = {r["image_id"]: r["error"] for r in rows if "error" in r and r["image_id"] != data[0].image_id}
    assert "FileNotFoundError: no image" in reasons[data[1].image_id]
    assert "damaged segmentation" in reasons[data[2].image_id]
    assert reasons[data[3].image_id] == "RuntimeError: out of memory"
    assert data[4].image_id not in reasons
    failed = [r for r in rows if "error" in r]
    assert all(r["iou"] == r["intersection"] == 0 and not r["hit"] for r in failed)
    assert all(r["union"] == r["area"] > 0 for r in failed if r["image_id"] == data[1].image_id)
    mine = [r for r in rows if r["image_id"] == data[0].image_id and "error" in r]
    assert {r["text"] for r in mine} == {"!!!"}  # one sentence fails alone
    assert summary["errors"] == sum(r["variant"] == "full" for r in failed)
    assert summary["missing_images"] == [data[1].image_id]


def test_retry_runs_only_what_failed(tmp_path, data):
    run(tmp_path / "good", data[:4])
    run(tmp_path / "out", data[:4], FakeModel(fail=(3,)))
    assert run(tmp_path / "out", data[:4], FakeModel())["errors"] == len(data[2].records)  # not without being asked
    model = FakeModel()
    assert run(tmp_path / "out", data[:4], model, retry=True)["errors"] == 0
    assert (model.asked, lines(tmp_path / "out")) == (1, lines(tmp_path / "good"))


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_few_images_have_a_report_too(tmp_path, data, limit):
    evaluate(FakeModel(), data, CHEAP, "oracle", tmp_path, limit=limit)
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_intervals_of_single_images_hold_their_values_and_can_be_drawn(tmp_path):
    """Of the 160 test scenes 72 could not be drawn alone."""
    for number, sample in enumerate(load_toyref("test")[::10]):
        summary = run(tmp_path / str(number), [sample])
        for s in (s for styles in summary["variants"].values() for s in styles.values()):
            for metric in ("accuracy", "mIoU", "oIoU", "Pr@0.5"):
                low, high = s[f"{metric}_95"]
                assert 0 <= low <= s[metric] <= high <= 1
                assert low < high
        show_intervals(summary, Figure().add_subplot())


def test_a_variant_counts_once(tmp_path, data):
    once = run(tmp_path / "once", data[:3], variants=["largest", "full"])
    for n, variants in enumerate((["largest", "full", "largest"], ["largest", "largest", "full", "full"])):
        assert run(tmp_path / str(n), data[:3], variants=variants) == once
        assert lines(tmp_path / str(n)) == lines(tmp_path / "once")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"limit": 2, "shard": (3, 3)}, "shard 3/3 of 2 images is empty: take at most 2 shards"),
        ({"limit": 1, "shard": (2, 2)}, "shard 2/2 of 1 images is empty"),
        ({"shard": (41, 50)}, "shard 41/50 of 40 images is empty"),
        ({"limit": 0}, "a limit of 0 images leaves nothing"),
        ({"limit": -1}, "a limit of -1 images leaves nothing"),
        ({"variants": []}, "no variant is given: choose among g, gs"),
        ({"kind": "best"}, "unknown proposals 'best': choose one of weak"),
        ({"data": []}, "none of the 0 images has an expression"),
        ({"data": [replace(load_toyref("val")[0], records=())]}, "none of the 1 images has an expression .* style"),
        ({"data": load_toyref("val")[:2] * 2}, "image 20000 comes 2 times in the data"),
        ({"data": [replace(s, records=s.records * 2) for s in load_toyref("val")[:1]]}, "have the same sent_id"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_before_anything_is_written(tmp_path, data, change, said):
    model, change = FakeModel(), {"data": data[:40], "variants": CHEAP, "kind": "oracle"} | change
    with pytest.raises(ValueError, match=said):
        evaluate(model, change.pop("data"), change.pop("variants"), change.pop("kind"), tmp_path / "out", **change)
    assert model.asked == 0
    assert not (tmp_path / "out").exists()


def test_images_without_expressions_do_not_count(tmp_path, data):
    silent = [replace(s, records=()) for s in data[10:13]]
    assert run(tmp_path / "a", [silent[0], *data[:2], *silent[1:]]) == run(tmp_path / "b", data[:2])
    assert run(tmp_path / "c", [*silent, *data[:3]], limit=2)["images"] == 2


def test_rows_say_what_was_not_read(data):
    record = replace(data[0].records[0], text="the cat " * 10)
    (row,) = evaluate_scene(FakeModel(), replace(data[0], records=(record,)), ["gs"], "oracle")
    assert row["unread"] == record.text[77:]
    assert all("unread" not in r for r in evaluate_scene(FakeModel(), data[0], ["gs", "largest"], "oracle"))


class Odd:
    pass


@pytest.mark.parametrize(
    "error",
    [ValueError(f"bad {Odd()}"), OSError(f"cannot read {io.BytesIO()!r}"), TypeError(f"{open} and {Odd().__init__}"),
     RuntimeError("at 0x7F00ABCDEF12, 0Xdeadbeef")],
)  # fmt: skip
def test_reasons_hold_no_addresses_so_equal_failures_are_equal(tmp_path, data, error):
    for out in ("a", "b"):
        run(tmp_path / out, data[:2], FakeModel(fail=(1,), error=error))
    assert lines(tmp_path / "a") == lines(tmp_path / "b")
    assert "0x…" in lines(tmp_path / "a")[0]
    assert not re.search("0[xX][0-9a-fA-F]", "".join(lines(tmp_path / "a")))


@pytest.mark.parametrize(
    "change",
    [
        {"records": ("text", "the \ud83d cat")},
        {"records": ("text", "\udcff")},
        {"records": ("style", "\ud800")},
        {"records": ("style", None)},
        {"segmentations": ({"size": [-1, -1], "counts": ""},)},
        {"size": (-128, -128)},
        {"size": (0, 128)},
        {"path": Path("no\0where.jpg")},
    ],
)
def test_a_bad_image_or_sentence_does_not_stop_the_run(tmp_path, data, change):
    (what, value), first = next(iter(change.items())), data[0]
    if what == "records":
        value = (replace(first.records[0], **{value[0]: value[1]}), *first.records[1:])
    elif what == "segmentations":
        value = (*value, *first.segmentations[1:])
    summary = evaluate(FakeModel(), [replace(first, **{what: value}), *data[1:3]], CHEAP, "oracle", tmp_path)
    assert summary["rows"] == len(CHEAP) * sum(len(s.records) for s in data[:3])
    assert not [r for r in map(json.loads, lines(tmp_path)) if "error" in r and r["image_id"] != first.image_id]
    if what != "records":  # a damaged object costs its own sentences alone
        lost = [r for r in first.records if what != "segmentations" or r.target == 0]
        assert summary["failed"] == len(CHEAP) * len(lost) > 0


@pytest.mark.parametrize("spoil", ["gone", "another size", "no image", "empty", "a folder"])
def test_a_picture_spoilt_after_its_evaluation_does_not_cost_the_report(tmp_path, data, spoil):
    path = tmp_path / "x.jpg"
    shutil.copy(data[0].path, path)
    samples = [replace(data[0], path=path), *data[1:3]]
    evaluate(FakeModel(), samples, ["full"], "oracle", tmp_path / "out")
    before = lines(tmp_path / "out")
    assert "IoU 0.00, image 20000" in (tmp_path / "out" / "report.html").read_text()
    path.unlink()
    if spoil == "another size":
        Image.new("RGB", (9, 9)).save(path)
    elif spoil == "a folder":
        path.mkdir()
    elif spoil != "gone":
        path.write_bytes(b"no image" if spoil == "no image" else b"")
    evaluate(FakeModel(), samples, ["full"], "oracle", tmp_path / "out")
    assert lines(tmp_path / "out") == before
    page = (tmp_path / "out" / "report.html").read_text()
    assert "no picture: " in page
    assert "image/jpeg" in page  # the others'


def test_locks_are_gone_when_the_work_is_done(tmp_path, data):
    def locks():
        return sorted(p.name for p in tmp_path.rglob(".shard*"))

    journal = Journal(tmp_path)
    with journal.at_work((1, 2)), Journal(tmp_path).at_work((1, 2)):  # one process may take it twice
        assert locks() == [".shard1of2.lock"]
    assert locks() == []
    run(tmp_path, data[:2])
    assert locks() == []
    with pytest.raises(RuntimeError, match="stop"), journal.at_work((2, 2)):
        raise RuntimeError("stop")
    assert locks() == []


def test_unknown_variant(tmp_path, data):
    with pytest.raises(
        ValueError,
        match=r"unknown variant 'best': choose among g, gs, ds, full, refam, concept, hybridgl, relations, random",
    ):
        run(tmp_path, data[:1], variants=["best"])


def test_random_does_not_depend_on_order(data):
    def choices(samples):
        return {(r["sent_id"]): r["rle"] for s in samples for r in evaluate_scene(FakeModel(), s, ["random"], "oracle")}

    found = choices(data[:5])
    assert choices(data[:5][::-1]) == found
    assert len(set(found.values())) > 5


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def begin(out, data, model, variants=CHEAP, **kwargs):
    """A run in a process of its own."""

    def alone():
        torch.set_num_threads(1)  # a fork has none of its parent's threads, and would wait for them for ever
        run(out, data, model, variants, **kwargs)

    process = multiprocessing.get_context("fork").Process(target=alone)
    process.start()
    return process


def wait_for_lines(out, size=0, process=None):
    """Until ``parts`` has grown beyond ``size`` bytes, two minutes at most."""
    patience = time.monotonic() + 120
    while time.monotonic() < patience and (process is None or process.is_alive()):
        if sum(p.stat().st_size for p in out.glob("parts/*")) > size:
            return
        time.sleep(0.001)


def kill_loop(out, start, kills, seed=0):
    """Start, wait for the first new line, wait a random moment, kill; ``kills`` times. Returns how often it was running."""
    rng, running = random.Random(seed), 0
    for _ in range(kills):
        size = sum(p.stat().st_size for p in out.glob("parts/*"))
        process = start()
        wait_for_lines(out, size, process)
        time.sleep(rng.uniform(0, 0.02))
        running += process.is_alive()
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    return running


@pytest.mark.slow
@needs_fork
def test_twenty_kills_change_nothing(tmp_path, data):
    data, variants = data[:120], CHEAP[:2]
    assert sum(len(s.records) for s in data) >= 200
    run(tmp_path / "whole", data, variants=variants)
    model = FakeModel(delay=0.005)
    assert kill_loop(tmp_path / "killed", lambda: begin(tmp_path / "killed", data, model, variants), 20) >= 15
    assert not (tmp_path / "killed" / "results.jsonl").exists(), "the kills came too late"
    run(tmp_path / "killed", data, variants=variants)
    assert sorted(lines(tmp_path / "killed")) == sorted(lines(tmp_path / "whole"))
    summaries = [json.loads((tmp_path / d / "summary.json").read_text()) for d in ("killed", "whole")]
    assert summaries[0] == summaries[1]


@needs_fork
def test_a_second_command_on_the_same_images_is_refused_until_the_first_ends(tmp_path, data):
    data, out = data[:30], tmp_path / "out"
    run(tmp_path / "whole", data)
    first = begin(out, data, FakeModel(delay=0.2))
    wait_for_lines(out)
    try:
        for changes in ({}, {"shard": (1, 2)}, {"shard": (1, 2), "fresh": True}):
            model, start = FakeModel(), time.monotonic()
            with pytest.raises(ValueError, match="another command is at work on shard1of1 in"):
                run(out, data, model, **changes)
            assert model.asked == 0
            assert [p.name for p in out.glob(".shard*")] == [".shard1of1.lock"]  # the refused leave none
            assert time.monotonic() - start < 3
        assert first.is_alive()
    finally:
        os.kill(first.pid, signal.SIGKILL)  # which frees the lock
        first.join()
    run(out, data)
    assert lines(out) == lines(tmp_path / "whole")


@needs_fork
def test_shards_run_at_once_and_the_last_one_sums_up_all(tmp_path, data):
    data, out = data[:24], tmp_path / "out"
    run(tmp_path / "whole", data)
    shards = [begin(out, data, FakeModel(delay=0.05), shard=(i, 3)) for i in (1, 2, 3)]
    wait_for_lines(out)
    with pytest.raises(ValueError, match="at work on shard1of3"):  # it would drop what the other shards write
        run(out, data, shard=(2, 3), fresh=True)
    for shard in shards:
        shard.join()
    assert [s.exitcode for s in shards] == [0, 0, 0]
    assert lines(out) == lines(tmp_path / "whole")


def launch(arguments, out, processes=1):
    """As a user starts it. Without a GPU "--multi_gpu" starts processes on the CPU; "--cpu" would start one alone."""
    launcher = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1", "--mixed_precision", "no",
                "--dynamo_backend", "no", "--num_cpu_threads_per_process", "1", "--num_processes", str(processes)]  # fmt: skip
    return subprocess.run(
        [sys.executable, *(launcher if processes > 1 else []), "-m", "refdiff_lite.evaluation", *arguments, "--out", str(out)],
        capture_output=True, text=True, timeout=900, cwd=Path(__file__).parents[2],
    )  # fmt: skip


@pytest.mark.slow
def test_two_processes_give_exactly_what_one_gives(tmp_path):
    arguments = ["toyref", "--split", "unseen", "--style", "noun", "--limit", "5", "--proposals", "felzenszwalb"]
    arguments += ["--variant", "full", "--variant", "random"]
    for out, processes in (("one", 1), ("two", 2)):
        done = launch(arguments, tmp_path / out, processes)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count("| full | all |") == 1
    assert len(list((tmp_path / "two" / "parts").iterdir())) == 2
    for name in ("results.jsonl", "summary.json", "table.md", "table.tex", "report.html"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


@pytest.mark.slow
def test_all_variants_and_baselines_run_on_the_bundled_networks(tmp_path):
    data = load_toyref("val", "toyref", 2)
    summary = evaluate(RefDiff.from_preset("toy"), data, METHODS, "felzenszwalb", tmp_path)
    assert summary["errors"] == 0
    found = {v: s["all"] for v, s in summary["variants"].items()}
    assert tuple(found) == METHODS
    assert {s["n"] for s in found.values()} == {sum(len(s.records) for s in data)}
    assert all(found["oracle"]["mIoU"] >= found[v]["mIoU"] for v in METHODS if v != "g")


@pytest.mark.slow
def test_bundled_networks_keep_what_the_sweep_measured(tmp_path):
    """On the first val images: a number of ``tune.json`` above the interval found here means that something was lost."""
    tune = json.loads((data_dir() / "models" / "toy" / "tune.json").read_text())
    samples = load_toyref("val", "noun", 40)
    summary = evaluate(RefDiff.from_preset("toy"), samples, ["gs", "ds", "full"], "oracle", tmp_path)
    found = {v: s["noun"] for v, s in summary["variants"].items()}
    promised = next(iter(tune["attention"].values()))["gs_accuracy"]
    assert promised >= 0.7
    assert found["gs"]["accuracy_95"][1] >= promised
    assert found["full"]["accuracy_95"][1] >= tune["full"]["noun"]
    assert found["ds"]["accuracy"] >= 0.9
    assert found["full"]["accuracy"] >= max(found["gs"]["accuracy"], found["ds"]["accuracy"]) - 0.05
    assert summary["chance"] < 0.45
    assert all(f"| {v} |" in table(summary) for v in found)
