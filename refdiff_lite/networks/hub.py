"""The one table of weights on the hub, and how they come to this machine: safetensors only, at pinned revisions."""

from __future__ import annotations

import errno
import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache

MAX_HEADER = 100 * 2**20
"""Longest header of a safetensors file, by its format."""


@dataclass(frozen=True)
class Weights:
    """Files of one repository at one commit, with the bytes of the large ones (small text files count as 0)."""

    repo: str
    revision: str
    files: dict[str, int]
    licence: str

    def cached(self) -> dict[str, Path]:
        """Files in the hub's cache on this machine, sound or not."""
        try:
            found = {f: try_to_load_from_cache(self.repo, f, revision=self.revision) for f in self.files}
        except OSError:  # no access to it: then nothing is there for us
            return {}
        return {f: Path(path) for f, path in found.items() if isinstance(path, str)}

    def missing(self) -> list[str]:
        """Files that are not in the hub's cache on this machine, or only damaged."""
        there = self.cached()
        return [f for f, size in self.files.items() if f not in there or not sound(there[f], size)]

    @property
    def folder(self) -> Path:
        """Where the files lie in the hub's cache.

        Raises:
            OSError: there is none.
        """
        for file, path in self.cached().items():
            return path.parents[file.count("/")]
        raise FileNotFoundError(f"nothing of {self.repo} is in the hub's cache")

    @property
    def to_download(self) -> int:
        return sum(self.files[f] for f in self.missing())


def sound(path: Path, size: int = 0) -> bool:
    """Is the file what its name says: no pointer of git-lfs, not empty, not cut short?

    Weights must have ``size`` bytes to 1 %, and exactly as many as their header lays out; the numbers are not read.
    """
    try:
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
            return True
        with path.open("rb") as file:
            start = file.read(32)
            if path.suffix != ".safetensors":
                return bool(start) and not start.startswith(b"version https://git-lfs")
            length = int.from_bytes(start[:8], "little")
            if not 0 < length < MAX_HEADER:
                return False
            file.seek(8)
            layout = json.loads(file.read(length))
        end = 8 + length + max(entry["data_offsets"][1] for name, entry in layout.items() if name != "__metadata__")
        return end == path.stat().st_size and abs(end - size) <= 0.01 * size
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return False


def has_its_checksum(path: Path) -> bool:
    """Has a file of the hub's cache the SHA-256 that the hub gave it? True where the hub tells none (small text files)."""
    expected = path.resolve().name  # the cache keeps content under its checksum, and names as links to it
    if not re.fullmatch("[0-9a-f]{64}", expected):
        return True
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == expected


def _texts(folder: str, *names: str) -> dict[str, int]:
    return {f"{folder}/{name}": 0 for name in names}


WEIGHTS = {
    # The half-precision files serve every device: the CPU widens them to fp32 when they are loaded.
    "sd15": Weights(
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
        {
            "model_index.json": 0,
            **_texts("scheduler", "scheduler_config.json"),
            **_texts("tokenizer", "merges.txt", "special_tokens_map.json", "tokenizer_config.json", "vocab.json"),
            "text_encoder/config.json": 0,
            "text_encoder/model.fp16.safetensors": 246_144_864,
            "unet/config.json": 0,
            "unet/diffusion_pytorch_model.fp16.safetensors": 1_719_125_304,
            "vae/config.json": 0,
            "vae/diffusion_pytorch_model.fp16.safetensors": 167_335_342,
        },
        "CreativeML OpenRAIL-M",
    ),
    "openai": Weights(
        "timm/vit_base_patch16_clip_224.openai",
        "977e3dd0ec55ab8da155f2fbeb6b5f54948b6e3d",
        {"open_clip_model.safetensors": 598_516_980},
        "MIT",
    ),
    "laion": Weights(
        "laion/CLIP-ViT-B-16-laion2B-s34B-b88K",
        "7288da5a0d6f0b51c4a2b27c624837a9236d0112",
        {"open_clip_model.safetensors": 598_500_000},  # the same network; the file's own size to about 0.1 %
        "MIT",
    ),
    "sam-base": Weights(
        "facebook/sam-vit-base",
        "70c1a07f894ebb5b307fd9eaaee97b9dfc16068f",
        {"config.json": 0, "preprocessor_config.json": 0, "model.safetensors": 374_979_480},
        "Apache-2.0",
    ),
    "sam-huge": Weights(
        "facebook/sam-vit-huge",
        "87aecf0df4ce6b30cd7de76e87673c49644bdf67",
        {"config.json": 0, "preprocessor_config.json": 0, "model.safetensors": 2_564_500_000},  # to about 0.1 %
        "Apache-2.0",
    ),
}
"""Commits as public projects pin them: no hub could be asked while this was written."""


def free_bytes(folder: Path) -> int:
    """Free disk where ``folder`` is or will be; 0 where we may not look."""
    for place in (folder, *folder.parents):
        try:
            return shutil.disk_usage(place).free
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            break
    return 0


def command(names: Sequence[str]) -> str:
    """What to type to fetch these entries of :data:`WEIGHTS`."""
    clip = " --clip laion" if "laion" in names else ""
    return f"refdiff-lite download sd15{clip}{' --sam huge' if 'sam-huge' in names else ''}"


def check(names: list[str]) -> None:
    """Refuse before any download what cannot work.

    Raises:
        OSError: files are missing and the hub is switched off, or the disk is too small for them.
    """
    need = sum(WEIGHTS[n].to_download for n in names)
    if not any(WEIGHTS[n].missing() for n in names):
        return
    if constants.HF_HUB_OFFLINE:
        raise OSError(
            f"the weights {', '.join(n for n in names if WEIGHTS[n].missing())} are not on this machine, or are damaged, and "
            f'HF_HUB_OFFLINE is set. Unset it and run `{command(names)}` once, or use the offline preset "toy".'
        )
    cache = Path(constants.HF_HUB_CACHE)
    if (free := free_bytes(cache)) < need:
        raise OSError(
            f"{need / 1e9:.1f} GB are to be downloaded but only {free / 1e9:.1f} GB are free at {cache}; make room, or "
            "set HF_HOME to a folder on a larger disk that you may write to"
        )


def fetch(name: str) -> Path:
    """Folder with the files of one entry of :data:`WEIGHTS`; downloads those that are missing or damaged, one by one.

    A file counts once it has the checksum that the hub gives it. Whole files are kept when a download breaks off. The
    file that broke off begins anew: the hub's client goes on after a cut within one call, but keeps nothing for the next.

    Raises:
        OSError: as :func:`check` says; or the hub was not reached, has no such file, or refuses it; or the disk is full.
    """
    check([name])
    weights = WEIGHTS[name]
    there, missing = weights.cached(), weights.missing()
    try:
        for file in missing:  # in this thread, so that Ctrl-C is obeyed at once
            path = Path(hf_hub_download(weights.repo, file, revision=weights.revision, force_download=file in there))
            if not sound(path, weights.files[file]) or not has_its_checksum(path):
                path.resolve().unlink()
                raise ValueError(f"{file} came damaged and was removed")
    except Exception as error:  # the hub's errors have many bases, by version
        raise OSError(f"{weights.repo} could not be downloaded: {_reason(error, name)}") from error
    finally:
        _sweep(Path(constants.HF_HUB_CACHE), weights.repo)
    return weights.folder


def _reason(error: BaseException | None, name: str) -> str:
    """What went wrong with a download, and what to do."""
    weights, told, status = WEIGHTS[name], " ".join(str(error).split())[:200], None
    while error is not None and status is None:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            where = constants.HF_HUB_CACHE
            return f"the disk is full at {where}; make room, or set HF_HOME to a folder on a larger disk"
        status = getattr(getattr(error, "response", None), "status_code", None)
        error = error.__cause__ or error.__context__
    if status in (401, 403):
        page = f"https://huggingface.co/{weights.repo}"
        return f"the hub wants a login, or its licence accepted ({status}). See {page}, then `hf auth login`"
    if status == 404:
        return (
            f"the hub does not have what we ask for (404), revision {weights.revision[:7]}: {told}. It may have moved: "
            "look for a newer refdiff-lite"
        )
    when = f"later (the hub answers {status})" if status else f"when online ({told})"
    return (
        f"run `{command([name])}` again {when}. Whole files are kept, one that broke off begins anew. "
        'Or use the offline preset "toy"'
    )


def _sweep(cache: Path, repo: str) -> None:
    """Remove what killed downloads have left, but nothing that another process is writing."""
    folder = "models--" + repo.replace("/", "--")
    for left in (cache / folder / "blobs").glob("*.incomplete"):
        lock = cache / ".locks" / folder / f"{left.name.split('.')[0]}.lock"
        try:
            with FileLock(lock, timeout=0):
                left.unlink(missing_ok=True)
        except (Timeout, OSError):
            continue
