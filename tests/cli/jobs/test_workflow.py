import json
from functools import partial
from math import prod
from typing import Any

import pytest
import torch

from calibration.recovery import ReconstructSettings
from calibration.training import Unfinished
from sparsegpt_cli.jobs import pruning
from sparsegpt_cli.options import PruneOptions
from sparsegpt_core.checkpoints import load_checkpoint
from sparsegpt_core.errors import InputError
from sparsegpt_core.quality import QUALITIES, Quality, Workflow, preset
from sparsegpt_core.settings import PruneSettings
from tests.support.paths import ROOT


def prune(cli, checkpoint, out, *options):
    return cli("prune", "--layers=all", "--weights", checkpoint, "--out", out, *options)


def run(cli, checkpoint, folder, *options):
    outcome = prune(cli, checkpoint, folder / "sparse.safetensors", "--samples", 64, "--json", "--force", *options)
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


def test_the_presets():
    assert preset("balanced") == Quality(PruneSettings(), Workflow())
    assert not preset("fast").settings.refit
    assert preset("best").settings.admm_columns > preset("balanced").settings.admm_columns
    assert preset("fast", refit=True).settings.refit
    assert preset("best", views=0).workflow == Workflow(permute=True, batch_norm="auto")
    assert set(QUALITIES) == {"fast", "balanced", "best"}
    with pytest.raises(InputError, match="unknown quality"):
        preset("excellent")


@pytest.mark.parametrize("quality", QUALITIES)
def test_a_quality_of_the_command_line_is_that_of_the_library(quality):
    assert PruneOptions(quality=quality).quality_settings() == preset(quality) == QUALITIES[quality]


def test_options_win_over_the_preset():
    assert PruneOptions(quality="best").quality_settings().workflow.permute
    assert not PruneOptions(quality="best", permute=False).quality_settings().workflow.permute
    assert PruneOptions(quality="best").quality_settings().workflow.views == 7
    assert PruneOptions(quality="best", views=0).quality_settings().workflow.views == 0
    assert PruneOptions(alpha="auto").quality_settings().settings.alpha is None
    assert PruneOptions(quality="fast", alpha="0.5").quality_settings().settings.alpha == 0.5
    assert PruneOptions(max_disagreement="0.5%").quality_settings().workflow.max_disagreement == 0.5


@pytest.mark.parametrize(
    "options",
    [
        {"max_disagreement": 101.0},
        {"max_disagreement": float("nan")},
        {"sparsity_budget": 1.0},
        {"max_disagreement": 1.0, "sparsity_budget": 0.4},
        {"batch_norm": "maybe"},
        {"permute_seconds": 0.0},
    ],
)
def test_nonsense_is_refused(options):
    with pytest.raises(InputError):
        Workflow(**options)


def test_a_search_of_no_seconds_is_a_usage_error(cli, digits_checkpoint, tmp_path):
    outcome = prune(cli, digits_checkpoint, tmp_path / "x.safetensors", "--permute-seconds", 0)
    assert outcome.code == 2
    assert outcome.err == "error: Invalid value for '--permute-seconds': 0 is not above 0. See --help.\n"


def test_an_option_that_is_not_given_leaves_the_preset(monkeypatch):
    monkeypatch.setitem(QUALITIES, "fast", Quality(PruneSettings(damping=0.5), Workflow()))
    assert PruneOptions(quality="fast").quality_settings().settings.damping == 0.5
    assert PruneOptions(quality="fast", damping=0.1).quality_settings().settings.damping == 0.1


def test_views_are_calibrated_on(cli, digits_checkpoint, tmp_path):
    def errors(content):
        return [layer["relative_error"] for layer in content["layers"]]

    plain, seen = (run(cli, digits_checkpoint, tmp_path, "--views", views) for views in (0, 2))
    assert errors(seen) != errors(plain)
    assert seen["layers"][1]["positions"] == 3 * plain["layers"][1]["positions"]


def test_no_views_of_images_that_are_not_known(cli, random_images, tmp_path):
    model = ("--model", "cifar_cnn", "--num-classes", 10, "--data", f"npz:{random_images}")
    outcome = cli("prune", "--layers=all", *model, "--views", 2, "--out", tmp_path / "sparse.safetensors", "--json")
    assert outcome.code == 0, outcome.err
    assert any("no views" in warning for warning in outcome.json["warnings"])


def test_best_permutes_and_judges_batch_norm_and_python_does_the_same(cli, digits_checkpoint, tmp_path, monkeypatch):
    content = run(cli, digits_checkpoint, tmp_path, "--quality", "best", "--permute-seconds", 600)
    moved = [space for space in content["permutation"] if not space["reason"]]
    assert moved
    assert all(space["after"] <= space["before"] for space in moved)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dense.safetensors").symlink_to(digits_checkpoint)
    page = (ROOT / "docs" / "quality.md").read_text()
    exec(page.partition("```python\n")[2].partition("```")[0], names := dict[str, Any]())
    by_hand, pruned = names["model"].module.state_dict(), load_checkpoint(tmp_path / "sparse.safetensors").state
    assert all(torch.equal(by_hand[name], pruned[name]) for name in pruned)
    plain = run(cli, digits_checkpoint, tmp_path)
    assert plain["permutation"] is None
    assert plain["batch_norm"] is None


def zeros(path):
    return {name: weight == 0 for name, weight in load_checkpoint(path).state.items() if name.endswith("weight")}


def test_look_ahead_brings_held_out_outputs_closer_and_keeps_the_masks(cli, digits_checkpoint, tmp_path):
    options = ("--pattern", "1:8", "--samples", 256)
    assert run(cli, digits_checkpoint, tmp_path, *options)["look_ahead"] is None
    masks = zeros(tmp_path / "sparse.safetensors")
    content = run(cli, digits_checkpoint, tmp_path, *options, "--look-ahead")["look_ahead"]
    once = (tmp_path / "sparse.safetensors").read_bytes()
    assert all(torch.equal(mask, masks[name]) for name, mask in zeros(tmp_path / "sparse.safetensors").items())
    assert content["kept_blocks"] == len(content["blocks"]) == 1
    assert content["held_out"]["after"]["logit_error"] < content["held_out"]["before"]["logit_error"]
    run(cli, digits_checkpoint, tmp_path, *options, "--look-ahead")
    assert (tmp_path / "sparse.safetensors").read_bytes() == once


def test_look_ahead_that_helps_no_block_changes_nothing(cli, digits_checkpoint, tmp_path, monkeypatch):
    run(cli, digits_checkpoint, tmp_path)
    without = load_checkpoint(tmp_path / "sparse.safetensors").state
    monkeypatch.setattr(pruning, "ReconstructSettings", partial(ReconstructSettings, learning_rate=1e6))
    assert run(cli, digits_checkpoint, tmp_path, "--look-ahead")["look_ahead"]["kept_blocks"] == 0
    with_it = load_checkpoint(tmp_path / "sparse.safetensors").state
    assert all(torch.equal(value, with_it[name]) for name, value in without.items())


def test_a_look_ahead_that_was_killed_continues_to_the_same_bytes(cli, digits_checkpoint, tmp_path, monkeypatch):
    options = ("--weights", digits_checkpoint, "--samples", 64, "--look-ahead", "--no-baseline")
    outcome = cli("prune-export", "--layers=all", *options, "--out", tmp_path / "whole")
    assert outcome.code == 0, outcome.err

    class Killed(Unfinished):
        def keep(self, state):
            super().keep(state)
            raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr(pruning, "Unfinished", partial(Killed, seconds=0))
        killed.setattr("calibration.training.unfinished_training._MIN_PAUSE_PER_WRITE", 0)
        assert cli("prune-export", "--layers=all", *options, "--out", tmp_path / "resumed").code == 130
    assert list(tmp_path.glob("resumed.unfinished/look-ahead/*.pt"))
    outcome = cli("prune-export", "--layers=all", *options, "--out", tmp_path / "resumed")
    assert outcome.code == 0, outcome.err
    whole, resumed = (tmp_path / name / "sparse.safetensors" for name in ("whole", "resumed"))
    assert resumed.read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob("*.unfinished"))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--samples", 1198), "calibration leaves no images to judge it on"),
        (("--samples", 64, "--int8"), "the INT8 weights are rounded from the weights before it"),
    ],
)
def test_no_look_ahead_is_said(cli, digits_checkpoint, tmp_path, options, reason):
    options = ("--weights", digits_checkpoint, "--look-ahead", "--no-baseline", "--json", *options)
    outcome = cli("prune-export", "--layers=all", *options, "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    assert f"no look-ahead: {reason}" in outcome.json["warnings"]


@pytest.mark.parametrize("method", ["sparsegpt", "magnitude"])
def test_a_budget_leaves_the_layers_with_the_most_error_dense(cli, digits_checkpoint, tmp_path, method):
    content = run(cli, digits_checkpoint, tmp_path, "--sparsity-budget", 0.05, "--method", method)
    curve = content["tradeoff"]
    dense = [layer["name"] for layer in content["layers"] if layer["reason"] == "SENSITIVE"]
    assert dense == [point["left_dense"] for point in curve["points"][1:2]]
    assert curve["measured"][-1]["dense_layers"] == 1
    assert curve["points"][1]["sparsity"] >= 0.05 > curve["points"][2]["sparsity"]
    assert curve["measured"][-1]["logit_error"] < curve["measured"][0]["logit_error"]


def test_a_disagreement_that_is_met_leaves_all_sparse(cli, digits_checkpoint, tmp_path):
    content = run(cli, digits_checkpoint, tmp_path, "--max-disagreement", "90%")
    assert len(content["tradeoff"]["measured"]) == 1
    assert not any(layer["reason"] == "SENSITIVE" for layer in content["layers"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sparsity-budget", "0.9"], "cannot be reached"),
        (["--max-disagreement", "little"], "not a percentage"),
        (["--alpha", "much"], "not a number"),
        (["--mask", "round"], "unknown mask"),
        (["--layers", "some"], "unknown layers"),
        (["--global-budget"], "no budget to share"),
        (["--quality", "excellent"], "unknown quality"),
        (["--batch-norm", "maybe"], "unknown batch norm"),
        (["--max-disagreement", "1", "--samples", "1198"], "no training images are left"),
    ],
)
def test_an_impossible_request_is_refused_in_one_line(cli, digits_checkpoint, tmp_path, options, message):
    outcome = prune(cli, digits_checkpoint, tmp_path / "x.safetensors", "--quiet", *options)
    assert outcome.code == 1
    assert message in outcome.err
    assert len(outcome.err.strip().splitlines()) <= 2
    # Layers that were pruned before the refusal are kept for the next run.
    assert {path.name for path in tmp_path.iterdir()} <= {"x.safetensors.unfinished"}


def test_one_budget_over_all_layers(cli, digits_checkpoint, tmp_path):
    content = run(cli, digits_checkpoint, tmp_path, "--pattern", "0.7", "--global-budget")
    pruned = [layer for layer in content["layers"] if layer["status"] == "pruned"]
    zeros = sum(layer["sparsity"] * prod(layer["shape"]) for layer in pruned)
    assert zeros / sum(prod(layer["shape"]) for layer in pruned) == pytest.approx(0.7, abs=0.01)
    assert len({round(layer["sparsity"], 2) for layer in pruned}) > 1


def test_layers_auto_has_a_target():
    assert PruneOptions(layers="auto").quality_settings().workflow.max_disagreement == 0.5
    assert PruneOptions(layers="auto", sparsity_budget=0.4).quality_settings().workflow.max_disagreement is None
    assert PruneOptions().quality_settings().workflow.max_disagreement is None
