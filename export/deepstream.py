"""Makes the configuration with which DeepStream's Gst-nvinfer element runs a classifier.

Keys and meanings: https://docs.nvidia.com/metropolis/deepstream/dev-guide/text/DS_plugin_gst-nvinfer.html. Their names
are in ``gstnvinfer_property_parser.h``, which DeepStream installs with its sources.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

from export.audit import graph_inputs
from sparsegpt_core.errors import InputError

__all__ = ["NETWORK_MODES", "DeepStreamConfig", "make_deepstream_config"]

NETWORK_MODES = {"fp32": 0, "int8": 1, "fp16": 2}
"""Values of ``network-mode``."""
_COLOR_FORMATS = {1: 2, 3: 0}  # GRAY and RGB, by the number of channels
_CLASSIFIER, _OTHER = 1, 100  # values of network-type
_MAX_PIXEL = 255

_SCALE_NOTE = "# Gst-nvinfer turns a pixel x of 0 to 255 into net-scale-factor * (x - offset of its channel).\n"
_LOGITS_NOTE = (
    "# The outputs are logits. Gst-nvinfer takes the class with the largest one, if that is above 0, else none.\n"
)


@dataclass(frozen=True)
class DeepStreamConfig:
    """The content of ``config_infer_primary.txt``."""

    properties: Mapping[str, str]
    """Keys and values of the group ``[property]``."""
    warnings: tuple[str, ...]
    """Sentences about what DeepStream does differently."""

    def to_text(self) -> str:
        """Return the configuration as a GLib key file."""
        notes = _LOGITS_NOTE if self.properties["network-type"] == str(_CLASSIFIER) else ""
        lines = [f"{key}={value}\n" for key, value in self.properties.items()]
        return f"{_SCALE_NOTE}{notes}[property]\n{''.join(lines)}"


def make_deepstream_config(
    graph: onnx.GraphProto,
    model: str,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    precision: str = "fp16",
    batch_size: int = 1,
    labels: str | None = None,
) -> DeepStreamConfig:
    """Make the configuration of a model.

    A network whose only output is (N, classes) is a classifier. Others get ``network-type=100``: Gst-nvinfer attaches
    their output tensors to the frames and interprets nothing.

    Args:
        graph: A graph with the model's inputs and outputs.
        model: The path of the .onnx file or the TensorRT plan, relative to the configuration's folder.
        mean: The mean of each channel, for pixels from 0 to 1.
        std: The standard deviation of each channel, for pixels from 0 to 1.
        precision: A key of ``NETWORK_MODES``. A plan already has its precision.
        batch_size: Frames in one inference.
        labels: The path of a file with the class names in one line, separated by semicolons; None for numbers.

    Raises:
        InputError: Gst-nvinfer cannot run the model, or the mean or the std does not fit its channels.

    Example:
        >>> graph = onnx.parser.parse_model('''<ir_version: 8, opset_import: ["": 17]>
        ...     g (float[N, 1, 2, 2] x) => (float[N, 4] y) { y = Flatten(x) }''').graph
        >>> config = make_deepstream_config(graph, "sparse.plan", [0.5], [0.25])
        >>> config.properties["net-scale-factor"], config.properties["offsets"]
        ('0.01568627451', '127.5')
    """
    channels, height, width = _image(graph)
    if not len(mean) == len(std) == channels:
        raise InputError(
            f"mean and std have {len(mean)} and {len(std)} values, and the images have {channels} channels",
            "Give one of each for a channel.",
        )
    if min(std) <= 0:
        raise InputError(f"a std of {min(std):g} cannot normalise images", "Give positive values of `std`.")
    for path in filter(None, (model, labels)):
        if not path.isprintable() or "\\" in path:
            raise InputError(f"DeepStream cannot read the path {path!r}", "Rename the file.")
    is_plan = not model.endswith(".onnx")
    if precision == "int8" and not is_plan:
        raise InputError(
            "Gst-nvinfer builds no INT8 engine from Q/DQ nodes: it wants a calibration file",
            "Give the plan that `sparsegpt-trt build` makes from the file.",
        )
    is_classifier = _is_classifier(graph)
    scale = len(std) / (_MAX_PIXEL * sum(std))
    properties = {
        "gie-unique-id": "1",
        "process-mode": "1",
        "model-engine-file" if is_plan else "onnx-file": model,
        "batch-size": str(batch_size),
        "network-mode": str(NETWORK_MODES[precision]),
        "infer-dims": f"{channels};{height};{width}",
        "model-color-format": str(_COLOR_FORMATS[channels]),
        "net-scale-factor": f"{scale:.10g}",
        "offsets": ";".join(f"{_MAX_PIXEL * value:.10g}" for value in mean),
        **({"network-type": str(_CLASSIFIER), "classifier-threshold": "0"} if is_classifier else {}),
        **({} if is_classifier else {"network-type": str(_OTHER), "output-tensor-meta": "1"}),
        **({"labelfile-path": labels} if labels else {}),
    }
    return DeepStreamConfig(properties, tuple(_warnings(std, is_plan)))


def _warnings(std: Sequence[float], is_plan: bool) -> list[str]:
    """Say what Gst-nvinfer computes differently from the network's own preprocessing."""
    found = []
    used = sum(std) / len(std)
    error = max(abs(value / used - 1) for value in std)
    if error > 1e-6:
        found.append(
            f"DeepStream has one scale factor for all channels, so the mean std {used:.4g} is used: "
            f"normalised values differ by up to {100 * error:.2g} %"
        )
    if not is_plan:
        found.append(
            "DeepStream builds its own engine from an .onnx file and has no setting for sparse kernels: "
            "give a plan that was built with `sparse` for them"
        )
    return found


def _image(graph: onnx.GraphProto) -> tuple[int, int, int]:
    """Return channels, height and width of the only input."""
    inputs = graph_inputs(graph)
    if len(inputs) == 1:
        kind = inputs[0].type.tensor_type
        sizes = tuple(dim.dim_value for dim in kind.shape.dim)
        if kind.elem_type == onnx.TensorProto.FLOAT and len(sizes) == 4 and all(sizes[1:]) and sizes[1] in (1, 3):
            return sizes[1], sizes[2], sizes[3]
    raise InputError(
        "DeepStream runs models with one FP32 input of images with 1 or 3 channels and a fixed size",
        "Export the model with `io_dtype=fp32` and without `dynamic_size`.",
    )


def _is_classifier(graph: onnx.GraphProto) -> bool:
    kinds = [value.type.tensor_type for value in graph.output]
    if any(kind.elem_type != onnx.TensorProto.FLOAT for kind in kinds):
        raise InputError("DeepStream reads FP32 outputs only", "Export the model with `io_dtype=fp32`.")
    return len(kinds) == 1 and len(kinds[0].shape.dim) == 2
