"""Reads the JSON of TensorRT's engine inspector, from 8.x to 11.x, which describes each layer of an engine.

Build the engine with ``ProfilingVerbosity.DETAILED``; otherwise the inspector gives layer names only. Versions differ:
- Tensors have one field ``Format/Datatype`` up to 10.x, and two fields ``Format`` and ``DataType`` from 11 on.
- ``Metadata`` names a layer's ONNX nodes from 8.6 on; earlier versions name them in the layer's own name.
- Myelin's layers have short type names (``Half``) and often no tactic.
"""

from __future__ import annotations

__all__ = ["EngineLayer", "LayerTensor", "inspect_engine", "node_names", "read_engine_information", "read_layers"]

import json
import re
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Dict, Optional, Tuple

from sparsegpt_core.errors import InputError

_HINT = "Use the text of get_engine_information(LayerInformationFormat.JSON)."
_SPARSE = re.compile(r"spars|spmma|sptensor|spgemm", re.IGNORECASE)
_GENERATED = re.compile(r"__myl|0x")  # Myelin's kernels and plain numbers do not say whether they are sparse
_ORIGIN = re.compile(r"\[ONNX Layer: ([^\x1e\x1f]{0,1000}?)\](?=[\x1e\x1f\[]|\s{0,10}$)")
_FURTHER_PROFILE = re.compile(r"\[profile [0-9]+\]$")
_PRECISION = re.compile(r"\b(FP(?:64|32|16|8|4)|BF16|BFloat16|U?Int(?:64|32|16|8|4)|Bool|Half|Float)\b", re.IGNORECASE)
_SHORT = {"HALF": "FP16", "FLOAT": "FP32", "BFLOAT16": "BF16"}


@dataclass(frozen=True)
class LayerTensor:
    """An input or output of an engine layer."""

    name: str
    """The tensor's name in the engine."""
    precision: Optional[str]
    """Such as ``FP16``; None where the inspector does not say."""
    format: str
    """The memory layout in TensorRT's words."""


@dataclass(frozen=True)
class EngineLayer:
    """One layer of an engine, which may fuse several ONNX nodes. None where the inspector does not say."""

    name: str
    """The layer's name in the engine."""
    kind: str = ""
    """The layer's type, such as ``CaskConvolution``."""
    tactic: Optional[str] = None
    """The kernel's name."""
    origins: Tuple[str, ...] = ()
    """The names of its ONNX nodes."""
    inputs: Tuple[LayerTensor, ...] = ()
    """Its inputs."""
    outputs: Tuple[LayerTensor, ...] = ()
    """Its outputs."""
    has_sparse_weights: Optional[bool] = None
    """TensorRT's own claim, which is also true of some dense kernels: shown, but never used."""

    @property
    def sparse(self) -> Optional[bool]:
        """Whether the tactic's name is that of a sparse kernel; None where the name does not say."""
        if not self.tactic or _GENERATED.match(self.tactic):
            return None
        return bool(_SPARSE.search(self.tactic))


def inspect_engine(trt: ModuleType, engine: Any) -> Tuple[EngineLayer, ...]:
    """Read the layers of a deserialised engine.

    Args:
        trt: ``tensorrt`` or ``tensorrt_rtx``.
        engine: An ``ICudaEngine`` of that module.

    Raises:
        InputError: The inspector's text cannot be read.

    Example:
        >>> [layer.name for layer in inspect_engine(tensorrt, engine) if layer.sparse]  # doctest: +SKIP
        ['layer3.0.conv1 + relu']
    """
    return read_layers(_inspector_text(trt, engine))


def read_engine_information(trt: ModuleType, engine: Any) -> Dict[str, Any]:
    """Return the inspector's JSON of a deserialised engine. Layers of further profiles are left out.

    Args:
        trt: ``tensorrt`` or ``tensorrt_rtx``.
        engine: An ``ICudaEngine`` of that module.

    Raises:
        InputError: The inspector's text cannot be read, or has names of layers only.

    Example:
        >>> sorted(read_engine_information(tensorrt, engine))  # doctest: +SKIP
        ['Bindings', 'Layers']
    """
    content = _parse(_inspector_text(trt, engine))
    if not all(isinstance(record, dict) for record in content["Layers"]):
        raise InputError(
            "the engine was built without detailed profiling verbosity", "Build it with `sparsegpt-trt build`."
        )
    layers = [record for record in content["Layers"] if not _FURTHER_PROFILE.search(str(record.get("Name", "")))]
    return {**content, "Layers": layers}


def read_layers(text: str) -> Tuple[EngineLayer, ...]:
    """Read the inspector's JSON of a whole engine. Layers of further profiles are left out.

    Raises:
        InputError: The text is truncated or is not the inspector's.
    """
    layers = (_layer({"Name": record} if isinstance(record, str) else record) for record in _parse(text)["Layers"])
    return tuple(layer for layer in layers if not _FURTHER_PROFILE.search(layer.name))


def node_names(layer: str) -> Tuple[str, ...]:
    """Split the name of a fused layer: ``+`` joins nodes in sequence, ``||`` joins parallel nodes.

    Example:
        >>> node_names("conv1 + relu1"), node_names("conv1 || conv2")
        (('conv1', 'relu1'), ('conv1', 'conv2'))
    """
    if layer.startswith("Reformatting CopyNode"):  # its name contains the layer that it copies for
        return ()
    return tuple(name for name in re.split(r" \+ | \|\| ", layer) if name)


def _inspector_text(trt: ModuleType, engine: Any) -> str:
    return str(engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON))


def _parse(text: str) -> Dict[str, Any]:
    try:
        content = json.loads(text, strict=False)  # names may contain TensorRT's separators 1E and 1F
    except (ValueError, RecursionError) as error:
        raise InputError(f"the engine inspector's JSON cannot be read: {error}", _HINT) from error
    records = content.get("Layers") if isinstance(content, dict) else None
    if not isinstance(records, list) or not all(isinstance(record, (str, dict)) for record in records):
        raise InputError("the engine inspector's JSON has no list of layers", _HINT)
    return dict(content)


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
