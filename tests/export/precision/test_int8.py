"""INT8 graphs: the places of the Q/DQ pairs, the values of the INT8 weights, and readers that accept the result."""

import copy
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torchvision.models import mobilenet_v2
from torchvision.models.googlenet import Inception

from calibration.ranges import calibrate
from export.audit import Constants, audit_model, read_metadata
from export.execution import observe_activations
from export.onnxruntime_session import open_session
from export.precision import plan_int8, to_int8
from export.writing import export_model
from sparsegpt_core.errors import CheckFailedError, InputError, ModelError, NumericsError
from sparsegpt_core.network import Int8Weight
from sparsegpt_core.solvers import grid_scales
from sparsegpt_core.zoo import ModelShape, build_model
from tests.support.exports import METADATA, prepared
from tests.support.networks import Mixer

FUSED = ("Relu", "Clip", "Add", "MaxPool", "Concat")


def quantised(proto: onnx.ModelProto, exclude=(), **options) -> onnx.ModelProto:
    planned = plan_int8(proto, exclude)
    return to_int8(proto, planned, dict.fromkeys(planned.tensors, 0.05), **options)


def run(proto: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    (output,) = open_session(proto.SerializeToString(), "the graph").run(None, {"input": images})
    return output


def images(shape: tuple[int, ...], count: int = 4) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, *shape)).astype(np.float32)


class Wiring:
    """Who feeds and who reads what in a graph."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.nodes = list(proto.graph.node)
        self.producer = {output: node for node in self.nodes for output in node.output}
        self.layers = [node for node in self.nodes if node.op_type in ("Conv", "Gemm", "MatMul")]

    def reads_int8(self, node: onnx.NodeProto, index: int = 0) -> bool:
        source = self.producer.get(node.input[index])
        return source is not None and source.op_type == "DequantizeLinear"

    def puts_out_int8(self, node: onnx.NodeProto) -> bool:
        """Whether every reader, behind what TensorRT fuses or moves a Q across, is a QuantizeLinear."""
        readers = [each for each in self.nodes if node.output[0] in each.input]
        return bool(readers) and all(
            reader.op_type == "QuantizeLinear" or (reader.op_type in FUSED and self.puts_out_int8(reader))
            for reader in readers
        )

    def between(self, node: onnx.NodeProto) -> list[str]:
        return [each.op_type for each in self.nodes if node.output[0] in each.input]


@pytest.fixture(scope="module")
def resnet():
    model = prepared(build_model("torchvision:resnet18", ModelShape((3, 32, 32), 10)))
    return model, export_model(model, (3, 32, 32), METADATA)


@pytest.fixture(scope="module")
def mixer():
    model = prepared(Mixer())
    return model, export_model(model, (4, 8, 8), METADATA)


def test_residual_stages_are_int8_from_end_to_end(resnet):
    _, proto = resnet
    planned = plan_int8(proto, ("conv1", "fc"))
    wiring = Wiring(quantised(proto, ("conv1", "fc")))
    stages = [node for node in wiring.layers if node.name not in ("conv1", "fc")]
    assert tuple(node.name for node in stages) == planned.layers
    assert len(stages) == 19
    for node in stages:
        assert wiring.reads_int8(node, 0), node.name
        assert wiring.reads_int8(node, 1), node.name
        assert wiring.puts_out_int8(node), node.name
    for node in (each for each in wiring.layers if each.name in ("conv1", "fc")):
        assert not wiring.reads_int8(node, 1)
    # One pair for each tensor, however many read it: 8 blocks, 8 second convolutions, 3 shortcuts, the end.
    assert len(planned.tensors) == 20


def test_an_addition_is_fused_to_the_last_convolution_of_the_main_branch(resnet):
    wiring = Wiring(quantised(resnet[1], ("conv1", "fc")))
    additions = [node for node in wiring.nodes if node.op_type == "Add"]
    assert len(additions) == 8
    for node in additions:
        (epilogue,) = [index for index in (0, 1) if not wiring.reads_int8(node, index)]
        assert wiring.producer[node.input[epilogue]].name.endswith("conv2")
    for node in wiring.layers:
        if node.name.endswith("downsample.0"):
            assert wiring.between(node) == ["QuantizeLinear"]


def mobile() -> nn.Module:
    """A stem, depthwise convolutions, hard limits and residual additions without an activation behind them."""
    return nn.Sequential(mobilenet_v2(weights=None).features[:6], *classifier(32))


def inception() -> nn.Module:
    """Two blocks whose inputs are concatenated, max-pooled, and read by a pooling beside convolutions."""
    blocks = [Inception(sum(sizes), 8, 8, 8, 8, 8, 8) for sizes in ((16,), (8, 8, 8, 8))]
    return nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), blocks[0], nn.MaxPool2d(2), blocks[1], *classifier(32))


def classifier(channels: int) -> tuple[nn.Module, ...]:
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)


@pytest.mark.parametrize(("network", "pooled"), [(mobile, 0), (inception, 2)])
def test_other_networks_are_int8_from_end_to_end(network, pooled):
    proto = export_model(prepared(network()), (3, 32, 32))
    layers = audit_model(proto).layers
    result = quantised(proto, (layers[0].name, layers[-1].name))
    onnx.checker.check_model(result, full_check=True)
    wiring = Wiring(result)
    inner = wiring.layers[1:-1]
    assert all(wiring.reads_int8(node) and wiring.puts_out_int8(node) for node in inner)
    assert {node.op_type for node in inner} == {"Conv"}
    pools = [node for node in wiring.nodes if node.op_type == "MaxPool" and wiring.reads_int8(node)]
    assert len(pools) == pooled  # those beside a block's convolutions
    for pool in pools:  # max-pooling does not change integers: the same scale after it
        (after,) = [node for node in wiring.nodes if pool.output[0] in node.input]
        before = wiring.producer[pool.input[0]]
        scales = [Constants(result.graph).value(node.input[1]) for node in (before, after)]
        assert after.op_type == "QuantizeLinear"
        assert scales[0] == scales[1]


class Dense(nn.Module):
    """A dense block's layers before average pooling, then two readers of which one needs FP32."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm, self.second = nn.BatchNorm2d(16), nn.Conv2d(16, 8, 1)
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        x = self.stem(x)
        x = self.norm(torch.cat([x, self.first(x)], 1)).relu()
        x = nn.functional.avg_pool2d(self.second(x), 2)
        scores = self.last(x)
        return scores.mean((2, 3)) * scores.amax((2, 3))


def test_pooling_and_concatenation():
    proto = export_model(prepared(Dense()), (3, 8, 8))
    wiring = Wiring(quantised(proto, ["stem"]))
    by_name = {node.name: node for node in wiring.layers}
    assert wiring.reads_int8(by_name["first"])
    assert wiring.between(by_name["second"]) == ["QuantizeLinear"]
    (pool,) = [node for node in wiring.nodes if node.op_type == "AveragePool"]
    assert wiring.reads_int8(pool)
    assert wiring.between(pool) == ["QuantizeLinear"]
    assert "QuantizeLinear" not in wiring.between(by_name["first"])  # the batch norm behind it is FP32
    assert "QuantizeLinear" not in wiring.between(by_name["last"])  # the maximum needs it in FP32


def test_linear_layers_and_second_calls(mixer):
    proto = mixer[1]
    before = proto.SerializeToString()
    result = quantised(proto)
    assert proto.SerializeToString() == before
    onnx.checker.check_model(result, full_check=True)
    assert [node.name for node in Wiring(result).layers] == [node.name for node in Wiring(proto).layers]
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in result.graph.initializer}
    int8_weights = [name for name, value in stored.items() if value.dtype == np.int8 and value.ndim > 1]
    assert len(int8_weights) == 5  # "shared" is called twice and stored once
    assert not any(value.ndim > 1 and value.dtype == np.float32 for value in stored.values())
    assert read_metadata(result) == METADATA
    assert plan_int8(proto, ["shared"]).layers == ("conv", "mlp.0", "mlp.2", "head")


@pytest.mark.parametrize("fixture", ["resnet", "mixer"])
def test_int8_weights_are_rounded_and_keep_the_pattern(fixture, request):
    proto = request.getfixturevalue(fixture)[1]
    result = quantised(proto)
    before, after = audit_model(proto), audit_model(result)
    after.require_sparse([layer.name for layer in before.layers if layer.is_sparse], "INT8")
    assert [(layer.name, layer.eligible, layer.shape) for layer in after.layers] == [
        (layer.name, layer.eligible, layer.shape) for layer in before.layers
    ]
    for old, new in zip(Wiring(proto).layers, Wiring(result).layers, strict=True):
        weight, actual = (Constants(p.graph).value(n.input[1]) for p, n in ((proto, old), (result, new)))
        axis = 0 if old.op_type == "Conv" or "transB" in str(old.attribute) else 1
        rows, rounded = (np.moveaxis(each, axis, 0).reshape(weight.shape[axis], -1) for each in (weight, actual))
        assert (rounded[rows == 0] == 0).all()
        scales = grid_scales(torch.tensor(rows), torch.ones(rows.shape[1])).numpy()[:, None]
        np.testing.assert_array_equal(rounded, np.clip(np.rint(rows / scales), -127, 127) * scales)


def test_same_inputs_same_bytes(resnet):
    assert quantised(resnet[1]).SerializeToString() == quantised(resnet[1]).SerializeToString()


def on_the_grid(model: nn.Module, names: list[str]) -> tuple[nn.Module, dict[str, Int8Weight]]:
    """Coarse INT8 weights (±31) with a shift, as a solver returns them, and a network that computes with them."""
    generator = torch.Generator().manual_seed(0)
    other, int8_weights = copy.deepcopy(model), {}
    for name in names:
        weight = other.get_submodule(name).weight.detach()
        scales = weight.flatten(1).abs().amax(1) / 31
        values = (weight / scales.view(-1, *[1] * (weight.ndim - 1))).round().to(torch.int8)
        shift = torch.randn(len(weight), generator=generator) / 10
        int8_weights[name] = Int8Weight(values, scales, shift)
        weight.copy_(values * scales.view(-1, *[1] * (weight.ndim - 1)))

        other.get_submodule(name).register_forward_hook(
            lambda m, _i, out, s=shift: out + (s.view(-1, 1, 1) if isinstance(m, nn.Conv2d) else s)
        )
    return other, int8_weights


@pytest.mark.parametrize("which", [["conv"], ["mlp.0", "shared", "head"]])
def test_int8_weights_of_a_solver_follow_the_folded_batch_norm(mixer, which):
    model, proto = copy.deepcopy(mixer[0]), mixer[1]
    other, int8_weights = on_the_grid(model, which)
    planned = plan_int8(proto, {layer.name for layer in audit_model(proto).layers} - {*which, "shared#2"})
    batch = images((4, 8, 8))
    ranges = {
        name: np.abs(found).max() / 127 for name, found in observe_activations(proto, planned.tensors)(batch).items()
    }
    result = to_int8(proto, planned, ranges, int8_weights, model.state_dict())
    onnx.checker.check_model(result, full_check=True)
    with torch.inference_mode():
        expected, plain = other(torch.from_numpy(batch)).numpy(), model(torch.from_numpy(batch)).numpy()
    assert np.linalg.norm(run(result, batch) - expected) < 0.1 * np.linalg.norm(plain - expected)
    audit_model(result).require_sparse(which, "INT8")


def test_the_signs_of_the_batch_norm(mixer):
    model, proto = mixer
    assert (model.norm.weight < 0).any()
    assert (model.norm.weight > 0).any()
    _, int8_weights = on_the_grid(copy.deepcopy(model), ["conv"])
    result = quantised(proto, {"mlp.0", "mlp.2", "shared", "head"}, int8_weights=int8_weights, state=model.state_dict())
    factor = (model.norm.weight / (model.norm.running_var + model.norm.eps).sqrt()).detach()
    constants, node = Constants(result.graph), Wiring(result).layers[0]
    wanted = int8_weights["conv"].values * (int8_weights["conv"].scales * factor).view(-1, 1, 1, 1)
    np.testing.assert_allclose(constants.value(node.input[1]), wanted.numpy(), rtol=1e-5)
    stored = Constants(result.graph).value(Wiring(result).producer[node.input[1]].input[0])
    np.testing.assert_array_equal(np.abs(stored), int8_weights["conv"].values.abs().numpy())


def test_int8_weights_that_do_not_fit(mixer):
    model, proto = mixer
    _, int8_weights = on_the_grid(copy.deepcopy(model), ["conv"])
    state, good = model.state_dict(), int8_weights["conv"]
    moved = {**state, "conv.weight": state["conv.weight"] + good.scales.view(-1, 1, 1, 1) / 10}
    filled = Int8Weight(torch.ones_like(good.values), good.scales, good.shift)
    for changed, weight, message in (
        (moved, good, "conv: the graph's weight is not the module's"),
        ({"conv.weight": state["conv.weight"].flip(0)}, good, "conv: the graph's weight is not the module's"),
        ({"conv.weight": state["conv.weight"][:, :2]}, good, "conv: .* another shape"),
        (state, filled, "conv: a pruned weight is not zero"),
    ):
        with pytest.raises(CheckFailedError, match=message):
            quantised(proto, int8_weights={"conv": weight}, state=changed)
    with pytest.raises(InputError, match="no weight of conv"):
        quantised(proto, int8_weights=int8_weights)


def gemm(opset: int = 17, weight: np.ndarray | None = None) -> onnx.ModelProto:
    """A foreign graph: old opset, a weight behind a Transpose, one that is also an input, no names."""
    second = np.ones((4, 3), dtype=np.float32)
    first = np.eye(4, dtype=np.float32) if weight is None else weight
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("input", ["n", 4]), ("b", [4, 3]))]
    nodes = [
        helper.make_node("Transpose", ["a"], ["a_quantized"]),
        helper.make_node("MatMul", ["input", "a_quantized"], ["input_scale"]),
        helper.make_node("Gemm", ["input_scale", "b"], ["output"]),
    ]
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", 3])
    weights = [numpy_helper.from_array(first, "a"), numpy_helper.from_array(second, "b")]
    graph = helper.make_graph(nodes, "g", inputs, [output], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.mark.parametrize("opset", [13, 17])
def test_foreign_graphs_of_old_opsets(opset):
    result = quantised(gemm(opset))
    onnx.checker.check_model(result, full_check=True)
    assert (result.opset_import[0].version, result.ir_version) == (opset, 8)
    assert [value.name for value in result.graph.input] == ["input"]
    assert "Transpose" not in {node.op_type for node in result.graph.node}
    batch = np.float32([[0.05, 1, -0.4, 2]])
    np.testing.assert_allclose(run(result, batch), np.full((1, 3), batch.sum()), rtol=1e-5)
    for node in result.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert len(node.input) == 3


def test_what_cannot_be_quantised():
    proto = gemm()
    with pytest.raises(ModelError, match="quantised already"):
        plan_int8(quantised(proto))
    with pytest.raises(ModelError, match="no Conv, Gemm or MatMul"):
        plan_int8(proto, ["input_scale", "output", ""])
    with pytest.raises(ModelError, match="opset 12"):
        quantised(gemm(12))
    with pytest.raises(NumericsError, match=r"weight of .* NaN"):
        quantised(gemm(weight=np.full((4, 4), np.nan, dtype=np.float32)))
    planned = plan_int8(proto)
    for scale in (0, -1, np.nan, np.inf, 1e-60, 1e60):
        with pytest.raises(InputError, match=r"scale .* of the tensor input is not a positive"):
            to_int8(proto, planned, dict.fromkeys(planned.tensors, scale))
    with pytest.raises(InputError, match="the tensor input has no scale"):
        to_int8(proto, planned, {})


def test_digits_lose_nothing(digits_checkpoint):
    from calibration.data import open_data
    from calibration.sampling import calibration_batches, held_out_batches
    from sparsegpt_core.checkpoints import load_checkpoint, load_into

    checkpoint, data = load_checkpoint(digits_checkpoint), open_data("digits")
    model = build_model("simple_cnn", ModelShape(data.image_shape, 10)).eval()
    load_into(model, checkpoint.state)
    proto = export_model(model, data.image_shape)
    fit, held_out = (
        [batch.numpy() for batch in batches]
        for batches in (calibration_batches(data.training, 64, 32, 0), held_out_batches(data.training, 64, 64, 32, 0))
    )
    planned = plan_int8(proto, ["conv1", "fc2"])
    ranges = calibrate(observe_activations(proto, planned.tensors), fit, held_out)
    result = to_int8(proto, planned, {name: found.scale for name, found in ranges.items()})
    batches = list(data.evaluation.batches(100))
    correct = [
        np.concatenate([run(each, batch).argmax(1) == labels for batch, labels in batches]).mean()
        for each in (proto, result)
    ]
    assert correct[0] > 0.9
    assert abs(correct[0] - correct[1]) < 0.006


def test_tensorrt_rtx_builds_it(resnet, tmp_path: Path):
    pytest.importorskip("tensorrt_rtx", reason="engines are built for real, which needs tensorrt-rtx")
    from deploy.builder import BuildSettings, build_engine

    onnx.save(quantised(resnet[1], ("conv1", "fc")), str(tmp_path / "int8.onnx"))
    settings = BuildSettings(backend="tensorrt-rtx", compute_capability="8.6")
    built = build_engine(tmp_path / "int8.onnx", tmp_path / "int8.plan", settings)
    assert built.eligible_layers == audit_model(resnet[1]).eligible_layers
