"""DeepStream configurations: parsed as key files, with the keys that Gst-nvinfer publishes."""

from __future__ import annotations

import configparser
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from deploy.builder import BuildSettings, build_engine
from export.audit import write_metadata
from export.deepstream import make_deepstream_config
from sparsegpt_core.errors import InputError
from sparsegpt_core.files import sidecar_path

PUBLISHED_KEYS = """
gie-unique-id process-mode interval labelfile-path gpu-id secondary-reinfer-interval output-tensor-meta enable-dla
use-dla-core batch-size tensor-meta-pool-size network-mode model-engine-file int8-calib-file workspace-size
output-blob-names is-classifier network-type force-implicit-batch-dim infer-dims output-io-formats
layer-device-precision model-color-format net-scale-factor offsets mean-file maintain-aspect-ratio symmetric-padding
scaling-filter scaling-compute-hw network-input-order input-tensor-from-meta custom-lib-path parse-bbox-func-name
parse-bbox-instance-mask-func-name engine-create-func-name parse-classifier-func-name custom-network-config
model-file proto-file uff-file uff-input-order input-dims uff-input-dims uff-input-blob-name tlt-encoded-model
tlt-model-key onnx-file num-detected-classes enable-dbscan cluster-mode classifier-type classifier-threshold
classifier-async-mode segmentation-threshold segmentation-output-order output-instance-mask input-object-min-width
input-object-min-height input-object-max-width input-object-max-height operate-on-gie-id operate-on-class-ids
filter-out-class-ids
"""
"""Keys of ``[property]`` in gstnvinfer_property_parser.h of DeepStream."""
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def classifier(
    shape: tuple = ("N", 3, 8, 8),
    kind: int = TensorProto.FLOAT,
    outputs: tuple = ("N", 6),
    out: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """A linear classifier that records how its images are normalised."""
    weight = numpy_helper.from_array(np.ones((192, 6), np.float16), "w")
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"]),
        helper.make_node("Cast", ["flat"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("MatMul", ["half", "w"], ["product"]),
        helper.make_node("Cast", ["product"], ["logits"], to=out),
    ]
    image = helper.make_tensor_value_info("image", kind, shape)
    logits = helper.make_tensor_value_info("logits", out, outputs)
    graph = helper.make_graph(nodes, "g", [image], [logits], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    write_metadata(model, {"mean": MEAN, "std": STD, "num_classes": 6})
    return model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "models" / "sparse.fp16.onnx"
    path.parent.mkdir()
    onnx.save(classifier(), str(path))
    return path


def parsed(text: str) -> dict[str, str]:
    read = configparser.ConfigParser(interpolation=None, strict=True, delimiters=("=",), comment_prefixes=("#",))
    read.read_string(text)
    assert read.sections() == ["property"]
    return dict(read["property"])


def test_an_onnx_file(cli, model: Path, tmp_path: Path) -> None:
    outcome = cli("deepstream-export", model, "--out", tmp_path / "ds" / "config_infer_primary.txt", "--json")
    assert outcome.code == 0, outcome.err
    found = parsed((tmp_path / "ds" / "config_infer_primary.txt").read_text())
    assert set(found) <= set(PUBLISHED_KEYS.split())
    assert found == outcome.json["properties"]
    scale, offsets = float(found.pop("net-scale-factor")), [float(value) for value in found.pop("offsets").split(";")]
    assert found == {
        "gie-unique-id": "1",
        "process-mode": "1",
        "onnx-file": "../models/sparse.fp16.onnx",
        "batch-size": "1",
        "network-mode": "2",
        "infer-dims": "3;8;8",
        "model-color-format": "0",
        "network-type": "1",
        "classifier-threshold": "0",
    }
    pixels = np.array([0.0, 100.0, 255.0])
    exact = (pixels / 255 - MEAN[0]) / STD[0]
    assert scale * (pixels - offsets[0]) == pytest.approx(exact, rel=0.014)  # one factor for all channels
    assert offsets == pytest.approx([123.675, 116.28, 103.53])
    assert "the mean std 0.226 is used: normalised values differ by up to 1.3 %" in outcome.err
    assert "built with --sparse for them" in outcome.err


def test_a_plan(cli, model: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="engines are built for real, which needs tensorrt-rtx")
    settings = BuildSettings(backend="tensorrt-rtx", compute_capability="8.6", shapes=(1, 4, 24))
    plan = build_engine(model, model.with_suffix(".plan"), settings).plan
    refused = cli("deepstream-export", plan, "--json")
    assert refused.json["error"].endswith("tensorrt-rtx, and DeepStream runs plans of tensorrt only")
    record = json.loads(sidecar_path(plan).read_text())
    sidecar_path(plan).write_text(json.dumps({**record, "backend": "tensorrt"}))
    labels = plan.with_name("labels.txt")
    labels.write_text("a;b;c;d;e;f\n")
    outcome = cli("deepstream-export", plan, "--labels", labels, "--json")
    assert outcome.code == 0, outcome.err
    found = parsed(plan.with_name("config_infer_primary.txt").read_text())
    assert set(found) <= set(PUBLISHED_KEYS.split())
    assert (found["model-engine-file"], found["batch-size"]) == ("sparse.fp16.plan", "24")
    assert found["labelfile-path"] == "labels.txt"
    assert "onnx-file" not in found
    assert "sparse kernels" not in outcome.err
    assert (
        cli("deepstream-export", plan, "--engine-batch", 25, "--force", "--json")
        .json["error"]
        .endswith("up to 24, not 25")
    )
    labels.write_text("a\nb\n")
    refused = cli("deepstream-export", plan, "--labels", labels, "--force", "--json")
    assert refused.json["error"].endswith("has 1 names in its first of 2 lines")
    model.write_bytes(b"changed")
    assert "not at" in cli("deepstream-export", plan, "--force", "--json").json["error"]


def test_files_that_deepstream_cannot_run(cli, tmp_path: Path) -> None:
    def error(model: onnx.ModelProto, *options: object) -> str:
        onnx.save(model, str(tmp_path / "m.onnx"))
        outcome = cli("deepstream-export", tmp_path / "m.onnx", "--json", *options)
        assert outcome.code == 1
        return outcome.json["error"]

    inputs = "one FP32 input of images with 1 or 3 channels and a fixed size"
    assert inputs in error(classifier(("N", 4, 8, 8)))
    assert inputs in error(classifier(("N", 3, "H", 8)))
    assert inputs in error(classifier(kind=TensorProto.FLOAT16))
    assert "FP32 outputs only" in error(classifier(out=TensorProto.FLOAT16))
    assert "takes batches of 4, not 2" in error(classifier((4, 3, 8, 8), outputs=(4, 6)), "--engine-batch", 2)
    unknown = classifier()
    del unknown.metadata_props[:]
    assert "does not record the mean and std" in error(unknown)
    gray = classifier(("N", 1, 8, 8))
    assert "mean and std have 3 and 3 values, and the images have 1 channels" in error(gray)
    quantized = classifier()
    quantized.graph.node.append(helper.make_node("DequantizeLinear", ["q", "s"], ["d"]))
    assert "no INT8 engine from Q/DQ nodes" in error(quantized)
    assert not (tmp_path / "config_infer_primary.txt").exists()


def test_other_networks_pass_their_tensors_on() -> None:
    graph = classifier(outputs=("N", 6, 8, 8)).graph
    config = make_deepstream_config(graph, "m.plan", [0.5] * 3, [0.25] * 3)
    assert (config.properties["network-type"], config.properties["output-tensor-meta"]) == ("100", "1")
    assert "logits" not in config.to_text()
    assert config.warnings == ()
    assert set(parsed(config.to_text())) <= set(PUBLISHED_KEYS.split())


def test_gray_images() -> None:
    config = make_deepstream_config(classifier(("N", 1, 8, 8)).graph, "m.plan", [0.5], [0.25])
    assert (config.properties["model-color-format"], config.properties["infer-dims"]) == ("2", "1;8;8")


@pytest.mark.parametrize("path", ["a\nb.plan", "a\\b.plan"])
def test_paths_that_a_key_file_cannot_hold(path: str) -> None:
    with pytest.raises(InputError, match="cannot read the path"):
        make_deepstream_config(classifier().graph, path, MEAN, STD)


def test_a_std_of_zero() -> None:
    with pytest.raises(InputError, match="cannot normalise"):
        make_deepstream_config(classifier().graph, "m.plan", MEAN, [0.0, 1.0, 1.0])


def test_the_command_needs_no_torch(program, model: Path) -> None:
    outcome = program("deepstream-export", model, without=("torch",))
    assert outcome.code == 0, outcome.err
