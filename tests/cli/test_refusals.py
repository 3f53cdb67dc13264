"""Bad input, typed as a user would type it: one sentence, the right exit status, nothing half-written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tomli_w

from tests.archives import TinyArchive
from tests.networks import small_bundle
from tnet_geo.cli.app import app
from tnet_geo.cli.endings import run
from tnet_geo.imagery import write_manifest

Case = Callable[[TinyArchive, Path], list[str]]


def empty_folder(tiny: TinyArchive, here: Path) -> list[str]:
    (here / "pictures").mkdir()
    return ["manifest", "folder", str(here / "pictures"), "-o", str(here / "out.parquet")]


def missing_column(tiny: TinyArchive, here: Path) -> list[str]:
    (here / "sites.csv").write_text("site_id,label\na,meadow\n")
    return ["pyramid", "build", str(here / "sites.csv"), "-o", str(here / "out")]


def duplicate_id(tiny: TinyArchive, here: Path) -> list[str]:
    (here / "sites.csv").write_text("site_id,scene\na,1.tif\na,2.tif\n")
    return ["pyramid", "build", str(here / "sites.csv"), "-o", str(here / "out")]


def other_settings(tiny: TinyArchive, here: Path) -> list[str]:
    return ["pyramid", "build", tiny.manifest.path, "-o", str(tiny.archive.path), "--half-px", "24"]


def run_file(tiny: TinyArchive, here: Path, manifest: str, more: str = "") -> Path:
    table = tiny.settings(here / "out").model_dump(mode="json", exclude_none=True)
    table["data"]["manifest"] = manifest
    (here / "run.toml").write_text(tomli_w.dumps(table) + more)
    return here / "run.toml"


def unknown_label(tiny: TinyArchive, here: Path) -> list[str]:
    sites = [site for site in tiny.manifest.sites if not (site.split == "train" and site.label == "water")]
    manifest = write_manifest(sites, here / "sites.parquet")
    return ["train", str(run_file(tiny, here, manifest.path))]


def unknown_key(tiny: TinyArchive, here: Path) -> list[str]:
    return ["train", str(run_file(tiny, here, tiny.manifest.path, "\n[walk]\nkeep = [2]\n"))]


def archive_for_another_lattice(tiny: TinyArchive, here: Path) -> list[str]:
    return [*classify(tiny, here), "--bundle", str(small_bundle(base_px=48).save(here / "bundle"))]


def bundle_of_another_version(tiny: TinyArchive, here: Path) -> list[str]:
    bundle = small_bundle().save(here / "bundle")
    facts = bundle / "bundle.toml"
    facts.write_text(facts.read_text().replace("version = 2", "version = 3", 1))
    return [*classify(tiny, here), "--bundle", str(bundle)]


def classify(tiny: TinyArchive, here: Path) -> list[str]:
    given = ["--archive", str(tiny.archive.path), "--manifest", tiny.manifest.path]
    return ["classify", *given, "-o", str(here / "out")]


@pytest.mark.parametrize(
    ("case", "said"),
    [
        (empty_folder, "holds no image"),
        (missing_column, "has no column 'scene'"),
        (duplicate_id, "has the site_id 'a' more than once"),
        (other_settings, "was built with half_px 16, shard_chunks 4, but half_px 24, shard_chunks 16 is"),
        (unknown_label, "has the label 'water' in split val that no training site has"),
        (unknown_key, "has the unknown key walk: did you mean"),
        (archive_for_another_lattice, "was built with half_px 16, but half_px 24 or a divisor of it"),
        (bundle_of_another_version, "has format version 3, this tnet-geo reads version 2"),
    ],
)
def test_bad_input_is_refused_in_one_sentence_and_nothing_is_written(
    tiny: TinyArchive, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: Case, said: str
) -> None:
    typed = case(tiny, tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert run(app, typed) == 4
    heard = capsys.readouterr()
    assert said in heard.err
    assert heard.err.count("\n") == 1
    assert heard.out == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_an_output_that_holds_something_else_is_refused_and_left_as_it_is(
    tiny: TinyArchive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "letter.txt").write_text("dear reader")
    bundle = str(small_bundle().save(tmp_path / "bundle"))
    for typed in (
        ["pyramid", "build", tiny.manifest.path, "-o", str(out), "--half-px", "16"],
        ["train", str(run_file(tiny, tmp_path, tiny.manifest.path))],
        [*classify(tiny, tmp_path), "--bundle", bundle],
        ["demo", "--out", str(out)],
    ):
        assert run(app, typed) == 4, typed
        assert str(out) in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["letter.txt"]


def test_an_unreadable_image_is_set_aside_with_exit_status_3_and_the_rest_is_built(
    tiny: TinyArchive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = tmp_path / "pictures" / "meadow"
    pictures.mkdir(parents=True)
    shutil.copy(tiny.folder / "scenes" / "000.tif", pictures / "good.tif")
    (pictures / "bad.tif").write_bytes(b"no picture")
    manifest, archive = str(tmp_path / "sites.csv"), str(tmp_path / "archive")
    assert run(app, ["manifest", "folder", str(tmp_path / "pictures"), "-o", manifest]) == 0
    capsys.readouterr()
    assert run(app, ["pyramid", "build", manifest, "-o", archive, "--half-px", "16", "--workers", "1"]) == 3
    assert "bad.tif cannot be read" in capsys.readouterr().out
    assert "bad.tif cannot be read" in (tmp_path / "archive" / "failed.csv").read_text()
