"""Reads an ONNX file and verifies the N:M pattern of each weight, without torch.

May import ``sparsegpt_core``'s torch-free modules.
"""

from export.audit.audit import AuditedLayer, AuditResult, audit_model
from export.audit.constant_values import Constants
from export.audit.graph_parts import graph_inputs, integer_attribute, is_custom, node_name, tensors_read
from export.audit.inlining import inlined
from export.audit.metadata import read_metadata, write_metadata
from export.audit.model_files import embedded, external_files, load_model, map_model, read_model, tensor_value

__all__ = [
    "AuditResult",
    "AuditedLayer",
    "Constants",
    "audit_model",
    "embedded",
    "external_files",
    "graph_inputs",
    "inlined",
    "integer_attribute",
    "is_custom",
    "load_model",
    "map_model",
    "node_name",
    "read_metadata",
    "read_model",
    "tensor_value",
    "tensors_read",
    "write_metadata",
]
