"""Reads a network: its layers, its traced graph, and each weight as a matrix.

May import ``linalg``, ``settings``, ``execution`` and below.
"""

from sparsegpt_core.network.batches import input_names, network_inputs
from sparsegpt_core.network.functional_calls import Call, record_calls
from sparsegpt_core.network.inputs import (
    Batch,
    as_tensors,
    channels_last,
    from_arrays,
    have_same_shape,
    split_batches,
    tensors_of,
)
from sparsegpt_core.network.int8_weight import Int8Weight
from sparsegpt_core.network.layer_plan import plan_layers
from sparsegpt_core.network.layers import (
    Layer,
    channels_reason,
    check_globs,
    chosen_reason,
    count_vectors,
    find_sample_axis,
    layer_name,
    matches,
    weight_key,
)
from sparsegpt_core.network.modules import check_finite, eval_mode, name_outputs
from sparsegpt_core.network.parametrizations import (
    parametrized_tensors,
    remove_parametrization,
    remove_parametrizations,
)
from sparsegpt_core.network.shift_targets import ShiftTarget, batch_norm_scale
from sparsegpt_core.network.tracing import WEIGHTED, GraphNetwork, Program, export_graph, inputs_and_constants, trace
from sparsegpt_core.network.weight_layout import (
    ConvLayer,
    PrunableLayer,
    input_columns,
    matrix_to_weight,
    output_rows,
    pad_input,
    sampled_columns,
    weight_to_matrix,
)

__all__ = [
    "WEIGHTED",
    "Batch",
    "Call",
    "ConvLayer",
    "GraphNetwork",
    "Int8Weight",
    "Layer",
    "Program",
    "PrunableLayer",
    "ShiftTarget",
    "as_tensors",
    "batch_norm_scale",
    "channels_last",
    "channels_reason",
    "check_finite",
    "check_globs",
    "chosen_reason",
    "count_vectors",
    "eval_mode",
    "export_graph",
    "find_sample_axis",
    "from_arrays",
    "have_same_shape",
    "input_columns",
    "input_names",
    "inputs_and_constants",
    "layer_name",
    "matches",
    "matrix_to_weight",
    "name_outputs",
    "network_inputs",
    "output_rows",
    "pad_input",
    "parametrized_tensors",
    "plan_layers",
    "record_calls",
    "remove_parametrization",
    "remove_parametrizations",
    "sampled_columns",
    "split_batches",
    "tensors_of",
    "trace",
    "weight_key",
    "weight_to_matrix",
]
