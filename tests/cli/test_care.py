"""`pyramid check`, `repair` and `export` as they are typed: what they say, and how they end."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tests.damage import Undamaged, flip, scenes_archive, tree
from tnet_geo.cli.app import app
from tnet_geo.cli.endings import run


@pytest.fixture
def scenes(tmp_path: Path) -> Undamaged:
    return scenes_archive(tmp_path)


def test_from_a_flipped_byte_to_the_same_bytes(scenes: Undamaged, capsys: pytest.CaptureFixture[str]) -> None:
    archive = str(scenes.path)
    assert run(app, ["pyramid", "check", archive]) == 0
    assert "nothing is wrong" in capsys.readouterr().out
    name = "scenes/masked/0/data/c/0/1/1"
    flip(scenes.path / name, random.Random(0))
    assert run(app, ["pyramid", "check", archive]) == 5
    assert name in capsys.readouterr().out
    assert run(app, ["pyramid", "check", archive, "--json"]) == 5
    report = json.loads(capsys.readouterr().out)
    assert report["exit_code"] == 5
    assert [(fault["item"], fault["level"], fault["array"]) for fault in report["faults"]] == [
        ("scene masked", 0, "data")
    ]
    assert run(app, ["pyramid", "repair", archive]) == 3
    assert "its source is not in the manifest" in capsys.readouterr().out
    assert run(app, ["pyramid", "repair", archive, "--manifest", scenes.manifest.path]) == 0
    assert tree(scenes.path) == scenes.files
    assert run(app, ["pyramid", "check", archive, "--sample", "3"]) == 0
    assert "3 of " in capsys.readouterr().out


def test_readers_are_a_table(scenes: Undamaged, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["pyramid", "check", str(scenes.path), "--readers", "--sample", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "scene",
        "reader",
        "version",
        "pixels",
        "crs",
        "transform",
        "overviews",
        "note",
    ]
    assert any("rio-tiler" in line for line in lines)
    seal = scenes.path / "scenes/bare/0/data/zarr.json"
    seal.write_text(seal.read_text().replace('"little"', '"big"').replace('"zstd"', '"gzip"'))
    assert run(app, ["pyramid", "check", str(scenes.path), "--readers"]) == 5


def test_scenes_are_exported(scenes: Undamaged, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["pyramid", "export", str(scenes.path), "--to", "cog", "-o", str(tmp_path / "cogs")]
    assert run(app, [*words, "--scene", "plain", "--scene", "masked"]) == 0
    assert sorted(path.name for path in (tmp_path / "cogs").iterdir()) == ["masked.tif", "plain.tif"]
    capsys.readouterr()
    assert run(app, [*words, "--scene", "absent", "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["exit_code"] == 3
    assert run(app, [*words, "--to", "jpeg"]) == 2


@pytest.mark.parametrize("verb", [["check"], ["check", "--readers"], ["repair"], ["export", "-o", "cogs"]])
def test_what_is_no_archive_is_refused(
    verb: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(app, ["pyramid", verb[0], str(tmp_path), *verb[1:]]) == 4
    assert not list(tmp_path.iterdir())
