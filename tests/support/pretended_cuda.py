"""A pretended GPU: tensors that say ``cuda:0``, compute on the CPU, and refuse to mix with tensors of the CPU.

Results are those of the CPU, bit by bit, so that only the placement of tensors is tested.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

__all__ = ["CUDA", "plain", "pretended_cuda"]

CUDA = torch.device("cuda:0")

_BYTES = 1 << 30  # of the pretended GPU's memory
_GETTERS = {Tensor.device.__get__: CUDA, Tensor.is_cuda.__get__: True, Tensor.is_cpu.__get__: False}  # type: ignore[attr-defined]
_TO_NUMPY = (Tensor.numpy, Tensor.__array__)
_COPIES = (Tensor.copy_, torch.ops.aten.copy_.default)
_INDEXED = (Tensor.__getitem__, Tensor.__setitem__, torch.ops.aten.index.Tensor)  # by indices on the CPU, too
_CPU_CALLS = (Tensor.cpu,)
_CUDA_CALLS = (Tensor.cuda,)


class _CudaTensor(Tensor):
    """A tensor on the pretended GPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl


class _PretendedCuda(TorchFunctionMode):
    """Answers every call of PyTorch as a process with a GPU would."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch._C._nn._parse_to:  # only reads a device
            return func(*args, **kwargs)
        values = tree_flatten((args, kwargs))[0]
        on_gpu = [each for each in values if isinstance(each, _CudaTensor)]
        if on_gpu and func in _GETTERS:
            return _GETTERS[func]
        if on_gpu and func is torch._has_compatible_shallow_copy_type:
            return False  # a parameter on another device is a new one: the type of a tensor cannot change
        if on_gpu and func is Tensor.__deepcopy__:
            return _deepcopied(*args)
        if on_gpu and func in _TO_NUMPY:
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")
        place = _place(func, values)
        if place is None and on_gpu:
            place = "cuda" if func not in _COPIES or isinstance(args[0], _CudaTensor) else "cpu"
            _refuse_mixed(func, args, values)
        args, kwargs = tree_map(_on_cpu, (args, kwargs))
        if func in _CUDA_CALLS:
            func = Tensor.clone
        result = func(*args, **kwargs)
        if func is Tensor.to and (place == "cuda") is not bool(on_gpu) and result is args[0]:
            result = result.clone()
        if isinstance(result, torch.Size):
            return result
        if place == "cpu":
            return tree_map(lambda each: each.as_subclass(Tensor) if isinstance(each, _CudaTensor) else each, result)
        return tree_map(_on_gpu, result) if place == "cuda" else result


def _place(func: Any, values: list[Any]) -> str | None:
    """Return the type of the device that a call names; None if it names none."""
    if func in _CPU_CALLS or func in _CUDA_CALLS:
        return "cpu" if func in _CPU_CALLS else "cuda"
    for value in values:
        if isinstance(value, torch.device) or (isinstance(value, str) and value.split(":")[0] in ("cpu", "cuda")):
            return torch.device(value).type
    return None


def _refuse_mixed(func: Any, args: Any, values: list[Any]) -> None:
    if func in _COPIES:
        return
    if func in _INDEXED and isinstance(args[0], _CudaTensor):
        values = [args[0], *args[2:]]
    for value in values:
        if isinstance(value, Tensor) and not isinstance(value, _CudaTensor) and value.dim():
            raise RuntimeError(f"{func}: expected all tensors to be on the same device, but found cuda:0 and cpu")


def _on_cpu(value: Any) -> Any:
    """Return an argument as the CPU takes it."""
    if isinstance(value, torch.device) or (isinstance(value, str) and value.split(":")[0] == "cuda"):
        return torch.device("cpu")
    return value


def _on_gpu(value: Any) -> Any:
    if isinstance(value, Tensor) and not isinstance(value, _CudaTensor):
        return value.as_subclass(_CudaTensor)
    return value


def _deepcopied(tensor: Tensor, memo: dict[int, Any]) -> Tensor:
    if id(tensor) not in memo:
        copied: Any = tensor.detach().clone().as_subclass(_CudaTensor).requires_grad_(tensor.requires_grad)
        if isinstance(tensor, nn.Parameter):
            copied._is_param = True
        memo[id(tensor)] = copied
    result: Tensor = memo[id(tensor)]
    return result


def plain(value: Any) -> Any:
    """Return tensors, or a copy of a network, on the CPU."""
    if isinstance(value, nn.Module):
        network = copy.deepcopy(value)
        for module in network.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    module._parameters[name] = nn.Parameter(plain(parameter), parameter.requires_grad)
            for name, buffer in module._buffers.items():
                module._buffers[name] = plain(buffer)
        return network
    return tree_map(lambda each: each.detach().as_subclass(Tensor) if isinstance(each, _CudaTensor) else each, value)


def _traced_on_the_cpu(trace: Callable[..., Any]) -> Callable[..., Any]:
    """Trace a copy of the network on the CPU. PyTorch's tracer takes no tensors of a type that it does not know."""

    def call(network: nn.Module, inputs: tuple[Tensor, ...], **settings: Any) -> Any:
        network, inputs = plain(network), plain(inputs)
        with torch._C.DisableTorchFunction(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.cuda, "is_available", lambda: False)
            return trace(network, inputs, **settings)

    return call


@contextlib.contextmanager
def pretended_cuda() -> Iterator[None]:
    """Pretend that the process has a GPU, ``cuda:0``.

    On one thread: only then does the CPU add up in the same order whether or not it shares work by batches.
    """
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sparsegpt_core.network.tracing.export", _traced_on_the_cpu(torch.export.export))
        patch.setattr(torch.onnx, "export", _traced_on_the_cpu(torch.onnx.export))
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "mem_get_info", lambda device: (_BYTES, _BYTES))
        for name in ("memory_allocated", "memory_reserved", "max_memory_allocated", "reset_peak_memory_stats"):
            patch.setattr(torch.cuda, name, lambda device: 0)
        torch.set_num_threads(1)
        try:
            with _PretendedCuda():
                yield
        finally:
            torch.set_num_threads(threads)
