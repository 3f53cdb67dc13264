"""What contradicts a bundle is refused with both sides named, unless it is accepted by name."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

from tests.networks import small_network
from tests.rasters import write_raster
from tnet_geo.errors import ArchiveMismatch, SiteMismatch, UsageError
from tnet_geo.grid import Window, root_of
from tnet_geo.imagery import Site
from tnet_geo.inference import Classifier, SiteTask
from tnet_geo.inference.expectations import CONTRADICTIONS, Contradiction, Expectations, peak_of
from tnet_geo.learning.seen import seen_in
from tnet_geo.learning.sites import LabelledSite
from tnet_geo.model import Bundle, BundleFacts, NetworkSettings, PixelSettings, TraversalNetwork, WalkSettings
from tnet_geo.pyramid import ArchiveSettings, MemoryReader, TileBatch, create_archive
from tnet_geo.pyramid.build import build_scene
from tnet_geo.trail import Answer, Failure

SETTINGS = ArchiveSettings(half_px=16, shard_chunks=4)
RANGE, PEAKS = (200.0, 3900.0), (2500.0, 3950.0)
"""Of twelve bits in sixteen, as many satellites deliver them."""


def bundle(dtype: str = "uint16", **facts: Any) -> Bundle:
    """Trained on sixteen bits at half a metre, as far as it says."""
    settings = small_network(1).settings
    pixels = PixelSettings(dtype=dtype, mean=(2000.0,) * 3, std=(900.0,) * 3)
    network = TraversalNetwork(
        NetworkSettings.model_validate(settings.model_dump() | {"pixels": pixels.model_dump()})
    )
    network.load_state_dict(small_network(1).state_dict())
    said = {"gsd_m": (0.5, 0.6), "value_range": RANGE, "value_peaks": PEAKS} | facts
    known = BundleFacts(
        classes=("a", "b", "c"), network=network.settings, walk=WalkSettings(keep=(2,)), **said
    )
    return Bundle(known, network.eval())


def scene_pixels(seed: int = 0, dtype: str = "uint16", bands: int = 3) -> NDArray[Any]:
    return np.random.default_rng(seed).integers(200, 4000, (bands, 64, 64)).astype(dtype)


class Ground:
    """An archive whose scenes tests make as they need them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.archive = create_archive(folder / "archive", SETTINGS)

    def site(self, name: str, pixels: NDArray[Any], pixel_m: float | None = 0.5) -> Site:
        place: dict[str, Any] = {"crs": None, "transform": None}
        if pixel_m is not None:
            transform = rasterio.Affine(pixel_m, 0, 500_000, 0, -pixel_m, 5_000_000)
            place = {"crs": "EPSG:32632", "transform": transform}
        source = write_raster(self.folder / f"{name}.tif", pixels, **place)
        build_scene(str(source), name, self.archive.path, SETTINGS)
        return Site(name, str(source), name)


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path)


def outcome(
    ground: Ground, site: Site, made: Bundle | None = None, accept: Collection[Contradiction] = ()
) -> Answer | str:
    """The answer, or the reason why there is none."""
    (found,) = Classifier(made or bundle(), accept=accept).answer(ground.archive, [site])
    return found.reason if isinstance(found, Failure) else found


def test_pixels_like_those_of_training_are_answered(ground: Ground) -> None:
    assert isinstance(outcome(ground, ground.site("like", scene_pixels())), Answer)


@pytest.mark.parametrize(
    ("scale", "said"),
    [
        (16.0, "values up to 53"),
        (10.0, "values up to 33"),
        (1 / 10, "values up to 33"),
        (1 / 16, "values up to 20"),
        (0.0, "values up to 0"),
    ],
)
def test_a_wrong_scale_is_refused_unless_it_is_accepted(ground: Ground, scale: float, said: str) -> None:
    site = ground.site("scaled", (scene_pixels() * scale).astype(np.uint16))
    reason = outcome(ground, site)
    assert isinstance(reason, str)
    assert reason.startswith(f"Site scaled has {said}")
    assert (
        "but the bundle was trained on values of 200 to 3900, up to 2500 or more at every site "
        "(--accept value_range takes it as it is)." in reason
    )
    assert isinstance(outcome(ground, site, accept=["value_range"]), Answer)


def test_sites_as_dim_and_as_bright_as_those_of_training_are_answered(ground: Ground) -> None:
    dim = np.minimum(scene_pixels(), 1500)
    bright = np.minimum(scene_pixels() * 2, 7000).astype(np.uint16)
    for name, pixels in (("dim", dim), ("bright", bright)):
        assert isinstance(outcome(ground, ground.site(name, pixels)), Answer)


def test_decibels_are_counted_from_the_least_value(ground: Ground) -> None:
    trained = bundle("float32", value_range=(-25.0, 2.0), value_peaks=(-9.0, 1.0))
    noise = np.random.default_rng(1).uniform(-24, -6, (3, 64, 64)).astype(np.float32)
    assert isinstance(outcome(ground, ground.site("decibels", noise), trained), Answer)
    for name, factor in (("tenfold", 10), ("turned", -5)):
        reason = outcome(ground, ground.site(name, noise * np.float32(factor)), trained)
        assert "trained on values of -25 to 2" in str(reason)


def test_a_bundle_that_says_no_more_than_a_range_refuses_what_lies_beyond_it(ground: Ground) -> None:
    trained = bundle(value_peaks=None)
    assert isinstance(
        outcome(ground, ground.site("within", np.minimum(scene_pixels(), 300)), trained), Answer
    )
    for name, scale in (("above", 16), ("below", 1 / 40)):
        site = ground.site(name, (scene_pixels() * scale).astype(np.uint16))
        assert "the bundle was trained on values of 200 to 3900 (" in str(outcome(ground, site, trained))


def test_a_byte_has_no_other_scale(ground: Ground) -> None:
    trained = bundle("uint8", value_range=(30.0, 250.0), value_peaks=(200.0, 255.0))
    black = ground.site("black", np.zeros((3, 64, 64), np.uint8))
    assert isinstance(outcome(ground, black, trained), Answer)


def test_values_are_those_of_valid_pixels_and_none_are_no_contradiction() -> None:
    pixels = np.zeros((1, 3, 32, 32), np.uint16)
    pixels[..., :16] = 3000
    validity = np.zeros((1, 32, 32), np.uint8)
    assert peak_of(TileBatch(pixels, validity)) is None
    validity[..., :16] = 255
    assert peak_of(TileBatch(pixels, validity)) == 3000
    examine = Expectations.of(bundle().facts).examine("site", MemoryReader.of(pixels[0], 16).spec)
    assert examine is not None
    examine(TileBatch(pixels, np.zeros_like(validity)))


def test_another_type_is_refused_by_both_sides_names_and_then_judged_by_its_values(ground: Ground) -> None:
    site = ground.site("floats", scene_pixels(dtype="float32"))
    assert outcome(ground, site) == (
        "Site floats has 3 bands of float32, but the bundle was trained on 3 of uint16 "
        "(--accept dtype takes it as it is)."
    )
    taken = outcome(ground, site, accept=["dtype"])
    assert isinstance(taken, Answer)
    same = outcome(ground, ground.site("shorts", scene_pixels()))
    assert isinstance(same, Answer)
    assert taken.label == same.label
    unit = ground.site("unit", scene_pixels(dtype="float32") / np.float32(4000))
    assert "has values up to 0.8" in str(outcome(ground, unit, accept=["dtype"]))


def test_the_wrong_number_of_bands_cannot_be_accepted(ground: Ground) -> None:
    site = ground.site("bands", scene_pixels(bands=4))
    reason = "Site bands has 4 bands of uint16, but the bundle was trained on 3 of uint16."
    assert outcome(ground, site) == reason
    assert outcome(ground, site, accept=CONTRADICTIONS) == reason


@pytest.mark.parametrize(("pixel_m", "answered"), [(0.25, False), (0.3, True), (1.1, True), (1.2, False)])
def test_pixels_twice_as_coarse_or_half_as_fine_as_any_seen_are_refused(
    ground: Ground, pixel_m: float, answered: bool
) -> None:
    site = ground.site("ground", scene_pixels(), pixel_m)
    found = outcome(ground, site)
    assert isinstance(found, Answer) == answered
    if not answered:
        assert found == (
            f"Site ground has pixels of {pixel_m} m, but the bundle was trained on pixels of 0.5 to 0.6 m "
            "(--accept gsd takes it as it is)."
        )
        assert isinstance(outcome(ground, site, accept=["gsd"]), Answer)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_where_nobody_knows_the_ground_the_manifest_is_asked_and_then_nobody(ground: Ground) -> None:
    site = ground.site("nowhere", scene_pixels(), None)
    assert isinstance(outcome(ground, site), Answer)
    assert isinstance(outcome(ground, replace(site, gsd=0.55)), Answer)
    assert "has pixels of 10 m" in str(outcome(ground, replace(site, gsd=10.0)))
    assert isinstance(outcome(ground, replace(site, gsd=10.0), bundle(gsd_m=None)), Answer)
    # Of a canvas the manifest knows nothing.
    fitted = bundle(canvas="fit:64")
    assert isinstance(outcome(ground, replace(site, gsd=10.0), fitted, ["canvas"]), Answer)


@pytest.mark.parametrize(
    ("facts", "word", "has", "wants"),
    [
        ({"canvas": "fit:64"}, "canvas", "canvas native", "canvas fit:64 (or --accept canvas)"),
        ({"reduction": "central"}, "reduction", "reduction mean", "reduction central"),
    ],
)
def test_an_archive_made_otherwise_is_refused_unless_it_is_accepted(
    ground: Ground, facts: dict[str, Any], word: Contradiction, has: str, wants: str
) -> None:
    site, made = ground.site("one", scene_pixels()), bundle(**facts)
    with pytest.raises(ArchiveMismatch) as refusal:
        outcome(ground, site, made)
    assert f"was built with {has}, but {wants}" in str(refusal.value)
    assert f"--accept {word}" in str(refusal.value)
    assert refusal.value.exit_code == 4
    assert isinstance(outcome(ground, site, made, [word]), Answer)


def test_what_is_no_contradiction_cannot_be_accepted() -> None:
    with pytest.raises(
        UsageError, match="'gds' cannot be accepted: it is one of canvas, dtype, gsd"
    ) as refusal:
        Classifier(bundle(), accept=["gds"])  # type: ignore[list-item]
    assert refusal.value.exit_code == 2


def test_a_contradiction_of_one_site_leaves_the_others_as_they_are_and_reads_no_more(ground: Ground) -> None:
    sites = [ground.site(f"site{n}", scene_pixels(n)) for n in range(3)]
    wrong = ground.site("wrong", scene_pixels() * np.uint16(16))
    alone = list(Classifier(bundle(), accept=CONTRADICTIONS).answer(ground.archive, sites))
    among = list(Classifier(bundle()).answer(ground.archive, [*sites[:2], wrong, sites[2]]))
    assert [isinstance(found, Failure) for found in among] == [False, False, True, False]
    assert [found for found in among if isinstance(found, Answer)] == alone


def test_pictures_in_memory_are_refused_alike(ground: Ground) -> None:
    images = np.stack([scene_pixels(n).transpose(1, 2, 0) for n in range(2)])
    images[1] *= 16
    with pytest.raises(SiteMismatch, match=r"Site image 1 has values up to 53\d{3}, but"):
        Classifier(bundle()).classify(images)
    assert len(Classifier(bundle(), accept=["value_range"]).classify(images).labels) == 2


@pytest.fixture(scope="module")
def landsat(shared_data: Path) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """Real sixteen bits, three times the same band, and where they are valid."""
    with rasterio.open(shared_data / "scenes" / "landsat8_b7_memphis_963.tif") as scene:
        pixels = np.repeat(scene.read(), 3, axis=0)
    return pixels, np.where(pixels[0] > 0, 255, 0).astype(np.uint8)


def windows(pixels: NDArray[np.uint16], validity: NDArray[np.uint8]) -> list[LabelledSite]:
    """Every window of 64 pixels that is not empty."""
    reader, found = MemoryReader.of(pixels, 16, validity, nodata=0), []
    for row in range(0, pixels.shape[1] - 64, 64):
        for col in range(0, pixels.shape[2] - 64, 64):
            if validity[row : row + 64, col : col + 64].mean() > 10:
                window = Window(row, col, 64, 64)
                task = SiteTask(f"{row},{col}", reader, window)
                found.append(LabelledSite(len(found), task, 0, root_of(window, 16)))
    return found


@pytest.mark.parametrize(
    ("scale", "least", "most"),
    [(1, 0, 0), (1 / 256, 82, 82), (1 / 16, 82, 82), (1 / 4, 75, 82), (4, 60, 82), (6, 82, 82)],
)
def test_a_wrong_scale_of_real_satellite_imagery_is_noticed_and_the_right_one_is_not(
    landsat: tuple[NDArray[np.uint16], NDArray[np.uint8]], scale: float, least: int, most: int
) -> None:
    pixels, validity = landsat
    seen = seen_in(windows(pixels, validity)[::2])
    expects = Expectations.of(bundle(**seen.facts()).facts)
    scaled = np.clip(pixels * float(scale), 0, 65_535).astype(np.uint16)
    others = windows(scaled, validity)[1::2]
    refused = 0
    for one in others:
        examine = expects.examine(one.task.site_id, one.task.reader.spec)
        assert examine is not None
        try:
            examine(one.task.reader.read([one.root]))
        except SiteMismatch:
            refused += 1
    assert len(others) == 82
    assert least <= refused <= most
