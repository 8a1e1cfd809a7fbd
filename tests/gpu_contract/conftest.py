"""The stand-in driver, on which real PyCUDA and cuda-python run."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from tests.support.standin import BINDINGS, Driver, compile_driver


@pytest.fixture(scope="session")
def loaded_driver(tmp_path_factory) -> Iterator[Driver]:
    if not BINDINGS.is_dir():
        pytest.skip("`make gpu-contract` installs PyCUDA and what the stand-in driver needs")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        yield Driver(compile_driver(tmp_path_factory.mktemp("driver")))


@pytest.fixture
def driver(loaded_driver: Driver) -> Iterator[Driver]:
    """The driver, with nothing in use before the test and after it."""
    free = loaded_driver["free_bytes"], loaded_driver["free_host_bytes"]
    assert set(loaded_driver.in_use().values()) == {0}
    yield loaded_driver
    loaded_driver.fail("")
    gc.collect()  # PyCUDA's streams and events are freed with their Python objects
    assert set(loaded_driver.in_use().values()) == {0}, loaded_driver.in_use()
    loaded_driver["free_bytes"], loaded_driver["free_host_bytes"] = free
