"""An S3-compatible server of what lies in a folder, that answers every request so much later.

python tests/benchmarks/late_store.py FOLDER --latency 0.05 [--moto]

By itself it serves the objects of a folder, whose subfolders are the buckets, and takes hardly a core's
time: a client is measured, not a server. `--moto` serves them through moto instead, which is slower by
itself and written by others. Both stand in a process of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import boto3
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

LATENCY_S = 0.05


@dataclass(frozen=True)
class LateStore:
    """A server that answers."""

    endpoint: str
    process: int

    @property
    def environment(self) -> dict[str, str]:
        """What whoever talks to it has in the environment."""
        keys = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
        return keys | {"AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": self.endpoint}

    def cpu_seconds(self) -> float:
        """Processor time that it has taken so far."""
        fields = Path(f"/proc/{self.process}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / 100  # clock ticks, a hundredth of a second on Linux


@contextmanager
def late_store(folder: Path, latency_s: float = LATENCY_S, *, moto: bool = False) -> Iterator[LateStore]:
    """Start the server, wait until it answers, and stop it at the end."""
    command = [sys.executable, __file__, str(folder), "--latency", str(latency_s)]
    process = subprocess.Popen(
        command + ["--moto"] * moto, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        yield LateStore(f"http://127.0.0.1:{port}", process.pid)
    finally:
        process.kill()
        process.communicate()


class _Folder:
    """Objects are files, buckets are folders; read only."""

    def __init__(self, folder: Path, latency_s: float) -> None:
        self.folder, self.latency_s = folder, latency_s

    async def serve(self) -> None:
        """Say the port, then answer for ever."""
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, backlog=1024)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                await asyncio.sleep(self.latency_s)
                writer.writelines(self._answer(head))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def _answer(self, head: str) -> list[bytes]:
        """Head and body of the answer to a request without a body."""
        line, *fields = head.rstrip().split("\r\n")
        method, target, _ = line.split(" ", 2)
        asked = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in fields)}
        parts = urlsplit(target)
        path, query = unquote(parts.path).strip("/"), parse_qs(parts.query, keep_blank_values=True)
        if "list-type" in query:
            return _reply(200, self._listing(path, query), method, {"Content-Type": "application/xml"})
        file = self.folder / path
        if "/" not in path and file.is_dir():
            return _reply(200, b"", method, {"x-amz-bucket-region": "us-east-1"})
        if not file.is_file():
            return _reply(404, b"<Error><Code>NoSuchKey</Code></Error>", method, {})
        return _object(file, method, asked)

    def _listing(self, bucket: str, query: dict[str, list[str]]) -> bytes:
        prefix, delimiter = query.get("prefix", [""])[0], query.get("delimiter", [""])[0]
        root = self.folder / bucket
        keys = sorted(
            path.relative_to(root).as_posix() for path in (root / prefix).rglob("*") if path.is_file()
        )
        below = [key for key in keys if key.startswith(prefix)]
        plain = [key for key in below if not delimiter or delimiter not in key[len(prefix) :]]
        groups = {
            prefix + key[len(prefix) :].split(delimiter, 1)[0] + delimiter for key in set(below) - set(plain)
        }
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{(root / key).stat().st_size}</Size>"
            f"<LastModified>2026-11-21T10:00:00.000Z</LastModified><ETag>e</ETag></Contents>"
            for key in plain
        )
        folders = "".join(
            f"<CommonPrefixes><Prefix>{escape(key)}</Prefix></CommonPrefixes>" for key in sorted(groups)
        )
        return (
            f"<ListBucketResult><Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix>"
            f"<IsTruncated>false</IsTruncated>{contents}{folders}</ListBucketResult>"
        ).encode()


def _object(file: Path, method: str, asked: dict[str, str]) -> list[bytes]:
    """A file or a range of it, unless the asker has it already."""
    found = file.stat()
    size, etag = found.st_size, f'"{found.st_ino:x}-{found.st_mtime_ns:x}"'
    when = datetime.fromtimestamp(found.st_mtime, UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    headers = {"ETag": etag, "Last-Modified": when, "Accept-Ranges": "bytes"}
    if asked.get("if-none-match") == etag:
        return _reply(304, b"", method, headers)
    if asked.get("if-match", etag) not in {etag, "*"}:
        return _reply(412, b"", method, headers)
    start, stop = 0, size
    wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", asked.get("range", ""))
    if wanted:
        first, last = wanted.groups()
        start = int(first) if first else max(0, size - int(last))
        stop = min(size, int(last) + 1) if first and last else size
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    if method == "HEAD":
        return _reply(200, b"", method, headers, length=size)
    with file.open("rb") as source:
        source.seek(start)
        return _reply(206 if wanted else 200, source.read(stop - start), method, headers)


def _reply(
    status: int, body: bytes, method: str, headers: dict[str, str], length: int | None = None
) -> list[bytes]:
    lines = [f"HTTP/1.1 {status} -"] + [f"{name}: {value}" for name, value in headers.items()]
    if status != 304:
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    return ["\r\n".join([*lines, "", ""]).encode(), b"" if method == "HEAD" else body]


def _serve_moto(folder: Path, latency_s: float) -> None:
    """The same objects out of moto's memory; it is late once it has them."""
    inner, filled = DomainDispatcherApplication(create_backend_app), threading.Event()

    def late(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if filled.is_set():
            time.sleep(latency_s)
        answer: Iterable[bytes] = inner(environ, start)
        return answer

    server = make_server("127.0.0.1", 0, late, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    _fill(f"http://127.0.0.1:{server.port}", folder)
    filled.set()
    print(server.port, flush=True)
    threading.Event().wait()


def _fill(endpoint: str, folder: Path) -> None:
    """Put every file below a folder into its bucket."""
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **keys)
    for bucket in folder.iterdir():
        client.create_bucket(Bucket=bucket.name)
        for above, _, names in os.walk(bucket, followlinks=True):
            for path in (Path(above, name) for name in names):
                key = path.relative_to(bucket).as_posix()
                client.put_object(Bucket=bucket.name, Key=key, Body=path.read_bytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--latency", type=float, default=LATENCY_S)
    parser.add_argument("--moto", action="store_true")
    given = parser.parse_args()
    if given.moto:
        _serve_moto(given.folder, given.latency)
    else:
        asyncio.run(_Folder(given.folder, given.latency).serve())


if __name__ == "__main__":
    main()
