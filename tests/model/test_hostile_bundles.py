"""Bundles made to do harm: no code in them runs, nothing outside them is read, and one sentence says no."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import resource
import shutil
import struct
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
import torch
from safetensors.torch import load, save

from tests.networks import small_bundle
from tnet_geo.errors import InvalidBundle
from tnet_geo.model import read_bundle
from tnet_geo.operations.verification import model_info, verify_bundle

Change = Callable[[dict[str, Any]], None]


class Payload:
    """What a pickle runs when it is opened."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self._marker),)


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """A folder that only a payload makes."""
    place = tmp_path / "code-has-run"
    yield place
    assert not place.exists()


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_bundle(4).save(tmp_path_factory.mktemp("original") / "bundle")


@pytest.fixture
def saved(original: Path, tmp_path: Path) -> Path:
    """A bundle that a test may spoil."""
    return Path(shutil.copytree(original, tmp_path / "bundle"))


def put(bundle: Path, name: str, content: bytes) -> None:
    """Put another file into a bundle, and its digest into `bundle.toml`, as an attacker would."""
    (bundle / name).unlink()
    (bundle / name).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    change(bundle, lambda table: table["files"].update({name: digest}))


def change(bundle: Path, how: Change) -> None:
    """Rewrite `bundle.toml`."""
    table = tomllib.loads((bundle / "bundle.toml").read_text())
    how(table)
    (bundle / "bundle.toml").write_text(tomli_w.dumps(table))


def refusal_of(bundle: Path) -> str:
    """What reading says, which has to be one line with exit status 4."""
    with pytest.raises(InvalidBundle) as refusal:
        read_bundle(bundle)
    said = str(refusal.value)
    assert refusal.value.exit_code == 4
    assert said.startswith(f"Bundle {bundle} ")
    assert "\n" not in said
    return said


def archive_of(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


def members_of(golden: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(golden) as archive:
        return {name.removesuffix(".npy"): archive.read(name) for name in archive.namelist()}


def header_of(shape: str, descr: str = "<f4") -> bytes:
    """The head of an .npy file that claims a shape, and nothing behind it."""
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_in_the_place_of_the_weights_is_never_opened(
    saved: Path, marker: Path, protocol: int
) -> None:
    put(saved, "model.safetensors", pickle.dumps(Payload(marker), protocol))
    assert "has weights that do not load" in refusal_of(saved)


def test_a_torch_checkpoint_in_the_place_of_the_weights_is_never_opened(saved: Path, marker: Path) -> None:
    file = io.BytesIO()
    torch.save({"weights": Payload(marker)}, file)
    put(saved, "model.safetensors", file.getvalue())
    assert "has weights that do not load" in refusal_of(saved)


def test_pickled_objects_among_the_golden_answers_are_never_opened(saved: Path, marker: Path) -> None:
    members = members_of(saved / "golden.npz")
    objects = io.BytesIO()
    np.save(objects, np.array([Payload(marker)], dtype=object), allow_pickle=True)
    put(saved, "golden.npz", archive_of(**{**members, "features": objects.getvalue()}))
    report = verify_bundle(saved)
    assert report.exit_code == 5
    assert "golden.npz that is none (features is object (1,), not float32 (6, 96))" in report.findings[0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not a zip file"),
        (b"PK\x05\x06" + bytes(18), "other arrays"),
        (archive_of(features=header_of("(6, 96)")), "other arrays"),
    ],
)
def test_a_golden_file_that_is_something_else_is_a_finding(saved: Path, content: bytes, said: str) -> None:
    put(saved, "golden.npz", content)
    report = verify_bundle(saved)
    assert report.exit_code == 5
    assert said in report.findings[0]


@pytest.mark.parametrize(
    ("member", "said"),
    [
        (header_of("(6, 1000000000000)"), "(6, 1000000000000), not float32 (6, 96)"),
        (header_of("(6, 96)"), "features ends early"),
        (header_of("(6, 96)", "<f8"), "features is float64"),
        (b"\x93NUMPY\x03\x00" + struct.pack("<I", 2**32 - 1), "numpy format (3, 0)"),
        (b"\x93NUMPY\x01\x00" + struct.pack("<H", 65535) + b"[" * 65535, "golden.npz that is none"),
        (b"no array", "golden.npz that is none"),
        (b"\x93NUMPY\x01\x00\x02\x00(\n", "golden.npz that is none"),
        (bytes(2**24), "golden.npz that is none"),
    ],
)
def test_an_array_that_claims_more_than_the_network_has_is_a_finding(
    saved: Path, member: bytes, said: str
) -> None:
    members = members_of(saved / "golden.npz")
    put(saved, "golden.npz", archive_of(**{**members, "features": member}))
    report = verify_bundle(saved)
    assert report.exit_code == 5
    assert said in report.findings[0]


@pytest.mark.parametrize("seed", range(20))
def test_flipped_bytes_below_a_right_digest_are_a_finding_and_no_crash(saved: Path, seed: int) -> None:
    chance = np.random.default_rng(seed)
    content = np.frombuffer((saved / "golden.npz").read_bytes(), dtype=np.uint8).copy()
    content[chance.integers(0, len(content), 8)] ^= chance.integers(1, 256, 8).astype(np.uint8)
    put(saved, "golden.npz", content.tobytes())
    assert verify_bundle(saved).exit_code in {0, 5}  # 0 where only names of the zip's own fields changed


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "model.safetensors/../../x", "run.py", "", "golden.npz\0"]
)
def test_a_bundle_names_its_own_files_and_no_others(saved: Path, name: str) -> None:
    change(saved, lambda table: table["files"].update({name: "0" * 64}))
    assert "has a wrong entry files" in refusal_of(saved)


@pytest.mark.parametrize("digest", ["", "0" * 63, "../" + "0" * 61, "Z" * 64, 7])
def test_a_digest_is_sixty_four_hexadecimal_digits(saved: Path, digest: object) -> None:
    change(saved, lambda table: table["files"].update({"mlm.json": digest}))
    assert "has a wrong entry files.mlm.json" in refusal_of(saved)


@pytest.mark.parametrize("name", ["bundle.toml", "model.safetensors"])
def test_links_are_not_followed(saved: Path, tmp_path: Path, name: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    (saved / name).rename(elsewhere)
    (saved / name).symlink_to(elsewhere)
    assert f"has a {name} that is a link: copy the files themselves into it." in refusal_of(saved)


@pytest.mark.parametrize("name", ["bundle.toml", "model.safetensors"])
def test_pipes_are_not_waited_for_and_folders_are_no_files(saved: Path, name: str) -> None:
    (saved / name).unlink()
    os.mkfifo(saved / name)
    assert f"has a {name} that is no plain file" in refusal_of(saved)
    (saved / name).unlink()
    (saved / name).mkdir()
    assert f"has a {name} that is no plain file" in refusal_of(saved)


@pytest.mark.parametrize("name", ["golden.npz", "mlm.json"])
def test_verify_finds_links_and_pipes_without_reading_them(saved: Path, name: str) -> None:
    (saved / name).unlink()
    (saved / name).symlink_to("/dev/zero")
    assert f"has a {name} that is a link" in verify_bundle(saved).findings[0]
    (saved / name).unlink()
    os.mkfifo(saved / name)
    assert f"has a {name} that is no plain file" in verify_bundle(saved).findings[0]


@pytest.mark.parametrize("name", ["bundle.toml", "model.safetensors"])
def test_a_file_larger_than_any_such_bundle_is_not_read(saved: Path, name: str) -> None:
    os.truncate(saved / name, 1 << 40)  # sparse: nothing of it is on the disk
    assert f"has a {name} of 1099511627776 bytes, more than such a bundle can have" in refusal_of(saved)


def header(table: object, claimed: int | None = None) -> bytes:
    text = json.dumps(table).encode()
    return struct.pack("<Q", len(text) if claimed is None else claimed) + text


TENSOR = {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    "content",
    [
        header({}, claimed=2**63),
        header({}, claimed=2**40),
        header({"x": TENSOR}) + bytes(4),
        header({"x": {**TENSOR, "shape": [-1]}}) + bytes(4),
        header({"x": {**TENSOR, "shape": [1], "data_offsets": [0, 2**60]}}) + bytes(4),
        header({"x": {**TENSOR, "shape": [1], "data_offsets": [4, 0]}}) + bytes(4),
        header({"x": {**TENSOR, "dtype": "PICKLE"}}) + bytes(4),
        struct.pack("<Q", 200_000) + b"[" * 200_000,
        b"\xff" * 100,
        b"",
    ],
)
def test_weights_with_an_impossible_table_are_refused(saved: Path, content: bytes) -> None:
    put(saved, "model.safetensors", content)
    assert "has weights that do not load" in refusal_of(saved)


def replaced(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {**tensors, "classifier.bias": torch.zeros(3, dtype=torch.float64)}


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (replaced, "classifier.bias is float64 [3], its network has float32 [3]"),
        (lambda tensors: {**tensors, "classifier.bias": torch.zeros(4)}, "classifier.bias is float32 [4]"),
        (lambda tensors: {**tensors, "__class__": torch.zeros(1)}, "__class__ is float32 [1], its network"),
        (lambda tensors: dict(list(tensors.items())[1:]), "is missing, its network has"),
    ],
)
def test_weights_of_another_network_are_refused_by_the_tensors_name(
    saved: Path, how: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], said: str
) -> None:
    tensors = how(load((saved / "model.safetensors").read_bytes()))
    put(saved, "model.safetensors", save(tensors))
    assert said in refusal_of(saved)


@pytest.mark.parametrize("table", ["", "files", "network", "walk", "network.pixels", "network.location"])
def test_unknown_keys_are_refused_in_every_table(saved: Path, table: str) -> None:
    def add(found: dict[str, Any]) -> None:
        for name in filter(None, table.split(".")):
            found = found[name]
        found["run"] = "import os"

    change(saved, add)
    assert f"has a wrong entry {table}" in refusal_of(saved)


@pytest.mark.parametrize(
    "text",
    [
        b"\xff\xfe",
        b"version = ",
        b"a = " + b"[" * 100_000,
        b"x." * 50_000 + b"y = 1",
        b"version = 2",
        b'version = "2"',
        b"version = true",
        b"version = " + b"9" * 30,
        b"version = " + b"9" * 10_000,
    ],
)
def test_a_bundle_toml_that_is_none_is_refused(saved: Path, text: bytes) -> None:
    (saved / "bundle.toml").write_bytes(text)
    refusal_of(saved)


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [
        ("network", "depths", 10**12),
        ("network", "depths", 10**30),
        ("network", "base_px", 10**15),
        ("network", "backbone", "timm/hf-hub:someone/something"),
        ("network", "backbone", "timm/local-dir:/tmp"),
        ("network", "backbone", "timm/../../etc/passwd"),
        ("network", "backbone", "os.system"),
        ("network", "backbone", "timm/vit_giant_patch14_224"),
        ("location", "tap", "__class__"),
        ("location", "tap", "to_tap.0.weight"),
        ("location", "tap", "forward"),
        ("location", "cells", [-1, 10**9, 2]),
        ("pixels", "bands", 10**12),
        ("pixels", "dtype", "U1000000000"),
        ("pixels", "mean", [float("nan")] * 3),
    ],
)
def test_a_network_of_impossible_settings_is_refused_before_it_takes_memory(
    saved: Path, table: str, key: str, value: object
) -> None:
    def put_in(found: dict[str, Any]) -> None:
        network = found["network"]
        (network if table == "network" else network[table])[key] = value
        if key == "cells":
            network["location"]["form"] = "cells"

    change(saved, put_in)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refusal_of(saved)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB


def test_info_of_a_hostile_bundle_reads_no_weights_and_follows_no_link(saved: Path, marker: Path) -> None:
    put(saved, "model.safetensors", pickle.dumps(Payload(marker)))
    assert model_info(saved).parameters > 0
    change(saved, lambda table: table["network"].update(depths=10**12))
    with pytest.raises(InvalidBundle):
        read_bundle(saved)
