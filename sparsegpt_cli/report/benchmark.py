"""What the report says of benchmark.json: on ONNX Runtime figures alone, on engines also why they are as they are."""

from __future__ import annotations

import math
import statistics
from itertools import chain

from sparsegpt_cli.report.accuracy import Arm, read_arms
from sparsegpt_cli.report.engine_charts import ArmTimes, Gain
from sparsegpt_cli.report.fields import Fields
from sparsegpt_cli.report.formats import count, fixed, percent
from sparsegpt_cli.report.reasons import ReasonGroup, group_by_reason

__all__ = ["Benchmark", "median_interval"]

_ARMS = {
    "A": "A: dense weights, sparse flag off",
    "B": "B: sparse weights, sparse flag off",
    "C": "C: sparse weights, sparse flag on",
}
_REFERENCES = {"dense": "Dense, ONNX Runtime", "sparse": "Sparse, ONNX Runtime"}
_SPEEDUPS = {
    "A_to_C": "A to C: what pruning gains in all",
    "B_to_C": "B to C: what the sparse kernels gain",
    "dense_to_sparse": "dense to sparse",
}
_CLOCKS = {
    "sm_mhz": "SM clock, MHz",
    "memory_mhz": "Memory clock, MHz",
    "power_w": "Power, W",
    "temperature_c": "Temperature, °C",
}
_TIMERS = {"gpu": "events on the GPU's stream", "host": "the host's clock"}


class Benchmark:
    """A comparison of dense with sparse; false where there is none.

    Args:
        fields: What ``benchmark --out`` wrote.
    """

    def __init__(self, fields: Fields) -> None:
        self.fields = fields

    def __bool__(self) -> bool:
        return bool(self.fields)

    @property
    def runtime(self) -> str:
        """What ran the models."""
        return self.fields.text("runtime")

    @property
    def on_engines(self) -> bool:
        """Whether it ran on TensorRT, hence on a GPU."""
        return self.runtime.lower().startswith("tensorrt")

    @property
    def verdict(self) -> str:
        """What came of it; of engines their speed alone, in one sentence."""
        found = self.fields.child("explanation").text("verdict")
        return f"On engines: {found.rstrip('.')}." if found else self.fields.text("verdict")

    @property
    def warnings(self) -> list[str]:
        """What makes the figures doubtful."""
        return self.fields.strings("warnings")

    @property
    def accuracy(self) -> list[Arm]:
        """The accuracy of every arm."""
        names = {**_REFERENCES, **_ARMS} if self.on_engines else {"dense": "Dense", "sparse": "Sparse"}
        return read_arms(self.fields.child("accuracy"), names)

    @property
    def latency(self) -> list[tuple[str, Fields]]:
        """The latency of every arm at every batch."""
        return [row for at, timed in self._batches for row in _arms(timed, at)]

    @property
    def speedups(self) -> list[tuple[str, Fields]]:
        """The ratios that were measured at every batch."""
        return [
            (_insert(name, at), timed.child("speedup").child(key))
            for at, timed in self._batches
            for key, name in _SPEEDUPS.items()
            if timed.child("speedup").child(key)
        ]

    @property
    def times(self) -> list[ArmTimes]:
        """The rows of the charts of latency, at the first batch: others would take another scale."""
        return [times for name, arm in _arms(self.fields) if (times := _times(name, arm))]

    @property
    def gains(self) -> list[Gain]:
        """The rows of the chart of speed-ups."""
        rows = []
        for name, speedup in self.speedups:
            ratio, low, high = (speedup.number(key) for key in ("ratio", "low", "high"))
            if ratio is not None and low is not None and high is not None:
                rows.append(Gain(name.partition(":")[0], ratio, low, high))
        return rows

    @property
    def _batches(self) -> list[tuple[str, Fields]]:
        """What was timed at each batch, and how to name it where there are several."""
        timed = [self.fields, *self.fields.children("further_batches")]
        several = len(timed) > 1
        return [(f" at batch {count(each.number('latency_batch'))}" if several else "", each) for each in timed]

    @property
    def noise(self) -> float | None:
        """By what share the dense model differs from itself."""
        return self.fields.number("noise")

    @property
    def regime(self) -> str:
        """What a sample is the time of, in a sentence; empty where it was not recorded."""
        regime = self.fields.child("latency_regime")
        if not regime:
            return ""
        parts = [
            f"Timed by {_TIMERS.get(regime.text('clock'), 'an unknown clock')}",
            f"copies to and from the GPU {'included' if regime.flag('transfers') else 'left out'}",
            f"{'with' if regime.flag('cuda_graph') else 'without'} a CUDA graph",
            f"batch {count(regime.number('batch'))}",
            f"streams {count(regime.number('streams'))}",
        ]
        return ", ".join(parts) + "."

    @property
    def share(self) -> str:
        """How much of the time sparsity can touch, and the limit that this sets; empty where it is not known."""
        explanation = self.fields.child("explanation")
        share, ceiling = explanation.number("eligible_share"), explanation.number("ceiling")
        if share is None or ceiling is None:
            return ""
        return (
            f"Eligible layers take {percent(share, 0)} of arm B's time. Sparse tensor cores at best halve that: "
            f"a ceiling of {fixed(ceiling)}× over dense kernels."
        )

    @property
    def layers(self) -> list[tuple[str, Fields]]:
        """What became of every layer in the engines, with its kernel: ``sparse``, ``dense`` or ``unknown``."""
        return [(_kernel(layer), layer) for layer in self.fields.child("explanation").children("layers")]

    @property
    def reasons(self) -> list[ReasonGroup]:
        """The layers with something amiss, by what it is."""
        amiss = [layer for _, layer in self.layers if layer.text("reason")]
        return group_by_reason((layer.text("reason"), layer.text("name")) for layer in amiss)

    @property
    def kernels(self) -> dict[str, int]:
        """How many layers have which kind of kernel."""
        kinds = [kind for kind, _ in self.layers]
        return {kind: kinds.count(kind) for kind in ("sparse", "dense", "unknown")}

    @property
    def builds(self) -> list[tuple[str, Fields]]:
        """Every engine that was built, with its number where there are several of an arm."""
        engines = self.fields.child("engines")
        return [(f"{arm}{number}", build) for arm in engines for number, build in enumerate(engines.children(arm), 1)]

    @property
    def clocks(self) -> list[tuple[str, Fields]]:
        """The GPU's clocks, power and temperature meanwhile, as far as it told."""
        gpu = self.fields.child("gpu")
        return [(name, gpu.child(key)) for key, name in _CLOCKS.items() if gpu.child(key)]

    @property
    def throttling(self) -> str:
        """What held the GPU's clocks back, in a sentence."""
        gpu = self.fields.child("gpu")
        if gpu.flag("locked"):
            text = "The clocks were set by hand. "
        else:
            text = "The SM clock kept to one value. " if gpu.flag("steady") else ""
        held = gpu.child("throttled")
        shares = [f"{reason} ({percent(held.number(reason), 0)} of the time)" for reason in held]
        if shares:
            return f"{text}Clocks were held back: {', '.join(shares)}."
        known = "Nothing held the clocks back." if gpu.has("throttled") else "Whether they were held back is unknown."
        return text + known


def _arms(timed: Fields, at: str = "") -> list[tuple[str, Fields]]:
    latency = timed.child("latency")
    return [(_insert(_ARMS.get(key, key), at), latency.child(key)) for key in latency]


def _insert(name: str, at: str) -> str:
    """Put the batch before what the name's colon explains."""
    head, colon, meaning = name.partition(":")
    return f"{head}{at}{colon}{meaning}"


def median_interval(values: list[float]) -> tuple[float, float] | None:
    """Return an interval that holds the median of independent values in at least 95 % of cases.

    Two of the values themselves, whatever their distribution: the number of values below the median is binomial.
    None for fewer than six, of which no two are far enough apart.
    """
    count = len(values)
    tail, rank = 0.0, 0
    while (tail := tail + math.comb(count, rank) / 2**count) <= 0.025:
        rank += 1
    ordered = sorted(values)
    return (ordered[rank - 1], ordered[-rank]) if rank else None


def _kernel(layer: Fields) -> str:
    chosen = layer.flag("chosen")
    return "unknown" if chosen is None else "sparse" if chosen else "dense"


def _times(name: str, arm: Fields) -> ArmTimes | None:
    median = arm.number("p50_ms")
    if median is None:
        return None
    rounds = arm.number_lists("rounds_ms")
    return ArmTimes(
        name,
        median,
        arm.number("p95_ms"),
        arm.number("p99_ms"),
        median_interval([statistics.median(taken) for taken in rounds if taken]),
        tuple(chain.from_iterable(rounds)),
        tuple(arm.numbers("engines_p50_ms")),
    )
