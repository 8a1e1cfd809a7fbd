"""Several processes under torchrun against one: on the CPU, by gloo."""

import json
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy
import torch

from sparsegpt_core.execution import World, join_world
from tests.support.paths import ROOT

_RUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2")


def together(*arguments, cwd, program=("-m", "sparsegpt_cli")):
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(cwd), "OMP_NUM_THREADS": "1"}
    command = [*_RUN, *map(str, (*program, *arguments))]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


_THREADS = """
import os, pathlib, torch
from sparsegpt_core.execution import World, join_world
with join_world(torch.device("cpu")) as world:
    import torch.distributed.nn.functional  # as torch.export does
    world.add_up([torch.ones(1)])
names = [path.read_text() for path in pathlib.Path("/proc/self/task").glob("*/comm")]
os.write(1, f"{[name for name in names if 'gloo' in name]}\\n".encode())  # a line at once: two processes write
"""


def test_no_thread_of_gloo_outlives_the_world(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(_THREADS)
    done = together(cwd=tmp_path, program=(script,))
    assert (done.stdout, done.returncode) == ("[]\n[]\n", 0), done.stderr


@pytest.mark.parametrize("count", [0, 1, 5, 64, 129])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_shares_cover_everything_once(count, size):
    shares = [World(rank, size).share(count) for rank in range(size)]
    assert [i for share in shares for i in range(count)[share]] == list(range(count))
    assert max(s.stop - s.start for s in shares) - min(s.stop - s.start for s in shares) <= 1


@pytest.mark.parametrize(("samples", "size"), [(256, 2), (100, 3), (3, 2), (33, 2), (2, 4)])
def test_samples_are_shared_by_whole_batches_if_there_are_enough(samples, size):
    shares = [World(rank, size).share_samples(samples, 32) for rank in range(size)]
    assert [i for share in shares for i in range(samples)[share]] == list(range(samples))
    if samples > 32 * size:
        assert all(share.start % 32 == 0 for share in shares)


def test_two_processes_prune_to_the_same_bits_as_one(cli, digits_checkpoint, tmp_path):
    options = ("--weights", digits_checkpoint, "--samples", 96, "--views", 1, "--look-ahead", "--no-baseline", "--json")
    alone = cli("prune-export", "--layers=all", *options, "--out", tmp_path / "one", "--device", "cpu")
    both = together(
        "prune-export", "--layers=all", *options, "--out", tmp_path / "two", "--device", "cpu", cwd=tmp_path
    )
    assert both.returncode == 0, both.stderr
    report = json.loads(both.stdout)  # one object: only one of the two reports
    for a, b in zip(alone.json["layers"], report["layers"], strict=True):
        assert (a["name"], a["status"], a["positions"]) == (b["name"], b["status"], b["positions"])
    one = safetensors.numpy.load_file(tmp_path / "one" / "sparse.safetensors")
    two = safetensors.numpy.load_file(tmp_path / "two" / "sparse.safetensors")
    for name, weight in one.items():
        assert weight.tobytes() == two[name].tobytes(), name
    settings = json.loads((tmp_path / "two" / "prune.json").read_text())["settings"]
    assert settings["processes"] == 2


def test_two_processes_prune_an_onnx_file_to_the_same_bytes_as_one(cli, digits_checkpoint, tmp_path):
    network = tmp_path / "network.onnx"
    assert cli("export", "--weights", digits_checkpoint, "--out", network).code == 0
    options = (
        "prune-export",
        "--layers=all",
        "--model",
        network,
        "--data",
        "digits",
        "--no-baseline",
        "--samples",
        96,
        "--device",
        "cpu",
        "--out",
    )
    assert cli(*options, tmp_path / "one").code == 0
    both = together(*options, tmp_path / "two", cwd=tmp_path)
    assert both.returncode == 0, both.stderr
    assert (tmp_path / "two" / "sparse.onnx").read_bytes() == (tmp_path / "one" / "sparse.onnx").read_bytes()


def test_a_failing_process_ends_all_with_one_message(digits_checkpoint, tmp_path):
    # Three images for two processes of which the first gets one and the second two; the second's are infinite.
    images = np.ones((3, 1, 8, 8), dtype=np.float32)
    images[1:] = np.inf
    np.savez(tmp_path / "bad.npz", images=images)
    run = together(
        "prune", "--weights", digits_checkpoint, "--data", f"npz:{tmp_path / 'bad.npz'}", "--samples", 3,
        "--out", tmp_path / "x.safetensors", "--device", "cpu", cwd=tmp_path,
    )  # fmt: skip
    assert run.returncode != 0
    assert run.stderr.count("error: ") == 1, run.stderr
    assert not (tmp_path / "x.safetensors").exists()


def test_each_process_uses_its_own_gpu_and_gloo_for_tensors_on_the_cpu(monkeypatch):
    calls = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("torch.cuda.set_device", lambda device: calls.append(device))
    monkeypatch.setattr(
        "torch.distributed.init_process_group", lambda *names, **options: calls.append((names, options))
    )
    monkeypatch.setattr("torch.distributed.destroy_process_group", lambda: None)
    monkeypatch.setattr("torch.distributed.get_rank", lambda: 1)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    device = torch.device("cuda:1")
    with join_world(device) as world:
        assert (world.rank, world.size) == (1, 2)
    assert calls == [device, (("cpu:gloo,cuda:nccl",), {"device_id": device})]
