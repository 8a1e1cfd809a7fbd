"""``--max-disagreement``: judged by an upper limit on held-out images, and compared with the evaluation."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import binom

from calibration.data import open_data
from calibration.evaluation import DisagreementTarget, held_out_images, images_needed, lower_limit, upper_limit


@pytest.mark.parametrize(("found", "count"), [(0, 512), (3, 1600), (40, 100), (99, 100)])
def test_the_limits_are_those_of_the_binomial_distribution(found, count):
    assert binom.cdf(found, count, upper_limit(found, count)) == pytest.approx(0.05)
    if found:
        assert binom.sf(found - 1, count, lower_limit(found, count)) == pytest.approx(0.05)
    assert (lower_limit(0, count), upper_limit(count, count)) == (0, 1)


@pytest.mark.parametrize("share", [0.001, 0.005, 0.3])
def test_the_images_needed_are_the_fewest(share):
    needed = images_needed(share)
    assert upper_limit(0, needed) <= share < upper_limit(0, needed - 1)


def test_one_change_in_512_images_does_not_show_two_per_mille():
    """The share is 0.195 %, its upper limit 0.92 %."""
    enough = DisagreementTarget(0.2, held_out_images(0.2, 64))
    assert (enough.images, enough.has_interval, enough.warning) == (4000, True, None)
    assert not enough.meets(0.195)
    few = DisagreementTarget(0.2, 512)
    assert few.meets(0.195)
    assert "cannot be shown on 512 held-out images, 1497 are needed" in few.warning
    assert "no number of images is enough" in DisagreementTarget(0.0, 512).warning


@pytest.fixture
def run(cli, digits_checkpoint, tmp_path):
    """Prune to 1:4 and return the outcome, ``prune.json`` and the report."""

    def prune_export(limit, *options):
        out = tmp_path / "out"
        command = (
            "prune-export",
            "--layers=all",
            "--weights",
            digits_checkpoint,
            "--pattern",
            "1:4",
            "--quality",
            "fast",
            "--out",
            out,
        )
        outcome = cli(*command, "--no-baseline", "--max-disagreement", limit, "--quiet", *options)
        assert outcome.code == 0, outcome.err
        return outcome, json.loads((out / "prune.json").read_text()), (out / "report.html").read_text()

    return prune_export


def test_the_target_and_what_the_evaluation_shows_stand_in_the_report(run):
    outcome, content, report = run("5%")
    target = content["target"]
    assert (target["max_disagreement"], target["judged_by"]) == (5.0, "upper_limit")
    assert target["held_out"]["images"] == 512
    assert target["held_out"]["disagreement"] == content["tradeoff"]["measured"][-1]["disagreement"]
    assert target["held_out"]["disagreement"] <= target["held_out"]["upper_limit"] <= 5
    assert target["evaluation"]["disagreement"] == content["accuracy"]["sparse"]["disagreement"]
    assert target["evaluation"]["samples"] == 599
    assert "Target: at most 5 % of images change class. On 512 held-out training images" in report
    assert "missed" not in outcome.err


def test_an_evaluation_that_misses_the_target_is_a_warning(run, tmp_path):
    images, _ = next(iter(open_data("digits", mean=[0], std=[1]).evaluation.batches(599)))
    noise = np.random.default_rng(0).random(images.shape, dtype=np.float32)
    np.savez(tmp_path / "noise.npz", images=images * 0.3 + noise * 0.7)  # near the borders of the classes
    outcome, content, report = run("5%", "--eval-data", f"npz:{tmp_path / 'noise.npz'}")
    measured = content["target"]["evaluation"]["disagreement"]
    assert measured > 5
    (warning,) = [each for each in content["warnings"] if "is missed" in each]
    assert warning.startswith(f"the target --max-disagreement 5% is missed: {measured:.2f} % of 599 evaluation images")
    assert warning in outcome.err
    assert f"{measured:.2f} % do: the target is missed." in report


def test_too_few_images_are_said(run):
    outcome, content, _ = run("0.3%", "--pattern", "2:4")
    held_out = content["target"]["held_out"]
    assert content["target"]["judged_by"] == "disagreement"
    assert held_out["images"] == 1198 - 256
    assert "cannot be shown on 942 held-out images, 998 are needed" in outcome.err
