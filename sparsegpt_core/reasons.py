"""Why a layer is not sparse, as codes that every stage and every report shares."""

from __future__ import annotations

from enum import Enum

__all__ = ["Reason"]


class Reason(str, Enum):
    """A reason code; ``advice`` is the sentence shown beside it."""

    NOT_NM = "NOT_NM"
    CHANNELS_NOT_MULTIPLE = "CHANNELS_NOT_MULTIPLE"
    GROUPED = "GROUPED"
    TRANSPOSED = "TRANSPOSED"
    NOT_CONSTANT = "NOT_CONSTANT"
    FIRST_LAYER = "FIRST_LAYER"
    CLASSIFIER = "CLASSIFIER"
    EXCLUDED = "EXCLUDED"
    SENSITIVE = "SENSITIVE"
    NOT_REACHED = "NOT_REACHED"
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
        """What the code means and what, if anything, can be done about it."""
        return _ADVICE[self]


_ADVICE = {
    Reason.NOT_NM: "At least one group holds more non-zeros than the pattern allows; prune the layer.",
    Reason.CHANNELS_NOT_MULTIPLE: "The input channels are not a multiple of the group size, "
    "so TensorRT has no sparse kernel for this layer.",
    Reason.GROUPED: "TensorRT never runs grouped or depthwise convolutions sparsely.",
    Reason.TRANSPOSED: "Transposed convolutions are not attempted.",
    Reason.NOT_CONSTANT: "The weight is computed at run time, so no engine can compress it.",
    Reason.FIRST_LAYER: "The first convolution is left dense by default: little to gain, much to lose; "
    "--include overrides.",
    Reason.CLASSIFIER: "The last layer is left dense by default: little to gain, much to lose; --include overrides.",
    Reason.EXCLUDED: "Left dense because --exclude or --profile names it, or --include does not.",
    Reason.SENSITIVE: "Left dense because pruning it costs most of what --max-disagreement or --sparsity-budget allow.",
    Reason.NOT_REACHED: "The calibration images never ran this layer, so nothing is known of its inputs.",
    Reason.FLAG_OFF: "The engine was built without the sparse flag; build it with --sparse.",
    Reason.GPU_BEFORE_AMPERE: "The GPU has no sparse tensor cores; they came with Ampere, compute capability 8.0.",
    Reason.FP32_GRAPH: "There are no sparse kernels for FP32; export the model as FP16 or INT8.",
    Reason.SMALL_CHANNELS: "Below about 256 input or output channels, kernel positions counted as input channels, "
    "dense kernels are as fast: leave the layer dense and keep its accuracy.",
    Reason.OUT_OF_MEMORY_TACTIC: "A dense kernel was chosen, but the builder skipped tactics for want of memory, "
    "the sparse one perhaps among them; give more --workspace, or build on an idle GPU.",
    Reason.ELIGIBLE_NOT_CHOSEN: "The builder timed a dense kernel as faster; try a larger batch, INT8, or leave the "
    "layer dense and keep its accuracy.",
    Reason.CHOSEN_NO_GAIN: "The sparse kernel is no faster than the dense one was; leave the layer dense and keep its "
    "accuracy.",
    Reason.OPAQUE: "Neither log nor inspector tells which kernel this layer got: it is fused into a larger one, or the "
    "engine was not built with detailed profiling verbosity.",
}
