from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsegpt_core.errors import InputError, NumericsError
from sparsegpt_core.linalg import DenseHessian
from sparsegpt_core.patterns import NM, Unstructured, find_violations
from sparsegpt_core.settings import PruneSettings
from sparsegpt_core.solvers import magnitude, solve
from sparsegpt_core.solvers.sparsegpt import prune_with_sparsegpt
from sparsegpt_core.statistics import Moments

PLAIN = {"alpha": 0.0, "refit": False, "damping": 0.01, "mask": "adaptive"}


def layer(rows, columns, positions=400, seed=0, drift=0.3, dtype=torch.float64):
    """A weight, its inputs in the dense network, those in the pruned one, and their moments."""
    generator = torch.Generator().manual_seed(seed)
    dense = torch.randn(positions, columns, generator=generator, dtype=dtype)
    dense = dense @ torch.randn(columns, columns, generator=generator, dtype=dtype) + 1
    pruned = 0.9 * dense + drift * torch.randn(positions, columns, generator=generator, dtype=dtype)
    weight = torch.randn(rows, columns, generator=generator, dtype=dtype)
    return weight, dense, pruned, moments(weight, dense, pruned)


def moments(weight, dense, pruned):
    outputs, count = dense @ weight.T, len(dense)
    energy = float(outputs.square().sum()) / count
    return Moments(DenseHessian(pruned.T @ pruned / count), outputs.T @ pruned / count, energy, count, count)


def plain(known):
    """The moments that a layer has where the dense network is not known."""
    return Moments(known.hessian, None, None, known.positions, known.used)


def test_plain_settings_are_sparsegpt_alone():
    weight, _, _, known = layer(6, 24)
    expected = prune_with_sparsegpt(weight, known.hessian.factor().upper, NM(2, 4))
    for given_moments in (known, plain(known)):
        assert torch.equal(solve(weight, given_moments, PruneSettings(**PLAIN)).matrix, expected)
    without_cross = solve(weight, plain(known), PruneSettings(**PLAIN | {"alpha": 1.0}))
    assert torch.equal(without_cross.matrix, expected)


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_refit_solves_for_the_shifted_target(alpha):
    """W* = W + α W G H_λ⁻¹, formed explicitly, and each row's system by itself."""
    weight, dense, pruned, known = layer(6, 24)
    matrix = solve(weight, known, PruneSettings(alpha=alpha, damping=0.01, mask="adaptive", variance=False)).matrix
    damped = known.hessian.to_dense() + 0.01 * known.hessian.diagonal().mean() * torch.eye(24, dtype=weight.dtype)
    gap = (dense - pruned).T @ pruned / len(pruned)
    target = weight + alpha * weight @ gap @ damped.inverse()
    start = prune_with_sparsegpt(target, known.hessian.factor().upper, NM(2, 4))
    assert torch.equal(matrix != 0, start != 0)
    for row, goal in zip(matrix, target @ damped, strict=True):
        kept = row.nonzero().flatten()
        torch.testing.assert_close(row[kept], torch.linalg.solve(damped[kept][:, kept], goal[kept]))


def test_it_is_the_least_squares_solution_on_its_mask():
    """min ‖W x − Ŵ x̃‖² + λ‖Ŵ − W‖² from the samples themselves, without any moment."""
    weight, dense, pruned, known = layer(5, 16)
    matrix = solve(weight, known, PruneSettings(damping=0.01, variance=False)).matrix
    root = (0.01 * known.hessian.diagonal().mean() * len(dense)).sqrt()
    inputs = torch.cat([pruned, root * torch.eye(16, dtype=weight.dtype)])
    for row, own in zip(matrix, weight, strict=True):
        kept = row.nonzero().flatten()
        outputs = torch.cat([dense @ own, root * own])
        best = torch.linalg.lstsq(inputs[:, kept], outputs[:, None]).solution[:, 0]
        torch.testing.assert_close(row[kept], best)


@pytest.mark.parametrize("options", [PLAIN, {"alpha": 0.5}, {}, {"refit": False}])
@pytest.mark.parametrize("columns", [16, 96])  # a refit by Cholesky, and by conjugate gradients
def test_errors_are_those_of_the_outputs(options, columns):
    weight, dense, pruned, known = layer(8, columns)
    solution = solve(weight, known, PruneSettings(**options))

    def error(matrix):
        outputs = dense @ weight.T
        return float((outputs - pruned @ matrix.T).square().sum() / outputs.square().sum())

    assert solution.relative_error == pytest.approx(error(solution.matrix), rel=1e-6)
    assert solution.magnitude_error == pytest.approx(error(magnitude(weight, NM(2, 4))), rel=1e-6)
    assert solution.inherited_error == pytest.approx(error(weight), rel=1e-6)


@pytest.mark.parametrize("drift", [0.003, 0.3, 2.0])
def test_outputs_keep_their_variance(drift):
    weight, dense, pruned, known = layer(8, 96, positions=2000, drift=drift)
    fitted, kept = (solve(weight, known, PruneSettings(variance=each)) for each in (False, True))
    growth = (kept.matrix / fitted.matrix).nanmean()
    torch.testing.assert_close(kept.matrix, growth * fitted.matrix)
    energies = [float((pruned @ each.matrix.T).square().sum()) for each in (fitted, kept)]
    wanted = float((dense @ weight.T).square().sum())
    assert 1 < growth <= 2
    assert energies[0] < energies[1] == pytest.approx(wanted if growth < 2 else 4 * energies[0])


@pytest.mark.parametrize("options", [PLAIN, {}])
def test_without_the_dense_network_errors_are_those_on_the_inputs_at_hand(options):
    weight, _, pruned, known = layer(8, 16)
    solution = solve(weight, plain(known), PruneSettings(**options))

    def error(matrix):
        return float((pruned @ (matrix - weight).T).square().sum() / (pruned @ weight.T).square().sum())

    assert solution.relative_error == pytest.approx(error(solution.matrix), rel=1e-6)
    assert solution.magnitude_error == pytest.approx(error(magnitude(weight, NM(2, 4))), rel=1e-6)
    assert solution.inherited_error is None


def test_small_errors_survive_single_precision():
    """In single precision the moments of outputs that hardly differ nearly cancel."""
    weight, dense, _, _ = layer(8, 96, positions=2000)
    pruned = dense + 0.003 * dense.std() * torch.randn(dense.shape, dtype=dense.dtype)
    known = moments(weight, dense, pruned)
    single = Moments(
        DenseHessian(known.hessian.to_dense().float()), known.cross.float(), known.energy, known.positions, known.used
    )
    for options in (PLAIN, {}):
        solution = solve(weight.float(), single, PruneSettings(**options))
        outputs = dense @ weight.T
        expected = (outputs - pruned @ solution.matrix.double().T).square().sum() / outputs.square().sum()
        assert solution.relative_error == pytest.approx(float(expected), rel=0.02, abs=3e-6)


@pytest.mark.parametrize("pattern", [NM(2, 4), NM(1, 4), Unstructured(0.5)])
def test_every_step_reduces_the_error(pattern):
    weight, _, _, known = layer(32, 64)
    plain = PLAIN | {"variance": False}
    steps = [plain, plain | {"alpha": 1.0}, plain | {"alpha": 1.0, "refit": True}]
    errors = [solve(weight, known, PruneSettings(pattern, **options)).relative_error for options in steps]
    assert solve(weight, known, PruneSettings(pattern)).magnitude_error > errors[0] > errors[1] > errors[2]


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_pattern_and_error_hold_for_any_layer(data):
    pattern = NM(data.draw(st.integers(1, 3)), 4)
    rows, columns = data.draw(st.integers(1, 6)), 4 * data.draw(st.integers(1, 24))
    weight, _, _, known = layer(
        rows, columns, data.draw(st.integers(1, 60)), data.draw(st.integers(0, 99)), dtype=torch.float32
    )
    solution = solve(weight, known, PruneSettings(pattern, alpha=data.draw(st.sampled_from([0.0, 0.5, 1.0]))))
    assert find_violations(solution.matrix.numpy(), pattern, axis=1).count == 0
    assert torch.isfinite(solution.matrix).all()
    assert 0 <= solution.relative_error < float("inf")


@pytest.mark.parametrize("options", [PLAIN, {}])
@pytest.mark.parametrize("columns", [8, 96])
def test_dead_inputs_lose_their_weights(options, columns):
    weight, dense, pruned, _ = layer(4, columns)
    pruned[:, [2, 4, 5, 6, 7]] = 0  # one group of four is dead altogether
    solution = solve(weight, moments(weight, dense, pruned), PruneSettings(**options))
    assert (solution.matrix[:, [2, 4, 5, 6, 7]] == 0).all()
    assert torch.isfinite(solution.matrix).all()


def test_no_input_is_ever_active():
    weight, dense, pruned, _ = layer(4, 8)
    solution = solve(weight, moments(weight, dense * 0, pruned * 0), PruneSettings())
    assert (solution.matrix == 0).all()
    assert solution.relative_error == 0


def test_a_hopeless_hessian_names_the_layer():
    hopeless = Moments(DenseHessian(-torch.eye(4) * 100 + torch.ones(4, 4) * 101), None, None, 9, 9)
    with pytest.raises(NumericsError, match="conv7"):
        solve(torch.ones(2, 4), hopeless, PruneSettings(), "conv7")


@pytest.mark.parametrize(
    "wrong",
    [
        {"method": "obs"},
        {"damping": -1.0},
        {"damping": 0.0},
        {"damping": 9e-5},
        {"damping": float("nan")},
        {"block_size": 0},
        {"alpha": 1.5},
        {"alpha": -0.1},
        {"alpha": float("nan")},
        {"positions_per_column": -1.0},
        {"positions_per_column": float("nan")},
    ],
)
def test_settings_refuse_nonsense(wrong):
    with pytest.raises(InputError):
        PruneSettings(**wrong)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")
def test_cuda_agrees_with_the_cpu():
    weight, _, _, known = layer(32, 96, dtype=torch.float32)
    there = Moments(
        DenseHessian(known.hessian.to_dense().cuda()), known.cross.cuda(), known.energy, known.positions, known.used
    )
    solution, expected = solve(weight.cuda(), there, PruneSettings()), solve(weight, known, PruneSettings())
    assert torch.equal(solution.matrix.cpu() == 0, expected.matrix == 0)
    torch.testing.assert_close(solution.matrix.cpu(), expected.matrix, rtol=1e-3, atol=1e-4)


def held_out(known, weight, dense, pruned):
    """Moments to fit to and moments to judge by, from the first and the last quarter of the inputs."""
    cut = 3 * len(dense) // 4
    return moments(weight, dense[:cut], pruned[:cut]), moments(weight, dense[cut:], pruned[cut:])


@pytest.mark.parametrize("pattern", [NM(2, 4), Unstructured(0.5)])
@pytest.mark.parametrize("refit", [True, False])
def test_every_row_takes_the_best_choice_on_held_out_samples(pattern, refit):
    weight, dense, pruned, known = layer(12, 32, positions=200)
    fitted, judged = held_out(known, weight, dense, pruned)
    options = {"pattern": pattern, "refit": refit, "variance": False}
    solution = solve(weight, fitted, PruneSettings(**options, mask="auto", alpha=None), held_out=judged)
    alternatives = [
        solve(weight, fitted, PruneSettings(**options, mask=mask, alpha=alpha)).matrix
        for mask, alpha in solution.choices
    ]
    outputs = dense[150:] @ weight.T
    errors = torch.stack([(outputs - pruned[150:] @ matrix.T).square().sum(0) for matrix in alternatives])
    if isinstance(pattern, Unstructured):
        errors = errors.sum(1, keepdim=True).expand_as(errors)
    best = errors.argmin(0)
    for index, choice in enumerate(solution.choices):
        assert solution.choices[choice] == int((best == index).sum())
    expected = torch.stack(alternatives)[best, torch.arange(12)]
    assert torch.equal(solution.matrix == 0, expected == 0)
    assert sum(solution.choices.values()) == 12
    whole = (dense @ weight.T).square().sum() / len(dense)
    inherited = ((outputs - pruned[150:] @ weight.T).square().sum(0) / 50).sum()
    own = (errors.min(0).values.sum() if isinstance(pattern, NM) else errors.min()) / 50 - inherited
    assert solution.sensitivity == pytest.approx(max(0.0, float(own / whole)), rel=1e-6, abs=1e-9)


def test_the_chosen_mask_is_refitted_to_all_samples():
    weight, dense, pruned, known = layer(6, 32)
    fitted, judged = held_out(known, weight, dense, pruned)
    settings = PruneSettings(damping=0.01, variance=False)
    solution, alone = solve(weight, fitted, settings, held_out=judged), solve(weight, fitted, settings)
    assert torch.equal(solution.matrix == 0, alone.matrix == 0)
    assert alone.sensitivity is None
    shift = 0.01 * fitted.hessian.diagonal().mean()
    damped = known.hessian.to_dense() + shift * torch.eye(32, dtype=weight.dtype)
    for row, goal in zip(solution.matrix, known.cross + shift * weight, strict=True):
        kept = row.nonzero().flatten()
        torch.testing.assert_close(row[kept], torch.linalg.solve(damped[kept][:, kept], goal[kept]))


def test_the_default_damping_grows_where_positions_are_few():
    weight, _, _, known = layer(6, 24)
    known = plain(known)
    few = replace(known, positions=6, used=6)
    assert solve(weight, known, PruneSettings()).damping == pytest.approx(0.01 * (1 + 100 * 24 / 400) ** 0.5)
    assert solve(weight, few, PruneSettings()).damping == pytest.approx(0.01 * (1 + 100 * 24 / 6) ** 0.5)
    assert solve(weight, few, PruneSettings(damping=0.02)).damping == 0.02


def test_the_default_damping_grows_with_the_inherited_error():
    """The positions of one sample share its noise, so the error counts by samples."""
    for drift, samples in ((0.01, 0), (1.0, 0), (1.0, 20)):
        weight, _, _, known = layer(8, 96, drift=drift)
        solution = solve(weight, replace(known, samples=samples), PruneSettings())
        noise = 5000 * min(1.0, solution.inherited_error) ** 2 * 96 / (samples or 400)
        assert solution.damping == pytest.approx(0.01 * (1 + 100 * 96 / 400 + noise) ** 0.5)


@pytest.mark.parametrize("power", [-90, -30, 30, 90])
@pytest.mark.parametrize("columns", [16, 96])
def test_the_scale_of_the_inputs_does_not_matter(power, columns):
    """Activations of 1e7, as random weights can make them, square twice on their way."""
    weight, _, _, known = layer(8, columns, dtype=torch.float32)
    scale = 2.0**power
    other = Moments(known.hessian.scaled(scale), known.cross * scale, known.energy * scale, known.positions, known.used)
    expected, solution = (solve(weight, moments, PruneSettings()) for moments in (known, other))
    assert torch.equal(solution.matrix, expected.matrix)
    assert solution.relative_error == pytest.approx(expected.relative_error)


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_kept_weights_are_never_worse_than_the_target_cut_to_the_mask(data):
    """And for narrow layers, solved directly, the gradient vanishes on the mask."""
    columns = data.draw(st.sampled_from([8, 32, 96]))
    alpha = data.draw(st.sampled_from([0.0, 0.5, 1.0]))
    mask = data.draw(st.sampled_from(["adaptive", "exact", "admm"]))
    weight, _, _, known = layer(4, columns, data.draw(st.integers(20, 300)), data.draw(st.integers(0, 99)))
    matrix = solve(weight, known, PruneSettings(alpha=alpha, mask=mask, damping=0.02, variance=False)).matrix
    damped = known.hessian.to_dense() + 0.02 * known.hessian.diagonal().mean() * torch.eye(columns, dtype=weight.dtype)
    target = weight + alpha * torch.linalg.solve(damped, (known.cross - weight @ known.hessian).T).T

    def losses(candidate):
        return ((candidate - target) @ damped * (candidate - target)).sum(1)

    cut = target * (matrix != 0)
    assert (losses(matrix) <= losses(cut) * (1 + 1e-9) + 1e-9).all()
    if columns <= 64:
        gradient = (matrix - target) @ damped * (matrix != 0)
        assert gradient.abs().max() < 1e-8 * (target @ damped).abs().max()
