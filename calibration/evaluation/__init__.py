"""Measures accuracy, and how far two networks' outputs are apart.

May import ``data`` and ``sparsegpt_core``.
"""

from calibration.evaluation.accuracy import Evaluation, evaluate, logits_and_labels, score
from calibration.evaluation.output_distance import Distance, distance, outputs_of

__all__ = ["Distance", "Evaluation", "distance", "evaluate", "logits_and_labels", "outputs_of", "score"]
