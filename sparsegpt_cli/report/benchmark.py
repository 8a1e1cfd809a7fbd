"""The content of benchmark.json, as the report shows it. Benchmarks on engines have explanations too."""

from __future__ import annotations

import math
import statistics
from itertools import chain
from pathlib import Path

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
    "A_to_C": "A to C: total gain of pruning",
    "B_to_C": "B to C: gain of the sparse kernels",
    "dense_to_sparse": "dense to sparse",
}
_CLOCKS = {
    "sm_mhz": "SM clock, MHz",
    "memory_mhz": "Memory clock, MHz",
    "power_w": "Power, W",
    "temperature_c": "Temperature, °C",
}
_TIMERS = {"gpu": "GPU events", "host": "the host clock"}


class Benchmark:
    """A comparison of dense with sparse. It is false if there is none.

    Args:
        fields: The file that ``benchmark --out`` wrote.
    """

    def __init__(self, fields: Fields) -> None:
        self.fields = fields

    def __bool__(self) -> bool:
        return bool(self.fields)

    @property
    def runtime(self) -> str:
        """The runtime that ran the models."""
        return self.fields.text("runtime")

    @property
    def on_engines(self) -> bool:
        """Whether the models ran in TensorRT, on a GPU."""
        return self.runtime.lower().startswith("tensorrt")

    @property
    def verdict(self) -> str:
        """The result in one sentence; for engines only the speed."""
        found = self.fields.child("explanation").text("verdict")
        return f"On engines: {found.rstrip('.')}." if found else self.fields.text("verdict")

    @property
    def warnings(self) -> list[str]:
        """Reasons to doubt the numbers."""
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
        """The measured ratios at every batch."""
        return [
            (_insert(name, at), timed.child("speedup").child(key))
            for at, timed in self._batches
            for key, name in _SPEEDUPS.items()
            if timed.child("speedup").child(key)
        ]

    @property
    def times(self) -> list[ArmTimes]:
        """The rows of the latency charts, at the first batch only, since other batches need another scale."""
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
        """The measurements at each batch, with a suffix for names if there are several."""
        timed = [self.fields, *self.fields.children("further_batches")]
        several = len(timed) > 1
        return [(f" at batch {count(each.number('latency_batch'))}" if several else "", each) for each in timed]

    @property
    def gain(self) -> Fields:
        """The speed-up of arm C over arm A on engines; empty if it was not measured."""
        return self.fields.child("speedup").child("A_to_C") if self.on_engines else Fields({}, Path())

    @property
    def of_build(self) -> str:
        """What an interval is limited to: one build, or nothing."""
        return " of this build" if self.gain.number("rebuilds") == 1 else ""

    @property
    def noise(self) -> float | None:
        """The relative difference of two measurements of the dense model, or of its rebuilds."""
        return self.fields.number("noise")

    @property
    def regime(self) -> str:
        """How latency was timed, in a sentence; empty if it was not recorded."""
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
        """The share of the time in eligible layers, and the largest speed-up it allows; empty if it is unknown."""
        explanation = self.fields.child("explanation")
        share, ceiling = explanation.number("eligible_share"), explanation.number("ceiling")
        if share is None or ceiling is None:
            return ""
        return (
            f"Eligible layers take {percent(share, 0)} of arm B's time. Sparse tensor cores at best halve it, so the "
            f"speed-up over dense kernels is at most {fixed(ceiling)}×."
        )

    @property
    def layers(self) -> list[tuple[str, Fields]]:
        """Every layer with its kernel in the engine: ``sparse``, ``dense`` or ``unknown``."""
        return [(_kernel(layer), layer) for layer in self.fields.child("explanation").children("layers")]

    @property
    def rows(self) -> dict[str, str]:
        """The ids of the rows in the table of the engines' layers, by layer; empty unless engines were timed."""
        layers = self.layers if self.on_engines else []
        return {layer.text("name"): f"engine-layer-{place}" for place, (_, layer) in enumerate(layers)}

    @property
    def reasons(self) -> list[ReasonGroup]:
        """The layers without a sparse kernel or without a gain, by reason."""
        explained = [layer for _, layer in self.layers if layer.text("reason")]
        return group_by_reason((layer.text("reason"), layer.text("name")) for layer in explained)

    @property
    def kernels(self) -> dict[str, int]:
        """The number of layers by kind of kernel."""
        kinds = [kind for kind, _ in self.layers]
        return {kind: kinds.count(kind) for kind in ("sparse", "dense", "unknown")}

    @property
    def builds(self) -> list[tuple[str, Fields]]:
        """Every engine that was built, with its number."""
        engines = self.fields.child("engines")
        return [(f"{arm}{number}", build) for arm in engines for number, build in enumerate(engines.children(arm), 1)]

    @property
    def clocks(self) -> list[tuple[str, Fields]]:
        """The GPU's clocks, power and temperature while timing, as far as they were recorded."""
        gpu = self.fields.child("gpu")
        return [(name, gpu.child(key)) for key, name in _CLOCKS.items() if gpu.child(key)]

    @property
    def throttling(self) -> str:
        """The reasons for which the GPU throttled its clocks, in a sentence."""
        gpu = self.fields.child("gpu")
        if gpu.flag("locked"):
            text = "The clocks were locked. "
        else:
            text = "The SM clock was steady. " if gpu.flag("steady") else ""
        held = gpu.child("throttled")
        shares = [f"{reason} ({percent(held.number(reason), 0)} of the time)" for reason in held]
        if shares:
            return f"{text}The clocks were throttled: {', '.join(shares)}."
        if gpu.has("throttled"):
            return f"{text}The clocks were not throttled."
        return f"{text}It is unknown whether the clocks were throttled."


def _arms(timed: Fields, at: str = "") -> list[tuple[str, Fields]]:
    latency = timed.child("latency")
    return [(_insert(_ARMS.get(key, key), at), latency.child(key)) for key in latency]


def _insert(name: str, at: str) -> str:
    """Insert the batch before the colon of a name."""
    head, colon, meaning = name.partition(":")
    return f"{head}{at}{colon}{meaning}"


def median_interval(values: list[float]) -> tuple[float, float] | None:
    """Return an interval that contains the median of independent values in at least 95 % of cases.

    Its ends are two of the values. It holds for every distribution, since the number of values below the median is
    binomial. Fewer than six values have no such interval: None.
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
