"""A run's memory on disk: one line per image, appended and synced, so that a kill at any moment loses one image at most.

A line is either whole or not there, so no image is half counted. It names the run that it belongs to and carries a
checksum, so that nothing is taken for a result that this run did not compute.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from ..datasets import Sample
from ..files import write_text

if TYPE_CHECKING:
    from ..networks import Networks

Rows = list[dict[str, Any]]
RESULTS = ("results.jsonl", "summary.json", "table.md", "table.tex", "report.html")
"""What is written at the end, beside ``run.json`` and ``parts/``."""
_FRESH = "Choose another --out, or drop that run with --fresh"


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def networks_identity(nets: Networks, with_sam: bool = False) -> dict[str, Any]:
    """What results depend on of the networks: their weights, and what of them is read how."""
    return {
        "networks": {
            **{name: getattr(nets, name) for name in ("name", "side", "layers", "self_layers")},
            "scheduler": {k: str(v) for k, v in sorted(nets.sd.scheduler.config.items()) if not k.startswith("_")},
            "clip_norm": [nets.clip_mean.tolist(), nets.clip_std.tolist()],
            **({"sam": nets.sam_id} if with_sam else {}),
        },
        "weights": weights_digest(nets, with_sam),
        "dtype": str(nets.dtype),
    }


def weights_digest(nets: Networks, with_sam: bool = False) -> str:
    """Hash of every parameter that can change a result, as it lies in memory."""
    import torch  # here, so that a refusal need not wait for it

    found = hashlib.blake2b(digest_size=8)
    parts = [*nets.parts, *([nets.sam.model] if with_sam else [])]
    for part in parts:
        for name, value in part.state_dict().items():
            found.update(name.encode())
            found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()


def code_digest(package: Path = Path(__file__).parents[1]) -> str:
    """Hash of the package's Python files, by name and content; line ends of all systems count alike."""
    files = sorted((p.relative_to(package).as_posix(), p) for p in package.rglob("*.py"))
    content = (name.encode() + b"\0" + p.read_bytes().replace(b"\r\n", b"\n") for name, p in files)
    return _hash(b"\0".join(content))


class Journal:
    """The lines of a run in ``folder/parts/``, one file per worker, and what the run is made of in ``folder/run.json``."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.parts, self.record = folder, folder / "parts", folder / "run.json"
        self.alone = FileLock(folder / ".run.lock")
        """Held while files of the whole run are read and written: two shards may begin or end at once."""
        self.run = ""
        """Name of the run in its lines, a hash of its identity; known once it is open."""

    @contextmanager
    def at_work(self, shard: tuple[int, int], fresh: bool = False) -> Generator[None]:
        """Hold one shard of the run, so that no second command does the same work or drops what we write.

        The lock ends with the process, also when that is killed. One process may take it twice.

        Raises:
            ValueError: another process holds this shard, or a share of another size; with ``fresh``, any shard.
        """
        own, share = self.folder / f".shard{shard[0]}of{shard[1]}.lock", f"of{shard[1]}"
        with self.alone:
            for path in sorted(self.folder.glob(".shard*.lock")):
                if path != own and (fresh or not path.stem.endswith(share)):
                    _hold(path).release()
            lock = _hold(own)
        try:
            yield
        finally:
            with self.alone:
                lock.release()
                if not lock.is_locked:
                    own.unlink(missing_ok=True)

    def check(self, identity: dict[str, Any]) -> dict[str, Any] | None:
        """What ``run.json`` says, None where there is none; refuse it if it differs. Nothing is written.

        Args:
            identity: what our run is made of, or as much of it as is known before networks are loaded.

        Raises:
            ValueError: what lies in the folder is of another config, other weights, code or data (tells which); or it
                is damaged.
        """
        try:
            before = json.loads(self.record.read_text(encoding="utf-8"))
            if not isinstance(before, dict):
                raise ValueError("it holds no object")
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{self.record} is damaged ({error}): delete it, for every line in {self.parts.name}/ says to which run "
                "it belongs; or start again with --fresh"
            ) from None
        now = json.loads(json.dumps(identity))
        if keys := [k for k in now if before.get(k) != now[k]]:
            told = "; ".join(f"{k} was {_short(before.get(k), now[k])}" for k in keys)
            why = " (code: the package's source files have changed)" if "code" in keys else ""
            raise ValueError(f"{self.folder} holds another run: {told}{why}. {_FRESH}")
        return before

    def open(self, identity: dict[str, Any], fresh: bool = False) -> None:
        """Begin a run, or go on with one of the same identity.

        Raises:
            ValueError: as :meth:`check`.
        """
        with self.alone:
            if fresh:  # results before lines before the record: whatever a kill leaves belongs together
                self._drop_results()
                shutil.rmtree(self.parts, ignore_errors=True)
                self.record.unlink(missing_ok=True)
            before = self.check(identity)
            self.run = _hash(json.dumps(identity, sort_keys=True).encode())
            if before is None:
                for _ in self._lines():  # a record may be lost, but no other run takes its lines
                    pass
                self._drop_results()
            self.parts.mkdir(exist_ok=True)
            if before is None:
                write_text(self.record, json.dumps(identity, indent=1) + "\n")

    def _drop_results(self) -> None:
        for name in RESULTS:
            (self.folder / name).unlink(missing_ok=True)

    def _lines(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Where each line stands, and the line."""
        for path in sorted(self.parts.glob("*.jsonl")):
            *whole, _torn = path.read_bytes().split(b"\n")
            for number, line in enumerate(whole, start=1):
                place = f"line {number} of {path}"
                found = _LINE.fullmatch(line)
                if not found or _hash(found[2]).encode() != found[1]:
                    raise ValueError(
                        f"{place} is damaged or was changed: delete that line, and its image is evaluated again; or "
                        "start again with --fresh"
                    )
                entry = json.loads(b"{" + found[2])
                if entry.get("run") != self.run:
                    raise ValueError(
                        f"{place} belongs to another run ({entry.get('run')}, this one is {self.run}): its config, "
                        f"weights, code, packages or data were others. Take that file away, or drop all with --fresh"
                    )
                yield place, entry

    def rows(self, samples: Iterable[Sample], variants: Sequence[str]) -> dict[int, Rows]:
        """Rows of the images that are done; where an image was run again after an error, those with fewer errors.

        Raises:
            ValueError: an image's annotations are not those that were evaluated, it lacks rows or has some twice, two
                lines disagree, or a file is damaged. Says in which line.
        """
        wanted = {s.image_id: s for s in samples}
        found: dict[int, Rows] = {}
        for place, line in self._lines():
            sample, rows = wanted.get(line["image_id"]), line["rows"]
            if sample is None:
                continue
            if line["digest"] != sample.digest():
                raise ValueError(
                    f"{self.folder} holds a run on other data: the annotations of image {sample.image_id} have changed "
                    f"since {place} was written. {_FRESH}"
                )
            expected = Counter((r.sent_id, v) for r in sample.records for v in variants)
            if Counter((r.get("sent_id"), r.get("variant")) for r in rows) != expected:
                raise ValueError(
                    f"{place} has not one row for each of the {len(expected)} sentences and variants of image "
                    f"{sample.image_id}: delete that line, and the image is evaluated again"
                )
            before = found.setdefault(sample.image_id, rows)
            if errors(rows) < errors(before):
                found[sample.image_id] = rows
            elif before != rows and not errors(rows):
                raise ValueError(
                    f"{place} and a line before it disagree on image {sample.image_id}: delete the one that is wrong"
                )
        return found

    def append(self, worker: str, sample: Sample, rows: Rows) -> None:
        """Write the rows of one image as one line, and return when it is on the disk."""
        line = {"run": self.run, "image_id": sample.image_id, "digest": sample.digest(), "rows": rows}
        content = json.dumps(line)[1:].encode()
        with (self.parts / f"{worker}.jsonl").open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # a kill tore the last line
                    file.seek(0)
                    file.truncate(file.read().rfind(b"\n") + 1)
            file.write(b'{"sum": "%s", %s\n' % (_hash(content).encode(), content))
            file.flush()
            os.fsync(file.fileno())


_LINE = re.compile(rb'\{"sum": "([0-9a-f]{16})", (.*)')


def errors(rows: Rows) -> int:
    return sum("error" in r for r in rows)


def _hold(path: Path) -> Any:
    try:
        lock = FileLock(path, timeout=0, is_singleton=True)
        lock.acquire()
        return lock
    except Timeout:
        raise ValueError(
            f"another command is at work on {path.stem[1:]} in {path.parent}: wait for it, or choose another --out"
        ) from None


def _short(before: Any, now: Any) -> str:
    """Both values, or for dictionaries only the entries that differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [k for k in {**before, **now} if before.get(k) != now.get(k)]
        before, now = {k: before.get(k) for k in keys}, {k: now.get(k) for k in keys}
    return f"{json.dumps(before)}, now {json.dumps(now)}"
