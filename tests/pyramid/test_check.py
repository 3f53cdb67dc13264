"""Whatever happens to a sealed archive is found, and named by scene, level, array and file."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorstore as ts

from tests.damage import WAYS, Undamaged, cut, flip, packed_archive, scenes_archive
from tnet_geo.errors import InvalidArchive
from tnet_geo.pyramid.check import CheckReport, check_archive, faults_in
from tnet_geo.pyramid.inventory import Item
from tnet_geo.pyramid.places import draft_mark
from tnet_geo.pyramid.shards import StoredArray, damage
from tnet_geo.pyramid.store import open_store


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Undamaged:
    return scenes_archive(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> Undamaged:
    return packed_archive(tmp_path_factory.mktemp("packs"))


@pytest.fixture
def copy(scenes: Undamaged, tmp_path: Path) -> Path:
    """An archive that may be damaged."""
    return Path(shutil.copytree(scenes.path, tmp_path / "archive"))


def found(report: CheckReport) -> list[tuple[str, str]]:
    return [(fault.what, fault.file) for fault in report.faults]


def test_nothing_is_wrong_with_what_was_just_built(scenes: Undamaged, packs: Undamaged) -> None:
    for archive in (scenes, packs):
        report = check_archive(archive.path)
        assert (report.faults, report.unsealed, report.exit_code) == ((), (), 0)
        assert report.shards == report.shards_read == len(archive.shards)
        assert report.bytes_read == sum(len(archive.files[name]) for name in archive.shards)
        assert report.lines()[-1] == "nothing is wrong"
    assert check_archive(packs.path).packs == 2


@pytest.mark.parametrize("seed", range(3))
def test_every_flipped_byte_of_a_shard_is_named(scenes: Undamaged, packs: Undamaged, seed: int) -> None:
    """All shards at once, each with one flipped bit anywhere, index and checksums included."""
    rng = random.Random(seed)
    for archive in (scenes, packs):
        try:
            for name in archive.shards:
                flip(archive.path / name, rng)
            report = check_archive(archive.path)
        finally:
            for name in archive.shards:
                (archive.path / name).write_bytes(archive.files[name])
        assert sorted(found(report)) == [("shard", name) for name in sorted(archive.shards)]
        for fault in report.faults:
            kind, item, level, array, *_ = fault.file.split("/")
            assert (fault.item, fault.level, fault.array) == (f"{kind[:-1]} {item}", int(level), array)
            assert "checksum" in fault.cause


def test_no_bit_of_a_whole_shard_can_flip_unseen(scenes: Undamaged) -> None:
    name = "scenes/gaps/1/valid/c/0/0"
    content = scenes.files[name]
    array = StoredArray("1/valid", (38, 52), (32, 32), (16, 16))
    assert damage(lambda start, length: content[start : start + length], len(content), array, (0, 0)) is None
    for at in range(len(content)):
        bad = bytearray(content)
        bad[at] ^= 1 << at % 8
        whole = bytes(bad)
        reason = damage(lambda start, length: whole[start : start + length], len(whole), array, (0, 0))  # noqa: B023
        assert reason is not None, at


def test_bytes_between_or_after_the_chunks_are_named(copy: Path) -> None:
    path = copy / "scenes/plain/0/data/c/0/0/0"
    content = path.read_bytes()
    path.write_bytes(b"\0" + content)
    assert found(check_archive(copy)) == [("shard", "scenes/plain/0/data/c/0/0/0")]
    path.write_bytes(content + b"\0")
    assert found(check_archive(copy)) == [("shard", "scenes/plain/0/data/c/0/0/0")]


def test_what_is_called_sound_is_what_tensorstore_reads(scenes: Undamaged, copy: Path) -> None:
    """The oracle decodes every chunk: both agree on every shard of a scene of which some are damaged."""
    rng = random.Random(7)
    shards = [name for name in scenes.shards if name.startswith("scenes/masked/")]
    for name in rng.sample(shards, len(shards) // 2):
        rng.choice(WAYS)(copy / name, rng)
    bad = {file for _, file in found(check_archive(copy))}
    for name in shards:
        _, _, level, array, _, *index = name.split("/")
        folder = copy / "scenes/masked" / level / array
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{folder}/"}}
        opened = ts.open(spec | {"fill_missing_data_reads": False}, open=True).result()
        where = tuple(
            slice(int(at) * side, min((int(at) + 1) * side, size))
            for at, side, size in zip(index, opened.chunk_layout.write_chunk.shape, opened.shape, strict=True)
        )
        try:
            opened[where].read().result()
        except ValueError:
            assert name in bad
        else:
            assert name not in bad


def remove(name: str) -> Callable[[Path], None]:
    return lambda archive: (archive / name).unlink()


def put(name: str, content: bytes = b"") -> Callable[[Path], None]:
    def write(archive: Path) -> None:
        (archive / name).parent.mkdir(parents=True, exist_ok=True)
        (archive / name).write_bytes(content)

    return write


def change(name: str, old: str, new: str) -> Callable[[Path], None]:
    def edit(archive: Path) -> None:
        text = (archive / name).read_text()
        assert old in text
        (archive / name).write_text(text.replace(old, new, 1))

    return edit


@pytest.mark.parametrize(
    ("harm", "what", "file", "cause"),
    [
        (
            remove("scenes/plain/1/data/c/0/0/0"),
            "shard",
            "scenes/plain/1/data/c/0/0/0",
            "the shard is missing",
        ),
        (put("scenes/plain/1/data/c/0/0/0"), "shard", "scenes/plain/1/data/c/0/0/0", "has 0 bytes"),
        (put("scenes/plain/0/data/c/0/9/9", b"x"), "stray", "scenes/plain/0/data/c/0/9/9", "was not sealed"),
        (put("scenes/plain/.a-1-b.partial"), "stray", "scenes/plain/.a-1-b.partial", "cut off"),
        (put("scenes/bare/0/data/c/0/0/0.__lock"), "stray", "scenes/bare/0/data/c/0/0/0.__lock", "cut off"),
        (remove("scenes/masked/0/zarr.json"), "document", "scenes/masked/0/zarr.json", "is missing"),
        (
            change("scenes/plain/0/data/zarr.json", '"zstd"', '"gzip"'),
            "document",
            "scenes/plain/0/data/zarr.json",
            "not what follows",
        ),
        (remove("scenes/plain/zarr.json"), "seal", "scenes/plain/zarr.json", "the seal is missing"),
        (put("scenes/plain/zarr.json", b"{"), "seal", "scenes/plain/zarr.json", "cannot be read"),
        (
            change("scenes/plain/zarr.json", '"half_px":16', '"half_px":0 '),
            "seal",
            "scenes/plain/zarr.json",
            "below 1",
        ),
        (
            change("scenes/plain/zarr.json", '"shape":[75,103]', '"shape":[75,203]'),
            "seal",
            "scenes/plain/zarr.json",
            "contradicts",
        ),
        (
            change("scenes/plain/zarr.json", '"scene_id":"plain"', '"scene_id":"plaim"'),
            "seal",
            "scenes/plain/zarr.json",
            "that of scene plaim",
        ),
    ],
)
def test_a_fault_is_named(copy: Path, harm: Callable[[Path], None], what: str, file: str, cause: str) -> None:
    harm(copy)
    report = check_archive(copy)
    assert found(report) == [(what, file)]
    assert cause in report.faults[0].cause
    assert report.exit_code == 5
    assert file in "\n".join(report.lines())


def test_no_byte_of_a_seal_can_flip_unseen(scenes: Undamaged, packs: Undamaged, tmp_path: Path) -> None:
    """Facts from which nothing else follows, such as nodata, are covered by the seal's own checksum."""
    rng = random.Random(0)
    for archive, kind in ((scenes, "scene"), (packs, "pack")):
        copy = Path(shutil.copytree(archive.path, tmp_path / kind))
        seal = next(path for path in sorted(copy.glob("*/*/zarr.json")) if path.parent.name != "plain")
        content = seal.read_bytes()
        item = Item("scene" if kind == "scene" else "pack", seal.parent.name)
        for at in range(0, len(content), 3):
            bad = bytearray(content)
            bad[at] ^= 1 << rng.randrange(8)
            seal.write_bytes(bad)
            assert [fault.what for fault in faults_in(open_store(copy), [item])] == ["seal"], bytes(bad)


def test_the_catalogue_must_agree(copy: Path) -> None:
    (part,) = (copy / "catalogue").iterdir()
    table = pq.read_table(part)
    first = table["scene_id"][0].as_py()
    renamed = table.set_column(0, table.schema[0], pa.array(["lost", *table["scene_id"].to_pylist()[1:]]))
    pq.write_table(renamed, part)
    report = check_archive(copy)
    assert {(fault.item, fault.cause) for fault in report.faults} == {
        (f"scene {first}", "has no row of what is sealed"),
        ("scene lost", "has a row of what is not there"),
    }
    pq.write_table(table.set_column(5, table.schema[5], pa.array([9] * len(table), pa.int64())), part)
    assert {fault.cause for fault in check_archive(copy).faults} == {"contradicts the seal"}
    part.write_bytes(part.read_bytes()[:-20])
    assert "cannot be read" in check_archive(copy).faults[0].cause


def test_a_pack_whose_index_was_changed_is_named(packs: Undamaged, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(packs.path, tmp_path / "archive"))
    index = next(copy.glob("packs/*/index.parquet"))
    flip(index, random.Random(1))
    assert ("document", index.relative_to(copy).as_posix()) in found(check_archive(copy))


def test_drafts_of_the_dead_are_wrong_and_those_of_the_living_are_not(copy: Path) -> None:
    host, _, token = draft_mark().split("-")
    living = copy / "scenes" / f".new.{draft_mark()}.draft"
    dead = copy / "scenes" / f".new.{host}-{dead_process()}-{token}.draft"
    living.mkdir()
    dead.mkdir()
    report = check_archive(copy)
    assert found(report) == [("stray", f"scenes/{dead.name}")]
    assert report.unsealed == (f"scenes/{living.name}",)


def dead_process() -> int:
    """The id of a process that is no more."""
    process = os.fork()
    if process == 0:
        os._exit(0)
    os.waitpid(process, 0)
    return process


def test_a_sample_reads_some_shards_and_looks_for_all(scenes: Undamaged, copy: Path) -> None:
    (copy / "scenes/plain/0/data/c/0/1/1").unlink()
    report = check_archive(copy, sample=5)
    assert report.shards == len(scenes.shards)
    assert report.shards_read in {4, 5}  # the one that is missing may have been drawn
    assert ("shard", "scenes/plain/0/data/c/0/1/1") in found(report)
    assert check_archive(scenes.path, sample=10_000).shards_read == len(scenes.shards)


def test_progress_counts_shards(scenes: Undamaged) -> None:
    seen: list[tuple[int, int]] = []
    check_archive(scenes.path, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(scenes.shards), len(scenes.shards))


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArchive):
        check_archive(tmp_path)


def test_chunks_are_read_in_slabs_of_bounded_size() -> None:
    """What is held of a shard does not grow with it: ranges of about 8 MiB, and the index."""
    array = StoredArray("0/data", (1, 64, 64), (1, 64, 64), (1, 1, 1))
    asked: list[int] = []
    chunk = np.random.default_rng(0).bytes(4096)
    import google_crc32c

    stored = chunk + google_crc32c.value(chunk).to_bytes(4, "little")
    places = np.array([(n * len(stored), len(stored)) for n in range(64 * 64)], "<u8").tobytes()
    index = places + google_crc32c.value(places).to_bytes(4, "little")
    whole = stored * (64 * 64) + index

    def read(start: int, length: int) -> bytes:
        asked.append(length)
        return whole[start : start + length]

    assert damage(read, len(whole), array, (0, 0, 0)) is None
    assert len(whole) > 16 << 20
    assert max(asked) <= (8 << 20) + len(stored)


def test_a_truncated_shard_is_named_wherever_it_ends(scenes: Undamaged, copy: Path) -> None:
    rng = random.Random(3)
    for name in scenes.shards[::7]:
        cut(copy / name, rng)
    assert sorted(found(check_archive(copy))) == [("shard", name) for name in sorted(scenes.shards[::7])]
