"""Which files of a run's folder belong to the run, and which one is to be deployed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.audit import read_metadata, read_model
from sparsegpt_cli.report.fields import Fields
from sparsegpt_core.errors import SparseGPTError
from sparsegpt_core.files import read_checkpoint_metadata, sha256
from sparsegpt_core.text import printable

__all__ = ["PrunedFile", "RunFiles", "read_run_files"]

_PRECISIONS = ("int8", "fp16", "fp32")  # the fastest first


@dataclass(frozen=True)
class PrunedFile:
    """An ONNX file of the pruned network."""

    name: str
    """The name of the file."""
    precision: str
    """``fp32``, ``fp16`` or ``int8``."""
    sha256: str
    """Its digest."""
    finetuned: bool = False
    """Whether the network was fine-tuned."""

    @property
    def dense(self) -> str:
        """The name of the dense file in the same precision."""
        return "dense.onnx" if self.precision == "fp32" else f"dense.{self.precision}.onnx"


@dataclass(frozen=True)
class RunFiles:
    """The files of a run: those of ``prune-export``, and those that ``finetune`` and ``export`` made of them."""

    manifest: Fields
    """``files`` of ``manifest.json``."""
    digests: frozenset[str]
    """The SHA-256 of every file."""
    finetuned: str
    """The name of the fine-tuned checkpoint; empty if there is none."""
    evaluation: Fields
    """The accuracy of the fine-tuned checkpoint, in PyTorch."""
    pruned: tuple[PrunedFile, ...]
    """The ONNX files of the pruned network."""

    @property
    def deployed(self) -> PrunedFile | None:
        """The file to deploy: of the fine-tuned network if there is one, else in the fastest precision."""
        newest = [file for file in self.pruned if file.finetuned] or ([] if self.finetuned else self.pruned)
        return min(newest, key=lambda file: _PRECISIONS.index(file.precision), default=None)

    def owns(self, model: Fields) -> bool:
        """Return whether a model that a result names is a file of this run; True if either side has no digest."""
        recorded = model.text("sha256")
        return not recorded or not self.digests or recorded in self.digests


def read_run_files(run: Path, manifest: Fields) -> RunFiles:
    """Find the files of a run. A file that is not in the manifest records the digest of the file it was made from.

    Args:
        run: The folder.
        manifest: ``files`` of its ``manifest.json``.
    """
    digests = {manifest.child(name).text("sha256") for name in manifest}
    pruned = [
        PrunedFile(name, precision, manifest.child(name).text("sha256"))
        for precision in _PRECISIONS
        if (name := "sparse.onnx" if precision == "fp32" else f"sparse.{precision}.onnx") in manifest
    ]
    finetuned, evaluation = "", Fields({}, run)
    for path, metadata in _others(run, "*.safetensors", manifest, read_checkpoint_metadata):
        if str(metadata.get("finetuned_from")) in digests:
            digests.add(sha256(path))
            finetuned, evaluation = printable(path.name), Fields(metadata, path).child("evaluation")
    for path, metadata in _others(run, "*.onnx", manifest, lambda path: read_metadata(read_model(path))):
        precision = str(metadata.get("precision"))
        if str(metadata.get("weights_sha256")) in digests and precision in _PRECISIONS:
            made = PrunedFile(printable(path.name), precision, sha256(path), "finetuned_from" in metadata)
            digests.add(made.sha256)
            pruned.append(made)
    return RunFiles(manifest, frozenset(digests), finetuned, evaluation, tuple(pruned))


def _others(
    run: Path, glob: str, manifest: Fields, read: Callable[[Path], dict[str, Any]]
) -> list[tuple[Path, dict[str, Any]]]:
    """Return the files that are not in the manifest, with their metadata. Files of other programs are left out."""
    found = []
    for path in sorted(run.glob(glob)):
        if path.name not in manifest:
            try:
                found.append((path, read(path)))
            except SparseGPTError:  # no file that this program wrote
                continue
    return found
