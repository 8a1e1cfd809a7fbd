"""Leaves layers dense, those with the most error for what they gain first, until a target is met."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from calibration.evaluation import Comparison, DisagreementTarget, Distance, HeldOut
from sparsegpt_cli.jobs.gains import PayingLayers
from sparsegpt_cli.jobs.job import Job, number_of_classes
from sparsegpt_core.errors import InputError
from sparsegpt_core.pruning import PruneResult, Tradeoff, fewest
from sparsegpt_core.quality import Workflow

__all__ = [
    "Chosen",
    "LayerChoice",
    "PruneExcept",
    "SelectionStep",
    "Trial",
    "choose_dense_layers",
    "choose_layers",
    "default_limit",
    "judging_images",
]

_MAX_EXPECTED_DISAGREEMENT = 4.0  # percent, where layers that pay are pruned without another limit
_MAX_OUTPUT_ERROR = 3.0  # the same for networks without classes: percent of ‖dense outputs‖²
_JUDGING_IMAGES = 128  # for these limits; noise needs few
_JUDGED_VALUES = 1 << 25  # of their outputs, at most: 256 MiB, and the same again for each network compared


class Trial(NamedTuple):
    """A pruned network with some layers left dense."""

    result: PruneResult
    compared: Comparison
    """With the dense network, on held-out images."""


PruneExcept = Callable[[tuple[str, ...]], Trial]
"""Prunes the dense network except for the named layers."""

Expect = Callable[[float | None], float]
"""Returns the percentage of images that noise on the logits is expected to put into another class."""


class DefaultLimit(NamedTuple):
    """How far from the dense network layers that pay may take it, where the user gives no limit."""

    figure: str
    """What is limited, as a warning names it."""
    percent: float
    """Its largest value."""
    of: Callable[[float], float]
    """Returns its value at an error of the network, as :attr:`~calibration.evaluation.Comparison.error` defines it."""

    def allows(self, error: float) -> bool:
        """Return whether the value at an error of the network is within the limit."""
        return self.of(error) <= self.percent


@dataclass(frozen=True)
class SelectionStep:
    """One trial, as ``prune.json`` records it."""

    dense: int
    """The number of layers left dense to meet the target."""
    sparsity: float
    """The share of zeros in the weights of all convolution and linear layers, 0 to 1."""
    distance: Distance
    """How far the network is from the dense one on held-out images."""
    speedup: float | None = None
    """The estimated speed-up; None: not estimated."""
    expected: float | None = None
    """The percentage of images that is expected to change class; None without classes."""

    def to_json(self) -> dict[str, Any]:
        """Return the number of layers left dense, the sparsity, the speed-up, and the distances."""
        figures = {"dense_layers": self.dense, "sparsity": self.sparsity, "speedup": self.speedup}
        return {**figures, "expected_disagreement": self.expected, **self.distance.to_json()}


@dataclass(frozen=True)
class LayerChoice:
    """The layers that stay dense, and the network pruned without them."""

    result: PruneResult
    """The last trial's; the model has its weights."""
    sensitive: tuple[str, ...]
    """Names of the layers left dense to meet the target."""
    tradeoff: Tradeoff
    """Sparsity and time against error for every number of layers left dense."""
    steps: tuple[SelectionStep, ...]
    """All trials, the chosen one last."""
    error: float
    """The network's, as :attr:`~calibration.evaluation.Comparison.error` defines it."""


@dataclass(frozen=True)
class Chosen:
    """The layers left dense to meet a limit, if there is one."""

    result: PruneResult | None = None
    """The pruned network that meets it; the model has its weights."""
    choice: LayerChoice | None = None
    """How its layers were chosen; None: the limit is met with all of them, or there is none."""
    target: DisagreementTarget | None = None
    """The largest disagreement that was asked for."""
    warnings: tuple[str, ...] = ()
    """What the user should know."""


def choose_layers(
    job: Job,
    paying: PayingLayers | None,
    held_out: HeldOut,
    prune_except: PruneExcept,
    errors_alone: Callable[[], dict[str, float]],
    *,
    limited: bool,
) -> Chosen:
    """Leave layers dense to meet the job's limit, or else the one for layers that pay.

    Args:
        job: The job.
        paying: The layers that pay, if they were asked for.
        held_out: Judges the trials.
        prune_except: Prunes the dense network except for the named layers.
        errors_alone: Measures each layer's error.
        limited: Whether only the limit for layers that pay applies.
    """
    workflow, target, warnings = job.workflow, None, []
    limit = default_limit(held_out) if limited else None
    errors = None if limit else errors_alone()
    whole = prune_except(())
    if limit and limit.allows(whole.compared.error):
        return Chosen(whole.result)
    if workflow.max_disagreement is not None:
        target = DisagreementTarget(workflow.max_disagreement, sum(map(len, held_out.batches)))
        warnings += [target.warning] if target.warning else []
    if workflow.max_drop is not None and held_out.labels is None:
        warnings.append("no layer is left dense for `max_drop`: the calibration images have no labels")
    saved = paying.gains.saved if paying else None
    choice = choose_dense_layers(
        prune_except,
        whole,
        errors or errors_alone(),
        workflow,
        target=target,
        saved=saved,
        expect=None if held_out.logits is None else held_out.expect,
        limit=limit,
    )
    if limit:
        before, now = limit.of(whole.compared.error), limit.of(choice.error)
        warnings.append(
            f"{len(choice.sensitive)} of {len(choice.tradeoff.names)} layers that pay stay dense: {limit.figure} was "
            f"{before:.0f} % with all of them, is {now:.1f} % now, and may be {limit.percent:g} % (`max_disagreement` "
            "sets another limit)"
        )
    return Chosen(choice.result, choice, target, tuple(warnings))


def default_limit(held_out: HeldOut) -> DefaultLimit:
    """Return the limit for layers that pay, where the user gives none."""
    if held_out.logits is None:
        return DefaultLimit("the relative error of the outputs", _MAX_OUTPUT_ERROR, lambda error: 100 * error)
    return DefaultLimit("the share of images expected to change class", _MAX_EXPECTED_DISAGREEMENT, held_out.expect)


def judging_images(outputs: Sequence[Any]) -> int | None:
    """Return how many images judge the default limit; None where outputs do not say what is lost.

    Classes do, and so do maps (N, K, H, W). Boxes in another order differ by far, and may be as good.

    Args:
        outputs: The network's outputs for one image.
    """
    if number_of_classes(outputs) is not None:
        return _JUDGING_IMAGES
    first = outputs[0]
    if not isinstance(first, Tensor) or first.ndim != 4 or not first.is_floating_point():
        return None
    return max(1, min(_JUDGING_IMAGES, _JUDGED_VALUES // first.numel()))


def choose_dense_layers(
    prune_except: PruneExcept,
    first: Trial,
    errors: Mapping[str, float],
    workflow: Workflow,
    *,
    target: DisagreementTarget | None = None,
    saved: Mapping[str, float] | None = None,
    expect: Expect | None = None,
    limit: DefaultLimit | None = None,
) -> LayerChoice:
    """Leave as few layers dense as the limits allow; without one as many as the budget or the speed-up allows.

    Args:
        prune_except: Prunes the dense network except for the named layers. It is called once for every trial, and
            last for the layers that are chosen.
        first: The trial with no layer left dense; the model has its weights.
        errors: The noise on logits that each layer alone causes, or else the error of the outputs.
        workflow: With ``max_drop``, ``sparsity_budget`` or ``min_speedup`` if there is no other limit.
        target: The largest disagreement on held-out images.
        saved: The share of the network's time that each layer's sparse kernels save.
        expect: Predicts the disagreement of a network with classes.
        limit: In place of other limits. One layer is pruned even if it exceeds that.

    Raises:
        InputError: The limits cannot be met.
    """
    tradeoff = Tradeoff.of(first.result.layers, errors, saved, expect)
    if workflow.min_speedup is not None:
        most = tradeoff.for_speedup(workflow.min_speedup)
    else:
        most = tradeoff.for_sparsity(workflow.sparsity_budget or 0.0)
    if limit:
        trials = {0: first} | _meet_limit(limit, tradeoff, prune_except)
    elif target or workflow.max_drop is not None:
        trials = _meet(_Limits(target, workflow.max_drop), first, tradeoff.names, most, prune_except)
    else:
        trials = {0: first} | ({most: prune_except(tradeoff.names[:most])} if most else {})
    chosen = [*trials][-1]
    speedup = tradeoff.speedup or (None,) * len(tradeoff.sparsity)
    steps = [
        SelectionStep(
            k,
            tradeoff.sparsity[k],
            trial.compared.distance,
            speedup[k],
            expect(trial.compared.noise) if expect else None,
        )
        for k, trial in trials.items()
    ]
    return LayerChoice(
        trials[chosen].result, tradeoff.names[:chosen], tradeoff, tuple(steps), trials[chosen].compared.error
    )


def _meet_limit(limit: DefaultLimit, tradeoff: Tradeoff, prune_except: PruneExcept) -> dict[int, Trial]:
    """Return the trials by the number of layers left dense: as many as predicted first, then one more each time."""
    most = len(tradeoff.names) - 1
    count = next((k for k in range(1, most) if limit.allows(tradeoff.error[k])), most)
    trials = {count: prune_except(tradeoff.names[:count])}
    while count < most and not limit.allows(trials[count].compared.error):
        count += 1
        trials[count] = prune_except(tradeoff.names[:count])
    return trials


class _Limits(NamedTuple):
    """What a network may lose on held-out images."""

    target: DisagreementTarget | None
    max_drop: float | None

    def failures(self, trial: Trial) -> list[str]:
        """Return a clause for each of the user's limits that a network misses."""
        found, disagreement = [], trial.compared.distance.disagreement
        if self.target and not self.target.meets(disagreement):
            upper = f"at most {self.target.upper_limit(disagreement):.2f} % with 95 % confidence"
            images = f" on {self.target.images} held-out images{f', {upper}' if self.target.has_interval else ''}"
            found.append(f"disagreement is {disagreement:.2f} %{images} (allowed: {self.target.limit:g} %)")
        if self.max_drop is not None and trial.compared.drop is not None and trial.compared.drop > self.max_drop:
            found.append(
                f"top-1 on held-out images falls by {trial.compared.drop:.2f} points (allowed: {self.max_drop:g})"
            )
        return found


def _meet(
    limits: _Limits, first: Trial, names: tuple[str, ...], most: int, prune_except: PruneExcept
) -> dict[int, Trial]:
    """Return the trials by the number of layers left dense, the fewest that meet the limits last; ``most`` at most."""
    trials = {0: first}
    if not limits.failures(first):
        return trials

    def meets(count: int) -> bool:
        trials[count] = prune_except(names[:count])
        return not limits.failures(trials[count])

    too_many = min(most + 1, len(names))
    count = fewest(too_many, meets)
    last = [*trials][-1]
    if count == too_many:
        missed = " and ".join(limits.failures(trials[last]))
        raise InputError(
            f"the limits cannot be met: with {len(names) - last} of {len(names)} layers pruned, {missed}",
            "Raise the limit, lower --min-speedup if it is given, or use more --samples or --quality best.",
        )
    if last != count:  # the model has the weights of a later trial
        del trials[count]
        trials[count] = prune_except(names[:count])
    return trials
