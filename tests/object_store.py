"""An S3-compatible server in a process of its own: moto's server mode on a free port, with a bucket."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3

BUCKET = "imagery"


@dataclass(frozen=True)
class ObjectServer:
    """A server that answers."""

    endpoint: str
    log: Path

    def requests(self) -> int:
        """Requests that it has answered so far, from its log."""
        return self.log.read_text().count("HTTP/1.1")

    @property
    def environment(self) -> dict[str, str]:
        """What whoever talks to it has in the environment."""
        return {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.endpoint,
        }

    def make_bucket(self, name: str) -> None:
        """A new, empty bucket."""
        urllib.request.urlopen(urllib.request.Request(f"{self.endpoint}/{name}", method="PUT")).close()

    def publish(self, address: str) -> None:
        """Let all read the object at an s3:// address."""
        bucket, key = address.removeprefix("s3://").split("/", 1)
        keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
        client = boto3.client("s3", endpoint_url=self.endpoint, region_name="us-east-1", **keys)
        client.put_object_acl(Bucket=bucket, Key=key, ACL="public-read")
        client.close()

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """The server checks who asks as long as the block lasts: it knows nobody."""
        before = self._free_requests("0")
        try:
            yield
        finally:
            self._free_requests(before)

    def _free_requests(self, count: str) -> str:
        """How many requests are answered whoever asks; gives the former number."""
        url, kind = f"{self.endpoint}/moto-api/reset-auth", {"Content-Type": "application/octet-stream"}
        request = urllib.request.Request(url, data=count.encode(), headers=kind, method="POST")
        with urllib.request.urlopen(request) as answer:
            return str(json.load(answer)["PREVIOUS_INITIAL_NO_AUTH_ACTION_COUNT"])


@contextmanager
def object_server(log: Path, seconds: float = 30) -> Iterator[ObjectServer]:
    """Start the server, wait until it answers, and stop it at the end. Its output goes to `log`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    plain = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=plain)
    try:
        _wait_for(port, process, log, time.monotonic() + seconds)
        server = ObjectServer(f"http://127.0.0.1:{port}", log)
        server.make_bucket(BUCKET)
        yield server
    finally:
        process.kill()
        process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path, deadline: float) -> None:
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"moto's server did not start: {log.read_text()}") from None
            time.sleep(0.02)
        else:
            return
