"""PyCUDA on the primary context, which TensorRT and cuda-python use as well, and memory for one tensor."""

from __future__ import annotations

__all__ = ["Buffer", "connect", "gpu_errors", "pci_bus_id"]

import contextlib
import importlib
import math
from collections.abc import Iterator
from types import ModuleType
from typing import Any, Tuple

import numpy as np
import numpy.typing as npt

from deploy.machine.libraries import require
from sparsegpt_core.errors import InputError, first_line


def connect() -> ModuleType:
    """Return ``pycuda.driver`` with the GPU's primary context current on this thread, until the process ends.

    Sessions and timers belong to the thread that called this first.

    Raises:
        MissingDependencyError: PyCUDA is not installed.
        InputError: There is no GPU, or it does not answer.
    """
    cuda = require("pycuda.driver")
    try:
        importlib.import_module("pycuda.autoprimaryctx")
    except Exception as error:  # PyCUDA raises its own, and RuntimeError where no device will do
        raise InputError(
            f"PyCUDA finds no usable GPU: {first_line(error)}",
            "Use a machine with an NVIDIA GPU and its driver (see nvidia-smi), or docker run --gpus all.",
        ) from error
    return cuda


def pci_bus_id() -> str:
    """Return where the GPU sits, such as ``0000:65:00.0``: other libraries number GPUs in another order.

    Raises:
        MissingDependencyError: PyCUDA is not installed.
        InputError: There is no GPU, or it does not answer.
    """
    cuda = connect()
    with gpu_errors(cuda, "naming the GPU"):
        return str(cuda.Context.get_device().pci_bus_id())


@contextlib.contextmanager
def gpu_errors(cuda: ModuleType, doing: str) -> Iterator[None]:
    """Turn PyCUDA's errors into ours.

    Args:
        cuda: ``pycuda.driver``.
        doing: What is going on inside, for the message.

    Raises:
        InputError: Something inside raised an error of PyCUDA.
    """
    try:
        yield
    except cuda.MemoryError as error:
        raise InputError(
            f"the GPU's memory is full while {doing}: {first_line(error)}",
            "Build with smaller --shapes, use fewer streams, or end what else runs there (see nvidia-smi).",
        ) from error
    except cuda.Error as error:
        raise InputError(
            f"the GPU fails while {doing}: {first_line(error)}",
            "Start again, since its context may be lost; if it stays, see nvidia-smi and dmesg.",
        ) from error


class Buffer:
    """One tensor's memory: on the GPU, and page-locked on the host, without which copies are not asynchronous.

    Args:
        cuda: ``pycuda.driver``, with a context.
        shape: The largest shape that it must hold.
        dtype: Of its elements.

    Raises:
        InputError: Memory is full.
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
        """Where it lies on the GPU."""
        return int(self._device)

    def view(self, shape: Tuple[int, ...]) -> npt.NDArray[Any]:
        """Return the host's memory as an array; it is gone once the buffer is freed."""
        return np.asarray(self._host[: math.prod(shape)]).reshape(shape)

    def upload(self, shape: Tuple[int, ...], stream: Any) -> None:
        """Copy to the GPU, when the stream comes to it."""
        self._cuda.memcpy_htod_async(self._device, self.view(shape), stream)

    def download(self, shape: Tuple[int, ...], stream: Any) -> None:
        """Copy from the GPU, when the stream comes to it."""
        self._cuda.memcpy_dtoh_async(self.view(shape), self._device, stream)

    def free(self) -> None:
        """Give the memory back; a second call does nothing."""
        self._free()
