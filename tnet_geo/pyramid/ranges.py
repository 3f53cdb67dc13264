"""Remote files as pages and ranges: every request and every byte is counted as the server sees it."""

from __future__ import annotations

import io
import re
import threading
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import obstore
from obstore.exceptions import (
    BaseError,
    NotSupportedError,
    PermissionDeniedError,
    UnauthenticatedError,
)

from tnet_geo.errors import SourceUnreadable
from tnet_geo.imagery.raster import CHANGED
from tnet_geo.imagery.remote import object_of

__all__ = ["Pieces", "RangeStream", "RangedFile", "Span", "joined"]

Span = tuple[int, int]
"""First byte, and the one after the last."""

PAGE = 64 << 10
MOST_PAGES = 512
"""Pages of headers that one file keeps: 32 MB, more than the tables of a million blocks."""
AT_ONCE = 64
"""Requests that are under way at once, over all files of the process."""
GAP = 64 << 10
"""Ranges nearer to each other than this are one request: the bytes between cost less than an answer."""
RETRIES = 5
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0
_STATUS = re.compile(r"status code: (\d{3})")
_PASSING = {"408", "425", "429"}


def joined(spans: Iterable[Span], gap: int = GAP) -> list[Span]:
    """Spans in order, those that overlap or lie within `gap` of each other as one.

    >>> joined([(500, 600), (0, 100), (90, 130)], gap=50)
    [(0, 130), (500, 600)]
    """
    found: list[Span] = []
    for start, stop in sorted(spans):
        if found and start - found[-1][1] <= gap:
            found[-1] = found[-1][0], max(stop, found[-1][1])
        else:
            found.append((start, stop))
    return found


class Pieces:
    """Parts of a file in memory, in order and apart from each other."""

    def __init__(self, pieces: Sequence[tuple[int, bytes]]) -> None:
        """`pieces` are pairs of first byte and content."""
        self._parts = sorted(pieces)
        self._starts = [start for start, _ in self._parts]

    def get(self, start: int, stop: int) -> bytes | None:
        """The bytes from `start` to `stop` if one piece has all of them."""
        at = bisect_right(self._starts, start) - 1
        if at < 0:
            return None
        first, content = self._parts[at]
        return content[start - first : stop - first] if stop <= first + len(content) else None


NOTHING = Pieces([])


@dataclass(frozen=True, slots=True)
class _Identity:
    """What tells one content of a remote file from another."""

    size: int
    etag: str | None
    modified: str

    @classmethod
    def of(cls, meta: Any) -> _Identity:
        return cls(meta["size"], meta["e_tag"], meta["last_modified"].isoformat())


@cache
def _fetchers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(AT_ONCE, thread_name_prefix="tnet-geo-fetch")


class RangedFile:
    """One remote file, read by ranges. Any thread may read.

    Its header is kept as pages; blocks of pixels go to whoever asks and are not kept. A file whose size,
    ETag or date is another than at the first answer is refused: half of an old file and half of a new
    one make a picture that never was.
    """

    def __init__(self, address: str, count: Callable[[int, int], None]) -> None:
        """`count` hears of every answer: bytes of its body, and the requests made, failed ones included.

        Raises:
            SourceUnreadable: the file is not there, its server does not answer, or knows no ranges.
        """
        self.address = address
        self._count = count
        self._client, self._name = object_of(address, retries=0)
        self._pages: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.Lock()
        self._identity: _Identity | None = None
        beside = {end: _fetchers().submit(self._is_there, end) for end in (".aux.xml", ".msk", ".ovr")}
        self._keep(0, self.fetch(0, PAGE))
        self.sidecars = tuple(end for end, there in beside.items() if there.result())
        """Endings of the files beside it that GDAL would read with it, such as `.aux.xml`."""

    @property
    def size(self) -> int:
        """Of the whole file, in bytes."""
        return self._known.size

    @property
    def mark(self) -> str:
        """What names its content: size and ETag; size and date from servers without ETag."""
        return f"{self.size} {self._known.etag or self._known.modified}"

    @property
    def _known(self) -> _Identity:
        assert self._identity is not None, "set by the first answer"
        return self._identity

    def fetch(self, start: int, stop: int) -> bytes:
        """The bytes from `start` to `stop`, or to the end of the file, by one request.

        Raises:
            SourceUnreadable: no answer after several attempts, or the file is another one by now.
        """
        if self._identity is not None:
            stop = min(stop, self.size)
        if start >= stop:
            return b""

        def ask() -> tuple[Any, bytes]:
            answer = obstore.get(self._client, self._name, options={"range": (start, stop)})
            return answer.meta, bytes(answer.bytes())

        meta, content = self._asked(ask)
        found = _Identity.of(meta)
        with self._lock:
            self._identity = self._identity or found
        if found != self._identity:
            raise SourceUnreadable(self.address, CHANGED)
        return content

    def fetch_all(self, spans: Sequence[Span]) -> list[Future[bytes]]:
        """Begin to fetch every one of `spans` by a request of its own, concurrently."""
        return [_fetchers().submit(self.fetch, *span) for span in spans]

    def page_in(self, spans: Iterable[Span]) -> None:
        """Fetch the pages of `spans` that are not kept yet, concurrently. Raises: SourceUnreadable."""
        wanted = sorted({page for start, stop in spans for page in range(start // PAGE, -(-stop // PAGE))})
        with self._lock:
            missing = [page for page in wanted if page not in self._pages]
        runs = joined(((page * PAGE, (page + 1) * PAGE) for page in missing), gap=0)
        if len(runs) == 1:
            self._keep(runs[0][0], self.fetch(*runs[0]))
            return
        for (start, _), read in zip(runs, self.fetch_all(runs), strict=True):
            self._keep(start, read.result())

    def has(self, start: int, stop: int) -> bool:
        """Whether all of it lies in pages that are kept."""
        with self._lock:
            return all(page in self._pages for page in range(start // PAGE, -(-stop // PAGE)))

    def read(self, start: int, stop: int) -> bytes:
        """Bytes of the header, through its pages. Raises: SourceUnreadable."""
        stop = min(stop, self.size)
        if start >= stop:
            return b""
        pages = range(start // PAGE, -(-stop // PAGE))
        while True:
            self.page_in([(start, stop)])
            with self._lock:
                if not all(page in self._pages for page in pages):
                    continue  # another thread's pages have pushed them out
                content = b"".join(self._pages[page] for page in pages)
                for page in pages:
                    self._pages.move_to_end(page)
            return content[start - pages[0] * PAGE : stop - pages[0] * PAGE]

    def sidecar(self, ending: str) -> bytes:
        """The whole of a file beside this one. Raises: SourceUnreadable."""
        client, name = object_of(_with_ending(self.address, ending), retries=0)

        def ask() -> tuple[Any, bytes]:
            answer = obstore.get(client, name)
            return answer.meta, bytes(answer.bytes())

        return self._asked(ask)[1]

    def _is_there(self, ending: str) -> bool:
        """Whether there is a file beside this one; one that may not be read is none."""
        client, name = object_of(_with_ending(self.address, ending), retries=0)
        try:
            self._asked(lambda: (obstore.head(client, name), b""))
        except SourceUnreadable:
            return False
        return True

    def _keep(self, start: int, content: bytes) -> None:
        """Take in whole pages; the last one of the file may be short."""
        with self._lock:
            for at in range(0, len(content), PAGE):
                self._pages[(start + at) // PAGE] = content[at : at + PAGE]
            while len(self._pages) > max(MOST_PAGES, -(-len(content) // PAGE)):
                self._pages.popitem(last=False)

    def _asked(self, ask: Callable[[], tuple[Any, bytes]]) -> tuple[Any, bytes]:
        """What the server answers; what may pass is tried again, and every attempt is counted."""
        pause = FIRST_PAUSE_S
        for attempt in range(RETRIES + 1):
            try:
                meta, content = ask()
            except (BaseError, OSError) as error:
                self._count(0, 1)
                cause, passing = _verdict(error)
                if not passing or attempt == RETRIES:
                    break
            else:
                self._count(len(content), 1)
                return meta, content
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
        raise SourceUnreadable(self.address, cause)


def _with_ending(address: str, ending: str) -> str:
    """The address of a sidecar; the query, such as a signature, stays where it is."""
    path, question, query = address.partition("?")
    return path + ending + question + query


def _verdict(error: Exception) -> tuple[str, bool]:
    """What is wrong, in a few words, and whether it may be otherwise in a moment."""
    text = str(error)
    if isinstance(error, FileNotFoundError):
        return "there is no such file", False
    if isinstance(error, PermissionDeniedError | UnauthenticatedError):
        return "its server lets nobody in without the right credentials", False
    if isinstance(error, NotSupportedError):
        return "its server sends whole files only, no ranges", False
    status = _STATUS.search(text)
    if status and status[1][0] != "5" and status[1] not in _PASSING:
        return f"its server answers with status {status[1]}", False
    if status:
        return f"its server answers with status {status[1]}, also when asked again", True
    cause = re.sub(r"^Generic \w+ error: ", "", text.strip().split("\n", 1)[0])
    return f"its server does not answer ({' '.join(cause.split())})", True


class RangeStream(io.RawIOBase):
    """A remote file as GDAL reads it: from the pieces that were fetched for it, else from pages."""

    def __init__(self, file: RangedFile, pieces: Callable[[], Pieces]) -> None:
        """`pieces` gives what is in memory at the moment of a read."""
        super().__init__()
        self._file, self._pieces, self._at = file, pieces, 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """The next byte to be read."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to another byte; nothing is fetched."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.size}[whence]
        self._at = base + offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes, or all that follow."""
        stop = self._file.size if size < 0 else min(self._at + size, self._file.size)
        content = self._pieces().get(self._at, stop)
        if content is None:
            content = self._file.read(self._at, stop)
        self._at += len(content)
        return content
