"""Measurements by network, arm and number of images, and the statistics computed from them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from math import nan
from statistics import mean, median

from benchmarks.measurements import Record

__all__ = ["Job", "Records", "forward_ratio"]


@dataclass(frozen=True)
class Job:
    """One measurement: an arm on a network with a number of images. ``round`` counts repetitions."""

    model: str
    arm: str
    images: int
    round: int = 0


def forward_ratio(record: Record, layout: str) -> float:
    """The arm's seconds divided by those of the dense forward pass in one memory format, in the same process."""
    return float(record["seconds"] / mean(record["forward_seconds"][layout]))


class Records:
    """All measurements. Missing ones are NaN."""

    def __init__(self, records: list[Record]) -> None:
        self.all = records
        self.groups: dict[tuple[str, str, int], list[Record]] = defaultdict(list)
        for record in records:
            self.groups[record["model"].removeprefix("torchvision:"), record["arm"], record["images"]].append(record)

    def seconds(self, model: str, arm: str, images: int) -> float:
        """Median seconds of an arm."""
        found = self.groups.get((model, arm, images))
        return median(record["seconds"] for record in found) if found else nan

    def forward(self, model: str, images: int) -> float:
        """Median seconds of the dense forward pass in the processes of the default arm."""
        return float(median(mean(r["forward_seconds"]["default"]) for r in self.groups[model, "default", images]))

    def ratio(self, model: str, arm: str, images: int, layout: str = "default") -> float:
        """Median ratio of an arm to the dense forward pass."""
        found = self.groups.get((model, arm, images))
        return median(forward_ratio(record, layout) for record in found) if found else nan

    def images(self, model: str) -> list[int]:
        """The numbers of images that the default arm was measured with."""
        return sorted(images for name, arm, images in self.groups if (name, arm) == (model, "default"))

    def widest(self) -> str:
        """The network whose default arm was measured with the most numbers of images."""
        return max((model for model, arm, _ in self.groups if arm == "default"), key=lambda m: len(self.images(m)))

    def depths(self) -> tuple[int, dict[str, int]]:
        """The fewest images, and the networks whose default arm ran on them with the layers pruned, by depth."""
        fewest = min(images for _, arm, images in self.groups if arm == "default")
        layers = {
            model: found[0]["layers"]
            for (model, arm, images), found in self.groups.items()
            if (arm, images) == ("default", fewest)
        }
        return fewest, dict(sorted(layers.items(), key=lambda item: item[1]))
