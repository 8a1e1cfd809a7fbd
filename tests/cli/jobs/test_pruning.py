"""The calibration images of a pruning job."""

from __future__ import annotations

import pytest

from sparsegpt_cli.jobs import pruning
from sparsegpt_cli.jobs.datasets import DataSource
from sparsegpt_cli.jobs.job import Job, check_job
from sparsegpt_cli.jobs.models import ModelSource, load
from sparsegpt_cli.messages import SILENT
from sparsegpt_core.errors import InputError
from sparsegpt_core.quality import QUALITIES, Workflow
from sparsegpt_core.settings import PruneSettings


class Stopped(Exception):
    pass


@pytest.mark.parametrize("samples", [2, 11, 20, 64])
def test_held_out_samples_share_no_image_with_the_others(digits_checkpoint, monkeypatch, samples):
    seen = {}

    def prune_model(model, batches, *_, samples_per_image, **__):
        seen.update(samples=sum(map(len, batches)), samples_per_image=samples_per_image)
        raise Stopped

    monkeypatch.setattr(pruning, "prune_model", prune_model)
    loaded, opened = load(ModelSource(weights=digits_checkpoint), DataSource("digits"), SILENT)
    device = loaded.module.conv1.weight.device
    job = Job(loaded, opened, PruneSettings(mask="auto"), device, Workflow(views=2), samples=samples)
    with pytest.raises(Stopped):
        pruning.prune(job)
    assert seen == {"samples": 3 * samples, "samples_per_image": 3}
    assert job.settings.held_out_count(**seen) == 3 * max(1, samples // 8)


def test_views_of_one_image_are_not_held_out_from_each_other():
    with pytest.raises(InputError, match="two calibration images"):
        PruneSettings(mask="auto").held_out_count(8, samples_per_image=8)


def test_further_images_take_the_place_of_views(digits_checkpoint):
    loaded, opened = load(ModelSource(weights=digits_checkpoint), DataSource("digits"), SILENT)
    device = loaded.module.conv1.weight.device

    def checked(quality, samples=None):
        chosen = QUALITIES[quality]
        job = check_job(Job(loaded, opened, chosen.settings, device, chosen.workflow, samples=samples), SILENT)
        return job.calibration_samples, job.workflow.views

    half = len(opened.training) // 2
    assert 512 < half < 1024
    assert checked("fast") == (256, 0)
    assert 256 < checked("balanced")[0] <= half
    assert checked("best") == (half, 2048 // half - 1)
    assert checked("best", samples=64) == (64, 7)
