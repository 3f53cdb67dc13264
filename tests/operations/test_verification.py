"""`model info` and `model verify`: costs are told without weights, and whatever has changed is found."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tomli_w

from tests.archives import TinyArchive
from tests.networks import small_bundle
from tests.rasters import random_pixels
from tnet_geo.cli.show import as_json_text
from tnet_geo.errors import InvalidBundle, RuntimeUnusable, UsageError
from tnet_geo.inference import load_bundle
from tnet_geo.model import read_bundle
from tnet_geo.model.bundle import read_golden_of
from tnet_geo.model.counting import parameters, walk_macs
from tnet_geo.operations.training import train_with
from tnet_geo.operations.verification import model_info, verify_bundle

ASK = """
import sys
import numpy as np
import tnet_geo

bundle, folder = sys.argv[1:]
found = tnet_geo.load_bundle(bundle).classify(np.load(folder + "/images.npy"))
trails = np.array([repr(trail) for trail in found.trails])
np.savez(folder + "/answers.npz", logits=found.logits, probabilities=found.probabilities, trails=trails)
"""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_bundle(4).save(tmp_path_factory.mktemp("original") / "bundle")


@pytest.fixture
def saved(original: Path, tmp_path: Path) -> Path:
    """A bundle that a test may spoil."""
    return Path(shutil.copytree(original, tmp_path / "bundle"))


def with_golden(bundle: Path, how: Callable[[np.ndarray], np.ndarray]) -> None:
    """Let a bundle remember other logits, digests and all."""
    golden = read_golden_of(bundle, read_bundle(bundle))
    content = dataclasses.replace(golden, logits=how(golden.logits)).content()
    (bundle / "golden.npz").write_bytes(content)
    table = tomllib.loads((bundle / "bundle.toml").read_text())
    table["files"]["golden.npz"] = hashlib.sha256(content).hexdigest()
    (bundle / "bundle.toml").write_text(tomli_w.dumps(table))


def test_a_bundle_as_saved_has_nothing_wrong_and_is_left_as_it_is(saved: Path) -> None:
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    report = verify_bundle(saved)
    assert (report.exit_code, report.findings) == (0, ())
    assert [one.output for one in report.outputs] == ["features", "child_logits", "logits"]
    assert report.lines()[-1] == "Nothing is wrong."
    assert json.loads(as_json_text(report))["exit_code"] == 0
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


@pytest.mark.parametrize("runtime", ["eager", "folded", "onnx"])
def test_every_runtime_is_held_against_the_same_answers_and_named(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    if runtime == "onnx":
        pytest.importorskip("onnxruntime")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    report = verify_bundle(saved, runtime=runtime)  # type: ignore[arg-type]
    assert report.exit_code == 0
    assert report.runtime.startswith(runtime)


@pytest.mark.parametrize("device", ["cuda:99", "meta", "abacus"])
def test_a_device_that_is_not_here_is_refused_by_name(saved: Path, device: str) -> None:
    with pytest.raises(RuntimeUnusable, match=f"this machine has no device {device}"):
        verify_bundle(saved, device=device)


@pytest.mark.parametrize("name", ["model.safetensors", "golden.npz", "mlm.json"])
def test_a_single_changed_bit_of_any_file_is_found_by_its_name(saved: Path, name: str) -> None:
    content = bytearray((saved / name).read_bytes())
    content[len(content) // 2] ^= 1
    (saved / name).write_bytes(content)
    report = verify_bundle(saved)
    assert report.exit_code == 5
    assert report.findings == (
        f"Bundle {saved} has a damaged {name} (its sha256 is another): copy it again.",
    )
    assert not report.outputs


@pytest.mark.parametrize("name", ["model.safetensors", "golden.npz", "mlm.json"])
def test_a_missing_file_is_found_and_one_that_is_not_named_too(saved: Path, name: str) -> None:
    (saved / name).unlink()
    assert f"has no readable {name}" in verify_bundle(saved).findings[0]
    table = tomllib.loads((saved / "bundle.toml").read_text())
    del table["files"][name]
    (saved / "bundle.toml").write_text(tomli_w.dumps(table))
    assert f"names no {name} in its table [files]" in verify_bundle(saved).findings[0]


def test_answers_that_differ_here_are_found_with_both_figures(saved: Path) -> None:
    with_golden(saved, lambda logits: logits * 1.001)
    report = verify_bundle(saved)
    assert report.exit_code == 5
    assert len(report.findings) == 1
    assert "gives other logits here than where it was saved" in report.findings[0]
    assert [one.within for one in report.outputs] == [True, True, False]


def test_answers_that_differ_by_rounding_are_the_same(saved: Path) -> None:
    with_golden(saved, lambda logits: logits * np.float32(1 + 1e-6))
    assert verify_bundle(saved).exit_code == 0


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidBundle):
        verify_bundle(tmp_path)
    with pytest.raises(InvalidBundle):
        model_info(tmp_path)


def test_info_tells_what_a_bundle_is_and_costs(saved: Path) -> None:
    bundle = read_bundle(saved)
    info = model_info(saved)
    assert info.parameters == parameters(bundle.network)
    assert info.digest == bundle.digest
    assert info.facts == bundle.facts.model_dump(mode="json")
    assert [(walk.depths, walk.side_px, walk.looks) for walk in info.walks] == [
        (1, 32, 1),
        (2, 64, 3),
        (3, 128, 5),
        (4, 256, 7),
    ]
    assert [walk.macs for walk in info.walks] == [
        walk_macs(bundle.network, bundle.facts.walk, depths).total for depths in (1, 2, 3, 4)
    ]
    assert info.file_bytes["model.safetensors"] == (saved / "model.safetensors").stat().st_size
    assert json.loads(as_json_text(info))["facts"]["classes"] == ["a", "b", "c"]
    assert any(line.startswith("classes") and line.endswith("3: a, b, c") for line in info.lines())


def test_info_needs_no_weights(saved: Path) -> None:
    (saved / "model.safetensors").unlink()
    assert model_info(saved).parameters == parameters(small_bundle(4).network)


def test_a_described_model_has_costs_and_no_weights() -> None:
    info = model_info("efficientnet_fmow")
    assert (info.parameters, info.digest, info.file_bytes) == (4_086_970, None, {})
    assert [(walk.looks, round(walk.macs / 1e9, 4)) for walk in info.walks] == [(1, 6.1432)]


def test_a_name_that_no_model_has_is_refused_with_those_that_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"tnet_fnow .*tnet_fmow"):
        model_info("tnet_fnow")
    with pytest.raises(InvalidBundle):
        model_info(tmp_path / "tnet_fmow")


def test_a_trained_bundle_survives_export_verify_and_a_fresh_process(
    tiny: TinyArchive, tmp_path: Path
) -> None:
    none = {"epochs": 0}
    trained = train_with(
        tiny.settings(tmp_path / "run", location={**none, "pool_steps": 1}, rivals={"train": ()})
    ).bundle
    exported = read_bundle(trained).save(tmp_path / "exported")
    assert {path.name: path.read_bytes() for path in exported.iterdir()} == {
        path.name: path.read_bytes() for path in trained.iterdir()
    }
    assert verify_bundle(exported).exit_code == 0
    images = np.stack([random_pixels(seed, (64, 96)).transpose(1, 2, 0) for seed in range(3)])
    np.save(tmp_path / "images.npy", images)
    subprocess.run(
        [sys.executable, "-c", ASK, str(exported), str(tmp_path)], check=True, env=os.environ, timeout=120
    )
    here, there = load_bundle(trained).classify(images), np.load(tmp_path / "answers.npz")
    np.testing.assert_array_equal(there["logits"], here.logits)
    np.testing.assert_array_equal(there["probabilities"], here.probabilities)
    assert there["trails"].tolist() == [repr(trail) for trail in here.trails]
