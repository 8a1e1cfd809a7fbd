"""Triton repositories: their ``config.pbtxt`` is parsed with Triton's own schema, and their model is run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from deploy.builder import BuildSettings, build_engine
from export.triton import TritonSettings, write_repository
from export.triton.config import make_config
from sparsegpt_core.errors import InputError
from sparsegpt_core.files import sidecar_path

Field = descriptor_pb2.FieldDescriptorProto

# Numbers and types of the fields as in triton-inference-server/common, protobuf/model_config.proto.
INTEGERS = ["UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"]
ENUMS = {
    "DataType": ["INVALID", "BOOL", *INTEGERS, "FP16", "FP32", "FP64", "STRING", "BF16"],
    "Kind": ["AUTO", "GPU", "CPU", "MODEL"],
}
MESSAGES = {
    "ModelTensorReshape": {"shape": (1, "int64*")},
    "ModelInput": {
        "name": (1, "string"),
        "data_type": (2, "DataType"),
        "dims": (4, "int64*"),
        "reshape": (5, "ModelTensorReshape"),
    },
    "ModelOutput": {
        "name": (1, "string"),
        "data_type": (2, "DataType"),
        "dims": (3, "int64*"),
        "reshape": (5, "ModelTensorReshape"),
    },
    "ModelDynamicBatching": {
        "preferred_batch_size": (1, "int32*"),
        "max_queue_delay_microseconds": (2, "uint64"),
    },
    "ModelInstanceGroup": {"count": (2, "int32"), "gpus": (3, "int32*"), "kind": (4, "Kind")},
    "ModelConfig": {
        "name": (1, "string"),
        "platform": (2, "string"),
        "max_batch_size": (4, "int32"),
        "input": (5, "ModelInput*"),
        "output": (6, "ModelOutput*"),
        "instance_group": (7, "ModelInstanceGroup*"),
        "dynamic_batching": (11, "ModelDynamicBatching"),
    },
}
NUMPY = {  # the table in Triton's documentation of its types
    "BOOL": "bool",
    **{name: name.lower() for name in INTEGERS},
    **{"FP16": "float16", "FP32": "float32", "FP64": "float64", "STRING": "object", "BF16": "bfloat16"},
}


def schema() -> type[Message]:
    file = descriptor_pb2.FileDescriptorProto(name="model_config.proto", package="inference", syntax="proto3")
    for name, values in ENUMS.items():
        prefix = "TYPE" if name == "DataType" else "KIND"
        enum = file.enum_type.add(name=name)
        for number, value in enumerate(values):
            enum.value.add(name=f"{prefix}_{value}", number=number)
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            label = Field.LABEL_REPEATED if kind.endswith("*") else Field.LABEL_OPTIONAL
            kind = kind.rstrip("*")
            if kind in MESSAGES or kind in ENUMS:
                scalar = Field.TYPE_ENUM if kind in ENUMS else Field.TYPE_MESSAGE
                message.field.add(name=field, number=number, label=label, type=scalar, type_name=f".inference.{kind}")
            else:
                message.field.add(name=field, number=number, label=label, type=getattr(Field, f"TYPE_{kind.upper()}"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))


MODEL_CONFIG = schema()


def parsed(text: str) -> Message:
    return text_format.Parse(text, MODEL_CONFIG())


def value(name: str, shape: tuple | None, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def graph(inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]) -> onnx.GraphProto:
    return helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", inputs, outputs)


def config(inputs: list, outputs: list, largest: int | None = None, **settings) -> Message:
    made = make_config(graph(inputs, outputs), "onnxruntime_onnx", TritonSettings("m", **settings), largest)
    return parsed(made.to_text())


def classifier(size: int = 6) -> onnx.ModelProto:
    """A convolution and its means; with a weight that older files also list among the inputs."""
    weight = np.random.default_rng(0).normal(size=(size, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["image", "weight"], ["features"]),
        helper.make_node("GlobalAveragePool", ["features"], ["means"]),
        helper.make_node("Flatten", ["means"], ["logits"]),
    ]
    made = helper.make_graph(
        nodes,
        "net",
        [value("image", ("batch", 3, 8, 8)), value("weight", (size, 3, 3, 3))],
        [value("logits", ("batch", size))],
        [numpy_helper.from_array(weight, "weight")],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    onnx.save(classifier(), str(tmp_path / "sparse.onnx"))
    return tmp_path / "sparse.onnx"


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_whole_config(model: Path) -> None:
    settings = TritonSettings("net", 3, 16, (4, 16), max_queue_delay_us=250, instances=2, gpus=(0, 2))
    made = write_repository(model, model.parent / "repository", settings)
    read = parsed((made.folder / "config.pbtxt").read_text(encoding="utf-8"))
    expected = MODEL_CONFIG(name="net", platform="onnxruntime_onnx", max_batch_size=16)
    expected.input.add(name="image", data_type=11, dims=[3, 8, 8])
    expected.output.add(name="logits", data_type=11, dims=[6])
    expected.instance_group.add(count=2, kind=1, gpus=[0, 2])
    expected.dynamic_batching.preferred_batch_size.extend([4, 16])
    expected.dynamic_batching.max_queue_delay_microseconds = 250
    assert read == expected
    assert names(model.parent / "repository") == {"net/config.pbtxt", "net/3/model.onnx"}
    assert (made.folder / "3" / "model.onnx").read_bytes() == model.read_bytes()


def test_our_own_export_is_served_as_the_config_says(tmp_path: Path) -> None:
    """What a client would send by the config, ONNX Runtime takes, and gives what the config says."""
    from export.writing import export_model, save_model
    from sparsegpt_core.zoo import ModelShape, build_model

    shape = ModelShape((3, 32, 32))
    save_model(export_model(build_model("simple_cnn", shape), shape.image), tmp_path / "m.onnx")
    made = write_repository(tmp_path / "m.onnx", tmp_path / "r", TritonSettings("m"))
    read = parsed((made.folder / "config.pbtxt").read_text())
    assert read.max_batch_size == 32
    session = onnxruntime.InferenceSession(str(made.folder / "1" / "model.onnx"))
    for batch in (1, read.max_batch_size):
        images = np.zeros((batch, *read.input[0].dims), np.float32)
        (logits,) = session.run([read.output[0].name], {read.input[0].name: images})
        assert logits.shape == (batch, *read.output[0].dims)
        assert logits.dtype == np.float32


def test_without_a_dynamic_batch_shapes_are_complete() -> None:
    read = config([value("x", (1, 3, "h", "w"))], [value("y", (1, "n", 4), TensorProto.FLOAT16)])
    assert read.max_batch_size == 0
    assert not read.HasField("dynamic_batching")
    assert list(read.input[0].dims) == [1, 3, -1, -1]
    assert list(read.output[0].dims) == [1, -1, 4]
    assert read.instance_group[0].kind == 0


def test_batches_are_asked_for_and_refused() -> None:
    inputs, outputs = [value("x", ("batch", 3))], [value("y", ("batch", 5))]
    assert config(inputs, outputs).max_batch_size == 32
    assert config(inputs, outputs, largest=8).max_batch_size == 8
    assert config(inputs, outputs, largest=8, max_batch_size=4).max_batch_size == 4
    whole = config(inputs, outputs, max_batch_size=0)
    assert (whole.max_batch_size, list(whole.input[0].dims)) == (0, [-1, 3])
    for asked in ({"max_batch_size": 9}, {"preferred_batch_sizes": (8, 32)}):
        with pytest.raises(InputError):
            config(inputs, outputs, largest=8, **asked)
    with pytest.raises(InputError, match="first dimension of 'y'"):
        config(inputs, [value("y", (1, 5))], max_batch_size=4)


@pytest.mark.parametrize("name", ["detections", None])
def test_a_dynamic_dimension_need_not_be_the_batch(name: str | None) -> None:
    inputs, outputs = [value("x", ("batch", 3))], [value("boxes", (name, 4))]
    made = make_config(graph(inputs, outputs), "onnxruntime_onnx", TritonSettings("m"))
    assert made.max_batch_size == 0
    assert "differ in name" in made.no_batching_reason
    assert config(inputs, outputs, max_batch_size=4).max_batch_size == 4


@pytest.mark.parametrize(("shape", "size"), [((), 0), (("batch",), 32)])
def test_a_scalar_gets_a_dimension_that_reshape_removes(shape: tuple, size: int) -> None:
    read = config([value("x", shape)], [value("y", shape)])
    assert read.max_batch_size == size
    for tensor in (*read.input, *read.output):
        assert list(tensor.dims) == [1]
        assert tensor.HasField("reshape")
        assert not tensor.reshape.shape


@pytest.mark.parametrize("kind", set(TensorProto.DataType.values()) - {TensorProto.UNDEFINED})
def test_types_are_those_of_numpy(kind: int) -> None:
    known = {str(np.dtype(helper.tensor_dtype_to_np_dtype(kind)))} & set(NUMPY.values())
    if not known:
        with pytest.raises(InputError, match="'x' is not a tensor of a type"):
            config([value("x", (1,), kind)], [value("y", (1,))])
        return
    number = config([value("x", (1,), kind)], [value("y", (1,))]).input[0].data_type
    assert {NUMPY[ENUMS["DataType"][number]]} == known


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"])))
def test_any_name_survives(first: str, second: str) -> None:
    read = config([value(first, ("N", 3))], [value(second, ("N", 3))])
    assert (read.input[0].name, read.output[0].name) == (first, second)
    assert (len(read.input), len(read.output), len(read.instance_group)) == (1, 1, 1)


def test_a_name_cannot_add_fields() -> None:
    hostile = 'x" } instance_group { count: 9 }\n#\\"\u2028é\x00'
    read = config([value(hostile, ("N", 3))], [value("y", ("N", 3))])
    assert read.input[0].name == hostile
    assert len(read.instance_group) == 1


@pytest.mark.parametrize(
    "output",
    [
        helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, [1]),
        value("y", (1,), TensorProto.COMPLEX64),
        value("y", None),
    ],
)
def test_outputs_that_triton_cannot_serve(output: onnx.ValueInfoProto) -> None:
    with pytest.raises(InputError, match="'y'"):
        config([value("x", (1,))], [output])


@pytest.mark.parametrize(
    "settings",
    [
        {"name": ""},
        {"name": ".hidden"},
        {"name": "../up"},
        {"name": "a/b"},
        {"name": "line\n"},
        {"version": 0},
        {"version": 2**31},
        {"instances": 0},
        {"max_batch_size": -1},
        {"preferred_batch_sizes": (8, 0)},
        {"gpus": (-1,)},
        {"max_queue_delay_us": -1},
    ],
)
def test_settings_are_validated(settings: dict) -> None:
    with pytest.raises(InputError) as caught:
        TritonSettings(**{"name": "m", **settings})
    assert caught.value.hint


def test_external_data_is_copied(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    options = {"save_as_external_data": True, "location": "data/m.bin", "size_threshold": 0}
    onnx.save(classifier(), str(tmp_path / "m.onnx"), **options)
    made = write_repository(tmp_path / "m.onnx", tmp_path / "r", TritonSettings("m"))
    assert names(made.folder) == set(made.files) == {"config.pbtxt", "1/model.onnx", "1/data/m.bin"}
    shutil.rmtree(tmp_path / "data")
    onnxruntime.InferenceSession(str(made.folder / "1" / "model.onnx"))


@pytest.mark.parametrize(
    "location", ["../out.bin", "{home}/m.bin", "model.onnx", "./model.onnx", "gone.bin", "link.bin"]
)
def test_external_data_that_cannot_be_copied(tmp_path: Path, location: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    for path in ("out.bin", "home/m.bin", "home/model.onnx"):
        (tmp_path / path).write_bytes(bytes(1000))
    (home / "link.bin").symlink_to(tmp_path / "out.bin")
    hostile = classifier()
    onnx.external_data_helper.set_external_data(hostile.graph.initializer[0], location.format(home=home))
    hostile.graph.initializer[0].ClearField("raw_data")
    (home / "m.onnx").write_bytes(hostile.SerializeToString())
    with pytest.raises(InputError):
        write_repository(home / "m.onnx", tmp_path / "r", TritonSettings("m"))
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("content", [b"", b"garbage" * 50, None])
def test_a_file_that_is_not_a_model(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(InputError, match=r"m\.onnx"):
        write_repository(tmp_path / "m.onnx", tmp_path / "r", TritonSettings("m"))
    assert not (tmp_path / "r").exists()


def test_versions_share_a_folder_and_are_not_overwritten(model: Path) -> None:
    repository = model.parent / "repository"
    write_repository(model, repository, TritonSettings("m"))
    with pytest.raises(InputError, match="1 exists"):
        write_repository(model, repository, TritonSettings("m"))
    write_repository(model, repository, TritonSettings("m", version=2))
    before = (repository / "m" / "config.pbtxt").read_bytes()
    with pytest.raises(InputError, match="applies to all versions"):
        write_repository(model, repository, TritonSettings("m", version=3, max_batch_size=4))
    assert (repository / "m" / "config.pbtxt").read_bytes() == before
    assert names(repository) == {"m/config.pbtxt", "m/1/model.onnx", "m/2/model.onnx"}


def test_force_replaces_a_version_as_a_whole(model: Path) -> None:
    repository = model.parent / "repository"
    external = model.with_name("external.onnx")
    onnx.save(classifier(size=8), str(external), save_as_external_data=True, location="w.bin", size_threshold=0)
    write_repository(external, repository, TritonSettings("m"))
    write_repository(model, repository, TritonSettings("m", max_batch_size=4), force=True)
    assert names(repository) == {"m/config.pbtxt", "m/1/model.onnx"}
    assert parsed((repository / "m" / "config.pbtxt").read_text()).max_batch_size == 4
    assert (repository / "m" / "1" / "model.onnx").read_bytes() == model.read_bytes()


@pytest.mark.parametrize("there", [False, True])
def test_a_full_disk_leaves_what_was_there(model: Path, monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    repository = model.parent / "repository"
    if there:
        write_repository(model, repository, TritonSettings("m"))
    before = names(repository)

    def full(source: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(InputError, match="No space left"):
        write_repository(model, repository, TritonSettings("m"), force=True)
    assert names(repository) == before
    assert [path.name for path in repository.iterdir()] == ["m"] * there


def test_other_users_may_read_it(model: Path) -> None:
    made = write_repository(model, model.parent / "repository", TritonSettings("m"))
    plain = model.parent / "plain"
    plain.mkdir()
    assert made.folder.stat().st_mode == (made.folder / "1").stat().st_mode == plain.stat().st_mode


@pytest.fixture
def plan(model: Path) -> Path:
    """A plan of TensorRT-RTX, which Triton does not serve, recorded as one of TensorRT."""
    pytest.importorskip("tensorrt_rtx", reason="engines are built for real, which needs tensorrt-rtx")
    settings = BuildSettings(backend="tensorrt-rtx", compute_capability="8.6", shapes=(1, 4, 24))
    plan = build_engine(model, model.with_suffix(".plan"), settings).plan
    edit(plan, backend="tensorrt")
    return plan


def edit(plan: Path, **changes: object) -> None:
    record = json.loads(sidecar_path(plan).read_text())
    sidecar_path(plan).write_text(json.dumps({**record, **changes}))


def test_a_plan_is_described_by_its_sidecar(cli, plan: Path) -> None:
    plan.with_suffix(".onnx").unlink()
    outcome = cli("triton-export", plan, "--out", plan.parent / "r", "--name", "net", "--json")
    assert outcome.code == 0, outcome.err
    read = parsed((plan.parent / "r" / "net" / "config.pbtxt").read_text())
    assert (read.platform, read.max_batch_size) == ("tensorrt_plan", 24)
    assert (read.input[0].name, list(read.input[0].dims)) == ("image", [3, 8, 8])
    assert read.instance_group[0].kind == 1
    assert (plan.parent / "r" / "net" / "1" / "model.plan").read_bytes() == plan.read_bytes()
    assert outcome.json == {
        "folder": str(plan.parent / "r" / "net"),
        "name": "net",
        "version": 1,
        "platform": "tensorrt_plan",
        "max_batch_size": 24,
        "note": "",
        "inputs": [{"name": "image", "data_type": "TYPE_FP32", "dims": [3, 8, 8]}],
        "outputs": [{"name": "logits", "data_type": "TYPE_FP32", "dims": [6]}],
        "files": ["config.pbtxt", "1/model.plan"],
    }


def test_plans_that_are_refused(cli, plan: Path) -> None:
    def error(*options: object) -> str:
        outcome = cli("triton-export", plan, "--out", plan.parent / "r", "--json", *options)
        assert outcome.code == 1
        return outcome.json["error"]

    assert "up to 24, not 25" in error("--max-batch-size", 25)
    edit(plan, backend="tensorrt-rtx")
    assert "tensorrt-rtx, and Triton runs plans of tensorrt only" in error()
    image = {"name": "image", "dtype": "FLOAT", "dims": ["batch", 3, 8, 8], "shapes": [[1, 3, 8, 8]] * 3}
    for inputs in (None, [], [{**image, "dtype": "NUMBER"}], [{**image, "shapes": []}], [{"name": "image"}]):
        edit(plan, inputs=inputs)
        assert "not complete" in error()
    edit(plan, inputs=[{**image, "dims": None}])
    assert "not complete" in error()
    plan.write_bytes(b"other code")
    assert "is not the plan" in error()
    assert not (plan.parent / "r").exists()


def test_the_command_needs_no_torch(program, model: Path) -> None:
    options = ["--preferred-batch-sizes", "8,32", "--gpu-index", 0, "--gpu-index", 1, "--instances", 2, "--version", 7]
    outcome = program("triton-export", model, "--out", model.parent / "r", *options, without=("torch",))
    assert outcome.code == 0, outcome.err
    assert "onnxruntime_onnx, version 7, batches of up to 32" in outcome.out
    read = parsed((model.parent / "r" / "sparse" / "config.pbtxt").read_text())
    assert list(read.dynamic_batching.preferred_batch_size) == [8, 32]
    assert list(read.instance_group[0].gpus) == [0, 1]


def test_batch_sizes_that_are_not_numbers(cli, model: Path) -> None:
    outcome = cli("triton-export", model, "--out", model.parent / "r", "--preferred-batch-sizes", "8;32", "--json")
    assert outcome.code == 1
    assert "8;32" in outcome.json["error"]
