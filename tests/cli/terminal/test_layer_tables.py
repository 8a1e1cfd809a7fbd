"""Tables of layers: the ten worst, or all; nothing is cut off at 80 columns."""

from types import SimpleNamespace

import pytest

from sparsegpt_cli.terminal import audit_lines, explanation_lines, layer_lines, prediction_lines
from sparsegpt_core.reasons import Reason

COUNT = 23
REASONS = [None, Reason.CHANNELS_NOT_MULTIPLE, Reason.GPU_BEFORE_AMPERE]


def pruned(number: int) -> dict:
    return {
        "name": f"backbone.layer{number}.conv",
        "kind": "Conv2d",
        "shape": [2048, 1024, 3, 3],
        "status": "pruned" if number % 7 else "dense",
        "reason": None if number % 7 else "FIRST_LAYER",
        "sparsity": 0.5,
        "relative_error": (number * 5 % COUNT) / 100 if number % 7 else None,
        "magnitude_error": 0.1,
    }


def layer(number: int) -> SimpleNamespace:
    return SimpleNamespace(
        name=f"/backbone/layer{number}/branch/Conv",
        op="Conv",
        shape=(2048, 1024, 3, 3),
        dtype="float16",
        groups=1,
        is_sparse=number % 2 == 0,
        eligible=number % 3 == 0,
        violations=number,
        chosen=number % 3 == 0,
        tactic="sm80_xmma_fprop_sparse_conv_f16f16_f16f16_f16_nhwckrsc_nhwc",
        reason=REASONS[number % 3],
        bound="compute",
        share=number / 100,
        time_b_ms=float(number),
        time_c_ms=float(number),
        gain=1.5 if number % 3 == 0 else 1.0,
    )


LAYERS = [layer(number) for number in range(COUNT)]
TABLES = {
    "prune": lambda verbose: layer_lines([pruned(number) for number in range(COUNT)], verbose),
    "verify": lambda verbose: audit_lines(SimpleNamespace(layers=LAYERS, pattern="2:4"), verbose),
    "explain": lambda verbose: explanation_lines(SimpleNamespace(layers=LAYERS, pattern="2:4"), verbose),
    "predict": lambda verbose: prediction_lines(SimpleNamespace(layers=LAYERS), verbose),
}


@pytest.fixture
def shown(terminal):
    """Return what a command shows on a terminal of some width."""

    def show(name: str, columns: int, verbose: bool = False) -> str:
        return terminal(columns, TABLES[name](verbose))

    return show


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("columns", [80, 100])
def test_ten_layers_fit_into_narrow_terminals(shown, name, columns):
    text = shown(name, columns)
    assert "…" not in text
    assert "--verbose" in text
    rows = text.partition("10 of ")[0].splitlines()
    assert max(map(len, rows)) <= columns
    assert text.count("2048×1024×3×3") == 10
    assert all(heading in rows[0] for heading in ("layer", "weight"))


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("columns", [80, 140])
def test_verbose_shows_all_layers_and_cuts_nothing_off(shown, name, columns):
    text = shown(name, columns, verbose=True)
    assert "…" not in text
    assert "10 of" not in text
    assert text.count("2048×1024×3×3") == COUNT


def test_the_worst_layers_come_first(shown):
    errors = [line.split()[-2] for line in shown("prune", 140).splitlines()[1:11]]
    assert errors == sorted(errors, key=float, reverse=True)
    assert "4 layers stay dense: FIRST_LAYER (4); --verbose lists them" in shown("prune", 140)
    assert [line.split()[2] for line in shown("verify", 140).splitlines()[1:11]] == ["dense"] * 10
    assert {line.split()[-1] for line in shown("explain", 140).splitlines()[1:11]} == {"1.00"}
    times = [float(line.split()[-3]) for line in shown("predict", 140).splitlines()[1:11]]
    assert times == sorted(times, reverse=True)


def test_a_short_table_hides_nothing():
    lines = audit_lines(SimpleNamespace(layers=LAYERS[:10], pattern="2:4"), False)
    assert len(lines) == 1
