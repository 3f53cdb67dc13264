"""Runtimes: the same network computed otherwise, within a bound, under a name of its own."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.networks import small_bundle, small_network
from tests.rasters import random_pixels
from tnet_geo.errors import RuntimeUnusable
from tnet_geo.inference import Classifier
from tnet_geo.inference.folding import EXACT_WITHIN, folded, furthest, probe_of
from tnet_geo.inference.onnx_graphs import AGREES_WITHIN, cache_folder
from tnet_geo.inference.runtimes import Precision, Runtime, prepared
from tnet_geo.model import Bundle, BundleFacts, TraversalNetwork, WalkSettings

DIGEST = "ab" * 32
FOLDED = ["plain", "timm/efficientnet_b0", "timm/resnet18", "timm/mobilenetv3_small_100"]
GRAPHS = ["plain", "timm/tf_efficientnet_b0", "timm/convnext_atto", "timm/vit_tiny_patch16_224"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def timm_network(backbone: str, **settings: object) -> TraversalNetwork:
    base_px = 128 if "vit" in backbone or "convnext" in backbone else 64
    return small_network(1, base_px=base_px, backbone=backbone, **settings)


def norms(module: nn.Module) -> int:
    return sum(isinstance(part, nn.BatchNorm2d) for part in module.modules())


def probe(network: TraversalNetwork) -> tuple[torch.Tensor, torch.Tensor]:
    settings = network.settings
    return probe_of(settings.pixels.bands, settings.base_px, settings.depths)


def graphs() -> list[Path]:
    return sorted(path for path in cache_folder().rglob("*") if path.is_file())


@pytest.mark.parametrize("backbone", FOLDED)
def test_every_batch_norm_after_a_convolution_is_folded_and_nothing_moves(backbone: str) -> None:
    network = timm_network(backbone)
    before = norms(network.backbone)
    found = folded(network.backbone, probe(network))
    assert (norms(found.backbone), found.pairs) == (0, before)
    assert furthest(found.backbone, network.backbone, probe(network)) <= EXACT_WITHIN


def test_batch_norms_by_depth_are_folded_too() -> None:
    network = small_network(2, batch_norm="by_depth")
    assert folded(network.backbone, probe(network)).pairs == 4


def test_batch_norms_per_depth_stay_and_the_name_says_eager() -> None:
    network = small_network(2, batch_norm="per_depth")
    ready = prepared(network, runtime="folded")
    assert ready.name.startswith("eager torch-")
    pixels, _ = probe(network)
    for depth in (torch.tensor([0, 1]), torch.tensor([3, 0])):
        for one, other in zip(
            ready.network.backbone(pixels, depth), network.backbone(pixels, depth), strict=True
        ):
            assert torch.equal(one, other)


class Awkward(nn.Module):
    """A convolution that a batch norm is not alone to take, one that is used twice, and one that is fine."""

    tap_channels = features = 4

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.shared_norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.twice, self.twice_norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.fine, self.fine_norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.watched, self.watched_norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        for part in self.modules():
            if isinstance(part, nn.BatchNorm2d):
                nn.init.uniform_(part.weight, 0.5, 1.5)

    def forward(self, pixels: torch.Tensor, depth: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        first = self.shared(pixels)
        second = self.shared_norm(first) + first
        third = self.twice_norm(self.twice(self.twice(second)))
        fourth = self.watched_norm(self.watched(self.fine_norm(self.fine(third))))
        return fourth, fourth.mean(dim=(2, 3))


def test_only_what_can_be_folded_exactly_is_folded() -> None:
    torch.manual_seed(0)
    awkward = Awkward().eval()
    awkward.watched_norm.register_forward_hook(lambda module, inputs, output: None)  # a tap
    found = folded(awkward, probe_of(3, 16, 2))
    assert found.pairs == 1
    assert isinstance(found.backbone.fine_norm, nn.Identity)
    assert norms(found.backbone) == 3
    assert furthest(found.backbone, awkward, probe_of(3, 16, 2)) <= EXACT_WITHIN


@pytest.mark.parametrize("runtime", ["eager", "folded", "onnx"])
def test_the_network_that_is_prepared_stays_as_it_is_and_the_rest_of_it_is_shared(runtime: Runtime) -> None:
    network = small_network(3)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    ready = prepared(network, runtime=runtime)
    assert ready.network.classifier is network.classifier
    assert before.keys() == network.state_dict().keys()
    assert all(torch.equal(before[key], tensor) for key, tensor in network.state_dict().items())
    assert (ready.network.backbone is network.backbone) == (runtime == "eager")


@pytest.mark.parametrize("backbone", GRAPHS)
def test_a_graph_gives_tap_and_end_of_any_number_of_looks_within_the_bound(backbone: str) -> None:
    network = timm_network(backbone)
    ready = prepared(network, runtime="onnx").network.backbone
    side = network.settings.base_px
    for looks in (1, 3):
        pixels = torch.randn(looks, 3, side, side, generator=torch.Generator().manual_seed(looks))
        assert (
            furthest(ready, network.backbone, (pixels, torch.zeros(looks, dtype=torch.long))) < AGREES_WITHIN
        )


def test_a_graph_keeps_batch_norms_per_depth() -> None:
    network = small_network(4, batch_norm="per_depth")
    ready = prepared(network, runtime="onnx").network.backbone
    pixels = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    for depth in (torch.tensor([3, 0, 2, 1]), torch.tensor([0, 0, 0, 9])):
        assert furthest(ready, network.backbone, (pixels, depth)) < AGREES_WITHIN


def test_a_bundle_is_exported_once_and_its_graph_kept_by_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    network = small_network(5)
    first = prepared(network, runtime="onnx", digest=DIGEST).network.backbone
    (kept,) = graphs()

    def no_export(*arguments: object, **options: object) -> None:
        raise AssertionError("exported again")

    monkeypatch.setattr(torch.onnx, "export", no_export)
    again = prepared(network, runtime="onnx", digest=DIGEST).network.backbone
    assert all(torch.equal(a, b) for a, b in zip(first(*probe(network)), again(*probe(network)), strict=True))
    assert graphs() == [kept]
    with pytest.raises(AssertionError, match="exported again"):
        prepared(network, runtime="onnx", digest="cd" * 32)


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied"])
def test_a_damaged_graph_is_made_again(damage: str) -> None:
    network = small_network(5)
    prepared(network, runtime="onnx", digest=DIGEST)
    (kept,) = graphs()
    whole = kept.read_bytes()
    flipped = whole[:-900] + bytes(byte ^ 255 for byte in whole[-900:])
    kept.write_bytes({"cut": whole[:-900], "flipped": flipped, "emptied": b""}[damage])
    ready = prepared(network, runtime="onnx", digest=DIGEST).network.backbone
    assert furthest(ready, network.backbone, probe(network)) < AGREES_WITHIN
    assert [path.read_bytes() == whole for path in graphs()] == [True]


def test_a_graph_of_other_weights_under_the_same_digest_never_answers() -> None:
    prepared(small_network(6), runtime="onnx", digest=DIGEST)
    other = small_network(7)
    ready = prepared(other, runtime="onnx", digest=DIGEST).network.backbone
    assert furthest(ready, other.backbone, probe(other)) < AGREES_WITHIN


def test_without_a_digest_or_a_folder_that_can_be_written_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(small_network(6), runtime="onnx")
    assert not graphs()
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert prepared(small_network(6), runtime="onnx", digest=DIGEST).name.startswith("onnx ")


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_a_missing_library_is_refused_with_the_extra_that_brings_it(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(
        RuntimeUnusable, match=rf"\({missing} is not installed \(pip install 'tnet-geo\[onnx\]'"
    ):
        prepared(small_network(6), runtime="onnx")


def test_a_network_that_onnx_cannot_express_is_refused_in_one_sentence() -> None:
    class Strange(nn.Module):
        tap_channels = features = 3

        def forward(self, pixels: torch.Tensor, depth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return pixels, torch.special.i0e(pixels).mean(dim=(2, 3))

    network = small_network(6)
    network.backbone = Strange()  # type: ignore[assignment]
    with pytest.raises(RuntimeUnusable, match=r"plain cannot be exported \(.*i0e.*\): ask for another"):
        prepared(network, runtime="onnx")


def has_bfloat16(monkeypatch: pytest.MonkeyPatch, answer: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: answer)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)


def test_bfloat16_is_refused_where_it_would_be_emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    has_bfloat16(monkeypatch, False)
    with pytest.raises(RuntimeUnusable, match="cpu has no bfloat16 in hardware"):
        prepared(small_network(6), precision="bfloat16")


def test_bfloat16_moves_answers_a_little_and_gives_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    has_bfloat16(monkeypatch, True)
    network = small_network(6)
    ready = prepared(network, precision="bfloat16")
    assert " bfloat16 cpu " in ready.name
    assert {part.dtype for part in ready.network.backbone(*probe(network))} == {torch.float32}
    assert 1e-4 < furthest(ready.network.backbone, network.backbone, probe(network)) < 0.05


@pytest.mark.parametrize(
    ("device", "precision", "cause"),
    [
        ("cuda", "float32", "computes on the CPU, and cuda is"),
        ("cpu", "bfloat16", "are of float32, and bfloat16"),
    ],
)
def test_onnx_refuses_other_devices_and_precisions(device: str, precision: Precision, cause: str) -> None:
    with pytest.raises(RuntimeUnusable, match=cause):
        prepared(small_network(6), runtime="onnx", precision=precision, device=torch.device(device))


def test_a_name_holds_everything_that_moves_the_last_bits() -> None:
    network = small_network(8)
    torch_name = f"torch-{version('torch')}"
    onnx_name = f"onnxruntime-{version('onnxruntime')}"
    assert prepared(network, batch_looks=4).name == f"folded {torch_name} float32 cpu batch 4"
    assert prepared(network, runtime="eager").name == f"eager {torch_name} float32 cpu batch 8"
    assert prepared(network, runtime="onnx").name == f"onnx {onnx_name} float32 cpu batch 8"


@pytest.mark.parametrize("runtime", ["folded", "onnx"])
def test_a_classifier_looks_at_the_same_tiles_and_answers_alike_in_every_runtime(runtime: Runtime) -> None:
    bundle = small_bundle(9, walk=WalkSettings(keep=(2, 1, 1)))
    images = np.stack([random_pixels(n, (128, 128)).transpose(1, 2, 0) for n in range(5)])
    eager = Classifier(bundle, runtime="eager").classify(images)
    found = Classifier(bundle, runtime=runtime).classify(images)
    assert found.labels == eager.labels
    assert [[step[:3] for step in trail] for trail in found.trails] == [
        [step[:3] for step in trail] for trail in eager.trails
    ]
    np.testing.assert_allclose(found.logits, eager.logits, atol=1e-4)


@pytest.mark.parametrize("runtime", ["folded", "onnx"])
def test_in_every_runtime_an_answer_is_the_same_whoever_is_asked_beside_it(runtime: Runtime) -> None:
    classifier = Classifier(small_bundle(10), runtime=runtime)
    images = np.stack([random_pixels(n, (64, 64)).transpose(1, 2, 0) for n in range(7)])
    together = classifier.classify(images).logits
    alone = np.concatenate([classifier.classify(image[None]).logits for image in images])
    assert np.array_equal(together, alone)


def test_compiling_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(RuntimeUnusable, match="there is no C\\+\\+ compiler"):
        prepared(small_network(6), runtime="compiled")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # torch's compiler, of its own parts
def test_a_compiled_backbone_answers_within_the_bound() -> None:
    network = small_network(6)  # of larger ones, minutes
    ready = prepared(network, runtime="compiled", batch_looks=2)
    assert ready.name.startswith("compiled torch-")
    assert furthest(ready.network.backbone, network.backbone, probe(network)) < AGREES_WITHIN


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize(("precision", "bound"), [("float32", 1e-4), ("bfloat16", 0.05)])
def test_on_a_gpu_float32_is_float32_and_bfloat16_close(precision: Precision, bound: float) -> None:
    network = timm_network("timm/efficientnet_b0")
    pixels, depth = probe(network)
    wanted = network.backbone(pixels, depth)
    ready = prepared(network, precision=precision, device=torch.device("cuda")).network.backbone
    found = ready(pixels.cuda(), depth.cuda())
    for one, other in zip(found, wanted, strict=True):
        assert (one.cpu() - other).abs().max() <= bound * other.abs().max()


def test_saved_and_read_again_a_bundle_keeps_its_graph(tmp_path: Path) -> None:
    network = small_network(11)
    facts = BundleFacts(classes=("a", "b", "c"), network=network.settings, walk=WalkSettings(keep=(1,)))
    Bundle(facts, network).save(tmp_path / "bundle")
    from tnet_geo.inference import load_bundle

    images = random_pixels(1, (64, 64)).transpose(1, 2, 0)[None]
    first = load_bundle(tmp_path / "bundle", runtime="onnx").classify(images)
    again = load_bundle(tmp_path / "bundle", runtime="onnx").classify(images)
    assert len(graphs()) == 1
    assert np.array_equal(first.logits, again.logits)
