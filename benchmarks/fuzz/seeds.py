"""Writes the corpus, a run folder, ONNX files and a sweep's cell: ``python -m benchmarks.fuzz.seeds``."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import torch
from onnx import helper, numpy_helper

from export.audit import write_metadata
from export.writing import export_model
from sparsegpt_cli.sweep.cell_store import CellStore
from sparsegpt_core.checkpoints import save_checkpoint, save_int8
from sparsegpt_core.files import write_json
from sparsegpt_core.network import Int8Weight
from tests.support.networks import Mixer, digits_net  # type: ignore[import-not-found]
from tests.support.reports import (
    engine_run,  # type: ignore[import-not-found]
    sample_run,  # type: ignore[import-not-found]
)

CORPUS = Path(__file__).parent / "corpus"
METADATA = {
    "tool_version": "0.1.0",
    "model": "simple_cnn",
    "image": [1, 8, 8],
    "num_classes": 10,
    "mean": [0.3],
    "std": [0.4],
    "pattern": "2:4",
    "pruned": ["conv"],
    "dense": {"stem": "FIRST_LAYER"},
}

_WEIGHT = "{" + ", ".join(str((37 * place % 17 - 8) / 8) for place in range(16)) + "}"
NETWORKS = {
    "moved": f"""
        <ir_version: 8, opset_import: ["": 17]>
        g (float[N, 4, 6, 6] x, float[N, 4] facts) => (float[N, 4, 6, 6] y, float[N, 4] z)
        <float[4, 4] w = {_WEIGHT}, int64[4] shape = {{4, 4, 1, 1}}, float[4] mean = {{1, 2, 3, 4}}> {{
          t = Transpose (w)  i = Identity (t)  r = Reshape (i, shape)
          c = Conv <auto_pad = "SAME_UPPER"> (x, r)
          y = Sub (c, c)
          v = Constant <value = float[4, 4] {_WEIGHT}> ()
          p = Gemm <transB = 1> (facts, v)
          z = Add (p, mean)
        }}""",
    "bodies": f"""
        <ir_version: 8, opset_import: ["": 17, "f": 1]>
        g (float[1, 4] x) => (float[1, 4] y, float[1, 4] last)
        <float[4, 4] w = {_WEIGHT}, bool t = {{1}}, int64 times = {{2}}> {{
          b = f.twice (a)
          a = MatMul (x, w)
          y = If (t) <then_branch = inner () => (float[1, 4] z) {{ z = MatMul (b, w) }},
                      else_branch = other () => (float[1, 4] u) {{ u = Identity (b) }}>
          last = Loop (times, t, x) <body = body (int64 i, bool go, float[1, 4] h) => (bool on, float[1, 4] k) {{
            on = Identity (go)  k = MatMul (h, w) }}>
        }}
        <domain: "f", opset_import: ["": 17]> twice (v) => (r) {{
          c = Constant <value = float[4, 4] {_WEIGHT}> ()
          r = MatMul (v, c)
        }}""",
    "half": f"""
        <ir_version: 8, opset_import: ["": 17]>
        g (float16[2, 4] x) => (float16[2, 4] y)
        <float[4, 4] w = {_WEIGHT}, float[4, 4] v = {_WEIGHT}, float[4] b = {{1, 2, 3, 4}}> {{
          w_ = Cast <to = 10> (w)  v_ = Cast <to = 10> (v)  b_ = Cast <to = 10> (b)
          h = MatMul (w_, x_)  x_ = Transpose (x)  n = Transpose (h)  m = Gemm (n, v_, b_)  y = Relu (m)
        }}""",
}


def main() -> None:
    """Write the corpus."""
    _onnx(CORPUS / "onnx")
    _networks(CORPUS / "networks")
    _run(CORPUS / "run")
    CellStore(CORPUS / "cells").write("cell", {"seed": 0, "settings": {"alpha": 1.0}}, {"result": {"kl": 0.1}})


def _onnx(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, model in {"plain": _plain(), "qdq": _qdq(), "functions": _functions()}.items():
        write_metadata(model, METADATA)
        onnx.save(model, str(folder / f"{name}.onnx"))
    outside: dict[str, Any] = {"save_as_external_data": True, "location": "data.bin", "size_threshold": 0}
    (folder / "data.bin").unlink(missing_ok=True)  # onnx appends
    onnx.save(_plain(), str(folder / "external.onnx"), **outside)


def _networks(folder: Path) -> None:
    """Networks that can be pruned, from PyTorch and in the ways of other exporters."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    for name, text in NETWORKS.items():
        onnx.save(onnx.parser.parse_model(text), str(folder / f"{name}.onnx"))
    onnx.save(export_model(digits_net().eval(), (1, 8, 8), fold_batch_norm=False), str(folder / "digits.onnx"))
    mixer = export_model(Mixer().eval(), (4, 8, 8))
    onnx.save(mixer, str(folder / "mixer.onnx"))


def _plain() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Conv", ["x", "stem.weight"], ["a"], name="stem", pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("ConvTranspose", ["b", "up.weight"], ["c"], name="up"),
        helper.make_node("GlobalAveragePool", ["c"], ["d"]),
        helper.make_node("Flatten", ["d"], ["e"]),
        helper.make_node("Gemm", ["e", "fc.weight"], ["y"], name="fc", transB=1),
    ]
    return _model(nodes, {"stem.weight": (4, 4, 3, 3), "up.weight": (4, 4, 1, 1), "fc.weight": (4, 4)})


def _qdq() -> onnx.ModelProto:
    nodes = [
        helper.make_node("QuantizeLinear", ["w", "s", "z"], ["q"], axis=0),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["r"], axis=0),
        helper.make_node("Transpose", ["r"], ["t"], perm=[1, 0]),
        helper.make_node("Reshape", ["t", "shape"], ["u"]),
        helper.make_node("Cast", ["u"], ["h"], to=10),
        helper.make_node("CastLike", ["h", "s"], ["weight"]),
        helper.make_node("Conv", ["x", "weight"], ["y"], name="conv"),
    ]
    model = _model(nodes, {"w": (4, 4), "s": (4,)})
    zero, shape = np.zeros(4, np.int8), np.array([4, 4, 1, 1], np.int64)
    model.graph.initializer.extend([numpy_helper.from_array(zero, "z"), numpy_helper.from_array(shape, "shape")])
    return model


def _functions() -> onnx.ModelProto:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    inner = [helper.make_node("MatMul", ["p", "q"], ["o"], name="inner")]
    branch = helper.make_graph(
        [helper.make_node("F", ["x", "w"], ["branch"], domain="f")], "branch", [], [_value("branch")]
    )
    nodes = [
        helper.make_node("F", ["x", "w"], ["a"], domain="f"),
        helper.make_node("If", ["condition"], ["y"], then_branch=branch, else_branch=branch),
    ]
    model = _model(nodes, {"w": (4, 4)})
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "condition"))
    model.functions.append(helper.make_function("f", "F", ["p", "q"], ["o"], inner, opsets))
    model.opset_import.append(opsets[1])
    return model


def _model(nodes: list[onnx.NodeProto], weights: dict[str, tuple[int, ...]]) -> onnx.ModelProto:
    tensors = []
    for name, shape in weights.items():
        weight = np.arange(1, 1 + np.prod(shape), dtype=np.float32).reshape(shape)
        if weight.ndim > 1:
            weight[:, ::2] = 0
        tensors.append(numpy_helper.from_array(weight, name))
    graph = helper.make_graph(nodes, "g", [_value("x", ["N", 4, 8, 8])], [_value("y", ["N", 4])], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _value(name: str, shape: list[Any] | None = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)


def _run(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (sample_run(3) | {"benchmark.json": _short(engine_run()["benchmark.json"])}).items():
        write_json(folder / name, content)
    weights = folder / "sparse.safetensors"
    (folder / "manifest.json").unlink()
    save_checkpoint(weights, {"conv.weight": torch.ones(4, 4), "conv.bias": torch.zeros(4)}, METADATA)
    int8_weight = Int8Weight(torch.ones(4, 4, dtype=torch.int8), torch.ones(4), torch.zeros(4))
    int8_weights = save_int8(weights, {"conv": int8_weight})
    torch.save({"state_dict": {"conv.weight": torch.ones(2, 2)}}, folder / "weights.pt")
    _with_sidecar(folder / "sparse.plan", _sidecar())
    _with_sidecar(folder / "tactics.cache", {"backend": "tensorrt", "backend_version": "10.9.0"})
    written = (weights, int8_weights, folder / "prune.json")
    files = {each.name: {"sha256": _sha256(each), "bytes": each.stat().st_size} for each in written}
    write_json(folder / "manifest.json", {"tool_version": "0.1.0", "versions": {"torch": "2.10"}, "files": files})
    stage = {"tool_version": "0.1.0", "options": {"model": "sparse.onnx", "fail_on": None}, "reads": {}, "writes": {}}
    write_json(folder / "run.json", {"stages": {"verify": {**stage, "result": {"sparse_layers": 1}}}})
    layers = [{"Name": "conv + relu", "LayerType": "conv", "TacticName": "sm80_xmma_sparse", "HasSparseWeights": 1}]
    layers[0]["Inputs"] = [{"Name": "x", "Format/Datatype": "Half", "Dimensions": [1, 4]}]
    layers[0]["Metadata"] = "[ONNX Layer: conv]\x1f[ONNX Layer: relu]"
    write_json(folder / "inspector.json", {"Layers": [*layers, "reformat"], "Bindings": ["x"]})


def _with_sidecar(path: Path, record: dict[str, Any]) -> None:
    path.write_bytes(b"not really an engine")
    write_json(path.with_name(f"{path.name}.json"), {**record, "sha256": _sha256(path), "bytes": path.stat().st_size})


def _sidecar() -> dict[str, Any]:
    log = "[11/22/2026-10:20:44] [V] [TRT] (Sparsity) Found 2 layer(s) eligible to use sparse tactics: conv1, conv2"
    shape = [[1, 4, 8, 8], [8, 4, 8, 8], [8, 4, 8, 8]]
    tensor = {"name": "x", "dtype": "FLOAT16", "dims": ["N", 4, 8, 8], "shapes": shape}
    return {
        "plan": "sparse.plan",
        "backend": "tensorrt",
        "backend_version": "10.9.0",
        "sparse_flag": True,
        "compute_capability": "8.6",
        "eligible_layers": 2,
        "chosen_layers": 1,
        "note": "",
        "warnings": [],
        "seconds": 1.5,
        "inputs": [tensor],
        "outputs": [tensor | {"name": "y"}],
        "onnx": {"path": "sparse.onnx", "sha256": "0" * 64},
        "settings": {"version_compatible": False},
        "environment": {"python": "3.11"},
        "build_log": {"sparsity": [log, log.replace("Found 2", "Chose 1")], "warnings": []},
    }


def _short(value: Any) -> Any:
    """Return a document with only the first two items of every list."""
    if isinstance(value, dict):
        return {key: _short(each) for key, each in value.items()}
    return [_short(each) for each in value[:2]] if isinstance(value, list) else value


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
