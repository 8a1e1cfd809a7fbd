"""Channel orders on disk, so that a killed run continues with the same orders.

A search that a time limit ends does not find the same order twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from sparsegpt_core import __version__
from sparsegpt_core.files import KeyedStore
from sparsegpt_core.patterns import NM
from sparsegpt_core.permutation.order_search import Search

__all__ = ["ORDERS", "OrderStore"]

ORDERS = "orders"
"""The name of the folder of the orders, in the folder of finished layers."""


class OrderStore:
    """The results of the searches of one run.

    Args:
        folder: Where they are kept; None keeps nothing.
        pattern: N:M.
        seconds: The time limit of all searches together.
        seed: The seed of the searches.
    """

    def __init__(self, folder: Path | None, pattern: NM, seconds: float, seed: int) -> None:
        self._store = KeyedStore(folder)
        self._settings = {"tool": __version__, "pattern": str(pattern), "seconds": str(seconds), "seed": seed}

    def load(self, saliencies: Sequence[Tensor]) -> Search | None:
        """Return the result of the search over these saliencies; None if it is not kept or is damaged."""
        name, identity = self._key(saliencies)
        entry = self._store.read(name, identity)
        if entry is None:
            return None
        found = entry.content
        return Search(torch.tensor(found["order"]), found["before"], found["after"], found["cut_off"])

    def save(self, saliencies: Sequence[Tensor], search: Search) -> None:
        """Keep the result of a search.

        Raises:
            InputError: The file cannot be written.
        """
        self._store.write(*self._key(saliencies), {**vars(search), "order": search.order.tolist()})

    def _key(self, saliencies: Sequence[Tensor]) -> tuple[str, dict[str, object]]:
        """Return the name and the identity of a search."""
        digest = hashlib.sha256(str(self._settings).encode())
        for matrix in saliencies:
            digest.update(f"{tuple(matrix.shape)}".encode())
            digest.update(matrix.cpu().contiguous().numpy().data)
        key = digest.hexdigest()
        return key[:16], {**self._settings, "saliencies": key}
