"""`tnet-geo model info|verify`, typed as a user would type it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.networks import small_bundle
from tnet_geo.cli.app import app
from tnet_geo.cli.endings import run


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return small_bundle(3).save(tmp_path / "bundle")


def test_info_says_what_a_bundle_expects_and_costs(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["model", "info", str(bundle)]) == 0
    said = capsys.readouterr().out
    assert "3: a, b, c" in said
    assert "MACs of a look" in said
    assert run(app, ["model", "info", str(bundle), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["facts"]["classes"] == ["a", "b", "c"]
    assert report["parameters"] > 0


def test_info_describes_named_models_and_refuses_other_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["model", "info", "tnet_fmow", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parameters"] == 4_517_575
    assert run(app, ["model", "info", "tnet_mars"]) == 2
    assert "tnet_mars is no model that is described: name one of" in capsys.readouterr().err


def test_verify_finds_nothing_in_a_whole_bundle_and_the_damage_in_another(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["model", "verify", str(bundle)]
    assert run(app, [*words, "--runtime", "eager"]) == 0
    assert "Nothing is wrong." in capsys.readouterr().out
    weights = bundle / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(content)
    assert run(app, [*words, "--json"]) == 5
    report = json.loads(capsys.readouterr().out)
    assert report["exit_code"] == 5
    assert "damaged model.safetensors" in report["findings"][0]


def test_what_is_no_bundle_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("info", "verify"):
        assert run(app, ["model", verb, str(tmp_path)]) == 4
        assert "no readable bundle.toml" in capsys.readouterr().err
