"""Metrics that cannot be used, and limits that are missed."""
# ruff: noqa: E501

from __future__ import annotations

from tests.support.error_rows import Row

TITLE = "Metrics and limits"

# fmt: off
BENCHMARK = "benchmark dense.onnx sparse.onnx --runtime onnxruntime --rounds 2 --data npz:train.npz --eval-data npz:maps.npz"
CONTRACT = "Give a function (outputs, labels) that returns {name: N values}, or a class with update(outputs, labels) and compute()."
ARRAYS = "It takes NumPy arrays: outputs (N, ...), or a dict of them if there are several, and labels."
ROWS = [
    Row("no such metric", f"{BENCHMARK} --metric mIoU", "unknown metric 'mIoU'. Use miou, map, psnr, package.module:name or file.py:name."),
    Row("no such file", f"{BENCHMARK} --metric missing.py:f", "cannot import f from missing.py: there is no such file. Give package.module:NAME, importable from here, or path/to/FILE.py:NAME."),
    Row("no function", f"{BENCHMARK} --metric mine.py:NUMBER", f"mine.py:NUMBER is no metric. {CONTRACT}"),
    Row("neither higher nor lower is better", f"{BENCHMARK} --metric mine.py:undeclared", "the metric mine.py:undeclared does not say whether higher is better. Set its attribute higher_is_better to True or False, or to {figure: True or False}."),
    Row("an exception in the metric", f"{BENCHMARK} --metric mine.py:failing", f"the metric mine.py:failing failed in its call: KeyError: 'boxes'. {ARRAYS}"),
    Row("one value for all images", f"{BENCHMARK} --metric mine.py:total", "the metric mine.py:total gives total of shape () for 12 images. Give one value for each image, or a class with update and compute for a figure of all images."),
    Row("NaN", f"{BENCHMARK} --metric mine.py:undefined", "the metric mine.py:undefined gives undefined as NaN or infinity for 'dense'. Return finite values; where a figure of one image is undefined, use a class with update and compute."),
    Row("no labels", f"{BENCHMARK.replace('maps', 'bare')} --metric miou", "miou has no labels for outputs of shape (12, 4, 4). Give labels of shape (12, 4, 4)."),
    Row("labels of another size", f"{BENCHMARK.replace('maps', 'small')} --metric miou", "miou has labels of shape (12, 2, 2) for outputs of shape (12, 4, 4). Give labels of shape (12, 4, 4)."),
    Row("a figure without a metric", f"{BENCHMARK} --max-drop miou=1", "…the figure 'miou' needs --metric…", code=2),
    Row("a negative limit", f"{BENCHMARK} --max-drop -1", "…'-1' is no limit: give a number of 0 or more, or NAME=NUMBER…", code=2),
    Row("a limit for another figure", f"{BENCHMARK} --metric miou --max-drop mIoU=1", "the loss of mIoU cannot be judged: the metric's figures are miou"),
    Row("a limit that is missed", f"{BENCHMARK} --metric mine.py:error --max-drop error=0", "error of sparse rose by …, 0 are allowed"),
    Row("a limit on classes of a network of maps", f"{BENCHMARK} --gate-disagreement 1", "the disagreement of sparse cannot be judged: the outputs are no logits"),
    Row("a sweep of maps without a metric", "sweep --weights net.safetensors --data npz:train.npz --eval-data npz:maps.npz --out out", "the outputs are not logits. Give --metric: docs/metrics.md.", left="`sweep.json` in `out`", test="cli/sweep/test_runner.py::test_maps_need_a_metric_and_it_is_checked_before_the_first_cell"),
    Row("fine-tuning with a metric, without evaluation images", "finetune --weights sparse.safetensors --data npz:train.npz --metric miou --out out.safetensors", "npz:train.npz has no evaluation split, which --metric needs. Give --eval-data.", test="cli/commands/test_finetune.py::test_a_metric_fails_before_the_first_step"),
]
