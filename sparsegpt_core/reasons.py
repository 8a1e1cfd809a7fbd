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
    Reason.EXCLUDED: "Left dense because --exclude names it, or --include does not.",
    Reason.SENSITIVE: "Left dense because pruning it costs most of what --max-disagreement or --sparsity-budget allow.",
    Reason.NOT_REACHED: "The calibration images never ran this layer, so nothing is known of its inputs.",
}
