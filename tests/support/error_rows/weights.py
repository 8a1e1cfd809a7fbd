"""Wrong weights and models."""
# ruff: noqa: E501

from __future__ import annotations

from tests.support.error_rows import Row

TITLE = "Weights and models"

# fmt: off
PRUNE, PT = "prune --out x.safetensors --weights", "prune --out x.safetensors --model simple_cnn --weights"
MODEL = "prune --out x.safetensors --data digits --model"
ROWS = [
    Row("missing", f"{PRUNE} missing.safetensors", "no checkpoint at missing.safetensors. Give a .safetensors or .pt file to --weights."),
    Row("missing", "export --out x.onnx --weights missing.safetensors", "no checkpoint at missing.safetensors. Give a .safetensors or .pt file to --weights."),
    Row("missing", "prune-export --out x --weights missing.safetensors", "no checkpoint at missing.safetensors. Give a .safetensors or .pt file to --weights."),
    Row("missing", "finetune --out x.safetensors --dense good.safetensors --weights missing.safetensors", "no checkpoint at missing.safetensors. Give a .safetensors or .pt file to --weights."),
    Row("truncated", "finetune --out x.safetensors --dense good.safetensors --weights half.safetensors", "half.safetensors is truncated or not a safetensors file: …."),
    Row("a directory", f"{PRUNE} folder.safetensors", "no checkpoint at folder.safetensors. Give a .safetensors or .pt file to --weights."),
    Row("a link to itself", f"{PRUNE} loop.safetensors", "no checkpoint at loop.safetensors. Give a .safetensors or .pt file to --weights."),
    Row("the disk fails", f"{PRUNE} unreadable.safetensors", "cannot read unreadable.safetensors: Input/output error."),
    Row("the disk fails", f"{PT} unreadable.pt", "cannot read unreadable.pt: Input/output error."),
    Row("empty", f"{PRUNE} empty.safetensors", "empty.safetensors is truncated or not a safetensors file: …."),
    Row("empty", f"{PT} empty.pt", "empty.pt is truncated or not a PyTorch checkpoint. Copy it or save it again."),
    Row("truncated", f"{PRUNE} half.safetensors", "half.safetensors is truncated or not a safetensors file: …."),
    Row("another type", f"{PRUNE} text.safetensors", "text.safetensors is truncated or not a safetensors file: …."),
    Row("another type", f"{PT} text.pt", "text.pt is truncated or not a PyTorch checkpoint. Copy it or save it again."),
    Row("an empty archive", f"{PT} zip.pt", "zip.pt contains more than tensors, or is damaged; it was not loaded. Save model.state_dict() alone: torch.save(model.state_dict(), FILE)."),
    Row("too large: claims a terabyte of header", f"{PRUNE} header.safetensors", "header.safetensors is truncated or not a safetensors file: …."),
    Row("too large: a terabyte of zeros in a kilobyte", f"{PT} bomb.pt", "bomb.pt: conv1.weight is sparse, quantised, or claims more numbers than the file contains. Save dense tensors: value.dequantize(), value.to_dense() or value.contiguous()."),
    Row("a pickled object, which is code", f"{PT} whole.pt", "whole.pt contains more than tensors, or is damaged; it was not loaded. Save model.state_dict() alone: torch.save(model.state_dict(), FILE)."),
    Row("no tensors", f"{PT} numbers.pt", "numbers.pt does not contain a state dict. Save model.state_dict() alone."),
    Row("TorchScript", f"{PT} script.pt", "script.pt is a TorchScript archive, not a checkpoint. Save its state dict: torch.save(torch.jit.load(FILE).state_dict(), NEW_FILE)."),
    Row("no such entry", f"{PT} averaged.pt --weights-key model_avg", "averaged.pt has no state dict 'model_avg'. Give --weights-key one of model, model_ema."),
    Row("several entries, none with a usual name", f"{PT} several.pt", "several.pt contains several state dicts: params, params_ema. Choose one with --weights-key."),
    Row("an entry of a file without entries", f"{PRUNE} good.safetensors --weights-key model", "good.safetensors has no entry 'model': it is one state dict. Leave --weights-key out."),
    Row("sparse tensors", f"{PT} sparse.pt", "sparse.pt: conv1.weight is sparse, quantised, or claims more numbers than the file contains. Save dense tensors: value.dequantize(), value.to_dense() or value.contiguous()."),
    Row("tensors without numbers", f"{PT} meta.pt", "meta.pt: conv1.weight is sparse, quantised, or claims more numbers than the file contains. Save dense tensors: value.dequantize(), value.to_dense() or value.contiguous()."),
    Row("another network's", f"{PT} other.pt --data digits", "the checkpoint does not fit the model: it has no conv1.weight. Check --model, --data and --num-classes."),
    Row("no tensors", f"{PRUNE} none.safetensors", "none.safetensors does not contain a state dict. Save model.state_dict() alone."),
    Row("wrong shape", f"{PRUNE} narrow.safetensors", "the checkpoint does not fit the model: its conv1.weight has shape (63, 1, 3, 3), the model's (64, 1, 3, 3). Check --model, --data and --num-classes."),
    Row("wrong dtype: integers", f"{PRUNE} int8.safetensors", "the checkpoint does not fit the model: its conv1.weight has dtype torch.int8, the model's torch.float32. Check --model, --data and --num-classes."),
    Row("wrong dtype: complex numbers", f"{PRUNE} complex.safetensors", "the checkpoint does not fit the model: its conv1.weight has dtype torch.complex64, the model's torch.float32. Check --model, --data and --num-classes."),
    Row("NaN", f"{PRUNE} nan.safetensors", "conv2.weight contains NaN or infinity. Use weights from a training run that converged."),
    Row("beyond float32", f"{PRUNE} large.safetensors", "conv1.weight contains NaN or infinity. Use weights from a training run that converged."),
    Row("metadata that is not an object", f"{PRUNE} list.safetensors", "the metadata of list.safetensors is not a JSON object. The file is damaged, or from another program."),
    Row("metadata with text for a number", f"{PRUNE} classes.safetensors", "the metadata of classes.safetensors has an invalid num_classes: 'ten'. The file is damaged, or from another program."),
    Row("no such model", f"{MODEL} simple_cn", "unknown model 'simple_cn'. Did you mean simple_cnn?"),
    Row("a model of torchvision", f"{MODEL} resnet18", "unknown model 'resnet18'. Did you mean torchvision:resnet18?"),
    Row("a file of weights for a model", f"{MODEL} net.pth", "unknown model 'net.pth'. Give --weights the file, and --model the network."),
    Row("an ONNX file for a model", f"{MODEL} net.onnx", "unknown model 'net.onnx'. Pruning needs the PyTorch network: give --model and --weights."),
    Row("a file of code without a name", f"{MODEL} factories_of_test.py", "unknown model 'factories_of_test.py'. Name the factory in it: factories_of_test.py:FACTORY."),
    Row("no such model", f"{MODEL} torchvision:resnet19", "torchvision has no model 'resnet19'. Did you mean …?"),
    Row("no such module", f"{MODEL} no_such_module:net", "cannot import net from no_such_module: No module named 'no_such_module'. Give package.module:NAME, importable from here, or path/to/FILE.py:NAME."),
    Row("a relative module", f"{MODEL} .:net", "cannot import net from .: …. Give package.module:NAME, importable from here, or path/to/FILE.py:NAME."),
    Row("no such factory", f"{MODEL} factories_of_test:missing", "factories_of_test has no missing. It has …."),
    Row("a mistyped factory", f"{MODEL} ./factories_of_test.py:liner", "./factories_of_test.py has no liner. Did you mean ./factories_of_test.py:linear?"),
    Row("no such file", f"{MODEL} ./no_such_file.py:net", "cannot import net from ./no_such_file.py: there is no such file. Give package.module:NAME, importable from here, or path/to/FILE.py:NAME."),
    Row("a module with a fault", f"{MODEL} syntax_of_test:net", "cannot import net from syntax_of_test: …. Give package.module:NAME, importable from here, or path/to/FILE.py:NAME."),
    Row("a module that ends the program", f"{MODEL} leaves_of_test:net", "cannot import net from leaves_of_test: 3. Give package.module:NAME, importable from here, or path/to/FILE.py:NAME."),
    Row("a factory that fails", f"{MODEL} factories_of_test:boom", "building factories_of_test:boom failed: ValueError: bad luck."),
    Row("a factory that ends the program", f"{MODEL} factories_of_test:leave", "building factories_of_test:leave failed: SystemExit: 7."),
    Row("a factory that wants arguments", f"{MODEL} factories_of_test:greedy", "factories_of_test:greedy needs the argument a. Give --model-args a=VALUE."),
    Row("an argument that a factory lacks", f"{MODEL} factories_of_test:greedy --model-args b=1", "factories_of_test:greedy has no argument b. It has a."),
    Row("an argument without a value", f"{MODEL} factories_of_test:greedy --model-args a", "the model argument 'a' is not KEY=VALUE. For example --model-args width=64."),
    Row("an argument twice", f"{MODEL} factories_of_test:greedy --model-args a=1 --model-args a=2", "the model argument a is given twice. Leave one of them out."),
    Row("arguments of a reference network", f"{MODEL} simple_cnn --model-args a=1", "simple_cnn takes no arguments. Leave --model-args out."),
    Row("arguments of a network", f"{MODEL} factories_of_test:network --model-args a=1", "factories_of_test:network is a network, which takes no arguments. Name its class, or leave --model-args out."),
    Row("a factory of something else", f"{MODEL} factories_of_test:number", "factories_of_test:number made a int, not a torch.nn.Module."),
    Row("a network for other images", f"{MODEL} factories_of_test:linear", "the model does not take images of shape (1, 8, 8): …. Check that --model and --data belong together: channels, height and width."),
    Row("too large", f"{MODEL} simple_cnn --num-classes 100000000000", "building simple_cnn failed: RuntimeError: …."),
    Row("no model", "prune --out x.safetensors --data digits", "no model is named. Give --model, or weights that record their model."),
    Row("notes a model that is code", "prune --weights …", "the checkpoint names …, which is code, and a file must not make code run. Give --model … if you know that code.", test="trust/test_files.py::test_no_checkpoint_has_code_run"),
    Row("notes arguments of a model", "export --model NET --weights …", "the checkpoint was made with arguments of …. Give --model … --model-args width=8.", test="cli/commands/test_own_models.py::test_a_checkpoint_of_a_wrapped_network_with_averaged_weights"),
    Row("is not what the manifest next to it records", "prune --weights …", "… is not the file that manifest.json next to it records. Run prune-export again; …", test="trust/test_files.py::test_checkpoints_are_what_their_manifest_records"),
]
# fmt: on
