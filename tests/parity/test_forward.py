"""Our network, with the published weights and settings, answers as the published TensorFlow code does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import tnet_geo
from tests.parity.conftest import Numbers
from tnet_geo.grid import Tile, Window
from tnet_geo.inference import Engine, SiteTask, WalkResult
from tnet_geo.inference.pictures import picture_reader
from tnet_geo.model import read_bundle


@dataclass(frozen=True)
class Case:
    """One fixture of a whole traversal."""

    name: str
    canvas_px: int
    keep: tuple[int, ...]
    pictures: slice
    step: int
    """Which pixels of the 896 px pictures are the canvas: each one, or every second."""

    @property
    def depths(self) -> range:
        return range(len(self.keep) + 1)

    def canvases(self, images: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(images[self.pictures, :: self.step, :: self.step])


CASES = [
    Case("forward_448", 448, (2,), slice(0, 3), 2),
    Case("forward_896", 896, (2, 1), slice(0, 3), 1),
    Case("forward_896_keep63", 896, (6, 3), slice(1, 2), 1),
]
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def tiles_of(found: dict[str, np.ndarray], case: Case, depth: int, image: int) -> list[Tile]:
    """The published looks of one picture at a depth, as tiles of our lattice."""
    level = len(case.keep) - depth
    origins = found[f"d{depth}_origin_yx"].reshape(len(found["logits"]), -1, 2)[image]
    assert int(found[f"d{depth}_side"]) == 224 << level
    return [Tile(level, int(row) // (112 << level), int(col) // (112 << level)) for row, col in origins]


@every_case
def test_from_outside_logits_chosen_tiles_and_probabilities_are_the_published_ones(
    case: Case, numbers: Numbers, images: np.ndarray, bundle_of: Callable[[int], Path]
) -> None:
    expected = numbers(case.name)
    path = bundle_of(case.canvas_px)
    walk = read_bundle(path).facts.walk
    found = tnet_geo.load_bundle(path, walk=walk.model_copy(update={"keep": case.keep})).classify(
        case.canvases(images)
    )
    np.testing.assert_allclose(found.logits, expected["logits"], rtol=0, atol=1e-4)
    for image, trail in enumerate(found.trails):
        published = [tile for depth in case.depths for tile in tiles_of(expected, case, depth, image)]
        assert [(level, row, col) for level, row, col, _ in trail] == [
            (tile.level, tile.row, tile.col) for tile in published
        ]
        chosen = [
            np.take_along_axis(expected[f"d{depth}_probs"], expected[f"d{depth}_chosen"], axis=1)
            .reshape(len(found.trails), -1)[image]
            .tolist()
            for depth in case.depths[:-1]
        ]
        probabilities = [1.0, *(probability for depth in chosen for probability in depth)]
        np.testing.assert_allclose([step[3] for step in trail], probabilities, rtol=0, atol=1e-6)


def test_pictures_of_floats_from_0_to_1_are_answered_as_their_bytes_are(
    numbers: Numbers, images: np.ndarray, bundle_of: Callable[[int], Path]
) -> None:
    pictures = images[:1, ::2, ::2].astype(np.float32) / 255
    found = tnet_geo.load_bundle(bundle_of(448)).classify(pictures)
    np.testing.assert_allclose(found.logits, numbers("forward_448")["logits"][:1], rtol=0, atol=1e-4)


def test_a_child_that_two_parents_share_is_looked_at_twice(numbers: Numbers) -> None:
    case = CASES[2]
    tiles = tiles_of(numbers(case.name), case, 2, 0)
    assert (len(tiles), len(set(tiles))) == (18, 15)


@dataclass(frozen=True)
class Seen:
    """What went through our network at one depth: a row for each look, in the published order."""

    inputs: Tensor
    tap: Tensor
    end: Tensor
    code: Tensor
    feature: Tensor
    scores: Tensor
    child_logits: Tensor
    blocks: tuple[Tensor, ...]


def walk_and_watch(
    case: Case, images: np.ndarray, bundle: Path, rows: list[int]
) -> tuple[list[Seen], Tensor]:
    """The looks that the engine makes, depth by depth, and the combined features [images, 1280]."""
    facts, network = read_bundle(bundle).facts, read_bundle(bundle).network
    kept = {name: [] for name in ("backbone", "code", "feature", "scores", "child_logits", "blocks")}
    blocks = [block for stage in network.backbone.net.blocks for block in stage]
    network.backbone.register_forward_hook(lambda _, inputs, out: kept["backbone"].append((inputs[0], *out)))
    network.position.code.register_forward_hook(lambda _, inputs, __: kept["code"].append(inputs[0]))
    network.position.register_forward_hook(lambda _, __, out: kept["feature"].append(out))
    network.location.score.register_forward_hook(lambda _, __, out: kept["scores"].append(out.flatten(1)))
    network.location.register_forward_hook(lambda _, __, out: kept["child_logits"].append(out))
    for block in blocks:
        block.register_forward_hook(lambda _, __, out: kept["blocks"].append(out))

    canvases = case.canvases(images)
    engine = Engine(network, facts.walk.model_copy(update={"keep": case.keep}), batch_looks=max(rows))
    window = Window(0, 0, case.canvas_px, case.canvas_px)
    tasks = [SiteTask(str(n), picture_reader(canvas, facts), window) for n, canvas in enumerate(canvases)]
    results = [result for result in engine.walk(tasks) if isinstance(result, WalkResult)]
    combined = torch.stack([result.walk.features.mean(dim=0) for result in results])

    seen = []
    for depth, count in enumerate(rows):
        inputs, tap, end = kept["backbone"][depth]
        outputs = kept["blocks"][len(blocks) * depth : len(blocks) * (depth + 1)]
        each = [inputs, network.location.sampled(tap), end]
        each += [kept[name][depth] for name in ("code", "feature")]
        asked = depth < len(case.keep)  # native looks are not asked where to look closer
        each += [kept[name][depth] if asked else inputs[:0] for name in ("scores", "child_logits")]
        seen.append(Seen(*(part[:count] for part in each), tuple(output[:count] for output in outputs)))
    assert len(kept["backbone"]) == len(rows)  # looks of a depth share one batch, so that rows are found
    return seen, combined


@pytest.fixture(scope="module")
def watched(
    numbers: Numbers, images: np.ndarray, bundle_of: Callable[[int], Path]
) -> Callable[[Case], tuple[list[Seen], Tensor]]:
    """`walk_and_watch`, once for each case."""
    known: dict[str, tuple[list[Seen], Tensor]] = {}

    def watch(case: Case) -> tuple[list[Seen], Tensor]:
        if case.name not in known:
            rows = [len(numbers(case.name)[f"d{depth}_pooled"]) for depth in case.depths]
            known[case.name] = walk_and_watch(case, images, bundle_of(case.canvas_px), rows)
        return known[case.name]

    return watch


Watched = Callable[[Case], tuple[list[Seen], Tensor]]


@every_case
def test_every_tile_that_the_backbone_sees_is_the_published_one(
    case: Case, numbers: Numbers, watched: Watched
) -> None:
    expected = numbers(case.name)
    for depth, found in enumerate(watched(case)[0]):
        pixels = found.inputs.permute(0, 2, 3, 1)
        near(pixels.mean(dim=(1, 2)), expected[f"d{depth}_input_mean"], 1e-6)
        near(pixels.std(dim=(1, 2), correction=0), expected[f"d{depth}_input_std"], 1e-6)
        near(pixels[:, :4, :4], expected[f"d{depth}_input_corner"], 1e-6)
        if depth:
            near(pixels[0], expected[f"d{depth}_input_tile0"], 1e-6)


@every_case
def test_every_block_of_the_backbone_is_the_published_one(
    case: Case, numbers: Numbers, watched: Watched
) -> None:
    expected, root = numbers(case.name), watched(case)[0][0]
    assert len(root.blocks) == 16
    for n, block in enumerate(root.blocks):
        rounding = 2e-5 * float(block.abs().max())  # sums that cancel are as sure as what went into them
        near(block.mean(dim=(1, 2, 3)), expected["d0_block_mean"][:, n], 1e-5)
        near(block.std(dim=(1, 2, 3), correction=0), expected["d0_block_std"][:, n], 1e-4)
        near(block[:, :8, :2, :2].permute(0, 2, 3, 1), expected["d0_block_corner"][:, n], rounding)


@every_case
def test_taps_and_location_probabilities_are_the_published_ones(
    case: Case, numbers: Numbers, watched: Watched
) -> None:
    expected = numbers(case.name)
    for depth, found in enumerate(watched(case)[0]):
        near(found.tap.permute(0, 2, 3, 1), expected[f"d{depth}_tap"], 1e-4)
        if depth < len(case.keep):
            near(found.scores, expected[f"d{depth}_scores"], 1e-4)
            near(torch.softmax(found.child_logits, dim=1), expected[f"d{depth}_probs"], 1e-6)


@every_case
def test_pooled_positioned_and_combined_features_are_the_published_ones(
    case: Case, numbers: Numbers, watched: Watched
) -> None:
    # Pooled features reach 58. Computed in float64 they differ from the published float32 by 1.3e-4, so
    # 1e-4 alone is below what the published numbers themselves are sure of.
    expected = numbers(case.name)
    seen, combined = watched(case)
    for depth, found in enumerate(seen):
        near(found.end, expected[f"d{depth}_pooled"], 1e-4, relative=1e-5)
        near(found.code, expected[f"d{depth}_position_code"], 1e-5)
        near(found.feature, expected[f"d{depth}_feature"], 1e-4, relative=1e-5)
    near(combined, expected["combined"], 1e-4)


def near(found: Tensor, expected: np.ndarray, tolerance: float, relative: float = 0) -> None:
    """For every number."""
    np.testing.assert_allclose(found.numpy(), expected, rtol=relative, atol=tolerance)
