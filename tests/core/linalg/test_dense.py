import pytest
import torch
from torch import nn

from sparsegpt_core.errors import NumericsError
from sparsegpt_core.execution import World
from sparsegpt_core.linalg import DenseHessian, dense
from sparsegpt_core.pruning import prune_model
from sparsegpt_core.settings import PruneSettings


def random_hessian(columns=12, positions=40, seed=0):
    x = torch.randn(positions, columns, generator=torch.Generator().manual_seed(seed))
    return x.T @ x / positions


@pytest.mark.parametrize("columns", [1, 12, 256, 600])  # one block, a whole one, several
def test_factor_is_that_of_the_damped_hessian(columns):
    hessian = random_hessian(columns, 2 * columns)
    factor = DenseHessian(hessian).factor(damping=0.01)
    shift = 0.01 * hessian.diagonal().double().mean()
    damped = hessian.double() + shift * torch.eye(columns)
    upper = factor.upper.matrix.double()
    assert torch.equal(upper, upper.triu())
    torch.testing.assert_close(upper @ upper.T, damped, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(factor.shift.double(), shift.expand(columns), rtol=1e-5, atol=0)
    assert factor.damping == 0.01


def test_the_inverse_of_the_factor_is_the_factor_of_the_inverse():
    hessian = random_hessian().double()
    damped = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(12)
    inverse = DenseHessian(hessian).factor().upper.matrix.inverse()
    torch.testing.assert_close(inverse, torch.linalg.cholesky(damped.inverse(), upper=True))


def test_dead_columns_are_marked_and_do_no_harm():
    hessian = random_hessian()
    hessian[3] = 0
    hessian[:, 3] = 0
    factor = DenseHessian(hessian).factor()
    assert factor.dead.nonzero().flatten().tolist() == [3]
    assert float(factor.shift[3] - factor.shift[2]) == pytest.approx(1)
    assert torch.isfinite(factor.upper.matrix).all()


def test_all_columns_dead():
    assert torch.isfinite(DenseHessian(torch.zeros(4, 4)).factor().upper.matrix).all()


def test_damping_is_raised_where_needed():
    hessian = random_hessian()
    smallest = torch.linalg.eigvalsh(hessian)[0]
    hessian -= (smallest + 0.03 * hessian.diagonal().mean()) * torch.eye(12)  # slightly indefinite
    factor = DenseHessian(hessian).factor(damping=0.01, name="conv7")
    assert factor.damping > 0.01


def test_a_raised_damping_is_a_warning_of_the_result(monkeypatch, caplog):
    failures = iter([True])
    factorise = dense._factorise
    monkeypatch.setattr(dense, "_factorise", lambda matrix: not next(failures, False) and factorise(matrix))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8))
    result = prune_model(model, [torch.randn(32, 8)], PruneSettings(damping=0.01))
    assert result.warnings == ("0: the Hessian needed a damping of 0.1 instead of 0.01",)
    assert "damping" not in caplog.text


def test_hopeless_hessian_names_the_layer():
    with pytest.raises(NumericsError, match="conv7"):
        DenseHessian(-torch.eye(4) * 100 + torch.ones(4, 4) * 101).factor(name="conv7")


class FirstProcess(World):
    """Records what it spreads."""

    def __init__(self):
        super().__init__(0, 2)
        self.sent = []

    def spread(self, tensors):
        self.sent += [tensor.clone() for tensor in tensors]


class SecondProcess(World):
    """Receives what the first process has spread."""

    def __init__(self, first):
        super().__init__(1, 2)
        self.sent = iter(first.sent)

    def spread(self, tensors):
        for tensor in tensors:
            tensor.copy_(next(self.sent))


def test_the_first_process_on_a_cpu_factorises_for_all(monkeypatch):
    hessian, first = DenseHessian(random_hessian()), FirstProcess()
    factor = hessian.factor(world=first)
    monkeypatch.delattr(dense, "_factorise")
    received = hessian.factor(world=SecondProcess(first))
    assert torch.equal(factor.upper.matrix, received.upper.matrix)
    assert torch.equal(factor.shift, received.shift)


def test_every_process_reports_a_hopeless_hessian():
    hessian, first = DenseHessian(-torch.eye(4)), FirstProcess()
    for world in (first, SecondProcess(first)):
        with pytest.raises(NumericsError, match="conv7"):
            hessian.factor(name="conv7", world=world)


def test_threads_do_not_change_a_bit():
    hessian, threads = random_hessian(1100, 2000), torch.get_num_threads()
    factors = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            factors.append(DenseHessian(hessian).factor().upper.matrix)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*factors)
