"""Predicts the speed-up of 2:4 weights before anything is pruned.

May import ``benchmark``, ``explain``, ``measure`` and below.
"""

from deploy.predict.estimate import EstimatedPrediction, PredictedLayer, predict
from deploy.predict.layer_gains import LayerGains, MeasuredGain, find_gains, read_profile
from deploy.predict.measurement import MeasuredPrediction, try_pruning

__all__ = [
    "EstimatedPrediction",
    "LayerGains",
    "MeasuredGain",
    "MeasuredPrediction",
    "PredictedLayer",
    "find_gains",
    "predict",
    "read_profile",
    "try_pruning",
]
