"""Measures the accuracy of a network, and the distance between the outputs of two networks.

May import ``data`` and ``sparsegpt_core``.
"""

from calibration.evaluation.accuracy import Evaluation, evaluate, logits_and_labels, score
from calibration.evaluation.detection_map import DetectionMap
from calibration.evaluation.output_distance import Distance, distance, outputs_of

__all__ = [
    "DetectionMap",
    "Distance",
    "Evaluation",
    "distance",
    "evaluate",
    "logits_and_labels",
    "outputs_of",
    "score",
]
