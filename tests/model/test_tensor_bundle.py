"""TensorFlow 2 checkpoints are read by their documented format, and refused by name where they are not it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.checkpoints import BFLOAT16, INT64, STRING, Stored, message, table, variable, write
from tnet_geo.errors import InvalidCheckpoint
from tnet_geo.model.tensor_bundle import read_checkpoint


def arrays(seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    shapes = {"net/a/kernel": (3, 3, 2, 4), "net/a/bias": (4,), "net/b.1/kernel": (5, 2), "scalar": ()}
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def refusal(path: Path) -> str:
    with pytest.raises(InvalidCheckpoint) as error:
        read_checkpoint(path)
    assert error.value.exit_code == 4
    return str(error.value)


def test_variables_come_back_bit_for_bit_from_any_number_of_blocks_and_data_files(tmp_path: Path) -> None:
    expected = arrays()
    for shards in (1, 3):
        entries = dict(variable(name, array, n % shards) for n, (name, array) in enumerate(expected.items()))
        for rows_a_block in (1, 2, 100):
            prefix = tmp_path / f"{shards}-{rows_a_block}" / "ckpt-7"
            write(prefix, entries, shards=shards, rows_a_block=rows_a_block)
            found = read_checkpoint(prefix)
            assert list(found) == sorted(expected)
            for name, array in expected.items():
                assert found[name].dtype == np.float32
                np.testing.assert_array_equal(found[name], array)


def test_a_folder_a_prefix_and_an_index_name_the_same_checkpoint(tmp_path: Path) -> None:
    write(tmp_path / "ckpt-3", dict([variable("old", np.zeros(1))]))
    prefix = write(tmp_path / "ckpt-12", dict([variable("new", np.ones(2))]))
    for path in (tmp_path, prefix, prefix.with_name("ckpt-12.index")):
        assert list(read_checkpoint(path)) == ["new"]
    assert list(read_checkpoint(tmp_path / "ckpt-3")) == ["old"]


def test_a_folder_that_was_moved_still_finds_its_latest(tmp_path: Path) -> None:
    write(tmp_path / "ckpt-3", dict([variable("weight", np.zeros(1))]))
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/home/someone/run/ckpt-3"\n')
    assert list(read_checkpoint(tmp_path)) == ["weight"]


def test_slots_counters_and_the_graph_of_objects_are_left_out(tmp_path: Path) -> None:
    value = "/.ATTRIBUTES/VARIABLE_VALUE"
    number, step = np.float32(1).tobytes(), np.int64(42).tobytes()
    entries = dict([variable("a/kernel", np.ones(3))]) | {
        f"a.Skernel/.OPTIMIZER_SLOT/optimizer/m{value}": Stored(number),
        f"optimizer/learning_rate{value}": Stored(number),
        f"save_counter{value}": Stored(step, dtype=INT64),
        f"iter{value}": Stored(step, dtype=INT64),
        "_CHECKPOINTABLE_OBJECT_GRAPH": Stored(b"\x01anything", dtype=STRING),
    }
    assert list(read_checkpoint(write(tmp_path / "ckpt-1", entries))) == ["a/kernel"]


def test_what_is_no_checkpoint_is_refused_with_what_to_name(tmp_path: Path) -> None:
    assert "is no TensorFlow 2 checkpoint" in refusal(tmp_path / "ckpt-1")
    write(tmp_path / "ckpt-1", {})
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "ckpt-2"\n')
    assert "names ckpt-2 checkpoint as its latest, which is not there" in refusal(tmp_path)
    (tmp_path / "checkpoint").unlink()
    assert refusal(tmp_path).endswith("names the latest: name one (ckpt-1).")


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        (Stored(b"\0" * 8, (2,), checksum=7), "weight is damaged: its checksum differs"),
        (Stored(b"\0" * 8, (3,)), "weight has 8 bytes, which is not what its shape (3,) takes"),
        (Stored(b"\0" * 8, (2**34,), size=2**36), "the data file ends inside weight"),
        (Stored(b"\0" * 8, (2,), size=2**63), "an entry of the index has an impossible number"),
        (Stored(b"\0" * 4, (2,), dtype=BFLOAT16), "weight has type bfloat16, which is not read here"),
        (Stored(b"\0" * 8, (2,), more=message({7: b"\x0a\x00"})), "weight is stored in slices"),
        (Stored(b"\0" * 8, (2,), shard=4), "a variable lies in data file 4 of 1"),
    ],
)
def test_an_entry_that_cannot_be_read_is_refused_by_its_name(
    tmp_path: Path, stored: Stored, said: str
) -> None:
    prefix = write(tmp_path / "ckpt-1", {"weight/.ATTRIBUTES/VARIABLE_VALUE": stored})
    assert said in refusal(prefix)


def test_compressed_and_big_endian_checkpoints_are_refused_by_name(tmp_path: Path) -> None:
    entries = dict([variable("weight", np.zeros(2))])
    assert "the index is compressed" in refusal(write(tmp_path / "a/ckpt-1", entries, compression=1))
    assert "big-endian" in refusal(write(tmp_path / "b/ckpt-1", entries, big_endian=True))


def test_a_missing_data_file_is_named(tmp_path: Path) -> None:
    prefix = write(tmp_path / "ckpt-1", dict([variable("weight", np.zeros(2))]))
    (tmp_path / "ckpt-1.data-00000-of-00001").unlink()
    assert "its data file ckpt-1.data-00000-of-00001 is missing" in refusal(prefix)


def test_every_flipped_byte_of_an_index_is_noticed_or_changes_nothing(tmp_path: Path) -> None:
    expected = arrays()
    prefix = write(tmp_path / "ckpt-1", dict(variable(*pair) for pair in expected.items()))
    index = tmp_path / "ckpt-1.index"
    content = index.read_bytes()
    noticed = 0
    for place in range(len(content)):
        index.write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
        try:
            found = read_checkpoint(prefix)
        except InvalidCheckpoint:
            noticed += 1
            continue
        # Only what nobody reads may be changed: the empty meta index and the padding of the footer.
        assert all(np.array_equal(found[name], array) for name, array in expected.items())
    assert noticed > 0.8 * len(content)


def test_an_index_cut_anywhere_is_refused(tmp_path: Path) -> None:
    prefix = write(tmp_path / "ckpt-1", dict([variable("weight", np.zeros(2))]))
    index = tmp_path / "ckpt-1.index"
    content = index.read_bytes()
    for length in range(len(content)):
        index.write_bytes(content[:length])
        assert "cannot be read" in refusal(prefix)


@pytest.mark.parametrize(
    "row", [b"\x05\x01\x00k", b"\x00\x7f\x00k", b"\xff" * 12, b"\x00\x01\x03k\x0f\xff\xff"]
)
def test_forged_rows_with_true_checksums_are_refused_too(tmp_path: Path, row: bytes) -> None:
    block = row + (0).to_bytes(4, "little") + (1).to_bytes(4, "little")
    (tmp_path / "ckpt-1.index").write_bytes(table([block]))
    assert "cannot be read" in refusal(tmp_path / "ckpt-1")
