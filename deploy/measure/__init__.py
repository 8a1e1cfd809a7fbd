"""Measures latency, accuracy, output errors and layer times of sessions.

May import ``sessions``, ``builder``, ``graph``, ``machine`` and below.
"""

from deploy.measure.accuracy import AccuracyReport, ArmAccuracy, Difference, LabelledImages, compare_accuracy
from deploy.measure.builtin_metrics import load_metric
from deploy.measure.comparison import Comparison, compare_versions
from deploy.measure.engine_timer import EngineTimer, agree_on_regime
from deploy.measure.gpu_monitor import GPUMonitor
from deploy.measure.latency import LatencyReport, join_rebuilds, measure_latency
from deploy.measure.layer_times import LayerTimes, compare_layer_times, measure_layer_times
from deploy.measure.metrics import Figure, Metric
from deploy.measure.output_errors import Outputs
from deploy.measure.speedup import Ratio
from deploy.measure.timing import QUICK_TIMING, HostTimer, Regime, TimingSettings

__all__ = [
    "QUICK_TIMING",
    "AccuracyReport",
    "ArmAccuracy",
    "Comparison",
    "Difference",
    "EngineTimer",
    "Figure",
    "GPUMonitor",
    "HostTimer",
    "LabelledImages",
    "LatencyReport",
    "LayerTimes",
    "Metric",
    "Outputs",
    "Ratio",
    "Regime",
    "TimingSettings",
    "agree_on_regime",
    "compare_accuracy",
    "compare_layer_times",
    "compare_versions",
    "join_rebuilds",
    "load_metric",
    "measure_latency",
    "measure_layer_times",
]
