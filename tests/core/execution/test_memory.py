import mmap

import psutil
import pytest
import torch

from sparsegpt_cli.options import parse_size
from sparsegpt_core.errors import InputError
from sparsegpt_core.execution import available_memory, memory, peak_memory, used_memory

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("text", "size"),
    [("8GiB", 8 << 30), ("8G", 8 << 30), ("500 MB", 500 << 20), ("1.5g", 3 << 29), ("4096", 4096), ("1e9", 10**9)],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1GB", "0", "1..5G", "8 GiBs", "1e999"])
def test_what_is_no_size(text):
    with pytest.raises(InputError, match="no size of memory"):
        parse_size(text)


def test_used_and_peak_see_an_allocation():
    before = used_memory(CPU)
    with mmap.mmap(-1, 64 << 20) as block:  # not from the heap, which may have room
        for page in range(0, len(block), mmap.PAGESIZE):
            block[page] = 1
        assert used_memory(CPU) - before > 60 << 20
        assert peak_memory(CPU) >= used_memory(CPU) - (4 << 20)


def test_a_containers_limit_counts(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    free = available_memory(CPU)
    assert 0 < free <= psutil.virtual_memory().total
    (tmp_path / "memory.current").write_text("1000")
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory(CPU) > 1 << 20
    (tmp_path / "memory.max").write_text("5000\n")
    assert available_memory(CPU) == 4000
