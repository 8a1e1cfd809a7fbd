"""One process at a time holds a lock, even after its last holder was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from sparsegpt_cli.resume import locked, locked_file
from sparsegpt_core.errors import InputError
from sparsegpt_core.files import take_lock
from tests.support.paths import ROOT

HOLDER = """
import sys, time
from pathlib import Path
from sparsegpt_cli.resume.lock import locked, locked_file
with {name}(Path(sys.argv[1]), "training"):
    print("in", flush=True)
    time.sleep(600)
"""


@pytest.fixture(params=[locked, locked_file], ids=lambda lock: lock.__name__)
def lock(request):
    return request.param


def holder(lock, path) -> subprocess.Popen:
    script = HOLDER.format(name=lock.__name__)
    process = subprocess.Popen([sys.executable, "-c", script, path], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "in\n"
    return process


def test_a_second_process_is_refused_until_the_first_is_killed(lock, tmp_path):
    path = tmp_path / "net"
    first = holder(lock, path)
    with pytest.raises(InputError, match=f"another training writes to {path}"), lock(path, "training"):
        pytest.fail("both are in")
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    with lock(path, "training"):
        pass


def test_the_lock_of_a_file_is_removed(tmp_path):
    path = tmp_path / "new" / "net.safetensors"
    with locked_file(path, "training"):
        assert [each.name for each in path.parent.iterdir()] == [".net.safetensors.lock"]
    assert not list(path.parent.iterdir())
    with locked_file(path, "training"), locked_file(path.with_name("other"), "training"):
        pass


def test_a_lock_that_its_holder_just_removed_is_not_a_lock(tmp_path, monkeypatch):
    """The holder of a file's lock removes it. A process that opened it before then holds a lock that nobody sees."""
    path = tmp_path / "net"

    def late(handle, lock):
        lock.unlink()
        return take_lock(handle, lock)

    monkeypatch.setattr("sparsegpt_cli.resume.lock.take_lock", late)
    with pytest.raises(InputError, match="another training"), locked_file(path, "training"):
        pytest.fail("a lock that nobody sees")
