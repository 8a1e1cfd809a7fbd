"""Options of commands, in groups that several commands share.

May import ``jobs``, ``framework`` and below, and only inside functions: ``--help`` must start at once.
"""

from sparsegpt_cli.options.engines import BuildOptions, EngineOptions
from sparsegpt_cli.options.export import ExportOptions
from sparsegpt_cli.options.job import JobOptions
from sparsegpt_cli.options.paths import require_free, require_suffix
from sparsegpt_cli.options.pruning import PruneOptions
from sparsegpt_cli.options.shared import (
    TF32,
    BatchSize,
    Channels,
    Data,
    DataRoot,
    Device,
    EvalData,
    EvalSamples,
    ImageSize,
    Mean,
    MemoryLimit,
    Model,
    NumClasses,
    Pattern,
    Samples,
    Std,
    Weights,
)
from sparsegpt_cli.options.sizes import parse_size

__all__ = [
    "TF32",
    "BatchSize",
    "BuildOptions",
    "Channels",
    "Data",
    "DataRoot",
    "Device",
    "EngineOptions",
    "EvalData",
    "EvalSamples",
    "ExportOptions",
    "ImageSize",
    "JobOptions",
    "Mean",
    "MemoryLimit",
    "Model",
    "NumClasses",
    "Pattern",
    "PruneOptions",
    "Samples",
    "Std",
    "Weights",
    "parse_size",
    "require_free",
    "require_suffix",
]
