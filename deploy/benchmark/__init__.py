"""Compares dense with sparse: builds the engines of three arms, times them, and judges the result.

May import ``explain``, ``measure`` and below.
"""

from deploy.benchmark.gate import Limits
from deploy.benchmark.measure_arms import ArmMeasurements, EngineSettings, measure_engines
from deploy.benchmark.on_engines import benchmark_engines
from deploy.benchmark.on_onnxruntime import benchmark_onnx
from deploy.benchmark.on_tensorrt_provider import benchmark_tensorrt_provider
from deploy.benchmark.result import BenchmarkResult

__all__ = [
    "ArmMeasurements",
    "BenchmarkResult",
    "EngineSettings",
    "Limits",
    "benchmark_engines",
    "benchmark_onnx",
    "benchmark_tensorrt_provider",
    "measure_engines",
]
