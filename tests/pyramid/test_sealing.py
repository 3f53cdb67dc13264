"""A scene in a folder gets its name by one rename, when all of it is on disk."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tnet_geo.pyramid.layout import SEAL
from tnet_geo.pyramid.sealing import Draft, abandon, begin, seal, sealed_digest, sweep_drafts
from tnet_geo.pyramid.store import LocalStore

NOBODY = 2**22 + 1
"""Beyond the largest process id."""


def content(digest: str) -> bytes:
    """A seal that says `digest`."""
    return json.dumps({"attributes": {"tnet_geo": {"digest": digest}}}).encode()


def written(home: LocalStore, name: str, digest: str, shard: bytes = b"pixels") -> Draft:
    """A draft with all but its seal."""
    draft = begin(home, name, digest)
    draft.write_all({"0/zarr.json": b"{}", "0/data/c/0/0/0": shard})
    return draft


def everything(home: LocalStore) -> list[str]:
    """Names in a folder, those of drafts too."""
    return sorted(path.name for path in home.path.iterdir())


@pytest.fixture
def home(tmp_path: Path) -> LocalStore:
    return LocalStore(str(tmp_path / "scenes"))


def test_a_scene_is_there_once_it_is_sealed_and_not_before(home: LocalStore) -> None:
    draft = written(home, "a", "one")
    assert home.names() == []
    assert sealed_digest(home.at("a")) is None
    assert draft.bytes_written() == len(b"{}pixels")
    seal([(draft, content("one"))])
    assert list(home.keys()) == ["a/0/data/c/0/0/0", "a/0/zarr.json", f"a/{SEAL}"]
    assert sealed_digest(home.at("a")) == "one"
    assert everything(home) == ["a"]


def test_all_bytes_are_on_disk_before_the_first_scene_has_its_name(
    home: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    drafts = [written(home, name, "one") for name in ("a", "b")]
    order: list[str] = []
    rename, sync = Path.rename, os.fsync

    def renamed(path: Path, target: Path) -> Path:
        order.append("rename")
        return rename(path, target)

    def synced(handle: int) -> None:
        order.append("sync")
        sync(handle)

    monkeypatch.setattr(Path, "rename", renamed)
    monkeypatch.setattr(os, "fsync", synced)
    seal([(draft, content("one")) for draft in drafts])
    assert order == [*["sync"] * 6, *["rename"] * 2, "sync"]  # three files each; at last the folder


def test_of_two_with_one_digest_the_first_stays(home: LocalStore) -> None:
    first, second = (written(home, "a", "one", shard) for shard in (b"first", b"second"))
    seal([(first, content("one"))])
    seal([(second, content("one"))])
    assert home.read("a/0/data/c/0/0/0") == b"first"
    assert everything(home) == ["a"]


def test_another_digest_replaces_the_scene(home: LocalStore) -> None:
    seal([(written(home, "a", "one", b"first"), content("one"))])
    draft = written(home, "a", "two", b"second")
    assert sealed_digest(home.at("a")) == "one"  # readers see the old one as long as the new one is a draft
    seal([(draft, content("two"))])
    assert home.read("a/0/data/c/0/0/0") == b"second"
    assert everything(home) == ["a"]


def test_an_abandoned_draft_leaves_nothing(home: LocalStore) -> None:
    abandon(written(home, "a", "one"))
    assert everything(home) == []


@pytest.mark.parametrize("name", ["", ".a", "a/b", "..", "../a"])
def test_a_name_that_is_no_plain_folder_is_refused(home: LocalStore, name: str) -> None:
    with pytest.raises(ValueError, match=r"no plain name|no relative path"):
        begin(home, name, "one")


@pytest.mark.parametrize("damaged", [b"", b"{", b"[]", b"{}", b'{"attributes": {"tnet_geo": 1}}'])
def test_a_damaged_seal_is_none(home: LocalStore, damaged: bytes) -> None:
    home.write(f"a/{SEAL}", damaged)
    assert sealed_digest(home.at("a")) is None


def test_what_the_dead_left_is_swept_and_what_the_living_are_at_is_not(home: LocalStore) -> None:
    living = Path(begin(home, "scene.with.dots", "one").store.url).name
    mark = living.rsplit(".", 2)[1]
    assert str(os.getpid()) in mark
    dead = mark.replace(str(os.getpid()), str(NOBODY))
    for name in (f".a.{dead}.draft", f".a.elsewhere{dead}.draft", ".mine.draft"):
        (home.path / name).mkdir()
    (home.path / f".{dead}.partial").write_bytes(b"half")
    home.write("sealed/zarr.json", b"{}")
    assert sweep_drafts(home) == 2
    assert set(everything(home)) == {living, f".a.elsewhere{dead}.draft", ".mine.draft", "sealed"}
    assert sweep_drafts(LocalStore(str(home.path / "nowhere"))) == 0
