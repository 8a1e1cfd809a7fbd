"""The memory, scratch folder and processes of a pruning run.

The number of processes and threads does not change a bit of the result. Smaller batches and TF32 change its rounding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import backends

from sparsegpt_core.execution.distributed import ALONE, World

__all__ = ["DEFAULT", "Resources", "full_precision"]


@dataclass(frozen=True)
class Resources:
    """The resources of a pruning run.

    Example:
        >>> Resources(memory_limit=8 << 30).tf32
        False
    """

    memory_limit: int | None = None
    """The largest number of bytes of the process (on CUDA: of its tensors). None: four fifths of the free memory."""
    scratch: Path | None = None
    """The folder for activations that do not fit into memory. None: the system's temporary folder."""
    tf32: bool = False
    """Whether CUDA may round the factors of products to TF32."""
    traced: bool = True
    """Whether to walk the traced network once. False: one forward pass for each layer, as for untraceable networks."""
    world: World = ALONE
    """The processes that share the work."""
    finished: Path | None = None
    """The folder of finished layers and channel orders, from which another run resumes. None: nothing is kept, as with
    several processes."""


DEFAULT = Resources()
"""The resources of a run that sets none."""


# Where PyTorch keeps an `fp32_precision`. A backend or operation with "none" takes its parent's, so parents come first.
# `backends.mkldnn` is missing: PyTorch sets that of `backends` in its place.
_CUDNN: Any = backends.cudnn
_MKLDNN: Any = backends.mkldnn
_PRECISIONS: tuple[Any, ...] = (
    *(backends, _CUDNN, backends.cuda.matmul, _CUDNN.conv, _CUDNN.rnn),
    *(_MKLDNN.matmul, _MKLDNN.conv, _MKLDNN.rnn),
)


@contextlib.contextmanager
def full_precision(tf32: bool) -> Iterator[None]:
    """Compute float32 products in float32, under any setting of the process, or in TF32 if asked for.

    The process may have set its precision by ``fp32_precision`` or by the older flags. Both are restored.

    Args:
        tf32: Whether CUDA may round the factors of products to TF32.

    Example:
        >>> with full_precision(tf32=False):
        ...     torch.get_float32_matmul_precision()
        'highest'
    """
    precisions = []
    for each in _PRECISIONS:
        precisions.append(each.fp32_precision)
        each.fp32_precision = "none"
    # Read now: PyTorch refuses to read an older flag that contradicts an `fp32_precision`.
    matmul, cudnn = torch.get_float32_matmul_precision(), _cudnn_flag()
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    backends.cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        backends.cudnn.allow_tf32 = cudnn
        for each, precision in zip(_PRECISIONS, precisions, strict=True):
            each.fp32_precision = precision


def _cudnn_flag() -> bool:
    """Return cuDNN's older flag while the precision of its operations is "none": PyTorch refuses to read True then."""
    try:
        return bool(backends.cudnn.allow_tf32)
    except RuntimeError:
        return True
