"""Predicts the speed-up of 2:4 weights before anything is pruned.

May import ``benchmark``, ``explain``, ``measure`` and below.
"""

from deploy.predict.estimate import EstimatedPrediction, PredictedLayer, predict
from deploy.predict.measurement import MeasuredPrediction, try_pruning
from deploy.predict.profile import layers_without_gain

__all__ = [
    "EstimatedPrediction",
    "MeasuredPrediction",
    "PredictedLayer",
    "layers_without_gain",
    "predict",
    "try_pruning",
]
