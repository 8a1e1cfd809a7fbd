"""Compiles stand-ins for NVIDIA's libraries, and runs stand-in engines on the stand-in driver."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from tests.support.fake_gpu import FakeGPU
from tests.support.paths import ROOT

BINDINGS = Path(sys.prefix) / "bindings"
"""Where `make gpu-contract` installs the bindings of several versions; other environments lack it."""

LIBCUDA = ROOT / "tests/support/libcuda.c"
"""The stand-in driver's GPUs and contexts. It compiles without NVIDIA's headers."""

HOST_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def compile_library(path: Path, *sources: Path, empty: Iterable[str] = ()) -> Path:
    """Compile a shared library from C files, and from functions that do nothing and return ``CUDA_SUCCESS``."""
    functions = path.with_suffix(".c")
    functions.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in sorted(empty)))
    headers = next(Path(sys.prefix).glob("lib/python*/site-packages/nvidia/cu13/include"))
    command = ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{headers}"]
    subprocess.run([*command, f"-Wl,-soname,{path.name}", "-o", path, *sources, functions], check=True)
    return path


def compile_driver(folder: Path) -> Path:
    """Compile the stand-in driver. The functions that it lacks return ``CUDA_ERROR_NOT_SUPPORTED``."""
    sources, rest = (LIBCUDA, ROOT / "tests/gpu_contract/driver.c"), folder / "rest.c"
    pycuda = next(Path(sys.prefix).glob("lib/python*/site-packages/pycuda/_driver*.so"))
    missing = sorted(name for name in undefined_symbols(pycuda) if name.startswith("cu"))
    rest.write_text("".join(f"__attribute__((weak)) int {name}(void) {{ return 801; }}\n" for name in missing))
    return compile_library(folder / "libcuda.so.1", *sources, rest)


def undefined_symbols(library: Path) -> set[str]:
    """Return the functions that a library takes from NVIDIA's libraries: unlike the system's they have no version."""
    listed = subprocess.run(
        ["nm", "-D", "--undefined-only", library], check=True, capture_output=True, text=True
    ).stdout
    names = {line.split()[-1] for line in listed.splitlines()}
    system = ("Py", "_Py", "_ITM_", "_ZGTt", "__", "dl", "pthread_")
    return {name for name in names if "@" not in name and not name.startswith(system)}


def environment(**variables: str) -> dict[str, str]:
    """Return this process's environment with some variables set."""
    return {**os.environ, **variables}


class Driver:
    """The stand-in driver in this process. ``driver["streams"]`` is its variable ``standin_streams``."""

    def __init__(self, path: Path) -> None:
        self.path, self.library = path, ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
        self._fails = ctypes.c_char_p.in_dll(self.library, "standin_fails")  # keeps the text that it points to

    def __getitem__(self, name: str) -> int:
        return ctypes.c_long.in_dll(self.library, f"standin_{name}").value

    def __setitem__(self, name: str, value: int) -> None:
        ctypes.c_long.in_dll(self.library, f"standin_{name}").value = value

    def fail(self, function: str) -> None:
        """Let each further call of a function fail; no function where the name is empty."""
        self._fails.value = function.encode()

    def in_use(self) -> dict[str, int]:
        """Return what was created and not freed."""
        names = ("streams", "events", "graphs", "captures")
        return {"allocations": self["allocations"] - self["frees"], **{name: self[name] for name in names}}


class DriverGPU(FakeGPU):
    """Stand-in engines whose work the driver does: a host function on the stream, on the driver's memory."""

    def __init__(self, driver: Driver) -> None:
        super().__init__()
        self.streams, self.addresses = _Streams(driver), _Memory(driver)


class _Streams:
    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.functions: list[object] = []  # the driver may still call them

    def __getitem__(self, handle: int) -> _Stream:
        return _Stream(self.driver, handle, self.functions)


class _Stream:
    def __init__(self, driver: Driver, handle: int, functions: list[object]) -> None:
        self.driver, self.handle, self.functions = driver, handle, functions

    @property
    def captured(self) -> int | None:
        return self.driver["captures"] or None

    def put(self, name: str, work: Callable[[], None]) -> None:
        function = HOST_FUNCTION(lambda _: work())
        self.functions.append(function)
        assert self.driver.library.cuLaunchHostFunc(ctypes.c_void_p(self.handle), function, None) == 0


class _Memory:
    def __init__(self, driver: Driver) -> None:
        self.driver = driver

    def __getitem__(self, address: int) -> np.ndarray:
        start, size = ctypes.c_uint64(), ctypes.c_size_t()
        found = self.driver.library.cuMemGetAddressRange_v2(
            ctypes.byref(start), ctypes.byref(size), ctypes.c_uint64(address)
        )
        assert (found, start.value) == (0, address)
        return np.ctypeslib.as_array((ctypes.c_uint8 * size.value).from_address(address))
