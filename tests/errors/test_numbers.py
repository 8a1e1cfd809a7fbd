"""Numbers that go wrong, and machines that lack something."""

import numpy as np
import pytest
import torch
from torch import nn

from calibration.evaluation import logits_and_labels, named_outputs, outputs_of, score
from sparsegpt_cli.terminal import logged_warnings
from sparsegpt_core.errors import InputError
from sparsegpt_core.execution import run_in_halves, with_smaller_batches
from sparsegpt_core.progress import WARNINGS
from sparsegpt_core.pruning import prune_model
from sparsegpt_core.settings import PruneSettings
from tests.support.error_rows import check, save_good
from tests.support.error_rows.numbers import COMMANDS, ELSEWHERE, OOM, PRUNE

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("numbers")
    save_good(folder / "good.safetensors")
    images = np.random.default_rng(0).random((20, 1, 8, 8), dtype=np.float32)
    np.savez(folder / "constant.npz", images=np.ones_like(images))
    np.savez(folder / "one.npz", images=images[:1])
    np.savez(folder / "few.npz", images=images[:2])
    return folder


# fmt: on


@pytest.mark.parametrize("row", COMMANDS, ids=str)
def test_a_row(cli, folder, monkeypatch, row):
    check(row, cli, folder, monkeypatch)


class Greedy(nn.Module):
    """A network on a GPU that holds so many images; on the meta-level only: it runs on the CPU."""

    def __init__(self, most):
        super().__init__()
        self.most, self.sizes = most, []
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(4, 8, 3), nn.Linear(8, 3)
        self.middle = nn.Conv2d(8, 8, 1)
        # A hook is not traced, so that pruning, too, calls it.
        self.middle.register_forward_pre_hook(self.hold)

    def hold(self, module, arguments):
        self.sizes.append(len(arguments[0]))
        if len(arguments[0]) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nGPU 0 has ...")

    def forward(self, x):
        return self.last(self.middle(self.first(x).relu()).relu().mean((2, 3)))


def batch(count=8):
    return torch.randn(count, 4, 6, 6, generator=torch.Generator().manual_seed(0))


def test_halves_until_it_fits(caplog):
    def run(part):
        if len(part) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return part * 2

    rows = torch.arange(11.0)[:, None]
    assert torch.equal(run_in_halves(run, rows), rows * 2)
    assert caplog.messages[0] == "the GPU's memory is full with batches of 11: halved to 6"


def test_pruning_goes_on_with_smaller_batches():
    network, whole = Greedy(most=2), Greedy(most=8)
    settings = PruneSettings(include=("*",), exclude=("first", "last"))
    result = prune_model(network, [batch()], settings)
    assert OOM in result.warnings
    assert not any("GPU" in warning for warning in prune_model(whole, [batch()], settings).warnings)
    torch.testing.assert_close(network.middle.weight, whole.middle.weight)


def test_a_solve_that_fills_the_memory_is_not_tried_again_with_smaller_batches(failing, monkeypatch):
    solves = []

    def full(*_, **__):
        solves.append(1)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr("sparsegpt_core.pruning.layer_pruning.solve", full)
    with pytest.raises(InputError) as caught:
        prune_model(Greedy(most=8), [batch()], PruneSettings())
    assert len(solves) == 1
    assert failing(caught.value) == the_line(
        "test_a_solve_that_fills_the_memory_is_not_tried_again_with_smaller_batches"
    )


def test_every_batch_is_cut():
    def run(batches):
        if max(map(len, batches)) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.cat(list(batches))

    found, warnings = with_smaller_batches(run, [batch(8), batch(3), batch(5)])
    assert torch.equal(found, torch.cat([batch(8), batch(3), batch(5)]))
    assert warnings == (OOM,)


def test_evaluation_goes_on_with_halves(caplog):
    images, labels = batch().numpy(), np.arange(8) % 3
    found = score(Greedy(most=4), [(images, labels)], 8, CPU)
    assert found == score(Greedy(most=8), [(images, labels)], 8, CPU)
    assert caplog.messages == ["the GPU's memory is full with batches of 8: halved to 4"]
    torch.testing.assert_close(outputs_of(Greedy(most=3), [batch()]), outputs_of(Greedy(most=8), [batch()]))
    torch.testing.assert_close(named_outputs(Greedy(most=3), batch()), named_outputs(Greedy(most=8), batch()))


def test_a_training_step_is_not_cut():
    with pytest.raises(torch.OutOfMemoryError):
        logits_and_labels(Greedy(most=4), batch(), torch.zeros(8, dtype=torch.long), CPU)


@pytest.fixture
def failing(cli, folder, monkeypatch):
    """Run ``prune`` on a model whose making or running raises an error."""

    def run(error):
        from sparsegpt_cli.jobs import pruning as pruning

        def fail(*_, **__):
            raise error

        monkeypatch.chdir(folder)
        monkeypatch.setattr(pruning, "prune_model", fail)
        outcome = cli(*f"{PRUNE} npz:few.npz --quiet".split())
        assert outcome.code == 1
        return outcome.err.removeprefix("error: ").strip()

    return run


def the_line(test):
    return next(row.line for row in ELSEWHERE if row.test.endswith(test))


def test_full_with_a_single_image(failing):
    with pytest.raises(torch.OutOfMemoryError) as caught, torch.no_grad():
        prune_model(Greedy(most=0), [batch()], PruneSettings())
    assert failing(caught.value) == the_line("test_full_with_a_single_image")


def test_no_memory(failing):
    assert failing(MemoryError()) == the_line("test_no_memory")
    allocator = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"
    assert failing(RuntimeError(allocator)) == the_line("test_no_memory")


def test_what_the_system_refuses_is_one_line(failing):
    assert failing(OSError(5, "Input/output error", "data")) == the_line("test_what_the_system_refuses_is_one_line")


def test_a_fault_of_ours_shows_where(failing):
    with pytest.raises(RuntimeError, match="a bug"):
        failing(RuntimeError("a bug"))


def test_each_warning_that_is_logged_is_shown_once(capsys):
    with logged_warnings(WARNINGS):
        for message in ("halved", "halved", "halved again"):
            WARNINGS.warning(message)
    WARNINGS.warning("logged outside every command")
    assert capsys.readouterr().err == "warning: halved\nwarning: halved again\n"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_engines_without_a_gpu(cli, tmp_path):
    for name in ("a.onnx", "b.onnx"):
        (tmp_path / name).touch()
    outcome = cli("benchmark", tmp_path / "a.onnx", tmp_path / "b.onnx", "--runtime", "tensorrt", "--quiet")
    assert (outcome.code, outcome.err) == (1, f"error: {the_line('test_engines_without_a_gpu')}\n")
