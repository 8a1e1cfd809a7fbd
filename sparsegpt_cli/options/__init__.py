"""Options of commands, in groups that several commands share.

May import ``jobs``, ``framework`` and below, but the heavy ones inside functions only: ``--help`` must start at once.
"""

from sparsegpt_cli.options.data import DataOptions, ExportDataOptions
from sparsegpt_cli.options.engines import BuildOptions, EngineOptions, TimingOptions
from sparsegpt_cli.options.export import ExportOptions
from sparsegpt_cli.options.job import JobOptions
from sparsegpt_cli.options.paths import Force, OutFolder, may_replace, require_free, require_suffix
from sparsegpt_cli.options.pruning import PruneOptions
from sparsegpt_cli.options.quality import MetricName, QualityOptions, load_metric
from sparsegpt_cli.options.shared import (
    TF32,
    BatchSize,
    CustomOperators,
    Device,
    EngineBatch,
    EvalData,
    EvalSamples,
    Gpu,
    MemoryLimit,
    Model,
    ModelArgs,
    NumClasses,
    Pattern,
    Samples,
    Verbose,
    Weights,
    WeightsKey,
)
from sparsegpt_cli.options.sizes import parse_size
from sparsegpt_cli.options.training import TrainingOptions

__all__ = [
    "TF32",
    "BatchSize",
    "BuildOptions",
    "CustomOperators",
    "DataOptions",
    "Device",
    "EngineBatch",
    "EngineOptions",
    "EvalData",
    "EvalSamples",
    "ExportDataOptions",
    "ExportOptions",
    "Force",
    "Gpu",
    "JobOptions",
    "MemoryLimit",
    "MetricName",
    "Model",
    "ModelArgs",
    "NumClasses",
    "OutFolder",
    "Pattern",
    "PruneOptions",
    "QualityOptions",
    "Samples",
    "TimingOptions",
    "TrainingOptions",
    "Verbose",
    "Weights",
    "WeightsKey",
    "load_metric",
    "may_replace",
    "parse_size",
    "require_free",
    "require_suffix",
]
