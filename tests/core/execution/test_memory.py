import mmap

import psutil
import torch

from sparsegpt_core.execution import available_memory, memory, peak_memory, used_memory

CPU = torch.device("cpu")


def test_used_and_peak_see_an_allocation():
    before = used_memory(CPU)
    with mmap.mmap(-1, 64 << 20) as block:  # not from the heap, which may have room
        for page in range(0, len(block), mmap.PAGESIZE):
            block[page] = 1
        assert used_memory(CPU) - before > 60 << 20
        assert peak_memory(CPU) >= used_memory(CPU) - (4 << 20)


def test_pages_of_a_mapped_file_do_not_count(tmp_path):
    (tmp_path / "file").write_bytes(bytes(64 << 20))
    before, whole = used_memory(CPU), psutil.Process().memory_info().rss
    with (tmp_path / "file").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as block:
        assert not sum(block[page] for page in range(0, len(block), mmap.PAGESIZE))
        assert psutil.Process().memory_info().rss - whole > 60 << 20
        assert used_memory(CPU) - before < 4 << 20


def test_the_memory_limit_of_a_container_counts(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    free = available_memory(CPU)
    assert 0 < free <= psutil.virtual_memory().total
    (tmp_path / "memory.current").write_text("1000")
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory(CPU) > 1 << 20
    (tmp_path / "memory.max").write_text("5000\n")
    assert available_memory(CPU) == 4000


def test_page_cache_that_the_kernel_can_reclaim_is_available(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("4000\n")
    (tmp_path / "memory.stat").write_text("anon 1000\nfile 3000\ninactive_file 2500\nactive_file 500\n")
    assert available_memory(CPU) == 3500


def test_cached_blocks_of_a_gpu_are_available(monkeypatch):
    """PyTorch keeps the blocks of freed tensors, which CUDA counts as used."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 8000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 6000)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 2000)
    assert available_memory(torch.device("cuda:0")) == 5000
