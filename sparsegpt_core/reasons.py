"""Reason codes for layers that are not sparse, shared by all stages and reports."""

from __future__ import annotations

from enum import Enum

__all__ = ["Reason"]


class Reason(str, Enum):
    """A reason code, with an explanation in :attr:`advice`.

    Example:
        >>> Reason("TRANSPOSED").advice
        'Transposed convolutions are not attempted.'
    """

    NOT_NM = "NOT_NM"
    ALL_ZERO = "ALL_ZERO"
    CHANNELS_NOT_MULTIPLE = "CHANNELS_NOT_MULTIPLE"
    GROUPED = "GROUPED"
    TRANSPOSED = "TRANSPOSED"
    NOT_CONSTANT = "NOT_CONSTANT"
    FIRST_LAYER = "FIRST_LAYER"
    HEAD = "HEAD"
    EXCLUDED = "EXCLUDED"
    SENSITIVE = "SENSITIVE"
    NOT_REACHED = "NOT_REACHED"
    USED_BY_FUNCTION = "USED_BY_FUNCTION"
    READ_ELSEWHERE = "READ_ELSEWHERE"
    QUANTISED = "QUANTISED"
    IN_SUBGRAPH = "IN_SUBGRAPH"
    NOT_A_PRODUCT = "NOT_A_PRODUCT"
    FLAG_OFF = "FLAG_OFF"
    GPU_BEFORE_AMPERE = "GPU_BEFORE_AMPERE"
    FP32_GRAPH = "FP32_GRAPH"
    SMALL_CHANNELS = "SMALL_CHANNELS"
    OUT_OF_MEMORY_TACTIC = "OUT_OF_MEMORY_TACTIC"
    ELIGIBLE_NOT_CHOSEN = "ELIGIBLE_NOT_CHOSEN"
    CHOSEN_NO_GAIN = "CHOSEN_NO_GAIN"
    OPAQUE = "OPAQUE"

    @property
    def advice(self) -> str:
        """The meaning of the code and, if there is one, a remedy."""
        return _ADVICE[self]


_ADVICE = {
    Reason.NOT_NM: "At least one group has more non-zeros than the pattern allows; prune the layer.",
    Reason.ALL_ZERO: "Every weight is zero, which fits any pattern and proves nothing; load trained weights.",
    Reason.CHANNELS_NOT_MULTIPLE: "The input channels are not a multiple of the group size, "
    "so TensorRT has no sparse kernel for this layer.",
    Reason.GROUPED: "TensorRT never runs grouped or depthwise convolutions sparsely.",
    Reason.TRANSPOSED: "Transposed convolutions are not attempted.",
    Reason.NOT_CONSTANT: "The weight is computed at run time, so no engine can compress it.",
    Reason.FIRST_LAYER: "The first convolution stays dense by default, because pruning it gains little and loses much; "
    "include it by name to prune it.",
    Reason.HEAD: "A layer after which no other comes stays dense by default, because pruning it gains little and loses "
    "much; include it by name to prune it.",
    Reason.EXCLUDED: "The settings or the profile exclude the layer, or the settings include other layers only.",
    Reason.SENSITIVE: "Pruning the layer would use up most of the allowed disagreement or sparsity budget.",
    Reason.NOT_REACHED: "No calibration image runs this layer, so nothing is known about its inputs.",
    Reason.USED_BY_FUNCTION: "The network multiplies by the weight in another way than a layer does: by parts of it, "
    "as cross attention, or by x @ parameter.",
    Reason.READ_ELSEWHERE: "An operation that is no layer reads the same weight, so pruning would change it too.",
    Reason.QUANTISED: "The file stores the weight as integers with a scale; prune the file from before quantisation.",
    Reason.IN_SUBGRAPH: "The layer is in the body of an If, Loop or Scan, or in a function of the file, whose inputs "
    "calibration does not see.",
    Reason.NOT_A_PRODUCT: "The node does more than multiply its input by one matrix: a batch of matrices, a transposed "
    "input, or factors other than 1.",
    Reason.FLAG_OFF: "The engine was built without sparse kernels; build it with sparsity on.",
    Reason.GPU_BEFORE_AMPERE: "The GPU has no sparse tensor cores; they need compute capability 8.0 (Ampere) or newer.",
    Reason.FP32_GRAPH: "There are no sparse kernels for FP32; export the model as FP16 or INT8.",
    Reason.SMALL_CHANNELS: "Dense kernels are about as fast, since the layer has few channels or positions, or "
    "waits for memory; leave it dense and keep its accuracy.",
    Reason.OUT_OF_MEMORY_TACTIC: "A dense kernel was chosen, but the builder skipped tactics because memory was short, "
    "possibly the sparse one; allow a larger workspace, or build on an idle GPU.",
    Reason.ELIGIBLE_NOT_CHOSEN: "The builder timed a dense kernel as faster; try a larger batch, INT8, or leave the "
    "layer dense and keep its accuracy.",
    Reason.CHOSEN_NO_GAIN: "The sparse kernel is no faster than the dense one was; leave the layer dense and keep its "
    "accuracy.",
    Reason.OPAQUE: "Neither the log nor the inspector says which kernel runs this layer: it is fused into a larger "
    "one, or the engine was built without detailed profiling verbosity.",
}
