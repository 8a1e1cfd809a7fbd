"""PyCUDA on the GPU's primary context, which TensorRT and cuda-python also use, and memory for one tensor."""

from __future__ import annotations

__all__ = ["Buffer", "connect", "free_memory", "gpu_errors", "pci_bus_id"]

import atexit
import contextlib
import math
from collections.abc import Iterator
from types import ModuleType
from typing import Any, Dict, Tuple

import numpy as np
import numpy.typing as npt

from deploy.machine.libraries import require
from sparsegpt_core.errors import InputError, first_line

_contexts: Dict[ModuleType, Any] = {}  # the primary context, by ``pycuda.driver``


def connect() -> ModuleType:
    """Make the primary context of CUDA's first GPU current until the process ends; return ``pycuda.driver``.

    Use sessions and timers on the thread that called this first. ``pycuda.autoprimaryctx`` is not used: it does not
    load on Python 3.9.

    Raises:
        MissingDependencyError: PyCUDA is not installed.
        InputError: There is no GPU, or it does not respond.

    Example:
        >>> cuda = connect()  # doctest: +SKIP
    """
    cuda = require("pycuda.driver")
    if cuda in _contexts:
        return cuda
    try:
        cuda.init()
        context = cuda.Device(0).retain_primary_context()
        context.push()
    except cuda.Error as error:
        raise InputError(
            f"PyCUDA finds no usable GPU: {first_line(error)}",
            "Use a machine with an NVIDIA GPU and its driver (see nvidia-smi), or `docker run --gpus all`.",
        ) from error
    _contexts[cuda] = context
    return cuda


@atexit.register
def _release_contexts() -> None:
    while _contexts:
        _contexts.popitem()[1].pop()


def pci_bus_id() -> str:
    """Return the GPU's PCI address. It names the same GPU in NVML, which numbers GPUs in another order.

    Raises:
        MissingDependencyError: PyCUDA is not installed.
        InputError: There is no GPU, or it does not respond.

    Example:
        >>> pci_bus_id()  # doctest: +SKIP
        '0000:65:00.0'
    """
    cuda = connect()
    with gpu_errors(cuda, "reading the GPU's PCI address"):
        return str(cuda.Context.get_device().pci_bus_id())


def free_memory() -> int:
    """Return the bytes of the GPU's memory that no program uses.

    Raises:
        MissingDependencyError: PyCUDA is not installed.
        InputError: There is no GPU, or it does not respond.

    Example:
        >>> free_memory()  # doctest: +SKIP
        84412727296
    """
    cuda = connect()
    with gpu_errors(cuda, "reading its free memory"):
        return int(cuda.mem_get_info()[0])


@contextlib.contextmanager
def gpu_errors(cuda: ModuleType, doing: str) -> Iterator[None]:
    """Turn PyCUDA's errors into :class:`InputError`.

    Args:
        cuda: ``pycuda.driver``.
        doing: The action inside the ``with``, for the message, such as ``"allocating tensors"``.

    Raises:
        InputError: The code inside raised an error of PyCUDA.

    Example:
        >>> with gpu_errors(cuda, "running the engine"):  # doctest: +SKIP
        ...     stream.synchronize()
    """
    try:
        yield
    except cuda.MemoryError as error:
        raise InputError(
            f"the GPU's memory is full while {doing}: {first_line(error)}",
            "Build with smaller `shapes`, use fewer `streams`, or end other programs on the GPU (see nvidia-smi).",
        ) from error
    except cuda.Error as error:
        raise InputError(
            f"the GPU fails while {doing}: {first_line(error)}",
            "Run the command again, since the CUDA context may be lost. If it fails again, see nvidia-smi and dmesg.",
        ) from error


class Buffer:
    """Memory for one tensor on the GPU and on the host. The host's is page-locked, so copies are asynchronous.

    Args:
        cuda: ``pycuda.driver``, with a current context.
        shape: The tensor's largest shape.
        dtype: The type of its elements.

    Raises:
        InputError: The memory is full.
    """

    def __init__(self, cuda: ModuleType, shape: Tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self._cuda = cuda
        with gpu_errors(cuda, "allocating tensors"), contextlib.ExitStack() as cleanup:
            self._host = cuda.pagelocked_empty(max(math.prod(shape), 1), np.dtype(dtype))
            cleanup.callback(self._host.base.free)
            self._device = cuda.mem_alloc(self._host.nbytes)
            cleanup.callback(self._device.free)
            self._free = cleanup.pop_all().close

    @property
    def address(self) -> int:
        """The address on the GPU."""
        return int(self._device)

    def view(self, shape: Tuple[int, ...]) -> npt.NDArray[Any]:
        """Return the host memory as an array, which must not be used after ``free``."""
        return np.asarray(self._host[: math.prod(shape)]).reshape(shape)

    def upload(self, shape: Tuple[int, ...], stream: Any) -> None:
        """Put a copy from host to GPU on the stream."""
        self._cuda.memcpy_htod_async(self._device, self.view(shape), stream)

    def download(self, shape: Tuple[int, ...], stream: Any) -> None:
        """Put a copy from GPU to host on the stream."""
        self._cuda.memcpy_dtoh_async(self.view(shape), self._device, stream)

    def free(self) -> None:
        """Free the memory. A second call does nothing."""
        self._free()
