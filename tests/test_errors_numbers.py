"""Numbers that go wrong, and machines that lack something."""
# ruff: noqa: E501

import logging

import numpy as np
import pytest
import torch
from torch import nn

from calibration.compare import outputs_of
from calibration.evaluate import logits_of, score
from error_rows import Row, check, save_good
from sparsegpt_cli.console import logged_warnings
from sparsegpt_core.halving import in_halves, with_smaller_batches
from sparsegpt_core.sequential import prune_model
from sparsegpt_core.settings import PruneSettings

TITLE = "Numbers and machines"
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


# fmt: off
PRUNE = "prune --out x.safetensors --weights good.safetensors --data"
OOM = "the GPU's memory is full with batches of 8: halved to 2"
COMMANDS = [
    Row("constant images", f"{PRUNE} npz:constant.npz", "fc1: 512 of 512 inputs are dead or constant on the calibration images, so their weights are now 0: calibrate on more images", 0, left="x.safetensors"),
    Row("one image", f"{PRUNE} npz:one.npz", "fc1: 512 of 512 inputs are dead or constant on the calibration images, so their weights are now 0: calibrate on more images", 0, left="x.safetensors"),
    Row("a Hessian of rank 2 in fc1, which has 512 columns", f"{PRUNE} npz:few.npz", "", 0, left="x.safetensors"),
    Row("a damping that float32 cannot resolve", f"{PRUNE} npz:few.npz --damping 1e-9", "damping 1e-09 is below 0.0001, which float32 cannot resolve. 0.01 suits where calibration images abound."),
    Row("a damping that is no number", f"{PRUNE} npz:few.npz --damping nan", "damping nan is below 0.0001, which float32 cannot resolve. 0.01 suits where calibration images abound."),
    Row("too little memory", f"{PRUNE} npz:few.npz --memory-limit 1MB", "a memory limit of 0.00 GiB is too small: fc1 needs about … GiB. Raise --memory-limit, or --exclude that layer."),
    Row("no size", f"{PRUNE} npz:few.npz --memory-limit lots", "'lots' is no size of memory. For example 8GiB or 500MB."),
    Row("no such device", f"{PRUNE} npz:few.npz --device abacus", "device 'abacus' cannot be used: …. Use cpu or cuda."),
]
ELSEWHERE = [
    Row("NaN in a weight", "from Python", "odd.weight holds NaN or infinity. …", test="test_sequential.py::test_nan_weight_is_named"),
    Row("activations that overflow", "from Python", "odd: its inputs hold NaN or infinity. …", test="test_sequential.py::test_activations_that_overflow_name_the_layer"),
    Row("NaN or infinity in an image", "from Python", "image 3 holds NaN or infinity. Mend it, or take it out.", test="test_arrays.py::test_an_image_that_is_not_finite_is_named"),
    Row("dead channels", "from Python", "(their weights become 0)", code=0, test="test_solve.py::test_dead_inputs_lose_their_weights"),
    Row("a layer whose inputs are all dead", "from Python", "(as ever)", code=0, test="test_hessian.py::test_all_columns_dead"),
    Row("a Hessian that is not positive definite", "from Python", "…: the Hessian needed a damping of … instead of …", code=0, test="test_hessian.py::test_damping_is_raised_where_needed_and_said"),
    Row("a layer that no image reaches", "from Python", "(left dense: NOT_REACHED)", code=0, test="test_sequential.py::test_every_layer_has_its_reason_in_running_order"),
    Row("NaN in a weight", "export --precision fp16 …", "head.bias holds NaN or infinity. …", test="test_precision.py::test_weights_that_are_no_numbers"),
    Row("an activation beyond half precision", "export --precision fp16 …", "model.onnx gives NaN or infinity … goes off at …", test="test_parity.py::test_a_node_that_overflows_is_named"),
    Row("NaN in an activation's range", "export --precision int8 …", "layer1 holds NaN or infinity on calibration images. Check the weights, and --mean and --std.", test="test_ranges.py::test_numbers_that_are_not_finite_name_the_tensor"),
    Row("a loss that diverges", "train …", "the training loss is nan after … steps. …", test="test_train.py::test_a_loss_that_is_not_finite_is_an_error"),
    Row("no GPU", "prune-export --device cuda …", "device 'cuda' cannot be used: …. Use cpu or cuda.", test="test_cli_bad_input.py::test_no_gpu"),
    Row("no GPU", "benchmark --runtime tensorrt …", "engines run on an NVIDIA GPU and there is none. sparsegpt-trt doctor says more.", test="test_errors_numbers.py::test_engines_without_a_gpu"),
    Row("a plan of another TensorRT", "explain --plan-c …", "tensorrt … cannot load …: …", test="test_trt_session.py::test_plans_that_are_refused"),
    Row("no PyTorch", "prune-export …", "…. Install it: pip install ….", test="test_cli.py::test_pruning_without_torch_says_how_to_install_it"),
    Row("the GPU's memory is full", "prune …", OOM, code=0, test="test_errors_numbers.py::test_pruning_goes_on_with_smaller_batches"),
    Row("the GPU's memory is full", "train …", "the GPU's memory is full with batches of 8: halved to 4", code=0, test="test_errors_numbers.py::test_evaluation_goes_on_with_halves"),
    Row("the GPU's memory is full with one image", "prune …", "out of memory on the GPU. Use a smaller --batch-size, fewer --samples, smaller images or fewer classes.", test="test_errors_numbers.py::test_full_with_a_single_image"),
    Row("no memory", "prune …", "out of memory. Use a smaller --batch-size, fewer --samples, smaller images or fewer classes.", test="test_errors_numbers.py::test_no_memory"),
    Row("the system fails", "prune …", "data: Input/output error. Check the path, who may read and write there, and the space left.", test="test_errors_numbers.py::test_what_the_system_refuses_is_one_line"),
]
# fmt: on


ROWS = [*COMMANDS, *ELSEWHERE]


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
    assert torch.equal(in_halves(run, rows), rows * 2)
    assert caplog.messages[0] == "the GPU's memory is full with batches of 11: halved to 6"


def test_pruning_goes_on_with_smaller_batches():
    network, whole = Greedy(most=2), Greedy(most=8)
    settings = PruneSettings(include=("*",), exclude=("first", "last"))
    result = prune_model(network, [batch()], settings)
    assert OOM in result.warnings
    assert not any("GPU" in warning for warning in prune_model(whole, [batch()], settings).warnings)
    torch.testing.assert_close(network.middle.weight, whole.middle.weight)


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


def test_a_training_step_is_not_cut():
    with pytest.raises(torch.OutOfMemoryError):
        logits_of(Greedy(most=4), batch(), torch.zeros(8, dtype=torch.long), CPU)


@pytest.fixture
def failing(cli, folder, monkeypatch):
    """Run ``prune`` on a model whose making or running raises an error."""

    def run(error):
        import sparsegpt_cli.pruning as pruning

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
    logger = logging.getLogger("sparsegpt_core.halving")
    with logged_warnings(logger.name):
        for message in ("halved", "halved", "halved again"):
            logger.warning(message)
    logger.warning("of nobody's command")
    assert capsys.readouterr().err == "warning: halved\nwarning: halved again\n"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_engines_without_a_gpu(cli, tmp_path):
    for name in ("a.onnx", "b.onnx"):
        (tmp_path / name).touch()
    outcome = cli("benchmark", tmp_path / "a.onnx", tmp_path / "b.onnx", "--runtime", "tensorrt", "--quiet")
    assert (outcome.code, outcome.err) == (1, f"error: {the_line('test_engines_without_a_gpu')}\n")
