"""No path in a file leads outside: ONNX external data, configurations, manifests. No file unfolds into gigabytes."""

from __future__ import annotations

import json
import os
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import typer
from onnx import helper, numpy_helper

from deploy.builder import read_sparsity
from deploy.builder.inspector import read_layers
from deploy.graph import graph_signature, read_graph, resolve_shapes
from deploy.predict import predict
from deploy.sessions import OnnxSession
from export.audit import Constants, audit_model, inlined, read_model
from export.triton import TritonSettings, write_repository
from sparsegpt_cli.app import app
from sparsegpt_cli.framework import load_config
from sparsegpt_cli.framework.yaml_tree import read_tree
from sparsegpt_cli.report.view import read_run
from sparsegpt_cli.run import resolve
from sparsegpt_core.errors import InputError, SparseGPTError
from sparsegpt_core.files import read_json
from tests.support.graphs import make_graph, make_model

OPSET = 21  # that of make_model; functions of another opset are not inlined
READERS = {
    "verify": audit_model,
    "build": read_graph,
    "benchmark": OnnxSession,
    "triton-export": lambda path: write_repository(path, path.parent / "repository", TritonSettings("m")),
}


def convolution(tensors: dict[str, Any], weight: str = "w", **attributes: Any) -> onnx.ModelProto:
    """A convolution of FP32 images, 4 × 8 × 8."""
    model = make_model(make_graph([helper.make_node("Conv", ["x", weight], ["y"], **attributes)], tensors, ["x"]))
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", 1, [1, 4, 8, 8]))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("y", 1, [1, 4, 8, 8]))
    return model


def model_with(location: str, tensors: int = 1, **entries: str) -> onnx.ModelProto:
    """A convolution whose weights lie in another file."""
    model = convolution({}, weight="w0")
    for number in range(tensors):
        tensor = onnx.TensorProto(name=f"w{number}", data_type=1, dims=[4, 4, 1, 1], data_location=1)
        for key, value in {"location": location, **entries}.items():
            tensor.external_data.add(key=key, value=value)
        model.graph.initializer.append(tensor)
    return model


def saved(folder: Path, model: onnx.ModelProto) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize(
    "location",
    ["../secret.bin", "{tmp}/secret.bin", "link.bin", "folder/../../secret.bin", "", ".", "loop", "gone.bin", "pipe",
     "a" * 5000, "a\0b", "/dev/zero"],
)  # fmt: skip
def test_external_data_is_a_file_beside_the_model(tmp_path, location, read):
    home = tmp_path / "home"
    path = saved(home, model_with(location.format(tmp=tmp_path), length="64"))
    (tmp_path / "secret.bin").write_bytes(bytes(64))
    (home / "folder").mkdir()
    (home / "link.bin").symlink_to(tmp_path / "secret.bin")
    (home / "loop").symlink_to("loop")
    os.mkfifo(home / "pipe")
    with pytest.raises(InputError) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert caught.value.hint
    assert not (home / "repository").exists()


@pytest.mark.parametrize(
    "entries", [{"length": "65"}, {"length": "-1"}, {"offset": "65"}, {"offset": "x"}, {"length": "9" * 5000}]
)
def test_external_data_that_is_too_short(tmp_path, entries):
    path = saved(tmp_path, model_with("data.bin", **entries))
    (tmp_path / "data.bin").write_bytes(bytes(64))
    with pytest.raises(InputError):
        audit_model(path)


@pytest.mark.parametrize("text", ["data.bin", "location"])
def test_external_data_named_otherwise_than_in_utf8(tmp_path, text):
    path = saved(tmp_path, model_with("data.bin"))
    path.write_bytes(path.read_bytes().replace(text.encode(), b"\xff" + text.encode()[1:]))
    (tmp_path / "data.bin").write_bytes(bytes(64))
    with pytest.raises(InputError, match=r"not named in UTF-8|no place"):
        audit_model(path)


def test_many_tensors_of_one_large_file(tmp_path):
    """A thousand times 64 MiB from a file that takes no space on disk."""
    path = saved(tmp_path, model_with("data.bin", tensors=1000))
    with (tmp_path / "data.bin").open("wb") as file:
        file.truncate(64 << 20)
    start = time.process_time()
    with pytest.raises(InputError, match="claim more than"):
        audit_model(path)
    assert time.process_time() - start < 2


def test_keys_that_nobody_reads_are_no_warning(tmp_path):
    path = saved(tmp_path, model_with("data.bin", length="64", unheard="of"))
    (tmp_path / "data.bin").write_bytes(np.ones(16, "f").tobytes())
    assert audit_model(path).layers[0].shape == (4, 4, 1, 1)


def test_devices_pipes_and_giants_are_no_models(tmp_path):
    os.mkfifo(tmp_path / "pipe.onnx")
    with (tmp_path / "giant.onnx").open("wb") as file:
        file.truncate((2 << 30) + 1)
    for path in (Path("/dev/zero"), tmp_path / "pipe.onnx", tmp_path / "giant.onnx"):
        with pytest.raises(InputError, match=r"device or a pipe|larger than"):
            read_model(path)


def test_values_that_a_graph_computes_over_and_over():
    """Layers that each cast the same weight to something larger: all together would fill any memory."""
    weight = np.zeros((4096, 4096), np.int8)
    casts = [helper.make_node("Cast", ["w"], [f"c{number}"], to=onnx.TensorProto.COMPLEX64) for number in range(4)]
    layers = [helper.make_node("MatMul", ["x", f"c{number}"], [f"y{number}"]) for number in range(4)]
    graph = make_graph([*casts, *layers], {"w": weight}, ["x"])
    constants = Constants(graph)
    for number in range(4):
        assert constants.value(f"c{number}").nbytes == 8 * weight.nbytes
    assert sum(each is not None for each in constants._values.values()) == 2
    assert constants.value("c0").dtype == np.complex64


def function(name: str, callee: str, calls: int) -> onnx.FunctionProto:
    ends = ["x", *(f"t{number}" for number in range(calls - 1)), "y"]
    nodes = [
        helper.make_node(callee, [before], [after], domain="" if callee == "Identity" else "f")
        for before, after in pairwise(ends)
    ]
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("f", 1)]
    return helper.make_function("f", name, ["x"], ["y"], nodes, opsets)


@pytest.mark.parametrize(
    ("functions", "message"),
    [
        ([function(f"F{n}", f"F{n + 1}" if n < 29 else "Identity", 2) for n in range(30)], "many times as large"),
        ([function("F0", "F0", 1)], "more than 100 deep"),
        ([function(f"F{n}", f"F{n + 1}" if n < 499 else "Identity", 1) for n in range(500)], "more than 100 deep"),
    ],
    ids=["a thousand million nodes", "itself", "deep"],
)
def test_functions_too_large_to_inline(functions, message):
    nodes = [helper.make_node("F0", ["x"], ["y"], domain="f"), helper.make_node("Conv", ["y", "w"], ["z"])]
    model = make_model(make_graph(nodes, {"w": np.ones((4, 4, 1, 1), "f")}, inputs=["x"]))
    model.functions.extend(functions)
    start = time.process_time()
    with pytest.raises(InputError, match=message):
        audit_model(model)
    assert time.process_time() - start < 2


def test_functions_that_end_are_inlined():
    model = make_model(make_graph([helper.make_node("F0", ["x"], ["y"], domain="f")], {}, inputs=["x"]))
    model.functions.extend([function("F0", "F1", 3), function("F1", "Identity", 2)])
    model.opset_import.append(helper.make_opsetid("f", 1))
    assert [node.op_type for node in inlined(model).graph.node] == ["Identity"] * 6


def test_nodes_of_one_name_share_their_time_once(tmp_path):
    nodes = [helper.make_node("Conv", ["x", "w"], [f"y{number}"], name="same") for number in range(5)]
    model = make_model(make_graph(nodes, {}, inputs=["x"]))
    model.graph.initializer.append(numpy_helper.from_array(np.ones((256, 256, 1, 1), np.float16), "w"))
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", 10, [8, 256, 8, 8]))
    path = saved(tmp_path, model)
    assert predict(path).eligible_share == 1


@pytest.mark.parametrize("place", ["weight", "input"])
def test_types_that_onnx_does_not_know(tmp_path, place):
    model = convolution({"w": np.ones((4, 4, 1, 1), "f")})
    if place == "weight":
        model.graph.initializer[0].data_type = 255
    else:
        model.graph.input[0].type.tensor_type.elem_type = 255
    path = saved(tmp_path, model)
    with pytest.raises(InputError, match="type 255"):
        describe(path)


def describe(path: Path) -> None:
    graph = read_graph(path)
    graph_signature(graph, resolve_shapes(graph.inputs, None))


def test_names_that_are_no_text(tmp_path):
    content = convolution({"weight": np.ones((4, 4, 1, 1), "f")}, "weight").SerializeToString()
    path = tmp_path / "model.onnx"
    path.write_bytes(content.replace(b"weight", b"wei\xff\xfft"))
    assert audit_model(path).layers[0].is_sparse is False
    with pytest.raises(InputError, match="shapes cannot be inferred"):
        predict(path)


def test_shapes_that_contradict_each_other(tmp_path):
    model = convolution({"w": np.ones((4, 4, 1, 1), "f")})
    del model.opset_import[:]
    with pytest.raises(InputError, match="shapes cannot be inferred"):
        predict(saved(tmp_path, model))


@pytest.mark.parametrize("noted", ["[" * 100_000, json.dumps({"pattern": f"{'9' * 5000}:4"}), "[]", '{"dense": [1]}'])
def test_metadata_of_anyone(noted):
    model = convolution({"w": np.zeros((4, 4, 1, 1), "f")})
    model.metadata_props.add(key="sparsegpt_trt", value=noted)
    assert audit_model(model).pattern == "2:4"


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(["a0: &a0 [x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 40))]),
        "a: " + "[" * 30_000,
        "a: " + "{a: " * 10_000,
        "".join(f"{' ' * n}a:\n" for n in range(300)),
        "? " * 20_000,
    ],
    ids=["a billion laughs", "lists", "mappings", "indented", "keys"],
)
def test_yaml_that_unfolds_without_end_is_refused_at_once(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    start = time.process_time()
    with pytest.raises(InputError) as caught:
        read_tree(path)
    assert "\n" not in str(caught.value)
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    "text",
    [
        "report: {run: {tmp}}",
        "report: {run: $OUT/..}",
        "prune: {out: $OUT/../x.safetensors, weights: a.pt}",
        "triton-export: {model: a.onnx, out: /triton}",
        "build: {model: a.onnx, timing-cache: $OUT/../c}",
        "benchmark: {dense: a.onnx, sparse: b.onnx, plans: /plans}",
        "sweep: {weights: a.pt, out: ../sweep}",
    ],
)
def test_a_configuration_writes_in_the_folder_of_run_alone(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text.replace("{tmp}", str(tmp_path)))
    group: Any = typer.main.get_command(app)
    with typer.Context(group) as root, typer.Context(group.commands["run"], parent=root) as context:
        config = load_config(path, group.commands, context)
        with pytest.raises(InputError, match="outside"):
            resolve(config, tmp_path / "out", 0, context)


def test_a_report_of_the_folder_of_run_is_a_stage(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("model: simple_cnn\nprune-export:\nreport:\n")
    group: Any = typer.main.get_command(app)
    with typer.Context(group) as root, typer.Context(group.commands["run"], parent=root) as context:
        stages = resolve(load_config(path, group.commands, context), tmp_path / "out", 0, context)
    assert [stage.name for stage in stages] == ["prune-export", "report"]


def test_names_in_a_manifest_are_shown_and_never_opened(tmp_path):
    (tmp_path / "prune.json").write_text("{}")
    files = {"../../outside": {"sha256": "ab", "bytes": 1}, "/etc/passwd": {"sha256": "cd", "bytes": 1}}
    (tmp_path / "manifest.json").write_text(json.dumps({"files": files}))
    assert [*read_run(tmp_path).files.manifest] == [*files]
    assert {path.name for path in tmp_path.iterdir()} == {"prune.json", "manifest.json"}


@pytest.mark.parametrize("content", ["[" * 200_000, '{"a":' * 100_000, "1" * 100_000, "\ud800"])
def test_json_that_python_gives_up_on(tmp_path, content):
    path = tmp_path / "record.json"
    path.write_bytes(content.encode(errors="surrogatepass"))
    with pytest.raises(InputError, match="is not a JSON file"):
        read_json(path)


def test_json_without_end():
    with pytest.raises(InputError, match="larger than 64 MiB"):
        read_json(Path("/dev/zero"))


def test_messages_hold_nothing_that_a_terminal_obeys(cli, tmp_path):
    error = SparseGPTError("no \x1b[2J\x07 layer\n'a\u202eb'\ud800", "x" * 10_000)
    assert str(error) == "no \N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER} layer 'a" + (
        "\N{REPLACEMENT CHARACTER}b'\N{REPLACEMENT CHARACTER}"
    )
    assert len(error.hint) == 2000
    name = "conv\x1b]0;owned\x07"
    path = saved(tmp_path, convolution({"w": np.ones((4, 4, 1, 1), "f")}, name=name))
    outcome = cli("verify", path)
    assert "\x1b" not in outcome.out + outcome.err
    assert cli("verify", path, "--json").json["layers"][0]["name"] == name


@pytest.mark.parametrize("names", [", " * 300_000, "(" * 300_000, "a, (" * 100_000, ")," * 200_000, "x" * 900_000])
def test_lines_of_a_build_log_are_read_in_one_pass(names):
    start = time.process_time()
    read_sparsity(
        [f"(Sparsity) Chose 1 layer(s) using sparse tactics: {names}", f"(Sparsity) Chose {'1' * 5000} layer(s)"]
    )
    assert time.process_time() - start < 2


@pytest.mark.parametrize("piece", ["[ONNX Layer: ", "[ONNX Layer: a] ", "] ", " "])
def test_metadata_of_an_engine_is_read_in_one_pass(piece):
    text = json.dumps({"Layers": [{"Name": "a", "Metadata": "[ONNX Layer: " + piece * (500_000 // len(piece))}]})
    start = time.process_time()
    read_layers(text)
    assert time.process_time() - start < 4
