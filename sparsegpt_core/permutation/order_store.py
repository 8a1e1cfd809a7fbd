"""Channel orders that a run has found, on disk: a search that time cuts off does not come out the same again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from sparsegpt_core import __version__
from sparsegpt_core.checkpoints import load_checkpoint, save_checkpoint
from sparsegpt_core.errors import SparseGPTError
from sparsegpt_core.patterns import NM
from sparsegpt_core.permutation.order_search import Search

__all__ = ["ORDERS", "OrderStore"]

ORDERS = "orders"
"""Their folder, beside those of finished layers."""


class OrderStore:
    """What came of the searches of one run.

    Args:
        folder: Where they are kept; None keeps nothing.
        pattern: N:M.
        seconds: Where the searches are cut off, altogether.
        seed: Of the searches.
    """

    def __init__(self, folder: Path | None, pattern: NM, seconds: float, seed: int) -> None:
        self._folder, self._about = folder, f"{__version__} {pattern} {seconds} {seed}"

    def load(self, saliencies: Sequence[Tensor]) -> Search | None:
        """Return what came of the search over these saliencies; None where nothing is kept, or its file is damaged."""
        path = self._path(saliencies)
        if path is None or not path.is_file():
            return None
        try:
            found = load_checkpoint(path)
            noted = found.metadata
            return Search(found.state["order"], noted["before"], noted["after"], noted["cut_off"])
        except (SparseGPTError, LookupError):
            return None  # it is searched again and written anew

    def save(self, saliencies: Sequence[Tensor], search: Search) -> None:
        """Keep what came of a search.

        Raises:
            InputError: It cannot be written.
        """
        path = self._path(saliencies)
        if path is not None:
            noted = {"before": search.before, "after": search.after, "cut_off": search.cut_off}
            save_checkpoint(path, {"order": search.order}, noted)

    def _path(self, saliencies: Sequence[Tensor]) -> Path | None:
        if self._folder is None:
            return None
        digest = hashlib.sha256(self._about.encode())
        for matrix in saliencies:
            digest.update(f"{tuple(matrix.shape)}".encode())
            digest.update(matrix.cpu().contiguous().numpy().data)
        return self._folder / f"{digest.hexdigest()[:16]}.safetensors"
