"""Wrong ONNX files, plans and records."""
# ruff: noqa: E501

from __future__ import annotations

from tests.support.error_rows import Row

TITLE = "ONNX files, plans and records"

BENCHMARK = "benchmark good.onnx {}.onnx --runtime onnxruntime --data digits"
COMMANDS = {
    "verify": "verify {}.onnx",
    "build": "build {}.onnx --out x.plan",
    "benchmark": "benchmark {}.onnx good.onnx --runtime onnxruntime",
    "explain": "explain {}.onnx",
    "prune-export": "prune-export --model {}.onnx --data digits --out x",
    "predict": "predict {}.onnx --estimate",
    "triton-export": "triton-export {}.onnx --out x",
    "deepstream-export": "deepstream-export {}.onnx --out x",
}
PRUNE = "prune-export --data digits --out x --model"
HINT = "Give the path of an .onnx file."
UNREADABLE = {
    "missing": ("missing", f"no file at missing.onnx. {HINT}"),
    "a directory": ("folder", f"cannot read folder.onnx: Is a directory. {HINT}"),
    "a link to itself": ("loop", f"cannot read loop.onnx: Too many levels of symbolic links. {HINT}"),
    "the disk fails": ("unreadable", f"cannot read unreadable.onnx: Input/output error. {HINT}"),
    "empty": ("empty", "empty.onnx is truncated or not an ONNX file: …. Export the model again."),
    "truncated": ("half", "half.onnx is truncated or not an ONNX file: …. Export the model again."),
    "another type": ("text", "text.onnx is truncated or not an ONNX file: …. Export the model again."),
    "external data is missing": (
        "gone",
        "gone.onnx is incomplete: no file at …gone.bin. Keep its external data files next to it.",
    ),
}
EVERYWHERE = [
    Row(wrong, command.format(name), line)
    for wrong, (name, line) in UNREADABLE.items()
    for command in COMMANDS.values()
]
# fmt: off
ROWS = [
    *EVERYWHERE,
    Row("its only layer is its head", f"{PRUNE} good.onnx", "nothing to prune to 2:4: 1 HEAD. --include prunes layers left out as FIRST_LAYER, HEAD or EXCLUDED."),
    Row("images of another size", f"{PRUNE} two.onnx --image-size 16", "the model does not take inputs of shape (1, 16, 16): the file fixes other sizes. Its inputs are x ?×1×8×8. Give --image-size, or other --data."),
    Row("images of other channels", "prune-export --model two.onnx --data npz:rgb.npz --out x", "the model does not take inputs of shape (3, 8, 8): the file fixes other sizes. Its inputs are x ?×1×8×8. Give --image-size, or other --data."),
    Row("inputs of other names", "prune-export --model pair.onnx --data npz:rgb.npz --out x", "cannot read rgb.npz: the network's inputs are x, more, the data has images. Name the arrays as the inputs."),
    Row("text for an input", f"{PRUNE} text_input.onnx", "text_input.onnx: f is tensor(string), not a tensor of numbers. Cut such outputs and inputs off the graph."),
    Row("an unknown operator", f"{PRUNE} unknown.onnx", "unknown.onnx: ONNX Runtime cannot load the graph up to m: …. Export the model again."),
    Row("an operator of no library", f"{PRUNE} custom.onnx", "custom.onnx: ONNX Runtime cannot load the graph up to m: …. Give --ort-custom-ops, the operator's library."),
    Row("a library that is missing", f"{PRUNE} custom.onnx --ort-custom-ops missing.so", "ONNX Runtime cannot load the library missing.so: …. Give --ort-custom-ops a library of operators for this version of ONNX Runtime."),
    Row("a library for a PyTorch network", "prune-export --data digits --out x --model simple_cnn --ort-custom-ops missing.so", "--ort-custom-ops is for an .onnx file. Leave it out, or give --model the file."),
    Row("a node without its weight", f"{PRUNE} lacking.onnx", "lacking.onnx: the node m is broken: …. Export the model again."),
    Row("a later opset", f"{PRUNE} future.onnx", "future.onnx: ONNX Runtime cannot load the graph up to f: it has opset 999 of ai.onnx. Export it with an opset up to …, or install a newer ONNX Runtime."),
    Row("NaN in a weight", f"{PRUNE} nan_weight.onnx", "nan_weight.onnx: m.weight contains NaN or infinity. Use weights from a training run that converged."),
    Row("NaN in a constant", f"{PRUNE} nan_constant.onnx --include m", "the imported network's outputs are not finite. Check its weights, and --mean and --std."),
    Row("no layer", f"{PRUNE} no_layer.onnx", "nothing to prune to 2:4: no convolution or linear layer."),
    Row("no layer to include", f"{PRUNE} no_layer.onnx --include m", "the network has no convolution or linear layer."),
    Row("too large: claims 4 TiB", f"{PRUNE} bomb.onnx", "bomb.onnx: ONNX Runtime cannot load the graph up to m: …. Export the model again."),
    Row("weights of another network", f"{PRUNE} two.onnx --weights good.safetensors", "the checkpoint does not fit the model: it has …. Check --model, --data and --num-classes."),
    Row("arguments for a file", f"{PRUNE} two.onnx --model-args width=2", "two.onnx is complete: it takes no arguments and no number of classes. Leave them out."),
    Row("training a file", "train --data digits --out x.safetensors --model two.onnx", "unknown model 'two.onnx'. An ONNX file can be pruned, not trained: give --model the PyTorch network."),
    Row("training a file", "finetune --data digits --out x.safetensors --model two.onnx --weights good.safetensors", "two.onnx can be pruned, not trained. Give --model the PyTorch network."),
    Row("NaN", BENCHMARK.format("nan"), "the logits of 'sparse' contain NaN or infinity. Export in FP32, or check the weights."),
    Row("wrong shape", BENCHMARK.format("shape"), "ONNX Runtime cannot load shape.onnx: …. Export the model again."),
    Row("wrong dtype", BENCHMARK.format("double"), "ONNX Runtime cannot load double.onnx: …. Export the model again."),
    Row("wrong dtype", BENCHMARK.format("integers"), "ONNX Runtime cannot load integers.onnx: …. Export the model again."),
    Row("too large: claims 4 TiB", BENCHMARK.format("bomb"), "ONNX Runtime cannot load bomb.onnx: …. Export the model again."),
    Row("an unknown operator", BENCHMARK.format("unknown"), "ONNX Runtime cannot load unknown.onnx: …. Export the model again."),
    Row("a later opset", BENCHMARK.format("future"), "ONNX Runtime cannot load future.onnx: it has opset 999 of ai.onnx. Export it with an opset up to …, or install a newer ONNX Runtime."),
    Row("a runtime that is not installed", "benchmark good.onnx good.onnx --runtime onnxruntime-tensorrt", "this ONNX Runtime has no TensorrtExecutionProvider, only …. Install one that has it: `pip uninstall onnxruntime`, then `pip install onnxruntime-gpu`."),
    Row("the result would replace a model", f"{BENCHMARK.format('good')} --out good.onnx", "good.onnx would be overwritten. Give another output path: inputs are never overwritten."),
    Row("the result would replace the model", "predict good.onnx --estimate --out good.onnx", "good.onnx would be overwritten. Give another output path: inputs are never overwritten."),
    Row("the plan would replace the model", "build good.onnx --out good.onnx", "good.onnx would be overwritten. Give another output path: inputs are never overwritten."),
    Row("missing", "explain good.onnx --plan-c missing.plan", "cannot read missing.plan: No such file or directory. Build it here with `sparsegpt-trt build`."),
    Row("a directory", "explain good.onnx --plan-c folder.plan", "cannot read folder.plan: Is a directory. Build it here with `sparsegpt-trt build`."),
    Row("a link to itself", "explain good.onnx --plan-c loop.plan", "cannot read loop.plan: Too many levels of symbolic links. Build it here with `sparsegpt-trt build`."),
    Row("no record of the plan", "explain good.onnx --plan-c bare.plan", "bare.plan has no bare.plan.json next to it, and a plan from anyone can run code. Build it here with `sparsegpt-trt build`."),
    Row("a record of another plan", "explain good.onnx --plan-c other.plan", "other.plan is not the plan that other.plan.json describes. Build it here with `sparsegpt-trt build`."),
    Row("a record that is no object", "explain good.onnx --plan-c list.plan", "list.plan is not the plan that list.plan.json describes. Build it here with `sparsegpt-trt build`."),
    Row("a record that is truncated", "explain good.onnx --plan-c cut.plan", "cut.plan.json is not a JSON file: …."),
    Row("a record that lacks most", "explain good.onnx --plan-c short.plan", "short.plan.json is not complete. Build the plan again."),
    Row("no record of the normalisation", "deepstream-export good.onnx --out x", "good.onnx does not record the mean and std of its images. Export it with `sparsegpt-trt export`."),
    Row("no record of the plan", "deepstream-export bare.plan --out x", "bare.plan has no bare.plan.json next to it, and a plan from anyone can run code. Build it here with `sparsegpt-trt build`."),
    Row("a record that lacks most", "deepstream-export short.plan --out x", "short.plan.json is not complete. Build the plan again."),
    Row("the result would replace the model", "deepstream-export good.onnx --out good.onnx", "good.onnx would be overwritten. Give another output path: inputs are never overwritten."),
    Row("missing", "triton-export missing.plan --out x", "cannot read missing.plan: No such file or directory. Build it here with `sparsegpt-trt build`."),
    Row("a directory", "triton-export folder.plan --out x", "cannot read folder.plan: Is a directory. Build it here with `sparsegpt-trt build`."),
    Row("no record of the plan", "triton-export bare.plan --out x", "bare.plan has no bare.plan.json next to it, and a plan from anyone can run code. Build it here with `sparsegpt-trt build`."),
    Row("a record of another plan", "triton-export other.plan --out x", "other.plan is not the plan that other.plan.json describes. Build it here with `sparsegpt-trt build`."),
    Row("a record that is truncated", "triton-export cut.plan --out x", "cut.plan.json is not a JSON file: …."),
    Row("a record that lacks most", "triton-export short.plan --out x", "short.plan.json is not complete. Build the plan again."),
    Row("a name that leaves the folder", "triton-export good.onnx --out x --name ../up", "'../up' cannot be a model's name. Give --name letters, digits, and . _ - after the first."),
    Row("no plan to export", "explain good.onnx --export-layers x", "there is no plan to export layers of. Give --plan-b, --plan-c or both."),
    Row("missing", "explain good.onnx --times missing.json", "cannot read missing.json: No such file or directory."),
    Row("a directory", "explain good.onnx --times folder.json", "cannot read folder.json: Is a directory."),
    Row("the disk fails", "explain good.onnx --times unreadable.json", "cannot read unreadable.json: Input/output error."),
    Row("another type", "explain good.onnx --times text.json", "text.json is not a JSON file: …."),
    Row("empty", "explain good.onnx --times empty.json", "empty.json is not a JSON file: …."),
    Row("missing", "report missing", "there is no missing/prune.json. Give the folder that sparsegpt-trt prune-export wrote."),
    Row("a file", "report good.onnx", "there is no good.onnx/prune.json. Give the folder that sparsegpt-trt prune-export wrote."),
    Row("a link to itself", "report loop.npz", "there is no loop.npz/prune.json. Give the folder that sparsegpt-trt prune-export wrote."),
    Row("one run and --out", "report missing --out x.html", "--out is for a comparison, and there is one run. Give a second run, or no --out."),
    Row("the second run is missing", "report run missing --out x.html", "there is no missing/prune.json. Give the folder that sparsegpt-trt prune-export wrote."),
    Row("runs of different networks", "report run other_run --out x.html", "run and other_run are runs of different networks: conv is 8 × 4 in the first and 8 × 8 in the second. Give two runs of one network."),
    Row("a page that exists", "report run run --out good.html", "good.html exists. Give another output path, or --force to replace it."),
    Row("a page that is no HTML file", "report run run --out x.txt", "x.txt does not end in .html. For example x.html."),
]
# fmt: on
