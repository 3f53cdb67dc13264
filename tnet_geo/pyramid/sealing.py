"""From a draft to a sealed scene or pack: what is half-written does not exist for readers.

A builder begins a draft, writes everything but the seal into its store, and seals it:

    draft = begin(archive.store.at("scenes"), "harbour", digest)
    ts.open({"driver": "zarr3", "kvstore": draft.store.kvstore("0/data"), ...}).result().write(...)
    draft.write_all({"0/zarr.json": ..., "0/data/zarr.json": ...})
    seal([(draft, content_of_the_seal)])

In a folder a draft lies under a name of its own, is flushed, and gets its final name by one rename.
An object store has no rename: there the final names are written at once, and the seal last, by a put
that succeeds only where there is none. Nobody reads what has no seal.

There is no random write id in a seal: the digest does its work. It names the source's bytes, the
settings and the format, so that whoever sealed a scene with our digest wrote the same pixels under the
same names, in shards that stand each for itself. Thus a put whose answer was lost, and a second build
that was quicker, are both recognised by reading the seal, and both mean that the scene is done.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tnet_geo.errors import WriteConflict
from tnet_geo.pyramid.layout import SEAL
from tnet_geo.pyramid.places import LocalStore, Store, checked_key, draft_mark, flush, owner_lives

__all__ = ["Draft", "abandon", "begin", "seal", "sealed_digest", "sweep_drafts"]

AT_ONCE = 8
"""Files flushed to disk at once, which a journal commits together; objects put at once."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A scene or pack that is being written. Picklable: tasks of many processes may write one draft."""

    home: Store
    """The folder of scenes, or of packs."""
    name: str
    digest: str
    store: Store
    """Where everything but the seal is written."""

    def write_all(self, objects: Mapping[str, bytes]) -> None:
        """Write small objects by key, many at once. They are flushed with all others when it is sealed."""
        if isinstance(self.store, LocalStore):
            for key, content in objects.items():
                path = self.store.path / checked_key(key)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            return
        with ThreadPoolExecutor(AT_ONCE) as writers:
            list(writers.map(self.store.write, objects.keys(), objects.values()))

    def bytes_written(self) -> int:
        """Bytes of all that is written so far; of earlier, killed drafts too on an object store."""
        return sum(size for _, size in self.store.sizes())


def begin(home: Store, name: str, digest: str) -> Draft:
    """A draft of `home`/`name`; `digest` is what its seal will say.

    The calling process owns the draft: in a folder it must live until the draft is sealed, or the next
    build on this machine takes it for the remains of a dead one. On an object store what lies under the
    name ceases to exist here, its seal first: an outdated scene, or the remains of a killed build. They
    must not stay, because tensorstore puts new pixels at a scene's edge into the shard that is there.

    Raises:
        ValueError: `name` is no plain name of a folder.
    """
    if checked_key(name).startswith(".") or "/" in name:
        raise ValueError(f"{name!r} is no plain name of a folder")
    if isinstance(home, LocalStore):
        store = home.at(f".{name}.{draft_mark()}.draft")
        Path(store.url).mkdir(parents=True)
        return Draft(home, name, digest, store)
    final = home.at(name)
    final.remove(SEAL)
    home.remove(name)
    return Draft(home, name, digest, final)


def seal(finished: Sequence[tuple[Draft, bytes]], keys: Sequence[Collection[str]] | None = None) -> None:
    """Seal drafts, pairs with the contents of their seals; all at once, so that they are flushed together.

    Where one is sealed with the same digest meanwhile, that one stays; in a folder one with another
    digest is replaced. `keys` says what each consists of without its seal: on an object store what
    else lies there, remains of an outdated scene, is removed first.

    Raises:
        WriteConflict: another build sealed other bytes meanwhile, or removed ours; it is not sealed.
    """
    drafts = [draft for draft, _ in finished if isinstance(draft.home, LocalStore)]
    for (draft, content), wanted in zip(finished, keys or [()] * len(finished), strict=True):
        if isinstance(draft.home, LocalStore):
            draft.write_all({SEAL: content})
        else:
            _seal_object(draft, content, wanted)
    files = (
        Path(at, name) for draft in drafts for at, _, names in os.walk(draft.store.url) for name in names
    )
    with ThreadPoolExecutor(AT_ONCE) as flushers:
        list(flushers.map(flush, files))
    for draft in drafts:
        _rename(draft)
    for folder in {draft.home.url for draft in drafts}:
        flush(Path(folder))


def abandon(draft: Draft) -> None:
    """Remove a draft that will not be sealed. Wait for all writes into it first."""
    if draft.home.local:
        shutil.rmtree(draft.store.url, ignore_errors=True)
    elif draft.store.size(SEAL) is None:  # else another build has sealed it meanwhile
        draft.home.remove(draft.name)


def sealed_digest(store: Store) -> str | None:
    """The digest of the scene or pack in `store`; None if it is not sealed, or its seal is damaged."""
    try:
        return _digest_of(store.read(SEAL) or b"")
    except OSError:
        return None


def _digest_of(seal: bytes) -> str | None:
    try:
        return str(json.loads(seal)["attributes"]["tnet_geo"]["digest"])
    except (ValueError, KeyError, TypeError):
        return None


def _seal_object(draft: Draft, content: bytes, wanted: Collection[str]) -> None:
    """Put the seal where there is none."""
    if wanted:
        found = set(draft.store.keys()) - {SEAL}
        if lost := set(wanted) - found:
            raise WriteConflict(draft.name, draft.home.url, f"{min(lost)} was removed")
        for stray in found - set(wanted):
            draft.store.remove(stray)
    if draft.store.create(SEAL, content):
        return
    if sealed_digest(draft.store) == draft.digest:
        return
    # Some shards may be theirs, some ours: neither of the two is there as a whole.
    draft.store.remove(SEAL)
    raise WriteConflict(draft.name, draft.home.url, "it was sealed from other bytes")


def _rename(draft: Draft) -> None:
    """Give one flushed draft its final name."""
    source, final = Path(draft.store.url), Path(draft.home.url) / draft.name
    while True:
        try:
            source.rename(final)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        if sealed_digest(draft.home.at(draft.name)) == draft.digest:
            shutil.rmtree(source)
            return
        outdated = final.with_name(f".{draft.name}.{draft_mark()}.draft")
        final.rename(outdated)
        shutil.rmtree(outdated)


def sweep_drafts(home: Store) -> int:
    """Remove what dead processes of this machine left in a folder; how many things there were.

    Object stores have no drafts: what lies there unsealed is written over by the next build.
    """
    if not isinstance(home, LocalStore):
        return 0
    dead = [path for path in _drafts(home.path) if not owner_lives(path.stem.rsplit(".", 1)[-1])]
    for path in dead:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return len(dead)


def _drafts(folder: Path) -> Iterator[Path]:
    """Drafts of scenes `.NAME.MARK.draft` and of files `.MARK.partial` directly in a folder."""
    if folder.is_dir():
        yield from (path for path in folder.glob(".*") if path.suffix in {".draft", ".partial"})
