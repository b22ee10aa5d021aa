"""A run's memory on disk: one line per image, appended and synced, so that a kill at any moment loses one image at most.

A line is either whole or not there, so no image is half counted, and lines are found by image, so none counts twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from ..datasets import Sample
from ..files import write_text
from ..networks import Networks

Rows = list[dict[str, Any]]


def weights_digest(nets: Networks, with_sam: bool = False) -> str:
    """Hash of every parameter that can change a result, as it lies in memory."""
    found = hashlib.blake2b(digest_size=8)
    parts = [nets.sd.vae, nets.sd.unet, nets.sd.text_encoder, nets.clip] + ([nets.sam.model] if with_sam else [])
    for part in parts:
        for name, value in part.state_dict().items():
            found.update(name.encode())
            found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()


@contextmanager
def at_work(folder: Path, shard: tuple[int, int], fresh: bool = False) -> Iterator[None]:
    """Hold one shard of the run in ``folder``, so that no second command does the same work or drops what we write.

    The lock ends with the process, also when that is killed. One process may take it twice.

    Raises:
        ValueError: another process holds this shard, or a share of another size; with ``fresh``, any shard.
    """
    own, share = folder / f".shard{shard[0]}of{shard[1]}.lock", f"of{shard[1]}"
    for path in sorted(folder.glob(".shard*.lock")):
        if path != own and (fresh or not path.stem.endswith(share)):
            with _hold(path):
                pass
    with _hold(own):
        yield


def _hold(path: Path) -> Any:
    try:
        return FileLock(path, timeout=0, is_singleton=True).acquire()
    except Timeout:
        raise ValueError(
            f"another command is at work on {path.stem[1:]} in {path.parent}: wait for it, or choose another --out"
        ) from None


class Journal:
    """The lines of a run in ``folder/parts/``, one file per worker, and what the run is made of in ``folder/run.json``."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.parts = folder, folder / "parts"
        self.alone = FileLock(folder / ".run.lock")
        """Held while files of the whole run are read and written: two shards may begin or end at once."""

    def open(self, identity: dict[str, Any], fresh: bool = False) -> None:
        """Begin a run, or go on with one of the same identity.

        Raises:
            ValueError: what lies in the folder is of another config, other weights or other data; tells which.
        """
        with self.alone:
            self._open(json.loads(json.dumps(identity)), fresh)

    def _open(self, identity: dict[str, Any], fresh: bool) -> None:
        if fresh:
            shutil.rmtree(self.parts, ignore_errors=True)
            (self.folder / "run.json").unlink(missing_ok=True)
        try:
            before = json.loads((self.folder / "run.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            before = None
        except ValueError as error:
            raise ValueError(f"{self.folder / 'run.json'} is damaged; start again with --fresh") from error
        if before is not None and before != identity:
            keys = [k for k in {**before, **identity} if before.get(k) != identity.get(k)]
            told = "; ".join(f"{k} was {_short(before.get(k), identity.get(k))}" for k in keys)
            raise ValueError(
                f"{self.folder} holds another run: {told}. Choose another --out, or drop that run with --fresh"
            )
        self.parts.mkdir(exist_ok=True)
        if before is None:
            write_text(self.folder / "run.json", json.dumps(identity, indent=1) + "\n")

    def _lines(self) -> Iterator[dict[str, Any]]:
        for path in sorted(self.parts.glob("*.jsonl")):
            *whole, _torn = path.read_bytes().split(b"\n")
            for number, line in enumerate(whole, start=1):
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise ValueError(
                        f"{path} is damaged in line {number}; delete that line or start again with --fresh"
                    ) from error

    def rows(self, samples: Iterable[Sample]) -> dict[int, Rows]:
        """Rows of the images that are done; where an image was run again after an error, those with fewer errors.

        Raises:
            ValueError: an image's annotations are not those that were evaluated, or a file is damaged.
        """
        digests = {s.image_id: s.digest() for s in samples}
        found: dict[int, Rows] = {}
        for line in self._lines():
            number, rows = line["image_id"], line["rows"]
            if number not in digests:
                continue
            if line["digest"] != digests[number]:
                raise ValueError(
                    f"{self.folder} holds a run on other data: the annotations of image {number} have changed. "
                    "Choose another --out, or drop that run with --fresh"
                )
            if number not in found or errors(rows) < errors(found[number]):
                found[number] = rows
        return found

    def append(self, worker: str, sample: Sample, rows: Rows) -> None:
        """Write the rows of one image as one line, and return when it is on the disk."""
        line = {"image_id": sample.image_id, "digest": sample.digest(), "rows": rows}
        path = self.parts / f"{worker}.jsonl"
        with path.open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # a kill tore the last line
                    file.seek(0)
                    file.truncate(file.read().rfind(b"\n") + 1)
            file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def errors(rows: Rows) -> int:
    return sum("error" in r for r in rows)


def _short(before: Any, now: Any) -> str:
    """Both values, or for dictionaries only the entries that differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [k for k in {**before, **now} if before.get(k) != now.get(k)]
        before, now = {k: before.get(k) for k in keys}, {k: now.get(k) for k in keys}
    return f"{json.dumps(before)}, now {json.dumps(now)}"
