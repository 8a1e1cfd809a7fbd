"""Networks of users: several inputs, shared weights, outputs that are not logits."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import ANY

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from torch import Tensor, nn

from deploy.measure import compare_versions
from deploy.sessions import OnnxSession
from export.audit import audit_model
from export.parity import check_parity
from export.writing import export_model, save_model
from sparsegpt_cli.jobs.datasets import DataSource
from sparsegpt_cli.jobs.models import ModelSource, load
from sparsegpt_cli.terminal import Console
from sparsegpt_core.errors import DataError, InputError, ModelError, NumericsError
from sparsegpt_core.execution import Resources
from sparsegpt_core.network import plan_layers, tensors_of
from sparsegpt_core.network.inputs import Inputs
from sparsegpt_core.patterns import NM, Unstructured, find_violations
from sparsegpt_core.pruning import global_quotas, permute_model, prune_model
from sparsegpt_core.settings import PruneSettings
from sparsegpt_core.zoo import ModelShape, build_model

Array = npt.NDArray[Any]
Network = TypeVar("Network", bound=nn.Module)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Guided(nn.Module):
    """Reads an image, a map of another size and a vector; returns a map and a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Conv2d(3, 8, 3, padding=1)
        self.depth = nn.Conv2d(4, 8, 3, padding=1, stride=2)
        self.pose = nn.Linear(8, 8)
        self.mix = nn.Conv2d(16, 8, 3, padding=1)
        self.head = nn.Linear(8, 8)

    def forward(self, image: Tensor, depth: Tensor, pose: Tensor) -> dict[str, Tensor]:
        scale = self.pose(pose).relu()[..., None, None]
        x = self.mix(torch.cat([self.image(image).relu() * scale, self.depth(depth).relu()], 1)).relu()
        return {"map": x, "pose": self.head(x.mean((2, 3)))}


class Packed(nn.Module):
    """The same network with one input that contains all three."""

    def __init__(self, inner: Guided) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        image, depth, pose = torch.split(x, [3 * 64, 4 * 256, 8], dim=1)
        outputs: dict[str, Tensor] = self.inner(image.view(-1, 3, 8, 8), depth.view(-1, 4, 16, 16), pose)
        return outputs


class Tied(nn.Module):
    """One weight under two names with another layer between them, and a layer that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.first = nn.Conv2d(8, 8, 3, padding=1)
        self.between = nn.Conv2d(8, 8, 1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.second.weight = self.first.weight
        self.twice = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.stem(x).relu()).relu()
        x = self.second(self.between(x).relu()).relu()
        x = self.twice(self.twice(x).relu()).relu()
        y: Tensor = self.head(x.mean((2, 3)))
        return y


def guided_batches() -> list[tuple[Tensor, ...]]:
    return [(noise(n, 3, 8, 8, seed=n), noise(n, 4, 16, 16, seed=n + 9), noise(n, 8, seed=n + 99)) for n in (5, 3)]


def seeded(make: type[Network]) -> Network:
    torch.manual_seed(0)
    return make().eval()


@pytest.mark.parametrize("traced", [True, False])
def test_several_inputs_prune_as_one_input_that_contains_them(traced: bool) -> None:
    model = seeded(Guided)
    packed = Packed(copy.deepcopy(model))
    batches = guided_batches()
    result = prune_model(model, batches, PruneSettings(), resources=Resources(traced=traced))
    flat = [torch.cat([each.flatten(1) for each in batch], 1) for batch in batches]
    other = prune_model(packed, flat, PruneSettings(), resources=Resources(traced=traced))
    assert bool(result.warnings) is not traced
    assert [layer.name for layer in result.layers if layer.status == "pruned"] == ["pose", "depth", "mix"]
    assert [f"inner.{layer.name}" for layer in result.layers] == [layer.name for layer in other.layers]
    for (name, value), expected in zip(model.state_dict().items(), packed.inner.state_dict().values(), strict=True):
        assert torch.allclose(value, expected, atol=1e-4), name


def test_several_inputs_and_outputs_as_a_file(tmp_path: Path) -> None:
    model, batches = seeded(Guided), guided_batches()
    result = prune_model(model, batches, PruneSettings(method="magnitude"))
    proto = export_model(model, batches[0])
    assert [value.name for value in proto.graph.input] == ["image", "depth", "pose"]
    assert [value.name for value in proto.graph.output] == ["map", "pose_1"]
    assert audit_model(proto).sparse_layers == result.pruned
    save_model(proto, tmp_path / "model.onnx")
    assert check_parity(tmp_path / "model.onnx", model, batches[1]).relative < 1e-5


def test_permutation_and_budget_take_several_inputs() -> None:
    model, batches = seeded(Guided), guided_batches()
    before = model(*batches[0])["pose"]
    result, why = permute_model(model, batches, PruneSettings())
    assert result is not None, why
    assert torch.allclose(model(*batches[0])["pose"], before, atol=1e-5)
    assert set(global_quotas(model, batches, PruneSettings(Unstructured(0.5)))) == {"pose", "depth", "mix"}


def test_every_hook_is_removed() -> None:
    model = seeded(Guided)
    plan_layers(model, guided_batches()[0], PruneSettings())
    assert not model._forward_pre_hooks


def test_inputs_are_sliced_and_moved_together() -> None:
    inputs = Inputs(guided_batches()[0])
    assert (len(inputs), len(inputs[:2]), inputs.shape, inputs.device) == (5, 2, (5, 3, 8, 8), torch.device("cpu"))
    assert [tuple(each.shape) for each in inputs[1:4].to(torch.device("meta")).tensors] == [
        (3, 3, 8, 8),
        (3, 4, 16, 16),
        (3, 8),
    ]
    assert len(tensors_of(noise(2, 3))) == 1


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((), "a batch contains nothing"),
        (({"image": noise(2, 3)},), "a batch contains dict"),
        ((noise(2, 3, 8, 8), noise(3, 8)), r"shapes \(2, 3, 8, 8\), \(3, 8\)"),
        ((noise(2, 3, 8, 8), torch.tensor(1.0)), r"shapes \(2, 3, 8, 8\), \(\)"),
    ],
)
def test_invalid_batches_are_refused(batch: tuple[Tensor, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        prune_model(seeded(Guided), [batch], PruneSettings())


def test_a_missing_input_is_an_error() -> None:
    with pytest.raises(ModelError, match=r"missing 1 required positional argument: 'pose'"):
        prune_model(seeded(Guided), [batch[:2] for batch in guided_batches()], PruneSettings())


@pytest.mark.parametrize("traced", [True, False])
def test_a_weight_of_two_layers_is_pruned_once_over_all_uses(traced: bool) -> None:
    model, batches = seeded(Tied), [noise(4, 3, 8, 8)]
    result = prune_model(model, batches, PruneSettings(), resources=Resources(traced=traced))
    layers = {layer.name: layer for layer in result.layers}
    assert [name for name, layer in layers.items() if layer.status == "pruned"] == [
        "first",
        "between",
        "second",
        "twice",
    ]
    assert model.first.weight is model.second.weight
    assert layers["first"].positions == layers["second"].positions == layers["twice"].positions == 2 * 4 * 64
    assert layers["between"].positions == 4 * 64
    assert layers["first"].relative_error == layers["second"].relative_error
    for name in ("first", "between", "twice"):
        assert not find_violations(model.get_parameter(f"{name}.weight").detach().numpy(), NM(2, 4), 1).count
    if traced:
        assert audit_model(export_model(model, (batches[0],))).sparse_layers == 5  # one for every call


@pytest.mark.parametrize("glob", ["first", "second"])
def test_layers_that_share_a_weight_stay_dense_together(glob: str) -> None:
    model = seeded(Tied)
    before = model.first.weight.clone()
    result = prune_model(model, [noise(4, 3, 8, 8)], PruneSettings(method="magnitude", exclude=(glob,)))
    assert {layer.name for layer in result.layers if layer.reason == "EXCLUDED"} == {"first", "second"}
    assert torch.equal(model.first.weight, before)


def test_saliencies_of_a_shared_weight_are_measured_once() -> None:
    model, batches = seeded(Tied), [noise(4, 3, 8, 8)]
    quotas = global_quotas(model, batches, PruneSettings(Unstructured(0.5)))
    assert set(quotas) == {"first", "between", "twice"}
    weights = {name: model.get_parameter(f"{name}.weight").numel() for name in quotas}
    zeros = sum(quotas[name] * count for name, count in weights.items())
    assert zeros == pytest.approx(0.5 * sum(weights.values()), abs=1)
    before = model(batches[0])
    result, why = permute_model(model, batches, PruneSettings())
    assert result is not None, why
    assert torch.allclose(model(batches[0]), before, atol=1e-5)


def test_images_alone_are_refused_where_a_network_has_several_inputs() -> None:
    with pytest.raises(DataError, match="inputs are image, depth, pose, and digits has images only") as caught:
        load(ModelSource(f"{__name__}:Guided"), DataSource("digits"), Console(quiet=True))
    assert "npz:PATH" in caught.value.hint


@pytest.mark.parametrize("name", ["lraspp_mobilenet_v3_large", "ssdlite320_mobilenet_v3_large"])
def test_torchvision_builds_segmentation_and_detection_without_a_download(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *_, **__: pytest.fail("a download"))
    model = build_model(f"torchvision:{name}", ModelShape((3, 64, 64), num_classes=4))
    assert hasattr(model, "backbone")


class Detector(nn.Module):
    """Returns a dict of tensors for every image, as torchvision detectors do."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(3, 8, 3)

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        return [{"boxes": image[:, image.amax((0, 1)) > 0]} for image in self.backbone(images)]


def test_a_detector_is_refused_with_a_hint() -> None:
    with pytest.raises(ModelError, match="is a detector: it returns a list of detections for each image") as caught:
        export_model(seeded(Detector), (3, 8, 8))
    assert "docs/detectors.md" in caught.value.hint


def both(x: Array) -> dict[str, Array]:
    return {"map": x, "mean": x.mean((2, 3))}


def batches_of(*sizes: int) -> list[tuple[Array, None]]:
    return [(noise(size, 3, 4, 4, seed=size).numpy(), None) for size in sizes]


def test_outputs_are_compared_one_by_one_over_all_batches() -> None:
    batches = batches_of(2, 5)
    whole = np.concatenate([images for images, _ in batches])
    report = compare_versions({"dense": both, "sparse": lambda x: {**both(x), "map": x + 1}}, batches).outputs
    expected = np.linalg.norm(np.ones_like(whole)) / np.linalg.norm(whole)
    assert report.to_json() == {
        "samples": 7,
        "relative_errors": {"sparse": {"map": pytest.approx(expected, rel=1e-6), "mean": 0.0}},
        "channel_errors": {"sparse": {"map": {"median": ANY, "worst": ANY, "worst_channel": ANY, "channels": 3}}},
    }


@pytest.mark.parametrize("transposed", [False, True])
def test_coordinates_in_pixels_hide_no_wrong_scores(transposed: bool) -> None:
    """A decoded detector's output: four coordinates up to 640, and two scores, one of which is entirely wrong."""

    def decoded(images: Array, score: float = 0.1) -> dict[str, Array]:
        made = np.concatenate([np.full((len(images), 4, 9), 640.0), np.full((len(images), 2, 9), 0.1)], axis=1)
        made[:, 4] = score
        return {"output": made.transpose(0, 2, 1) if transposed else made}

    sessions = {"dense": decoded, "sparse": lambda x: decoded(x, 0.2)}
    report = compare_versions(sessions, batches_of(2, 5)).outputs
    assert report is not None
    assert report.relative_errors["sparse"]["output"] < 1e-4
    found = report.channel_errors["sparse"]["output"]
    assert (found.worst, found.worst_channel, found.median, found.channels) == (pytest.approx(1.0), 4, 0.0, 6)


@pytest.mark.parametrize(
    ("other", "kind", "message"),
    [
        (lambda x: {"map": x}, InputError, "'sparse' and 'dense' have different outputs"),
        (lambda x: {"map": x[:, :1], "mean": x.mean((2, 3))}, InputError, "different outputs"),
        (lambda x: {**both(x), "map": x / 0.0}, NumericsError, "output map of 'sparse' contains NaN or infinity"),
    ],
)
def test_outputs_that_cannot_be_compared(other: Any, kind: type[Exception], message: str) -> None:
    with np.errstate(divide="ignore"), pytest.raises(kind, match=message):
        compare_versions({"dense": both, "sparse": other}, batches_of(2))


def test_nothing_to_compare() -> None:
    with pytest.raises(InputError, match="no samples"):
        compare_versions({"dense": both}, [])
    with pytest.raises(InputError, match="'dense' is not among sparse"):
        compare_versions({"sparse": both}, batches_of(2))


@pytest.mark.parametrize(("op", "shape"), [("Relu", ["N", 3, 8, 8]), ("Flatten", ["N", 192])])
def test_a_file_that_returns_maps_is_distinguished_from_a_classifier(
    op: str, shape: list[str | int | None], tmp_path: Path
) -> None:
    path, helper = tmp_path / "model.onnx", onnx.helper
    given = helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, ["N", 3, 8, 8])
    made = helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, shape)
    graph = helper.make_graph([helper.make_node(op, ["input"], ["logits"])], "graph", [given], [made])
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    run, images = OnnxSession(path).outputs, noise(3, 3, 8, 8).numpy()
    found = compare_versions({"dense": run, "sparse": run}, [(images, None)]).to_json()
    if len(shape) == 2:
        assert found["outputs"] is None
        assert found["accuracy"]["sparse"]["disagreement"] == 0
    else:
        assert found["accuracy"] is None
        assert found["outputs"] == {"samples": 3, "relative_errors": {"sparse": {"logits": 0.0}}, "channel_errors": ANY}


FACTORY = """
from torch import nn

class Segmenter(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.head, self.aux = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        x = self.body(self.stem(x).relu()).relu()
        return {"out": self.head(x), "aux": self.aux(x)}
"""


def test_a_segmentation_network_runs_through_every_command(
    cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "segmenters.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(str(tmp_path))
    for seed, name in enumerate(("train", "test")):
        np.savez(tmp_path / f"{name}.npz", images=noise(8, 3, 12, 12, seed=seed).numpy())
    out = tmp_path / "out"
    run = cli(
        *("prune-export", "--layers=all", "--model", "segmenters:Segmenter", "--out", out, "--json", "--no-baseline"),
        *("--data", f"npz:{tmp_path / 'train.npz'}", "--eval-data", f"npz:{tmp_path / 'test.npz'}"),
    )
    assert run.code == 0, run.err
    assert run.json["accuracy"] is None
    errors = run.json["outputs"]["relative_errors"]["sparse"]
    assert sorted(errors) == ["aux", "out"]
    assert all(0 < error < 1 for error in errors.values())
    assert "outputs are not logits" in (out / "report.html").read_text()
