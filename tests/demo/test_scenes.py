"""Generated scenes: the same for the same seed, and silent about their class but for the target's panels."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from rasterio.warp import transform_bounds

from tnet_geo.demo import Scene, class_names, generate_scenes, make_scene
from tnet_geo.demo.objects import Clearing, lay_out, paint_panels
from tnet_geo.demo.scenes import label_order, write_scene
from tnet_geo.errors import OutputExists, UsageError

SMALL_PX = 192
CLASSES = class_names()


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def inside(scene: Scene) -> NDArray[np.bool_]:
    mask = np.zeros(scene.pixels.shape[:2], bool)
    for box in scene.boxes:
        mask[box.row : box.bottom, box.col : box.right] = True
    return mask


def ridge_accuracy(features: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """Test accuracy of one-against-rest ridge regression, first two thirds to train; chance is 0.2."""
    cut = len(features) * 2 // 3
    features = features - features[:cut].mean(0)
    features = features / np.maximum(features[:cut].std(0), 1e-9)
    kernel = features @ features.T / features.shape[1]
    weights = np.linalg.solve(kernel[:cut, :cut] + np.eye(cut), np.eye(5)[labels[:cut]] - 0.2)
    return float(((kernel[cut:, :cut] @ weights).argmax(1) == labels[cut:]).mean())


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate_scenes(
        tmp_path_factory.mktemp("demo") / "scenes", seed=3, sites=20, side_px=256, workers=1
    )


def test_the_number_of_processes_does_not_change_a_byte(generated: Path, tmp_path: Path) -> None:
    again = generate_scenes(tmp_path / "scenes", seed=3, sites=20, side_px=256, workers=2)
    assert digests(again) == digests(generated)
    assert len(digests(again)) == 20


def test_other_seeds_and_other_numbers_give_other_scenes() -> None:
    pixels = [make_scene(seed, index, "striped", SMALL_PX).pixels for seed in (0, 1) for index in (0, 1)]
    assert all((a != b).mean() > 0.9 for a, b in combinations(pixels, 2))


@pytest.mark.parametrize(("index", "side_px"), [(0, 512), (1, 256), (2, SMALL_PX)])
def test_scenes_that_differ_in_class_alone_differ_only_inside_the_targets_panels(
    index: int, side_px: int
) -> None:
    scenes = [make_scene(5, index, label, side_px) for label in CLASSES]
    outside = ~inside(scenes[0])
    for one, other in combinations(scenes, 2):
        assert (one.boxes, one.target) == (other.boxes, other.target)
        np.testing.assert_array_equal(one.pixels[outside], other.pixels[outside])
        for box in one.boxes:
            part = np.s_[box.row : box.bottom, box.col : box.right]
            assert (one.pixels[part] != other.pixels[part]).mean() > 0.2


@pytest.mark.parametrize("label", CLASSES)
def test_every_4_by_4_block_inside_a_panel_averages_to_grey_before_noise(label: str) -> None:
    clearings = lay_out(np.random.default_rng(2), 512, 1.0)
    land = np.zeros((512, 512, 3), np.float32)
    paint_panels(land, np.random.default_rng(3), clearings, label, headroom=110.0)
    for box in clearings[0].panels:
        panel = land[box.row : box.bottom, box.col : box.right].astype(np.float64)
        blocks = sliding_window_view(panel, (4, 4), axis=(0, 1)).mean(axis=(-1, -2))
        np.testing.assert_allclose(blocks, 128.0, atol=1e-3)
        assert panel.std() > 40


def test_gain_and_clipping_leave_panels_of_all_classes_equally_bright() -> None:
    for index in range(12):
        means = []
        for label in CLASSES:
            scene = make_scene(6, index, label, SMALL_PX)
            means.append(scene.pixels[inside(scene)].mean(0))
        assert np.ptp(means, axis=0).max() < 0.5


def test_a_file_tells_its_class_by_its_panels_alone(tmp_path: Path) -> None:
    contents = []
    for label in CLASSES:
        scene = make_scene(7, 11, label, 256)
        write_scene(tmp_path / "scene.tif", scene, 11)
        contents.append(np.frombuffer((tmp_path / "scene.tif").read_bytes(), np.uint8))
    assert len({len(content) for content in contents}) == 1
    for one, other in combinations(contents, 2):
        assert 0 < (one != other).sum() <= 3 * inside(scene).sum()


def test_names_sizes_and_tags_do_not_tell_the_class(generated: Path) -> None:
    paths = sorted(generated.rglob("*.tif"), key=lambda path: path.name)
    assert [path.name for path in paths] == [f"scene-{number:05d}.tif" for number in range(20)]
    assert len({path.stat().st_size for path in paths}) == 1
    facts = set()
    for path in paths:
        with rasterio.open(path) as raster:
            spaces = raster.tag_namespaces()
            tags = [(space, tuple(sorted(raster.tags(ns=space).items()))) for space in ["", *spaces]]
            own = ("DERIVED_SUBDATASETS",)  # GDAL names the file in it
            facts.add(str([tag for tag in tags if tag[0] not in own] + [raster.profile["dtype"], raster.crs]))
    assert len(facts) == 1


@pytest.mark.parametrize("sites", [1, 7, 560])
def test_classes_are_balanced_within_one(sites: int) -> None:
    counts = [label_order(4, sites).count(name) for name in CLASSES]
    assert sum(counts) == sites
    assert max(counts) - min(counts) <= 1


def test_neither_number_nor_neighbour_nor_place_predicts_the_class() -> None:
    labels = np.array([CLASSES.index(name) for name in label_order(0, 1500)])
    number = np.arange(1500)
    periodic = [np.eye(k)[number % k] for k in (2, 3, 4, 5, 8, 10, 40)]
    before = [np.eye(5)[np.roll(labels, lag)] for lag in (1, 2, 5)]
    assert ridge_accuracy(np.hstack([*periodic, *before, number[:, None]]), labels) < 0.26


def test_a_linear_look_at_the_root_does_not_tell_the_class_but_native_pixels_do() -> None:
    count = 300
    order = np.array([CLASSES.index(name) for name in label_order(8, count)])
    coarse, fine = [], []
    for index, label in enumerate(order):
        scene = make_scene(8, index, CLASSES[label], SMALL_PX)
        root = cv2.resize(scene.pixels, (SMALL_PX // 8,) * 2, interpolation=cv2.INTER_AREA)
        row, col = (min(max(place // 8, 6), SMALL_PX // 8 - 6) for place in scene.target)
        coarse.append(root[row - 6 : row + 6, col - 6 : col + 6].ravel().astype(float))
        fine.append(panel_facts(scene))
    assert ridge_accuracy(np.array(fine), order) > 0.9  # so the classifier can tell what is there
    assert ridge_accuracy(np.array(coarse), order) < 0.3  # 0.2 is chance, its deviation here 0.04


def panel_facts(scene: Scene) -> NDArray[np.float64]:
    """Skewness, colour and repetition of the target's panels, mean over panels, with all products of two."""
    facts = []
    for box in scene.boxes:
        panel = scene.pixels[box.row : box.bottom, box.col : box.right].astype(float)
        panel -= panel.mean((0, 1))
        grey, power = panel.mean(2), (panel**2).mean()
        turns = [(panel * np.roll(panel, lag, (0, 1))).mean() / power for lag in ((2, 0), (0, 2), (2, 2))]
        steep, flat = max(turns[:2]), min(turns[:2])
        facts.append([1.0, (grey**3).mean() / power**1.5, (grey**2).mean() / power, steep, flat, turns[2]])
    mean = np.mean(facts, axis=0)
    return np.outer(mean, mean)[np.triu_indices(len(mean))]


def test_the_targets_ground_is_sandier_by_six_deviations_at_cue_1_and_not_at_cue_0() -> None:
    direction = np.array((0.6, -0.1, -0.8)) / np.linalg.norm((0.6, -0.1, -0.8))
    for cue, expected in ((1.0, 6.0), (0.35, 2.1), (0.0, 0.0)):
        layouts = [lay_out(np.random.default_rng([9, n]), 512, cue) for n in range(200)]
        target = np.array([layout[0].ground.tone for layout in layouts]) @ direction
        others = np.array([clearing.ground.tone for layout in layouts for clearing in layout[1:]]) @ direction
        assert (target.mean() - others.mean()) / others.std() == pytest.approx(expected, abs=0.6)


@pytest.mark.parametrize(("side_px", "clearings"), [(160, 1), (256, 1), (384, 2), (512, 4), (1024, 16)])
def test_clearings_lie_apart_inside_the_scene_as_many_a_hectare_at_any_side(
    side_px: int, clearings: int
) -> None:
    for seed in range(10):
        layout = lay_out(np.random.default_rng([10, seed]), side_px, 1.0)
        assert [clearing.kind == "target" for clearing in layout] == [True] + [False] * (clearings - 1)
        covered = np.zeros((side_px, side_px), np.int32)
        for clearing in layout:
            covered += ground_of(clearing, side_px)
            assert clearing.ground.outline.min() >= 0
            assert clearing.ground.outline.max() < side_px
        assert covered.max() == 1


def test_panels_lie_on_their_clearing_four_to_six_and_apart() -> None:
    sizes = set()
    for seed in range(40):
        for clearing in lay_out(np.random.default_rng([11, seed]), 512, 1.0):
            on, panels = ground_of(clearing, 512), clearing.panels
            assert (len(panels) in (4, 5, 6)) == (clearing.kind != "empty")
            covered = np.zeros((512, 512), np.int32)
            for box in panels:
                sizes |= {box.height, box.width}
                assert on[box.row : box.bottom, box.col : box.right].all()
                covered[box.row - 1 : box.bottom + 3, box.col - 1 : box.right + 3] += 1
            assert covered.max() == bool(panels)  # with kerb and shadow
    assert sizes == {12, 16, 20, 24}


def ground_of(clearing: Clearing, side_px: int) -> NDArray[np.uint8]:
    mask = np.zeros((side_px, side_px), np.uint8)
    cv2.fillPoly(mask, [clearing.ground.outline], 1)
    return mask


def test_scenes_lie_in_utm_at_half_a_metre_and_do_not_overlap(generated: Path) -> None:
    boxes = []
    for path in generated.rglob("*.tif"):
        with rasterio.open(path) as raster:
            assert (raster.crs.to_epsg(), raster.res, raster.count) == (32630, (0.5, 0.5), 3)
            west, south, east, north = transform_bounds(raster.crs, "OGC:CRS84", *raster.bounds)
            assert -4 < west < east < -3
            assert 39 < south < north < 40
            boxes.append(raster.bounds)
    for one, other in combinations(boxes, 2):
        apart = one.right <= other.left or other.right <= one.left
        assert apart or one.top <= other.bottom or other.top <= one.bottom


def test_progress_is_told_after_every_scene(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    generate_scenes(tmp_path / "new", seed=0, sites=3, side_px=160, progress=lambda *now: told.append(now))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_an_empty_folder_is_filled_and_a_full_one_refused_untouched(tmp_path: Path) -> None:
    out = tmp_path / "scenes"
    out.mkdir()
    generate_scenes(out, seed=0, sites=2, side_px=160)
    before = digests(out)
    with pytest.raises(OutputExists, match="scenes exists already"):
        generate_scenes(out, seed=1, sites=2, side_px=160)
    assert digests(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["scenes"]


def test_a_side_without_room_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="too small: ask for 160"):
        generate_scenes(tmp_path / "scenes", seed=0, sites=2, side_px=128)
    assert not list(tmp_path.iterdir())


def test_a_run_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate_scenes(tmp_path / "scenes", seed=0, sites=2, side_px=160, progress=stop)
    assert not list(tmp_path.iterdir())


def test_processes_that_write_scenes_do_not_load_torch() -> None:
    question = "import sys, tnet_geo.demo.scenes; print('torch' in sys.modules)"
    asked = subprocess.run([sys.executable, "-c", question], capture_output=True, text=True, check=True)
    assert asked.stdout.strip() == "False"
