"""Measures the accuracy of a network, the distance between the outputs of two, and the limits of counted shares.

May import ``data`` and ``sparsegpt_core``.
"""

from calibration.evaluation.accuracy import Evaluation, evaluate, logits_and_labels, score
from calibration.evaluation.detection_map import DetectionMap
from calibration.evaluation.disagreement import DisagreementTarget, expected_disagreement, held_out_images, logit_noise
from calibration.evaluation.held_out import Comparison, HeldOut
from calibration.evaluation.output_distance import Distance, distance, named_outputs, outputs_of
from calibration.evaluation.proportions import images_needed, lower_limit, upper_limit

__all__ = [
    "Comparison",
    "DetectionMap",
    "DisagreementTarget",
    "Distance",
    "Evaluation",
    "HeldOut",
    "distance",
    "evaluate",
    "expected_disagreement",
    "held_out_images",
    "images_needed",
    "logit_noise",
    "logits_and_labels",
    "lower_limit",
    "named_outputs",
    "outputs_of",
    "score",
    "upper_limit",
]
