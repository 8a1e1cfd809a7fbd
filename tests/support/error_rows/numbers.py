"""Numbers and machines that fail."""
# ruff: noqa: E501

from __future__ import annotations

from tests.support.error_rows import Row

TITLE = "Numbers and machines"

# fmt: off
PRUNE = "prune --layers=all --out x.safetensors --weights good.safetensors --data"
OOM = "the GPU's memory is full with batches of 8: halved to 2"
COMMANDS = [
    Row("constant images", f"{PRUNE} npz:constant.npz", "fc1: 512 of 512 inputs are dead or constant on the calibration images, so their weights are now 0: calibrate on more images", 0, left="x.safetensors"),
    Row("one image", f"{PRUNE} npz:one.npz", "fc1: 512 of 512 inputs are dead or constant on the calibration images, so their weights are now 0: calibrate on more images", 0, left="x.safetensors"),
    Row("a Hessian of rank 2 in fc1, which has 512 columns", f"{PRUNE} npz:few.npz", "", 0, left="x.safetensors"),
    Row("a damping that float32 cannot resolve", f"{PRUNE} npz:few.npz --damping 1e-9", "damping 1e-09 is below 0.0001, which float32 cannot resolve. 0.01 suits layers with many calibration images."),
    Row("a damping that is no number", f"{PRUNE} npz:few.npz --damping nan", "damping nan is below 0.0001, which float32 cannot resolve. 0.01 suits layers with many calibration images."),
    Row("too little memory", f"{PRUNE} npz:few.npz --memory-limit 1MB", "a memory limit of 0.00 GiB is too small: fc1 needs about … GiB. Raise --memory-limit, or --exclude that layer."),
    Row("no size", f"{PRUNE} npz:few.npz --memory-limit lots", "'lots' is not a memory size. For example 8GiB or 500MB."),
    Row("no such device", f"{PRUNE} npz:few.npz --device abacus", "device 'abacus' cannot be used: …. Use cpu or cuda."),
]
ELSEWHERE = [
    Row("NaN in a weight", "from Python", "odd.weight contains NaN or infinity. …", test="core/pruning/test_sequential.py::test_nan_weight_is_named"),
    Row("activations that overflow", "from Python", "odd: its inputs contain NaN or infinity. …", test="core/pruning/test_sequential.py::test_activations_that_overflow_name_the_layer"),
    Row("NaN or infinity in an image", "from Python", "image 3 contains NaN or infinity. Fix it, or remove it.", test="calibration/data/test_splits.py::test_an_image_that_is_not_finite_is_named"),
    Row("dead channels", "from Python", "(their weights become 0)", code=0, test="core/solvers/test_layer_solver.py::test_dead_inputs_lose_their_weights"),
    Row("a layer whose inputs are all dead", "from Python", "(their weights become 0)", code=0, test="core/linalg/test_dense.py::test_all_columns_dead"),
    Row("a Hessian that is not positive definite", "from Python", "…: the Hessian needed a damping of … instead of …", code=0, test="core/linalg/test_dense.py::test_a_raised_damping_is_a_warning_of_the_result"),
    Row("a layer that no image reaches", "from Python", "(left dense: NOT_REACHED)", code=0, test="core/pruning/test_sequential.py::test_every_layer_has_its_reason_in_running_order"),
    Row("NaN in a weight", "export --precision fp16 …", "head.bias contains NaN or infinity. …", test="export/precision/test_fp16.py::test_nan_and_infinite_weights_are_refused"),
    Row("an activation beyond half precision", "export --precision fp16 …", "model.onnx computes NaN or infinity … begins at …", test="export/parity/test_parity.py::test_a_node_that_overflows_is_named"),
    Row("NaN in an activation's range", "export --precision int8 …", "layer1 contains NaN or infinity on calibration images. Check the weights, --mean and --std.", test="calibration/ranges/test_ranges.py::test_numbers_that_are_not_finite_name_the_tensor"),
    Row("a loss that diverges", "train …", "the training loss is nan after … steps. …", test="calibration/training/test_trainer.py::test_a_loss_that_is_not_finite_is_an_error"),
    Row("no GPU", "prune-export --device cuda …", "device 'cuda' cannot be used: …, or set --device cpu.", test="cli/commands/test_bad_input.py::test_no_gpu"),
    Row("no GPU", "benchmark --runtime tensorrt …", "engines run on an NVIDIA GPU and there is none. Run `sparsegpt-trt doctor` for details.", test="errors/test_numbers.py::test_engines_without_a_gpu"),
    Row("dense and sparse are swapped", "benchmark sparse.onnx dense.onnx", "… is pruned and … is dense. Swap the files: the dense file comes first.", test="deploy/benchmark/test_comparable.py::test_swapped_files_of_other_tools_are_found_by_their_weights"),
    Row("files of different precision", "benchmark dense.onnx sparse.fp16.onnx", "… is FP32 and … is FP16, so the precision's gain and loss would count as those of 2:4. Compare … with ….", test="deploy/benchmark/test_comparable.py::test_another_precision_is_refused_and_the_right_files_are_named"),
    Row("different networks", "benchmark dense.onnx another.onnx", "… and … are different networks: …. Give two exports of one network, before and after pruning.", test="deploy/benchmark/test_comparable.py::test_other_weights_shapes_and_inputs_are_other_networks"),
    Row("engines of an FP32 export in a run", "run CONFIG", "benchmark: … will be FP32, for which TensorRT has no sparse kernels. Set precision: fp16 in the section export, or runtime: onnxruntime in the section benchmark.", test="cli/run/test_runner.py::test_a_benchmark_of_engines_of_an_fp32_export_is_refused_before_the_first_stage"),
    Row("FP32 files on engines", "benchmark dense.onnx sparse.onnx --runtime tensorrt", "… is FP32, for which TensorRT has no sparse kernels. Compare … with ….", test="deploy/benchmark/test_comparable.py::test_no_engine_is_built_from_fp32"),
    Row("a plan of another TensorRT", "explain --plan-c …", "tensorrt … cannot load …: …", test="deploy/sessions/test_tensorrt_session.py::test_plans_that_are_refused"),
    Row("no PyTorch", "prune-export …", "…. Install it: pip install ….", test="cli/test_app.py::test_pruning_without_torch_says_how_to_install_it"),
    Row("the GPU's memory is full", "prune …", OOM, code=0, test="errors/test_numbers.py::test_pruning_goes_on_with_smaller_batches"),
    Row("the GPU's memory is full", "train …", "the GPU's memory is full with batches of 8: halved to 4", code=0, test="errors/test_numbers.py::test_evaluation_goes_on_with_halves"),
    Row("the GPU's memory is full with one image", "prune …", "out of memory on the GPU. Use a smaller --batch-size, fewer --samples, smaller images or fewer classes.", test="errors/test_numbers.py::test_full_with_a_single_image"),
    Row("the GPU's memory is full in a solve", "prune …", "middle: the GPU's memory is too small to solve a layer with 8 columns. Lower --memory-limit, which moves activations off the GPU, --exclude that layer, or use --device cpu.", test="errors/test_numbers.py::test_a_solve_that_fills_the_memory_is_not_tried_again_with_smaller_batches"),
    Row("no memory", "prune …", "out of memory. Use a smaller --batch-size, fewer --samples, smaller images or fewer classes.", test="errors/test_numbers.py::test_no_memory"),
    Row("the system fails", "prune …", "data: Input/output error. Check the path, its permissions, and the free space.", test="errors/test_numbers.py::test_what_the_system_refuses_is_one_line"),
]
# fmt: on
ROWS = [*COMMANDS, *ELSEWHERE]
