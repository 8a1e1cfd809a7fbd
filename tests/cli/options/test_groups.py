"""Groups of options: declared once, the same in every command."""

import pytest

from sparsegpt_cli.commands import COMMANDS
from sparsegpt_cli.options import DataOptions, TrainingOptions
from sparsegpt_core.errors import InputError
from sparsegpt_core.files import read_json

DATA = ("--data-root", "--mean", "--std", "--image-size", "--channels")


@pytest.mark.parametrize("command", [function.__name__.replace("_", "-") for function in COMMANDS])
def test_a_command_with_data_has_all_data_options(cli, command):
    usage = cli(command, "--help-all").out.split()
    assert [option for option in DATA if (option in usage) != ("--data" in usage)] == []


def test_data_options_are_a_source():
    source = DataOptions("mnist", mean="0.5,1", std="2", channels=3).source("npz:test.npz")
    assert (source.spec, source.evaluation, source.channels) == ("mnist", "npz:test.npz", 3)
    assert (source.mean, source.std) == ((0.5, 1.0), (2.0,))
    with pytest.raises(InputError, match="is not a list of numbers"):
        DataOptions(mean="0.5;1").source()


def test_training_options_that_are_not_given_are_left_to_the_method():
    assert TrainingOptions(ema=0.0, device="cpu").given() == {"ema": 0.0}


def test_an_export_records_the_normalisation_that_it_was_given(cli, digits_checkpoint, tmp_path):
    from export.audit import load_model, read_metadata

    command = ("export", "--weights", digits_checkpoint, "--out", tmp_path / "x.onnx", "--data", "digits")
    assert cli(*command, "--mean", "0.25").code == 0
    assert read_metadata(load_model(tmp_path / "x.onnx"))["mean"] == [0.25]


def test_a_sweep_uses_the_normalisation_that_it_was_given(cli, digits_checkpoint, tmp_path):
    command = ("sweep", "--weights", digits_checkpoint, "--out", tmp_path, "--method", "magnitude", "--mean", "0.25")
    assert cli(*command, "--pattern", "2:4", "--quiet").code == 0
    (cell,) = (tmp_path / "cells").glob("*.json")
    assert read_json(cell)["identity"]["mean"] == [0.25]
