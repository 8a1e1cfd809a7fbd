"""Compares dense with sparse on ONNX Runtime's TensorRT execution provider, which builds its own engines.

Option names: ``tensorrt_execution_provider_info.cc`` in ONNX Runtime's sources, and
https://onnxruntime.ai/docs/execution-providers/TensorRT-ExecutionProvider.html.
"""

from __future__ import annotations

import contextlib
import operator
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Dict, List, Optional, Tuple, Union

from deploy.benchmark.arms import ARMS
from deploy.benchmark.comparable import check_pair, check_sparse_kernels
from deploy.benchmark.cost import Cost, estimate_cost
from deploy.benchmark.measure_arms import EngineSettings
from deploy.benchmark.result import BenchmarkResult, Timed, describe_models, quality_sentence
from deploy.benchmark.timed_images import first_images, latency_images
from deploy.builder import BuildSettings
from deploy.explain import Evidence, explain
from deploy.graph import DEFAULT_BATCHES, Graph, OnnxFile
from deploy.machine import TENSORRT_PROVIDER, describe_environment, find_gpu, free_memory, require
from deploy.measure import (
    HostTimer,
    LabelledImages,
    LatencyReport,
    Metric,
    compare_versions,
    join_rebuilds,
    measure_latency,
)
from deploy.sessions import OnnxSession, check_inputs
from sparsegpt_core.errors import InputError, ModelError, SparseGPTError
from sparsegpt_core.named_inputs import Arrays
from sparsegpt_core.progress import Progress, Say, silent

__all__ = ["benchmark_tensorrt_provider", "provider_options"]

_USED_SETTINGS = ("opt_level", "workspace")  # of BuildSettings; the arms set `sparse`
_REGIME_NOTE = "ONNX Runtime is timed by the host's clock, on one stream and without CUDA graphs."
_NODES_NOTE = "This ONNX Runtime does not say which nodes run outside TensorRT; 1.24 and later say it."
_MAX_NAMES = 5  # in a warning

Arms = Mapping[str, List[OnnxSession]]
"""The open sessions of each arm, one for each rebuild."""


def benchmark_tensorrt_provider(
    dense: Union[Path, OnnxFile],
    sparse: Union[Path, OnnxFile],
    batches: Iterable[LabelledImages],
    settings: Optional[EngineSettings] = None,
    progress: Progress = silent,
    say: Say = lambda _: None,
    metric: Optional[Metric] = None,
) -> BenchmarkResult:
    """Compare two ONNX files on ONNX Runtime's TensorRT provider, in the three arms A, B and C.

    Args:
        dense: The dense ONNX file, the reference.
        sparse: Its pruned version.
        batches: Normalised evaluation images (N, C, H, W) with labels (N) or None.
        settings: How to build and time engines. ``plans``, streams and most build settings have no such option here.
        progress: Receives the stages ``engines``, ``latency`` and ``accuracy``.
        say: Called with what the engines cost, before they are built.
        metric: Compared beside accuracy, or beside output errors where the outputs are no logits.

    Raises:
        InputError: A file, the images or a setting does not fit, the files are FP32 or not the dense and the sparse
            version of one network in one precision, or the provider does not start.
        ModelError: TensorRT runs no node of a file.
        NumericsError: A model returns NaN or infinity.
        MissingDependencyError: onnxruntime is not installed.

    Example:
        >>> result = benchmark_tensorrt_provider(Path("dense.onnx"), Path("sparse.onnx"), batches)  # doctest: +SKIP
        >>> result.speedup["B_to_C"]  # doctest: +SKIP
        Ratio(ratio=1.08, low=1.06, high=1.10)
    """
    settings = settings or EngineSettings()
    _check(settings)
    files = {"dense": OnnxFile.of(dense), "sparse": OnnxFile.of(sparse)}
    references = {name: OnnxSession(file) for name, file in files.items()}
    check_pair(files["dense"], files["sparse"])
    check_sparse_kernels(files["dense"], files["sparse"])
    total = operator.length_hint(batches)
    first, batches = first_images(batches)
    images, *further = portions = [
        latency_images(references, first, batch, DEFAULT_BATCHES[1]) for batch in settings.batches or (None,)
    ]
    shapes = [_shapes(files["sparse"], each) for each in portions]
    cost = estimate_cost(files["sparse"].graph, shapes, settings.rebuilds, free_bytes=_free_memory())
    say(str(cost))
    with _timed_arms(files, images, settings, cost, progress) as (arms, found):
        timed = [found]
        compared = compare_versions(  # names no session of an engine, which lives as long as its name
            {
                **{name: session.outputs for name, session in references.items()},
                **{arm: arms[arm][0].outputs for arm in arms},
            },
            batches,
            metric,
            seed=settings.seed,
            progress=progress,
            total=total,
        )
    for each in further:
        with _timed_arms(files, each, settings, cost, progress) as (_, found):
            timed.append(found)
    gpu = find_gpu()
    sentence = quality_sentence(compared, "C")
    return BenchmarkResult(
        runtime=f"onnxruntime {require('onnxruntime').__version__} TensorRT on {gpu.name if gpu else 'an unknown GPU'}",
        compared=compared,
        timed=timed,
        verdict=f"{sentence} In ONNX Runtime's TensorRT provider: {timed[0].verdict}",
        models=describe_models(files["dense"], files["sparse"]),
        environment=describe_environment(),
        cost=cost,
    )


def provider_options(graph: Graph, sparse: bool, cache: Path, build: BuildSettings) -> Dict[str, str]:
    """Return the options of the TensorRT provider for one engine.

    The provider builds weakly typed networks, so the precisions of the file's types are enabled, as ``build`` does with
    8.x: the layers of a Q/DQ graph that are not quantised run in FP16. FP16 is not enabled for FP32 files: an FP16 file
    was compared with PyTorch when it was exported. Engines are not cached: each session builds its own. Timings of
    tactics are, so that arms of one rebuild share kernels.

    Args:
        graph: The graph to build.
        sparse: Whether the builder may use sparse kernels.
        cache: The folder of the timing cache.
        build: ``opt_level`` and ``workspace`` are used.

    Example:
        >>> import onnx
        >>> model = onnx.parser.parse_model('''<ir_version: 8, opset_import: ["": 17]>
        ...     g (float16[N, 2] x) => (float16[N, 1] y) <float16[2, 1] w = {1, 0}> { y = MatMul(x, w) }''')
        >>> onnx.save(model, "model.onnx")
        >>> options = provider_options(OnnxFile(Path("model.onnx")).graph, True, Path("cache"), BuildSettings())
        >>> options["trt_sparsity_enable"], options["trt_fp16_enable"], options["trt_int8_enable"]
        ('1', '1', '0')
    """
    options = {
        "trt_sparsity_enable": sparse,
        "trt_fp16_enable": graph.fp16 or graph.quantized,
        "trt_int8_enable": graph.quantized,
        "trt_engine_cache_enable": False,
        "trt_timing_cache_enable": True,
    }
    found = {name: str(int(value)) for name, value in options.items()}
    found["trt_timing_cache_path"] = str(cache)
    if "BFLOAT16" in graph.types:
        found["trt_bf16_enable"] = "1"  # unknown to older versions, so it is given only where it is needed
    if build.opt_level is not None:
        found["trt_builder_optimization_level"] = str(build.opt_level)
    if build.workspace is not None:
        found["trt_max_workspace_size"] = str(build.workspace)
    return found


def _check(settings: EngineSettings) -> None:
    """Refuse settings that the provider has no option for.

    Raises:
        InputError: There are such settings.
    """
    build, default = settings.build, BuildSettings()
    unused = [
        each.name
        for each in fields(BuildSettings)
        if each.name not in _USED_SETTINGS and getattr(build, each.name) != getattr(default, each.name)
    ]
    unused += ["plans"] * (settings.plans is not None) + ["streams"] * (settings.regime.streams != 1)
    if unused:
        raise InputError(
            f"ONNX Runtime's TensorRT provider has no {', '.join(f'`{name}`' for name in unused)}",
            "Leave these settings out, or use `runtime=tensorrt`.",
        )
    if settings.rebuilds < 1:
        raise InputError(f"cannot build engines {settings.rebuilds} times", "Set `rebuilds` to at least 1.")


def _shapes(sparse: OnnxFile, images: Arrays) -> Dict[str, Tuple[int, ...]]:
    """Return the shape of each input."""
    inputs = check_inputs(sparse.path.name, sparse.graph.inputs, images)
    return {name: values.shape for name, values in inputs.items()}


def _free_memory() -> Optional[int]:
    """Return the GPU's free memory; None without PyCUDA, which ONNX Runtime does not need."""
    try:
        return free_memory()
    except SparseGPTError:
        return None


@contextlib.contextmanager
def _timed_arms(
    files: Mapping[str, OnnxFile], images: Arrays, settings: EngineSettings, cost: Cost, progress: Progress
) -> Iterator[Tuple[Arms, Timed]]:
    """Build and time the engines of all arms; leave those of the last part open inside the ``with``."""
    *before, last = cost.parts
    reports: List[LatencyReport] = []
    shapes = _shapes(files["sparse"], images)
    for part in before:
        with _open_arms(files, shapes, settings, part, progress) as arms:
            reports.append(_time(arms, images, settings, progress))
    with _open_arms(files, shapes, settings, last, progress) as arms:
        reports.append(_time(arms, images, settings, progress))
        yield arms, _describe(join_rebuilds(reports[::-1]), arms, files["sparse"], len(images))


@contextlib.contextmanager
def _open_arms(
    files: Mapping[str, OnnxFile],
    shapes: Mapping[str, Tuple[int, ...]],
    settings: EngineSettings,
    rebuilds: Sequence[int],
    progress: Progress,
) -> Iterator[Arms]:
    """Build the engines of some rebuilds for inputs of one shape. The arms of one rebuild share a timing cache.

    Raises:
        ModelError: TensorRT runs no node of a file.
    """
    arms: Dict[str, List[OnnxSession]] = {arm: [] for arm in ARMS}
    count = len(rebuilds) * len(ARMS)
    progress("engines", 0, count)
    with tempfile.TemporaryDirectory(prefix="sparsegpt-trt.") as scratch:
        for rebuild in rebuilds:
            cache = Path(scratch, str(rebuild))
            cache.mkdir()
            for arm, (weights, flag) in ARMS.items():
                file = files[weights]
                options = provider_options(file.graph, flag, cache, settings.build)
                session = OnnxSession(file, None, TENSORRT_PROVIDER, options, shapes)
                _check_nodes(session)
                arms[arm].append(session)
                progress("engines", sum(map(len, arms.values())), count)
        del session
        try:
            yield arms
        finally:
            arms.clear()  # frees the engines


def _time(arms: Arms, images: Arrays, settings: EngineSettings, progress: Progress) -> LatencyReport:
    timers = {arm: [_timer(session, images, settings) for session in group] for arm, group in arms.items()}
    return measure_latency(timers, settings.timing, settings.seed, progress)


def _describe(latency: LatencyReport, arms: Arms, sparse: OnnxFile, batch: int) -> Timed:
    warnings = [_REGIME_NOTE, *_nodes_elsewhere(arms)]
    if latency.unsettled:
        warnings.append(f"not warm when timing began: {', '.join(latency.unsettled)}")
    speedup = {"A_to_C": latency.speedup("A", "C"), "B_to_C": latency.speedup("B", "C")}
    return Timed(latency, speedup, _verdict(sparse, latency, batch), tuple(warnings))


def _timer(session: OnnxSession, images: Arrays, settings: EngineSettings) -> HostTimer:
    transfers = settings.regime.transfers
    timer = HostTimer((lambda: session.outputs(images)) if transfers else session.bind(images), len(images))
    timer.regime = replace(timer.regime, transfers=transfers, note=_REGIME_NOTE)
    return timer


def _check_nodes(session: OnnxSession) -> None:
    nodes = session.nodes_by_provider()
    if nodes is not None and not nodes.get(TENSORRT_PROVIDER):
        raise ModelError(
            f"TensorRT runs no node of {session.name} in ONNX Runtime: the CPU or CUDA provider runs them all",
            f"Try `sparsegpt-trt build {session.name}`: TensorRT's parser says what it cannot read.",
        )


def _nodes_elsewhere(arms: Arms) -> Iterator[str]:
    """Say which nodes TensorRT leaves to other providers."""
    found: Dict[str, None] = {}  # arms B and C have the same file, and mostly the same nodes
    for group in arms.values():
        nodes = group[0].nodes_by_provider()
        if nodes is None:
            yield _NODES_NOTE
            return
        for provider, names in nodes.items():
            if provider != TENSORRT_PROVIDER:
                shown = ", ".join(names[:_MAX_NAMES]) + (", ..." if len(names) > _MAX_NAMES else "")
                found[f"nodes of {group[0].name} outside TensorRT, on {provider}: {len(names)} ({shown})"] = None
    yield from found


def _verdict(sparse: OnnxFile, latency: LatencyReport, batch: int) -> str:
    gpu, has_kernels = find_gpu(), sparse.graph.has_sparse_kernels
    capability = gpu.compute_capability if gpu else None
    evidence = {flag: Evidence(flag, has_kernels, capability) for flag in (True, False)}
    speedup = latency.speedup("A", "C")
    return explain(sparse.audit, evidence[True], evidence[False], speedup, latency.noise, batch).verdict
