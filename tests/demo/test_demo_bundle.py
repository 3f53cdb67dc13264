"""The bundle that the demo trains: exported, verified, and asked in a fresh process bit for bit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tnet_geo.demo import run_demo
from tnet_geo.imagery import read_manifest
from tnet_geo.inference import load_bundle
from tnet_geo.model import read_bundle
from tnet_geo.operations import verify_bundle
from tnet_geo.pyramid import open_archive
from tnet_geo.trail import Answer

ASK = """
import sys
import numpy as np
import tnet_geo
from tnet_geo.imagery import read_manifest
from tnet_geo.pyramid import open_archive

bundle, demo, out = sys.argv[1:]
sites = [site for site in read_manifest(demo + "/sites.parquet").sites if site.split == "test"]
answers = list(tnet_geo.load_bundle(bundle).answer(open_archive(demo + "/archive"), sites))
np.savez(
    out,
    logits=np.array([answer.logits for answer in answers]),
    probabilities=np.array([answer.probabilities for answer in answers]),
    trails=np.array([repr(answer.trail) for answer in answers]),
)
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_demos_bundle_survives_export_verify_and_a_fresh_process(tmp_path: Path) -> None:
    demo = tmp_path / "demo"
    run_demo(demo, sites=60, side_px=256)
    trained = demo / "run" / "bundle"
    exported = read_bundle(trained).save(tmp_path / "exported")
    assert {path.name: path.read_bytes() for path in exported.iterdir()} == {
        path.name: path.read_bytes() for path in trained.iterdir()
    }
    for runtime in ("eager", "folded"):
        assert verify_bundle(exported, runtime=runtime).exit_code == 0  # type: ignore[arg-type]

    sites = [site for site in read_manifest(demo / "sites.parquet").sites if site.split == "test"]
    answers = list(load_bundle(trained).answer(open_archive(demo / "archive"), sites))
    here = [answer for answer in answers if isinstance(answer, Answer)]
    assert len(here) == len(sites) > 5
    out = tmp_path / "answers.npz"
    given = [str(exported), str(demo), str(out)]
    subprocess.run([sys.executable, "-c", ASK, *given], check=True, env=os.environ, timeout=300)
    there = np.load(out)
    np.testing.assert_array_equal(there["logits"], [answer.logits for answer in here])
    np.testing.assert_array_equal(there["probabilities"], [answer.probabilities for answer in here])
    assert there["trails"].tolist() == [repr(answer.trail) for answer in here]
