"""A stand-in for the hub on 127.0.0.1: enough of its protocol for its own client, with repositories of the true layout.

``StandInHub(folder)`` serves ``folder/<owner>/<name>/...``, at the revisions that the table of weights pins. ``faults`` says what goes wrong with a
file (or with "*", every file): a status such as 503, "cut" (half of the bytes, then the line drops, every time), "cut once",
"slow", "wrong size", "flipped" (one bit of the content, its checksum kept).
"""

import hashlib
import threading
import time
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from refdiff_lite.networks import hub

PINNED = {weights.repo: weights.revision for weights in hub.WEIGHTS.values()}
CODES = {403: "GatedRepo", 404: "EntryNotFound"}


@cache
def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class StandInHub:
    def __init__(self, folder: Path):
        self.folder, self.faults, self.asked = folder, {}, []
        standin = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def do_HEAD(self):
                standin.answer(self, body=False)

            def do_GET(self):
                standin.answer(self, body=True)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def answer(self, request, body: bool) -> None:
        owner, name, how, revision, *rest = (request.path.split("?")[0].strip("/") + "////").split("/")
        rest = [part for part in rest if part]
        path, file = self.folder / owner / name / Path(*rest), "/".join(rest)
        fault = self.faults.get(file, self.faults.get("*"))
        if how != "resolve" or revision != PINNED[f"{owner}/{name}"] or not path.is_file():
            fault = 404
        if isinstance(fault, int):
            request.send_response(fault)
            if fault in CODES:
                request.send_header("X-Error-Code", CODES[fault])
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        size = path.stat().st_size
        start = int((request.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
        if body:
            self.asked.append((file, start))
        request.send_response(206 if start else 200)
        large = path.suffix == ".safetensors"
        etag = sha256(path) if large else sha256(path)[:40]
        request.send_header("ETag", f'"{etag}"')
        if large:
            request.send_header("X-Linked-ETag", f'"{etag}"')
            request.send_header("X-Linked-Size", str(size + 7 if fault == "wrong size" else size))
        request.send_header("X-Repo-Commit", revision)
        request.send_header("Accept-Ranges", "bytes")
        request.send_header("Content-Length", str(size - start))
        if start:
            request.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        request.end_headers()
        if body:
            self.send(request, path, start, size, fault, file)

    def send(self, request, path, start, size, fault, file) -> None:
        end = size
        if fault in ("cut", "cut once") and large_enough(size):
            end = start + (size - start) // 2
            if fault == "cut once":
                self.faults.pop(file, None)
        with path.open("rb") as source:
            source.seek(start)
            while start < end:
                piece = source.read(min(1 << 20 if fault != "slow" else 4096, end - start))
                if fault == "flipped" and start <= size // 2 < start + len(piece):
                    at = size // 2 - start
                    piece = piece[:at] + bytes([piece[at] ^ 1]) + piece[at + 1 :]
                request.wfile.write(piece)
                start += len(piece)
                if fault == "slow":
                    time.sleep(0.05)
        if end < size:
            request.wfile.flush()
            request.connection.close()


def large_enough(size: int) -> bool:
    return size > 1000
