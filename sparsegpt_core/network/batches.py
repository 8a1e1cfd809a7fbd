"""Takes the inputs of a network from batches as a data loader gives them."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sparsegpt_core.errors import InputError
from sparsegpt_core.execution import available_memory
from sparsegpt_core.named_inputs import InputNames
from sparsegpt_core.network.inputs import as_tensors, tensors_of
from sparsegpt_core.network.tracing import GraphNetwork

__all__ = ["input_names", "network_inputs"]

_MEMORY_SHARE = 0.5  # of the free memory, for all batches together
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def input_names(model: nn.Module) -> InputNames:
    """Return the names of a network's inputs: the parameters of its ``forward``, or the inputs of its graph.

    Example:
        >>> input_names(nn.MultiheadAttention(8, 2)).names[:3], input_names(nn.Linear(8, 8)).required
        (('query', 'key', 'value'), 1)
    """
    if isinstance(model, GraphNetwork):
        return InputNames(tuple(model.input_names), len(model.input_names))
    parameters = [each for each in inspect.signature(model.forward).parameters.values() if each.kind in _POSITIONAL]
    return InputNames(tuple(each.name for each in parameters), sum(each.default is each.empty for each in parameters))


def network_inputs(model: nn.Module, batches: Tensor | Iterable[Any]) -> list[Tensor]:
    """Return batches that can be sliced, moved, and passed to the network within ``eval_mode``.

    Args:
        model: The network. The parameters of its ``forward`` say how many inputs it takes, and their names.
        batches: One batch (N, C, H, W); or batches from any source, such as a ``DataLoader``. A batch is a tensor, a
            tuple that starts with the inputs, such as (images, labels), or a dict that names them as ``forward`` does.

    Raises:
        InputError: A batch has no inputs for the network, or the batches fill half of the free memory.

    Example:
        >>> loader = torch.utils.data.DataLoader([(torch.ones(3, 8, 8), 5)] * 6, batch_size=4)
        >>> [tuple(batch.shape) for batch in network_inputs(nn.Conv2d(3, 8, 3), loader)]
        [(4, 3, 8, 8), (2, 3, 8, 8)]
    """
    if isinstance(batches, Tensor):
        return as_tensors([batches])
    inputs = input_names(model)
    varies = any(each.kind is each.VAR_POSITIONAL for each in inspect.signature(model.forward).parameters.values())
    most = None if varies and not isinstance(model, GraphNetwork) else len(inputs.names)
    found: list[Tensor] = []
    size, limit = 0, _MEMORY_SHARE * available_memory(torch.device("cpu"))
    for batch in batches:
        found += as_tensors([_inputs(batch, [*inputs.names], inputs.required, most)])
        size += sum(tensor.nbytes for tensor in tensors_of(found[-1]))
        if size > limit:
            raise InputError(
                f"{sum(map(len, found))} calibration images need {size / 2**30:.1f} GiB, half of the free memory",
                "Give fewer batches, for example list(itertools.islice(loader, 8)).",
            )
    return found


def _inputs(batch: Any, names: list[str], required: int, most: int | None) -> Any:
    """Return the inputs of a batch: a tensor, or several if the network takes several."""
    if isinstance(batch, Mapping):
        own = _by_name(batch, names, required)
    elif isinstance(batch, (tuple, list)):
        own = list(batch) if most is None or len(batch) <= most else list(batch[:required])
    else:
        return batch
    return own[0] if len(own) == 1 and isinstance(own[0], Tensor) else own


def _by_name(batch: Mapping[Any, Any], names: list[str], required: int) -> list[Any]:
    """Return the values of a dict in the order of the parameters of ``forward``."""
    given = [name for name in names if name in batch]
    if len(given) < max(required, 1) or given != names[: len(given)]:
        raise InputError(
            f"a batch names {', '.join(map(str, batch))}, the model's inputs are {', '.join(names)}",
            "Name the tensors as the parameters of forward, or give tuples.",
        )
    return [batch[name] for name in given]
