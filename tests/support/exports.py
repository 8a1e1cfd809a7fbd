"""Helpers that several test files share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from export.audit import AuditedLayer
from export.writing import export_model, save_model
from sparsegpt_core.reasons import Reason

IMAGES = torch.randn(16, 4, 8, 8, generator=torch.Generator().manual_seed(0))
METADATA = {"pattern": "2:4", "dense": {"conv": "FIRST_LAYER"}}


class Echo(nn.Module):
    """Two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1)

    def forward(self, x):
        return self.conv(x), x


class Undecided(Echo):
    """Its path depends on values: no tracer can follow."""

    def forward(self, x):
        return self.conv(x) if x.sum() > 0 else x


def prepared(model: nn.Module) -> nn.Module:
    """Zero two of every four input channels, and give the batch norms something to fold."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, -1, 2)
        if isinstance(module, nn.Conv2d | nn.Linear):
            keep = torch.arange(module.weight.shape[1]) % 4 < 2
            module.weight.data *= keep.reshape([-1 if axis == 1 else 1 for axis in range(module.weight.ndim)])
    return model.eval()


class Shared(nn.Module):
    """A block that is called twice, and two layers with one weight between them."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.block(self.norm(self.block(x)))).relu().flatten(2).transpose(1, 2)
        return self.second(self.first(x).relu())


def exported_with_weights_beside(path: Path) -> None:
    torch.manual_seed(0)
    save_model(export_model(prepared(Shared()), (4, 8, 8), {"pattern": "2:4"}), path, limit=0)


def audited(name: str, reason: Reason | None = None, **others: Any) -> AuditedLayer:
    fields: dict[str, Any] = {
        **{"name": name, "weight": f"{name}.weight", "op": "Conv", "shape": (512, 256, 3, 3), "dtype": "float16"},
        **{"axis": 1, "groups": 1, "violations": 0, "is_sparse": reason is None, "eligible": reason is None},
        **{"reason": reason, "first_violation": None, "nonzeros": 1, "obstacle": None, **others},
    }
    return AuditedLayer(**fields)
