"""Stand-ins for TensorRT, PyCUDA and cuda-python that run a stream's work only when a caller waits for it.

An engine's logits are the sums of each image's quarters, so a test can compute the right result. ``calls`` records
every call. Memory that was not computed yet contains garbage, as on a GPU.
"""

from __future__ import annotations

import enum
import hashlib
import json
import weakref
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np

from sparsegpt_core.files import sidecar_path


class DataType(enum.Enum):
    FLOAT, HALF, INT8, INT32, BF16 = range(5)


class Mode(enum.Enum):
    NONE, INPUT, OUTPUT = range(3)


IMAGE_MS = 0.25
"""The time that an engine takes for an image."""
NUMPY = {DataType.FLOAT: np.float32, DataType.HALF: np.float16, DataType.INT8: np.int8, DataType.INT32: np.int32}


class FakeGPU:
    """The modules ``trt``, ``pycuda`` and ``driver``, and the calls to them.

    ``capture`` makes stream capture fail at the call of that name. ``memory`` is the number of free bytes. ``idle_ms``
    is the time that the first work after a wait takes to reach the GPU. ``most_open`` is the most engines that were
    open at one time, ``most_contexts`` the most execution contexts of one engine; engines count both.
    """

    def __init__(self) -> None:
        self.calls: list[tuple] = []
        self.memory = 1 << 30
        self.capture = ""
        self.refuses_to_run = False
        self.plan = {"batches": (1, 4, 8), "input": DataType.FLOAT, "output": DataType.FLOAT, "inputs": 1, "rank": 2}
        self.addresses: dict[int, np.ndarray] = {}
        self.streams: dict[int, FakeStream] = {}
        self.now_ms = 0.0
        self.open_engines: weakref.WeakSet = weakref.WeakSet()
        self.most_open = self.most_contexts = 0
        self.idle_ms, self.idle = 0.0, True
        self.pycuda, self.trt, self.driver = self._pycuda(), self._trt(), self._driver()

    def record_call(self, *call: object) -> None:
        self.calls.append(call)

    def names(self) -> list[str]:
        return [str(call[0]) for call in self.calls]

    def _pycuda(self) -> ModuleType:
        gpu, module = self, ModuleType("pycuda.driver")
        module.Error = type("Error", (Exception,), {})
        module.MemoryError = type("MemoryError", (module.Error,), {})
        module.LogicError = type("LogicError", (module.Error,), {})

        class HostMemory(np.ndarray):
            @property
            def base(self):
                return SimpleNamespace(free=lambda: gpu.record_call("free_host"))

        def pagelocked_empty(shape, dtype):
            made = np.ones(shape, dtype).view(HostMemory)
            gpu.record_call("pagelocked_empty", shape, np.dtype(dtype).name)
            return made

        class Allocation:
            def __init__(self, size):
                self.address = 0x1000 * (len(gpu.addresses) + 1)
                gpu.addresses[self.address] = np.full(size, 77, np.uint8)
                self.size = size

            def __int__(self):
                return self.address

            def free(self):
                gpu.record_call("free", self.address)
                gpu.memory += self.size
                del gpu.addresses[self.address]

        def mem_alloc(size):
            gpu.record_call("mem_alloc", size)
            if size > gpu.memory:
                raise module.MemoryError("cuMemAlloc failed: out of memory")
            gpu.memory -= size
            return Allocation(size)

        def memcpy_htod_async(dest, src, stream):
            assert src.flags.c_contiguous

            def copy():
                gpu.addresses[int(dest)][: src.nbytes] = np.frombuffer(src.tobytes(), np.uint8)

            stream.put("htod", copy)

        def memcpy_dtoh_async(dest, src, stream):
            def copy():
                dest[...] = gpu.addresses[int(src)][: dest.nbytes].view(dest.dtype).reshape(dest.shape)

            stream.put("dtoh", copy)

        class Event:
            at = None

            def record(self, stream):
                stream.put("record", lambda: setattr(self, "at", gpu.now_ms))
                return self

            def synchronize(self):
                gpu.record_call("event_synchronize")
                for stream in gpu.streams.values():
                    stream.drain()
                gpu.idle = True
                return self

            def time_since(self, other):
                if self.at is None or other.at is None:
                    raise module.LogicError("cuEventElapsedTime failed: invalid value")
                return self.at - other.at

        context = SimpleNamespace(push=lambda: gpu.record_call("push"), pop=lambda: gpu.record_call("pop"))
        module.init = lambda: gpu.record_call("init")
        module.Device = lambda number: SimpleNamespace(retain_primary_context=lambda: context)
        module.Stream = lambda flags=0: FakeStream(gpu, flags)
        module.Event = Event
        module.pagelocked_empty, module.mem_alloc = pagelocked_empty, mem_alloc
        module.mem_get_info = lambda: (gpu.memory, 1 << 34)
        module.memcpy_htod_async, module.memcpy_dtoh_async = memcpy_htod_async, memcpy_dtoh_async
        module.Context = SimpleNamespace(get_device=lambda: SimpleNamespace(pci_bus_id=lambda: "0000:65:00.0"))
        return module

    def _trt(self) -> ModuleType:
        gpu, module = self, ModuleType("tensorrt")
        module.__version__ = "10.9.0"
        module.Builder = object
        module.ILogger = type("ILogger", (), {"__init__": lambda self: None})
        module.IProfiler = type("IProfiler", (), {"__init__": lambda self: None})
        module.TensorIOMode = Mode

        class Runtime:
            def __init__(self, logger):
                self.logger = logger

            def deserialize_cuda_engine(self, plan):
                gpu.record_call("deserialize", vars(self).get("engine_host_code_allowed", False))
                if plan != b"plan":
                    self.logger.log(SimpleNamespace(name="ERROR"), "IRuntime::deserializeCudaEngine: bad magic tag")
                    return None
                return FakeEngine(gpu, self.logger)

        module.Runtime = Runtime
        return module

    def _driver(self) -> ModuleType:
        gpu, module = self, ModuleType("cuda.bindings.driver")
        result = enum.IntEnum("CUresult", {"CUDA_SUCCESS": 0, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED": 901})

        def answer(name, *values):
            gpu.record_call(name)
            failed = gpu.capture == name
            return (result.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED if failed else result.CUDA_SUCCESS, *values)

        def begin(stream, mode):
            outcome = answer("cuStreamBeginCapture")
            if outcome[0] == result.CUDA_SUCCESS:
                stream.captured = []
            return outcome

        def end(stream):
            graph, stream.captured = stream.captured, None
            return answer("cuStreamEndCapture", graph)

        def launch(graph, stream):
            for name, work in graph:
                stream.put(name, work)
            return answer("cuGraphLaunch")

        module.CUresult = result
        module.CUstream = lambda handle: gpu.streams[handle]
        module.CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL=1)
        module.cuStreamBeginCapture, module.cuStreamEndCapture = begin, end
        module.cuGraphInstantiate = lambda graph, flags: answer("cuGraphInstantiate", graph)
        module.cuGraphDestroy = lambda graph: answer("cuGraphDestroy")
        module.cuGraphLaunch = launch
        module.cuGraphExecDestroy = lambda graph: answer("cuGraphExecDestroy")
        return module


class FakeStream:
    """A queue of work that runs when a caller waits for the stream."""

    def __init__(self, gpu: FakeGPU, flags: int) -> None:
        self.gpu, self.flags, self.handle = gpu, flags, 0x77 + len(gpu.streams)
        self.queue: list = []
        self.captured: list | None = None
        gpu.streams[self.handle] = self
        gpu.record_call("Stream", flags)

    def put(self, name, work):
        if self.captured is not None:
            self.captured.append((name, work))
        else:
            self.gpu.record_call(name, self.handle)
            self.queue.append(work)

    def wait_for_event(self, event):
        self.put("wait_for_event", lambda: None)

    def drain(self):
        queue, self.queue = self.queue, []
        for work in queue:
            work()

    def synchronize(self):
        assert self.captured is None, "a stream in capture mode cannot be synchronized"
        self.gpu.record_call("synchronize", self.handle)
        self.drain()


class FakeEngine:
    """Turns images (N, 1, 8, 8) into logits (N, 4): the sums of each image's quarters, over all inputs."""

    def __init__(self, gpu: FakeGPU, logger) -> None:
        self.gpu, self.logger = gpu, logger
        self.names = [*(f"image{index or ''}" for index in range(gpu.plan["inputs"])), "logits"]
        self.num_io_tensors = len(self.names)

    def get_tensor_name(self, index):
        return self.names[index]

    def get_tensor_mode(self, name):
        return Mode.OUTPUT if name == "logits" else Mode.INPUT

    def get_tensor_dtype(self, name):
        return self.gpu.plan["output" if name == "logits" else "input"]

    def get_tensor_shape(self, name):
        return (-1, 4) if name == "logits" else (-1, 1, 8, 8)

    def get_tensor_profile_shape(self, name, index):
        assert name != "logits", "outputs have no profile"
        assert index == 0
        return [(batch, 1, 8, 8) for batch in self.gpu.plan["batches"]]

    def create_execution_context(self):
        self.gpu.record_call("create_execution_context")
        return FakeContext(self)


class FakeContext:
    def __init__(self, engine: FakeEngine) -> None:
        self.engine, self.gpu = engine, engine.gpu
        self.shapes: dict[str, tuple] = {}
        self.address: dict[str, int] = {}
        self.profiler = None

    def __del__(self):
        self.gpu.record_call("~context")

    def set_input_shape(self, name, shape):
        self.gpu.record_call("set_input_shape", name, shape)
        low, _, high = self.gpu.plan["batches"]
        if not low <= shape[0] <= high:
            self.engine.logger.log(SimpleNamespace(name="ERROR"), "setInputShape: outside the profile")
            return False
        self.shapes[name] = shape
        return True

    def get_tensor_shape(self, name):
        rank = self.gpu.plan["rank"]
        batch = self.shapes["image"][0]
        return {2: (batch, 4), 3: (batch, 2, 2), -1: (-1, 4)}[rank]

    def set_tensor_address(self, name, address):
        assert isinstance(address, int)
        self.address[name] = address
        return True

    def execute_async_v3(self, handle):
        gpu, shape, address = self.gpu, self.shapes["image"], dict(self.address)
        assert {*self.shapes.values()} == {shape}, "every input needs a shape"
        assert len(self.shapes) == gpu.plan["inputs"]
        assert set(address) == set(self.engine.names), "every tensor needs an address"
        if gpu.refuses_to_run or (gpu.capture == "execute" and gpu.streams[handle].captured is not None):
            self.engine.logger.log(SimpleNamespace(name="ERROR"), "enqueueV3: operation not permitted")
            return False

        def work():
            dtype, count = NUMPY[gpu.plan["input"]], int(np.prod(shape))
            inputs = [gpu.addresses[address[name]].view(dtype)[:count] for name in self.shapes]
            images = sum(values.astype(np.float32) for values in inputs).reshape(shape[0], 4, 16)
            logits = images.sum(axis=2).astype(NUMPY[gpu.plan["output"]])
            gpu.addresses[address["logits"]][: logits.nbytes] = np.frombuffer(logits.tobytes(), np.uint8)
            gpu.now_ms += IMAGE_MS * shape[0] + (gpu.idle_ms if gpu.idle else 0)
            gpu.idle = False

        gpu.streams[handle].put("execute", work)
        if self.profiler:
            for name, ms in (("conv", 0.5), ("fused", 0.125), ("fused", 0.25)):
                self.profiler.report_layer_time(name, ms)
        return True


def write_plan(path: Path, backend: str = "tensorrt", content: bytes = b"plan", **settings: object) -> Path:
    """Write a plan and its sidecar."""
    path.write_bytes(content)
    record = {"backend": backend, "backend_version": "10.9.0", "sha256": hashlib.sha256(content).hexdigest()}
    record["settings"] = settings
    sidecar_path(path).write_text(json.dumps(record))
    return path
