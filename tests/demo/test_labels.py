"""Nothing but the panels tells the class: with labels dealt anew, the same training stays at chance."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tnet_geo.demo import demo_settings, generate_scenes
from tnet_geo.imagery import Manifest, manifest_from_folder
from tnet_geo.learning.settings import RunSettings
from tnet_geo.learning.training import Training
from tnet_geo.operations import build_archive
from tnet_geo.pyramid import open_archive


def short_run(folder: Path, out: Path) -> RunSettings:
    """Stage A alone, half as long as in the demo."""
    settings = demo_settings(folder, seed=3)
    none = {"epochs": 0}
    tables = {
        "dense": settings.dense.model_copy(update={"epochs": 5}),
        "location": settings.location.model_copy(update=none),
        "joint": settings.joint.model_copy(update=none),
        "rivals": settings.rivals.model_copy(update={"train": ()}),
    }
    return settings.model_copy(update={"out": out, **tables})


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_training_that_learns_true_labels_stays_at_chance_with_permuted_ones(tmp_path: Path) -> None:
    generate_scenes(tmp_path / "scenes", seed=3, sites=560)
    manifest = manifest_from_folder(tmp_path / "scenes", tmp_path / "sites.parquet")
    build_archive(manifest, tmp_path / "archive", half_px=32)
    archive = open_archive(tmp_path / "archive")
    labels = np.random.default_rng(0).permutation([site.label for site in manifest.sites])
    dealt = [
        dataclasses.replace(site, label=str(label))
        for site, label in zip(manifest.sites, labels, strict=True)
    ]
    accuracy = {}
    for name, table in (("true", manifest), ("permuted", Manifest(dealt, manifest.path))):
        rows = Training(short_run(tmp_path, tmp_path / name), table, archive).run()
        accuracy[name] = max(row.accuracy for row in rows if row.stage == "dense")
    assert accuracy["true"] > 0.5
    # Chance is 0.2; the best of five epochs on about 107 sites lies above 0.36 once in a thousand times.
    assert accuracy["permuted"] < 0.36
