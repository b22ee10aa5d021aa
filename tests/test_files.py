"""Files are whole or not there, whoever writes at once, whatever lies in the way."""

import json
import multiprocessing
import os
import stat

import numpy as np
import pytest
import torch

from refdiff_lite.files import write_text, write_whole
from refdiff_lite.masks import cached


def rewrite(path, letter, times):
    for _ in range(times):
        write_text(path, letter * 20_000)


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@needs_fork
def test_three_writers_of_one_file_never_fail_and_leave_one_of_their_texts(tmp_path):
    fork = multiprocessing.get_context("fork")
    writers = [fork.Process(target=rewrite, args=(tmp_path / "x.json", letter, 60)) for letter in "abc"]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        if (tmp_path / "x.json").exists():
            text = (tmp_path / "x.json").read_text()
            assert text in [letter * 20_000 for letter in "abc"]
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def compute_masks(image):
    masks = torch.zeros(3, 32, 32, dtype=torch.bool)
    masks[0] = True
    for _ in range(60):
        for path in (p for p in masks_folder().glob("[!.]*")):
            path.unlink(missing_ok=True)  # so that everybody writes again
        assert torch.equal(cached(image, {}, lambda: masks), masks)


def masks_folder():
    from refdiff_lite.files import cache_dir

    return cache_dir() / "masks"


@needs_fork
def test_three_writers_of_one_key_of_the_cache_never_fail(tmp_path, monkeypatch):
    """With one temporary name for all, 8 of 180 failed."""
    monkeypatch.setenv("REFDIFF_CACHE", str(tmp_path))
    fork, image = multiprocessing.get_context("fork"), np.zeros((32, 32, 3), np.uint8)
    writers = [fork.Process(target=compute_masks, args=(image,)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert all(p.name[0] != "." for p in masks_folder().iterdir())


@pytest.mark.parametrize("name", ["x.json", ".x.json.partial", ".x.partial.json", "x.json.tmp", "x.tmp"])
@pytest.mark.parametrize("dangling", [False, True])
def test_a_planted_link_is_not_followed(tmp_path, name, dangling):
    victim, folder = tmp_path / "victim", tmp_path / "out"
    folder.mkdir()
    if not dangling:
        victim.write_text("precious")
    (folder / name).symlink_to(victim)
    write_text(folder / "x.json", "new")
    assert (folder / "x.json").read_text() == "new"
    assert not (folder / "x.json").is_symlink()
    assert victim.read_text() == "precious" if not dangling else not victim.exists()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, error):
    write_text(tmp_path / "x.json", "old")

    def fail(path):
        path.write_text("half")
        raise error

    with pytest.raises(error):
        write_whole(tmp_path / "x.json", fail)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("x.json", "old")]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_files_have_the_mode_that_the_user_gives_to_files(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_text(tmp_path / "x.json", json.dumps("x"))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x.json").stat().st_mode) == 0o666 & ~umask
