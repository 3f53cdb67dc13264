"""An HTTP proxy that fails a share of the requests, in a process of its own; it counts what goes through.

python tests/faulty_proxy.py SERVER_URL SEED

A request that fails gets one of: 503 with the SlowDown of object stores, 500, a connection that is reset
before the answer, or half of the answer's body. Which, and when, is drawn from the seed.
"""

from __future__ import annotations

import http.client
import json
import random
import socket
import struct
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE")
KINDS = ("slow", "error", "reset", "cut")
CONTROL = "/-proxy"
RESET = struct.pack("ii", 1, 0)
KEPT_BACK = {"connection", "keep-alive", "transfer-encoding", "content-length", "server", "date"}


@dataclass(frozen=True)
class FaultyProxy:
    """A proxy that runs; at first it fails nothing."""

    url: str

    def fail(self, share: float) -> None:
        """From now on this share of all requests."""
        self._ask(f"/fail/{share}")

    def counts(self) -> Counter[str]:
        """Since the last call: `requests`, `bytes` of answers' bodies, and failures by their kind."""
        return Counter(json.loads(self._ask("/counts")))

    def _ask(self, what: str) -> bytes:
        with urllib.request.urlopen(f"{self.url}{CONTROL}{what}", timeout=30) as answer:
            return bytes(answer.read())


@contextmanager
def faulty_proxy(server: str, seed: int = 0) -> Iterator[FaultyProxy]:
    """Start a proxy before the server at this address, and stop it at the end."""
    command = [sys.executable, __file__, server, str(seed)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield FaultyProxy(f"http://127.0.0.1:{int(process.stdout.readline())}")
    finally:
        process.kill()
        process.communicate()


@dataclass
class State:
    """What all connections share."""

    server: str
    chance: random.Random
    share: float = 0.0
    """Of the requests, which fail."""
    seen: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Proxy(BaseHTTPRequestHandler):
    """One connection of a client, with one of its own to the server."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 20
    state: State
    upstream: http.client.HTTPConnection | None = None

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def answer(self) -> None:
        """Whatever the method is."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.startswith(CONTROL):
            self._say(200, {}, self._control(self.path.removeprefix(CONTROL)))
            return
        kind = self._drawn()
        if kind == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.close_connection = True
        elif kind in {"slow", "error"}:
            code, name = (503, "SlowDown") if kind == "slow" else (500, "InternalError")
            text = f"<?xml version='1.0'?><Error><Code>{name}</Code><Message>fault</Message></Error>"
            self._say(code, {"Content-Type": "application/xml"}, text.encode())
        else:
            status, headers, found = self._forwarded(body)
            with self.state.lock:
                self.state.seen["bytes"] += len(found)
            self._say(status, headers, found, cut=kind == "cut")

    def _drawn(self) -> str | None:
        state = self.state
        with state.lock:
            state.seen["requests"] += 1
            if state.chance.random() >= state.share:
                return None
            kind = state.chance.choice(KINDS[:-1] if self.command == "HEAD" else KINDS)  # it has no body
            state.seen[kind] += 1
            return kind

    def _control(self, what: str) -> bytes:
        with self.state.lock:
            if what.startswith("/fail/"):
                self.state.share = float(what.removeprefix("/fail/"))
                return b""
            found = json.dumps(self.state.seen).encode()
            self.state.seen.clear()
            return found

    def _forwarded(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        for _ in range(2):  # the server may have closed a connection that nobody used for a while
            self.upstream = self.upstream or http.client.HTTPConnection(self.state.server, timeout=60)
            try:
                self.upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    self.upstream.putheader(name, value)  # Host among them: addresses may be signed
                self.upstream.endheaders(body or None)
                with self.upstream.getresponse() as answer:
                    found = answer.read()
                    headers = dict(answer.getheaders())
                    if self.command == "HEAD":
                        headers["X-Length"] = answer.getheader("Content-Length", "0")
                    return answer.status, headers, found
            except (http.client.HTTPException, OSError):
                self.upstream.close()
                self.upstream = None
        return 502, {}, b""

    def _say(self, status: int, headers: dict[str, str], body: bytes, *, cut: bool = False) -> None:
        self.send_response_only(status)
        length = headers.pop("X-Length", str(len(body)))
        for name, value in headers.items():
            if name.lower() not in KEPT_BACK:
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command == "HEAD":
            return
        if cut:
            self.close_connection = True
            body = body[: len(body) // 2]
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    """Closes connections without a word where they are to be reset."""

    daemon_threads = True
    request_queue_size = 128

    def shutdown_request(self, request: object) -> None:
        """Only close: what was sent is on its way, and a lingering time of 0 makes it a reset."""
        self.close_request(request)  # type: ignore[arg-type]

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no error."""


def main() -> None:
    Proxy.state = State(urlsplit(sys.argv[1]).netloc, random.Random(int(sys.argv[2])))
    for method in METHODS:
        setattr(Proxy, f"do_{method}", Proxy.answer)
    server = Server(("127.0.0.1", 0), Proxy)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever(poll_interval=0.05)


if __name__ == "__main__":
    main()
