"""Bundles: what is saved is what comes back, and nothing else loads."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.networks import small_bundle, small_network
from tests.rasters import random_pixels
from tnet_geo.errors import InvalidBundle, OutputExists, PlaceUnusable, SiteMismatch
from tnet_geo.inference import Classifier, load_bundle
from tnet_geo.model import read_bundle

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


def images(count: int = 3) -> np.ndarray:
    return np.stack([random_pixels(seed, (128, 96)).transpose(1, 2, 0) for seed in range(count)])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_saved_bundle_gives_bit_identical_answers(saved: Path) -> None:
    before = Classifier(small_bundle(4)).classify(images())
    after = load_bundle(saved).classify(images())
    np.testing.assert_array_equal(before.logits, after.logits)
    assert before.labels == after.labels
    assert before.trails == after.trails
    np.testing.assert_allclose(after.probabilities.sum(axis=1), 1, rtol=1e-6)


def test_a_bundle_is_four_files_and_none_can_hold_code(saved: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == [
        "bundle.toml",
        "golden.npz",
        "mlm.json",
        "model.safetensors",
    ]


def test_bundle_toml_names_every_other_file_by_its_digest(saved: Path) -> None:
    files = tomllib.loads((saved / "bundle.toml").read_text())["files"]
    assert files == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in saved.iterdir()
        if path.name != "bundle.toml"
    }


def test_a_bundle_read_and_saved_again_is_the_same_byte_for_byte(saved: Path, tmp_path: Path) -> None:
    first = read_bundle(saved)
    again = read_bundle(first.save(tmp_path / "exported"))
    assert again.digest == first.digest == hashlib.sha256((saved / "bundle.toml").read_bytes()).hexdigest()
    assert contents(tmp_path / "exported") == contents(saved)


def test_a_fresh_process_gives_bit_identical_answers(saved: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", images())
    subprocess.run(
        [sys.executable, "-c", ASK, str(saved), str(tmp_path)], check=True, env=os.environ, timeout=120
    )
    here = load_bundle(saved).classify(images())
    there = np.load(tmp_path / "answers.npz")
    np.testing.assert_array_equal(there["logits"], here.logits)
    np.testing.assert_array_equal(there["probabilities"], here.probabilities)
    assert there["trails"].tolist() == [repr(trail) for trail in here.trails]


def test_every_fact_survives_the_folder(tmp_path: Path) -> None:
    bundle = small_bundle(4)
    facts = bundle.facts.model_copy(
        update={
            "canvas": "fit:896",
            "reduction": "central",
            "temperature": 1 / 3,
            "gsd_m": (0.3, 1.1),
            "value_range": (0.1, 254.00000000000003),
            "training": {"stage": "joint", "seed": 3, "baseline": 0.4375},
            "metrics": {"accuracy": 2 / 3},
        }
    )
    found = read_bundle(dataclasses.replace(bundle, facts=facts).save(tmp_path / "bundle")).facts
    assert found.model_copy(update={"files": {}}) == facts


def test_making_a_network_uses_up_nobody_elses_random_numbers(saved: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    read_bundle(saved).save(tmp_path / "again")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_network_in_training_mode_is_saved_and_left_in_it(tmp_path: Path) -> None:
    network = small_network(4).train()
    bundle = dataclasses.replace(small_bundle(4), network=network)
    saved = bundle.save(tmp_path / "bundle")
    assert network.training
    assert contents(saved) == contents(small_bundle(4).save(tmp_path / "other"))


def test_a_bundle_is_never_overwritten_unasked_and_replaced_whole_when_asked(saved: Path) -> None:
    with pytest.raises(OutputExists):
        small_bundle(5).save(saved)
    small_bundle(5).save(saved, replace=True)
    expected = small_network(5).classifier.weight
    assert torch.equal(read_bundle(saved).network.classifier.weight, expected)
    assert [path.name for path in saved.parent.iterdir()] == ["bundle"]


def test_a_place_that_cannot_be_written_is_refused_and_what_was_there_stays(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PlaceUnusable, match="cannot be written"):
        small_bundle(5).save(saved / "bundle.toml" / "inside")
    before = contents(saved)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PlaceUnusable, match="No space left on device") as refusal:
        small_bundle(5).save(saved, replace=True)
    assert refusal.value.exit_code == 4
    assert contents(saved) == before
    assert [path.name for path in saved.parent.iterdir()] == ["bundle"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("version = 2", "version = 7", "has format version 7, this tnet-geo reads version 2"),
        ("classes = 3", "classes = 4", "3 classes, but a network of 4"),
        ('"c",', '"b",', "a class stands twice"),
        (
            "depths = 4",
            "depths = 5",
            "has weights of another network (location.depth.weight is float32 [4, 48]",
        ),
        ('"plain"', '"painted"', "names the unknown backbone"),
        ("[network]", "[network]\ncolour = 1", "has a wrong entry network.colour"),
        ("temperature = 1.0", "temperature = -1", "has a wrong entry temperature"),
        ("temperature = 1.0", "temperature = inf", "has a wrong entry temperature"),
        ('dtype = "uint8"', 'dtype = "object"', "pixels of object, which is none of uint8"),
        ("bands = 3", "bands = 4", "mean and std of 3 and 3 bands, not 4"),
        ("    60.0,", "    0.0,", "a std that is not above 0"),
        ("[training]", "value_range = [9.0, 1.0]\n[training]", "has a wrong entry walk.value_range"),
        ("temperature = 1.0", "gsd_m = [2.0, 1.0]", "gsd_m ends before it begins"),
        ("[network", "[[network", "has no readable bundle.toml"),
    ],
)
def test_another_version_or_a_changed_entry_is_refused_by_name(
    saved: Path, old: str, new: str, said: str
) -> None:
    facts = saved / "bundle.toml"
    text = facts.read_text()
    assert old in text
    facts.write_text(text.replace(old, new, 1))
    with pytest.raises(InvalidBundle) as refusal:
        read_bundle(saved)
    assert said in str(refusal.value)
    assert refusal.value.exit_code == 4


def test_a_bundle_of_the_first_version_is_refused_by_that_name(saved: Path) -> None:
    (saved / "bundle.toml").write_text(
        f'format = "tnet-geo bundle"\nversion = 1\nweights_sha256 = "{"0" * 64}"\nclasses = ["a"]\n'
    )
    for name in ("mlm.json", "golden.npz"):
        (saved / name).unlink()
    with pytest.raises(
        InvalidBundle, match=r"has format version 1, this tnet-geo reads version 2: train one"
    ):
        read_bundle(saved)


def test_damaged_weights_and_an_empty_folder_are_refused(saved: Path, tmp_path: Path) -> None:
    weights = saved / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    with pytest.raises(InvalidBundle, match=r"a damaged model\.safetensors"):
        read_bundle(saved)
    with pytest.raises(InvalidBundle, match=r"no readable bundle\.toml"):
        read_bundle(tmp_path)


def test_pictures_of_other_bands_or_types_are_refused_by_both_sides_names() -> None:
    classifier = Classifier(small_bundle())
    with pytest.raises(
        SiteMismatch, match=r"image 0 has 3 bands of uint16, but the bundle was trained on 3 of uint8"
    ):
        classifier.classify(images().astype(np.uint16))
