"""Groups layers by the reason why they are not sparse or gain nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sparsegpt_core.reasons import Reason

__all__ = ["ReasonGroup", "advice", "group_by_reason"]


@dataclass(frozen=True)
class ReasonGroup:
    """The layers with the same reason."""

    code: str
    """The reason code."""
    advice: str
    """Its meaning, in a sentence."""
    layers: list[str]
    """Names in running order."""


def group_by_reason(layers: Iterable[tuple[str, str]]) -> list[ReasonGroup]:
    """Group (reason code, layer name) pairs, in the order in which the reasons first appear."""
    groups: dict[str, list[str]] = {}
    for code, name in layers:
        groups.setdefault(code, []).append(name)
    return [ReasonGroup(code or "no reason recorded", advice(code), names) for code, names in groups.items()]


def advice(code: str) -> str:
    """Return the sentence for a reason code; empty for a code of another version."""
    return Reason(code).advice if code in Reason.__members__ else ""
