"""Stand-ins for the engines of a benchmark's arms, and ONNX files that compute the same logits."""

from __future__ import annotations

import json
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
from onnx import helper, numpy_helper

from deploy.builder.compiler import Compiled
from sparsegpt_core.errors import ModelError
from tests.support.fake_gpu import FakeContext, FakeEngine, FakeGPU

KERNELS = {"A": "sm80_gemm_f16", "B": "sm80_gemm_f16", "C": "sm80_spgemm_f16"}
CHOSE = [
    "(Sparsity) Found 1 layer(s) eligible to use sparse tactics",
    "(Sparsity) Chose 1 layer(s) using sparse tactics",
]


class Context(FakeContext):
    """An execution context that takes twice as long in arms A and B, and counts itself among those of its engine."""

    def __init__(self, engine) -> None:
        super().__init__(engine)
        engine.contexts.add(self)
        self.gpu.most_contexts = max(self.gpu.most_contexts, len(engine.contexts))

    def execute_async_v3(self, handle):
        done = super().execute_async_v3(handle)
        if self.engine.arm != "C":
            self.gpu.streams[handle].put("more", self.more)
        return done

    def more(self):
        self.gpu.now_ms += 0.25 * self.shapes["image"][0]


class Engine(FakeEngine):
    """An engine that counts itself among those of its GPU that are open."""

    def __init__(self, gpu, logger, arm: str) -> None:
        super().__init__(gpu, logger)
        self.arm, self.contexts = arm, weakref.WeakSet()
        gpu.open_engines.add(self)
        gpu.most_open = max(gpu.most_open, len(gpu.open_engines))

    def create_execution_context(self):
        return Context(self)

    def create_engine_inspector(self):
        layers = [{"Name": "conv", "TacticName": KERNELS[self.arm], "HasSparseWeights": 1}]
        return SimpleNamespace(get_engine_information=lambda _: json.dumps({"Layers": layers}))


class Builder:
    """Records every build; build number ``fails_at`` fails."""

    def __init__(self, gpu: FakeGPU) -> None:
        self.gpu, self.asked, self.fails_at = gpu, [], 0

    def __call__(self, backend, path, graph, profile, settings, capability, progress=None) -> Compiled:
        self.asked.append((path.name, settings.sparse, settings.timing_cache, profile))
        if len(self.asked) == self.fails_at:
            raise ModelError(f"tensorrt cannot build {path}: out of luck")
        self.gpu.plan["batches"] = tuple(shape[0] for shape in profile["image"])
        arm = "C" if settings.sparse else "B" if path.name.startswith("sparse") else "A"
        return Compiled(f"plan {arm}".encode(), CHOSE if settings.sparse else [], [], {"tf32": True}, 0.5)


def classifier(path: Path, weight: np.ndarray, batch: int | str = "N", dtype=np.float16) -> Path:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["image"], ["flat"]),
            helper.make_node("Gemm", ["flat", "weight"], ["logits"], name="conv", transB=1),
        ],
        "sums",
        [helper.make_tensor_value_info("image", kind, [batch, 1, 8, 8])],
        [helper.make_tensor_value_info("logits", kind, [batch, 4])],
        [numpy_helper.from_array(weight.astype(dtype), "weight")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path
