"""Leaves layers dense, the most sensitive first, until a target is met."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from calibration.evaluation import DisagreementTarget, Distance
from sparsegpt_core.errors import InputError
from sparsegpt_core.pruning import PruneResult, Tradeoff, fewest
from sparsegpt_core.quality import Workflow

__all__ = ["LayerChoice", "PruneExcept", "SelectionStep", "Trial", "choose_dense_layers"]


class Trial(NamedTuple):
    """A pruned network with some layers left dense."""

    result: PruneResult
    distance: Distance
    """How far it is from the dense network on held-out images."""


PruneExcept = Callable[[tuple[str, ...]], Trial]
"""Prunes the dense network except for the named layers."""


@dataclass(frozen=True)
class SelectionStep:
    """One trial, as ``prune.json`` records it."""

    dense: int
    """The number of layers left dense to meet the target."""
    sparsity: float
    """The share of zeros in the weights of all convolution and linear layers, 0 to 1."""
    distance: Distance
    """How far the network is from the dense one on held-out images."""

    def to_json(self) -> dict[str, Any]:
        """Return the number of layers left dense, the sparsity, and the distances."""
        return {"dense_layers": self.dense, "sparsity": self.sparsity, **self.distance.to_json()}


@dataclass(frozen=True)
class LayerChoice:
    """The layers that stay dense, and the network pruned without them."""

    result: PruneResult
    """The last trial's; the model has its weights."""
    sensitive: tuple[str, ...]
    """Names of the layers left dense to meet the target."""
    tradeoff: Tradeoff
    """Sparsity against error for every number of layers left dense."""
    steps: tuple[SelectionStep, ...]
    """All trials, the chosen one last."""


def choose_dense_layers(
    prune_except: PruneExcept, workflow: Workflow, target: DisagreementTarget | None = None
) -> LayerChoice:
    """Leave as few layers dense as the target allows.

    Args:
        prune_except: Prunes the dense network except for the named layers. It is called once for every trial, and
            last for the layers that are chosen.
        workflow: With ``sparsity_budget`` if there is no ``target``.
        target: The largest disagreement on held-out images.

    Raises:
        InputError: The target cannot be met, or the method measures no sensitivities.
    """
    first = prune_except(())
    tradeoff = Tradeoff.of(first.result.layers)
    if not tradeoff.names:
        raise InputError("the method does not measure how sensitive layers are", "Use --method sparsegpt.")
    if target:
        trials = _meet_disagreement(first, tradeoff.names, prune_except, target)
    else:
        count = tradeoff.for_sparsity(workflow.sparsity_budget or 0.0)
        trials = {0: first} | ({count: prune_except(tradeoff.names[:count])} if count else {})
    chosen = [*trials][-1]
    steps = [SelectionStep(count, tradeoff.sparsity[count], trial.distance) for count, trial in trials.items()]
    return LayerChoice(trials[chosen].result, tradeoff.names[:chosen], tradeoff, tuple(steps))


def _meet_disagreement(
    first: Trial, names: tuple[str, ...], prune_except: PruneExcept, target: DisagreementTarget
) -> dict[int, Trial]:
    """Return the trials by the number of layers left dense, the fewest that meet the target last."""
    trials = {0: first}
    if target.meets(first.distance.disagreement):
        return trials

    def meets(count: int) -> bool:
        trials[count] = prune_except(names[:count])
        return target.meets(trials[count].distance.disagreement)

    count = fewest(len(names), meets)
    last = [*trials][-1]
    if count == len(names):
        disagreement = trials[last].distance.disagreement
        upper = (
            f", at most {target.upper_limit(disagreement):.2f} % with 95 % confidence" if target.has_interval else ""
        )
        raise InputError(
            f"a disagreement of {target.limit:g} % cannot be met: with one layer pruned it is {disagreement:.2f} % on "
            f"{target.images} held-out images{upper}",
            "Raise --max-disagreement, or use more --samples or --quality best.",
        )
    if last != count:  # the model has the weights of a later trial
        del trials[count]
        trials[count] = prune_except(names[:count])
    return trials
