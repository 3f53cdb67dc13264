"""An HTTP/1.1 server that knows ranges, answers as late as it is told, fails when told, and counts."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


@dataclass
class RangeServer:
    """What it serves, how, and what it has seen. Change the settings while it runs."""

    folder: Path
    latency_s: float = 0.0
    """Before every answer."""
    fail_every: int = 0
    """Every n-th request is answered with 503; 0: none."""
    ranges: bool = True
    """Whether it honours ranges; without, it answers every request with the whole file."""
    url: str = ""
    requests: int = 0
    sent: int = 0
    """Bytes of bodies."""
    paths: list[str] = field(default_factory=list)
    """Method, path and range of every request, in order."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def reset(self) -> None:
        """Begin to count at zero."""
        with self.lock:
            self.requests = self.sent = 0
            self.paths.clear()

    def counted(self, line: str) -> bool:
        """Count a request; whether it is one that is to fail."""
        with self.lock:
            self.requests += 1
            self.paths.append(line)
            return bool(self.fail_every) and self.requests % self.fail_every == 0


@contextmanager
def range_server(folder: Path, latency_s: float = 0.0, fail_every: int = 0) -> Iterator[RangeServer]:
    """Serve the files below `folder` on a free port of this machine."""
    state = RangeServer(folder, latency_s, fail_every)
    handler = type("Handler", (_Handler,), {"state": state})
    server = _Server(("127.0.0.1", 0), handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no error."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: RangeServer
    disable_nagle_algorithm = True
    wbufsize = 1 << 20  # head and body in one packet

    def do_HEAD(self) -> None:
        """Only what a file is."""
        self._answer(with_body=False)

    def do_GET(self) -> None:
        """A file, or a range of it."""
        self._answer(with_body=True)

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def _answer(self, *, with_body: bool) -> None:
        state = self.state
        path = state.folder / unquote(urlsplit(self.path).path).lstrip("/")
        wanted = self.headers.get("Range") if state.ranges else None
        fails = state.counted(f"{self.command} {self.path} {wanted or ''}".strip())
        if state.latency_s:
            time.sleep(state.latency_s)
        if fails or not path.is_file():
            self.send_response(503 if fails else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        found = path.stat()
        start, stop = _range_of(wanted, found.st_size)
        self.send_response(200 if wanted is None else 206)
        if wanted is not None:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{found.st_size}")
        mark = hashlib.sha256(f"{found.st_ino} {found.st_size} {found.st_mtime_ns}".encode()).hexdigest()
        self.send_header("ETag", f'"{mark[:16]}"')
        self.send_header("Last-Modified", self.date_time_string(int(found.st_mtime)))
        self.send_header("Accept-Ranges", "bytes" if state.ranges else "none")
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        if with_body:
            with path.open("rb") as file:
                file.seek(start)
                body = file.read(stop - start)
            with state.lock:
                state.sent += len(body)
            self.wfile.write(body)


def _range_of(text: str | None, size: int) -> tuple[int, int]:
    """First byte, and the one after the last, of a header such as `bytes=0-99` or `bytes=-100`."""
    if text is None:
        return 0, size
    first, _, last = text.removeprefix("bytes=").partition("-")
    if not first:
        return max(0, size - int(last)), size
    return int(first), min(size, int(last) + 1) if last else size
