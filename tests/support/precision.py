"""A network that records the precision in which it runs."""

import torch
from torch import Tensor, nn


class PrecisionProbe(nn.Module):
    """A linear layer. ``seen`` gets the precision of matrix products and whether cuDNN may use TF32."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.seen: list[tuple[str, bool]] = []

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, 3) for images (N, 4, 1, 1)."""
        self.seen.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
        logits: Tensor = self.layer(x.flatten(1))
        return logits
