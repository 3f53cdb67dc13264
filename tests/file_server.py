"""A web server of files, with ranges, in a process of its own: GDAL keeps the interpreter while it waits.

python tests/file_server.py FOLDER [--key KEY] [--no-etags]
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


@contextmanager
def file_server(folder: Path, *options: str) -> Iterator[str]:
    """Start the server, give its address, and stop it at the end."""
    command = [sys.executable, __file__, str(folder), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.communicate()


class Files(BaseHTTPRequestHandler):
    """Files of a folder, with ranges, as a plain server of files answers."""

    protocol_version = "HTTP/1.1"
    folder = Path()
    key: str | None = None
    """What a signed address has to say."""
    etags = True

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        parts = urlsplit(self.path)
        path = self.folder / unquote(parts.path).lstrip("/")
        if not path.is_file() or (self.key is not None and f"key={self.key}" not in parts.query):
            self.send_response(404 if self.key is None else 403)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = path.read_bytes()
        first, last = 0, len(content) - 1
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked:
            first, last = int(asked[1]), min(last, int(asked[2] or last))
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        if self.etags:
            self.send_header("ETag", f'"{hashlib.md5(content).hexdigest()}"')
        self.send_header("Last-Modified", "Sat, 21 Nov 2026 10:00:00 GMT")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        if body:
            self.wfile.write(content[first : last + 1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--key")
    parser.add_argument("--no-etags", action="store_true")
    given = parser.parse_args()
    Files.folder, Files.key, Files.etags = given.folder, given.key, not given.no_etags
    server = ThreadingHTTPServer(("127.0.0.1", 0), Files)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
