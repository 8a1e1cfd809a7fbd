"""What an engine says of its own layers: the JSON of TensorRT's engine inspector, from 8.x to 11.x.

The engine has to be built with ``ProfilingVerbosity.DETAILED``; with less, its layers are names and nothing else.
What differs between versions: tensors have one field ``Format/Datatype`` up to 10.x and ``Format`` beside
``DataType`` from 11 on; ``Metadata`` names the ONNX nodes of a layer from 8.6 on, before that only the layer's own
name does; Myelin's layers bear short types (``Half``) and often no tactic.
"""

from __future__ import annotations

__all__ = ["EngineLayer", "LayerTensor", "inspect_engine", "node_names", "read_layers"]

import json
import re
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Optional, Tuple

from sparsegpt_core.errors import InputError

_HINT = "Give the text of get_engine_information(LayerInformationFormat.JSON)."
_SPARSE = re.compile(r"spars|spmma|sptensor|spgemm", re.IGNORECASE)
_GENERATED = re.compile(r"__myl|0x")  # Myelin's own kernels and bare numbers: their names say nothing
_ORIGIN = re.compile(r"\[ONNX Layer: ([^\x1e\x1f]{0,1000}?)\](?=[\x1e\x1f\[]|\s{0,10}$)")
_FURTHER_PROFILE = re.compile(r"\[profile [0-9]+\]$")
_PRECISION = re.compile(r"\b(FP(?:64|32|16|8|4)|BF16|BFloat16|U?Int(?:64|32|16|8|4)|Bool|Half|Float)\b", re.IGNORECASE)
_SHORT = {"HALF": "FP16", "FLOAT": "FP32", "BFLOAT16": "BF16"}


@dataclass(frozen=True)
class LayerTensor:
    """An input or output of an engine's layer; ``precision`` such as ``FP16``, None where it is not told."""

    name: str
    precision: Optional[str]
    format: str


@dataclass(frozen=True)
class EngineLayer:
    """One layer of an engine, which may be several ONNX nodes fused.

    ``origins`` names those nodes. ``has_sparse_weights`` is shown and never believed: TensorRT says so of dense
    kernels, too. None stands for what the inspector does not tell.
    """

    name: str
    kind: str = ""
    tactic: Optional[str] = None
    origins: Tuple[str, ...] = ()
    inputs: Tuple[LayerTensor, ...] = ()
    outputs: Tuple[LayerTensor, ...] = ()
    has_sparse_weights: Optional[bool] = None

    @property
    def sparse(self) -> Optional[bool]:
        """Whether the kernel is a sparse one, by the name of its tactic; None where that does not tell."""
        if not self.tactic or _GENERATED.match(self.tactic):
            return None
        return bool(_SPARSE.search(self.tactic))


def inspect_engine(trt: ModuleType, engine: Any) -> Tuple[EngineLayer, ...]:
    """Read the layers of a deserialised engine, which needs a GPU.

    Args:
        trt: ``tensorrt`` or ``tensorrt_rtx``.
        engine: An ``ICudaEngine`` of that module.
    """
    return read_layers(engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON))


def read_layers(text: str) -> Tuple[EngineLayer, ...]:
    """Read the inspector's JSON on a whole engine; layers of further profiles are left out.

    Raises:
        InputError: The text is truncated, or is not the inspector's.
    """
    try:
        content = json.loads(text, strict=False)  # names may hold TensorRT's separators 1E and 1F as they are
    except (ValueError, RecursionError) as error:
        raise InputError(f"the engine inspector's JSON cannot be read: {error}", _HINT) from error
    records = content.get("Layers") if isinstance(content, dict) else None
    if not isinstance(records, list) or not all(isinstance(record, (str, dict)) for record in records):
        raise InputError("the engine inspector's JSON has no list of layers", _HINT)
    layers = (_layer({"Name": record} if isinstance(record, str) else record) for record in records)
    return tuple(layer for layer in layers if not _FURTHER_PROFILE.search(layer.name))


def node_names(layer: str) -> Tuple[str, ...]:
    """Split the name of a fused layer: ``conv1 + relu1`` one after the other, ``conv1 || conv2`` side by side."""
    if layer.startswith("Reformatting CopyNode"):  # names the layer that it copies for
        return ()
    return tuple(name for name in re.split(r" \+ | \|\| ", layer) if name)


def _layer(record: dict[str, Any]) -> EngineLayer:
    name, tactic = str(record.get("Name", "")), record.get("TacticName")
    claim = record.get("HasSparseWeights")
    return EngineLayer(
        name=name,
        kind=str(record.get("LayerType", "")),
        tactic=tactic if isinstance(tactic, str) and tactic else None,
        origins=tuple(_ORIGIN.findall(str(record.get("Metadata", "")))) or node_names(name),
        inputs=_tensors(record.get("Inputs")),
        outputs=_tensors(record.get("Outputs")),
        has_sparse_weights=None if claim is None else bool(claim),
    )


def _tensors(records: Any) -> Tuple[LayerTensor, ...]:
    known = [record for record in records if isinstance(record, dict)] if isinstance(records, list) else []
    return tuple(_tensor(record) for record in known)


def _tensor(record: dict[str, Any]) -> LayerTensor:
    layout = str(record.get("Format", record.get("Format/Datatype", "")))
    found = _PRECISION.search(str(record.get("DataType", record.get("Datatype", layout))))
    precision = None if found is None else _SHORT.get(found[0].upper(), found[0].upper())
    return LayerTensor(str(record.get("Name", "")), precision, layout)
