"""Prefixes of S3-compatible buckets as stores; credentials and endpoint from the usual environment alone."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from typing import Any

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import S3Store

from tnet_geo.errors import PlaceUnusable
from tnet_geo.pyramid.places import Store, checked_key

__all__ = ["ObjectStore"]

RETRIES = 5
"""Of a request that was not answered, or answered with an error of the server's, 0.1 to 2 s apart."""
LISTED_AT_ONCE = 1000


class ObjectStore(Store):
    """Objects below a prefix of a bucket: small ones through obstore, pixels through tensorstore."""

    def __init__(self, url: str) -> None:
        """`url` is s3://bucket or s3://bucket/prefix. Credentials stay out of it, and out of pickles."""
        super().__init__(url)
        self.bucket, _, self.prefix = url.removeprefix("s3://").partition("/")

    def read(self, key: str) -> bytes | None:
        """By one request."""
        with self._told():
            try:
                return bytes(obstore.get(self._client(), self._path(key)).bytes())
            except FileNotFoundError as error:
                if "NoSuchBucket" in str(error):
                    raise
                return None

    def write(self, key: str, content: bytes) -> None:
        """By one put."""
        with self._told():
            obstore.put(self._client(), self._path(key), content)

    def create(self, key: str, content: bytes) -> bool:
        """By a conditional put."""
        with self._told():
            try:
                # In one request: only the start of a multipart upload could be conditional.
                obstore.put(self._client(), self._path(key), content, mode="create", use_multipart=False)
            except AlreadyExistsError:
                return False
        return True

    def size(self, key: str) -> int | None:
        """By one head request."""
        with self._told():
            try:
                return int(obstore.head(self._client(), self._path(key))["size"])
            except FileNotFoundError:
                return None

    def sizes(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """By listing, a thousand objects a request."""
        folder = self._path(prefix) if prefix else self.prefix
        for path, size in self._listed(folder):
            key = path[len(self.prefix) + 1 :] if self.prefix else path
            if not any(name.startswith(".") for name in key.split("/")):
                yield key, size

    def names(self, prefix: str = "") -> list[str]:
        """By listing up to the next slash."""
        folder = self._path(prefix) if prefix else self.prefix
        with self._told():
            found = obstore.list_with_delimiter(self._client(), folder or None)
        paths = [*found["common_prefixes"], *(entry["path"] for entry in found["objects"])]
        return sorted({name for path in paths if not (name := path.rsplit("/", 1)[-1]).startswith(".")})

    def remove(self, prefix: str) -> None:
        """By bulk deletion."""
        path = self._path(prefix)
        with self._told():
            obstore.delete(self._client(), [path])
        waiting: list[str] = []
        for found, _ in self._listed(path):
            waiting.append(found)
            if len(waiting) == LISTED_AT_ONCE:
                self._delete(waiting)
                waiting = []
        if waiting:
            self._delete(waiting)

    def kvstore(self, key: str) -> dict[str, Any]:
        """tensorstore's driver of S3."""
        endpoint = _endpoint(os.environ)
        spec = {
            "driver": "s3",
            "bucket": self.bucket,
            "path": f"{self._path(key)}/",
            "aws_region": _region(os.environ),
            "aws_credentials": {"type": "anonymous" if _unsigned(os.environ) else "environment"},
            # Its own default tries for a quarter of an hour before it says that nobody answers.
            "s3_request_retries": {"max_retries": RETRIES, "initial_delay": "100ms", "max_delay": "2s"},
        }
        return spec | ({"endpoint": endpoint} if endpoint else {})

    def _path(self, key: str) -> str:
        """The full key of an object in the bucket."""
        return f"{self.prefix}/{checked_key(key)}" if self.prefix else checked_key(key)

    def _listed(self, folder: str) -> Iterator[tuple[str, int]]:
        """Full keys and sizes below a folder, in the order in which S3 lists them: that of their bytes."""
        with self._told():
            for chunk in obstore.list(self._client(), folder or None, chunk_size=LISTED_AT_ONCE):
                for entry in chunk:
                    yield entry["path"], entry["size"]

    def _delete(self, paths: list[str]) -> None:
        with self._told():
            obstore.delete(self._client(), paths)

    def _client(self) -> S3Store:
        """The client of the bucket. Raises: PlaceUnusable where the environment has no credentials."""
        if not (_unsigned(os.environ) or _has_keys(os.environ)):
            remedy = (
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_NO_SIGN_REQUEST=yes for a bucket "
                "that is open to all"
            )
            raise PlaceUnusable(self.url, "needs credentials, and the environment has none", remedy)
        return _client(self.bucket, _region(os.environ), _endpoint(os.environ), _identity(os.environ))

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turns what the client raises into one sentence."""
        try:
            yield
        except (BaseError, OSError) as error:
            what, remedy = _reason(error, self.bucket, _endpoint(os.environ))
            raise PlaceUnusable(self.url, what, remedy) from error


def _reason(error: Exception, bucket: str, endpoint: str | None) -> tuple[str, str]:
    """What is wrong with a place, and what to do."""
    text = str(error)
    cause = re.search(r"<Code>(\w+)</Code>", text) or re.search(r"status code: (\d+)", text)
    told = cause[1] if cause else re.sub(r"\s+", " ", text.split("Debug source", 1)[0]).strip()
    if told == "NoSuchBucket":
        return f"is in bucket {bucket}, which does not exist", "make the bucket, or correct its name"
    if isinstance(error, PermissionDeniedError | UnauthenticatedError):
        remedy = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN and the bucket's policy"
        return f"lets these credentials not in ({told})", remedy
    if "error sending request" in text:
        where = endpoint or "Amazon's endpoint"
        return f"cannot be reached at {where}", "check AWS_ENDPOINT_URL, AWS_REGION and the network"
    return f"answers with an error ({told})", "look into the server's log, or try again later"


@lru_cache(maxsize=16)
def _client(bucket: str, region: str, endpoint: str | None, identity: tuple[str, ...]) -> S3Store:
    """One client, with its connections, for each bucket and environment of this process."""
    access_key_id, secret_access_key, session_token = identity or ("", "", "")
    keys: dict[str, Any] = {"skip_signature": True}
    if identity:
        keys = {"access_key_id": access_key_id, "secret_access_key": secret_access_key}
        keys |= {"session_token": session_token} if session_token else {}
    if endpoint:
        keys["endpoint"] = endpoint
    return S3Store(
        bucket,
        region=region,
        **keys,
        virtual_hosted_style_request=False,
        client_options={
            "allow_http": (endpoint or "").startswith("http://"),
            "connect_timeout": "5s",
            "timeout": "120s",
        },
        retry_config={
            "max_retries": RETRIES,
            "retry_timeout": timedelta(seconds=60),
            "backoff": {
                "init_backoff": timedelta(milliseconds=100),
                "max_backoff": timedelta(seconds=2),
                "base": 2,
            },
        },
    )


def _endpoint(environment: Mapping[str, str]) -> str | None:
    """The server's address; None means Amazon's own."""
    address = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
    return address.rstrip("/") if address else None


def _region(environment: Mapping[str, str]) -> str:
    return environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or "us-east-1"


def _unsigned(environment: Mapping[str, str]) -> bool:
    """Whether requests go without a signature, to buckets that are open to all."""
    names = ("AWS_NO_SIGN_REQUEST", "AWS_SKIP_SIGNATURE")
    return any(environment.get(name, "").lower() in {"1", "true", "yes", "on"} for name in names)


def _has_keys(environment: Mapping[str, str]) -> bool:
    return bool(environment.get("AWS_ACCESS_KEY_ID") and environment.get("AWS_SECRET_ACCESS_KEY"))


def _identity(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Key, secret and session token; nothing for requests without a signature."""
    if _unsigned(environment):
        return ()
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    return tuple(environment.get(name, "") for name in names)
