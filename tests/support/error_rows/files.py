"""Wrong configurations and outputs."""
# ruff: noqa: E501

from __future__ import annotations

from tests.support.error_rows import Row

TITLE = "Configurations and outputs"

# fmt: off
CONFIG = "prune --out x.safetensors --weights good.safetensors --config"
PRUNE = "prune --weights good.safetensors --samples 16 --method magnitude --out"
EXPORT = "export --weights good.safetensors --out"
TRAIN = "train --model simple_cnn --epochs 1 --out"
PREDICT = "predict good.onnx --estimate --out"
PLAIN = [
    Row("missing", f"{CONFIG} missing.yaml", "cannot read missing.yaml: No such file or directory. Give a YAML file."),
    Row("missing", "run missing.yaml --out x", "cannot read missing.yaml: No such file or directory. Give a YAML file."),
    Row("missing", "sweep missing.yaml --out x", "cannot read missing.yaml: No such file or directory. Give a YAML file."),
    Row("a directory", f"{CONFIG} folder.yaml", "cannot read folder.yaml: Is a directory. Give a YAML file."),
    Row("a link to itself", f"{CONFIG} loop.yaml", "cannot read loop.yaml: Too many levels of symbolic links. Give a YAML file."),
    Row("the disk fails", f"{CONFIG} unreadable.yaml", "cannot read unreadable.yaml: Input/output error. Give a YAML file."),
    Row("empty", f"{CONFIG} empty.yaml", "empty.yaml, line 1: the file is empty. For example samples: 256."),
    Row("another type", f"{CONFIG} text.yaml", "text.yaml, line 1: this is not a mapping of keys to values. For example samples: 256."),
    Row("too large", f"{CONFIG} large.yaml", "large.yaml is larger than 64 KiB. Give a YAML file of flags."),
    Row("not UTF-8", f"{CONFIG} latin.yaml", "latin.yaml is not UTF-8 text. Give a YAML file."),
    Row("a tab", f"{CONFIG} tab.yaml", "tab.yaml, line 2: found character '\\t' that cannot start any token. Indent with spaces, not with tabs."),
    Row("a list for one value", f"{CONFIG} list.yaml", "list.yaml, line 1: mean cannot be a list. Give a value, as on the command line: 0.5,0.25."),
    Row("an underscore in a section's name", f"{CONFIG} under.yaml", "under.yaml, line 1: no command has 'prune_export'. Did you mean prune-export?"),
    Row("an unknown key", f"{CONFIG} key.yaml", "key.yaml, line 1: no command has 'sampels'. Did you mean samples?"),
    Row("an unknown key that is like no other", "sweep sizes.yaml --out x", "sizes.yaml, line 2: sweep has no 'sizes'. Keys are flags without the leading dashes; --help lists them."),
    Row("a wrong value", f"{CONFIG} value.yaml", "value.yaml, line 1: samples cannot be 'many'. …"),
    Row("a directory", f"{PRUNE} folder.safetensors", "cannot write folder.safetensors: it is a directory. Give the path of a file."),
    Row("a directory", f"{EXPORT} folder.onnx", "cannot write folder.onnx: it is a directory. Give the path of a file."),
    Row("a directory", f"{TRAIN} folder.safetensors", "cannot write folder.safetensors: it is a directory. Give the path of a file."),
    Row("a directory", f"{PREDICT} folder.json", "cannot write folder.json: it is a directory. Give the path of a file."),
    Row("a file for a folder", f"{PRUNE} good.onnx/x.safetensors", "cannot write to good.onnx/x.safetensors.unfinished: Not a directory. Give --out a folder you may write to."),
    Row("a file for a folder", "prune-export --weights good.safetensors --out good.onnx", "good.onnx is not a folder. Give --out a folder, or a name that is free."),
    Row("a file for a folder", "triton-export good.onnx --out good.safetensors", "cannot write good.safetensors/good: File exists. Give a folder you may write to, with space left."),
    Row("a link to itself", "prune-export --weights good.safetensors --out loop.npz", "loop.npz is not a folder. Give --out a folder, or a name that is free."),
    Row("a folder that cannot be", f"{PREDICT} /proc/none/x.json", "cannot write /proc/none/x.json: No such file or directory. Give a folder you may write to, with space left."),
    Row("the current folder for a file", f"{PRUNE} .", ". does not end in .safetensors. For example out.safetensors."),
    Row("the root folder", "prune-export --weights good.safetensors --out /", "Invalid value for '--out': / is the root of the file system. See --help.", code=2),
    Row("another ending", f"{PRUNE} x.pt", "x.pt does not end in .safetensors. For example x.safetensors."),
    Row("the file that is read", f"{PRUNE} good.safetensors", "good.safetensors would be overwritten. Give another output path: inputs are never overwritten."),
]
SHUT = [
    Row("no permission", "verify shut.onnx", "cannot read shut.onnx: Permission denied. Give the path of an .onnx file."),
    Row("no permission", f"{PREDICT} shut/x.json", "shut/x.json: Permission denied. Check the path, its permissions, and the free space."),
    Row("no permission", f"{PRUNE} shut/x.safetensors", "shut/x.safetensors.unfinished: Permission denied. Check the path, its permissions, and the free space."),
    Row("no permission", "triton-export good.onnx --out shut", "shut/good/1: Permission denied. Check the path, its permissions, and the free space."),
]
FULL = [
    Row("no space", f"{PREDICT} x.json", "cannot write x.json: File too large. Give a folder you may write to, with space left."),
    Row("no space", f"{PRUNE} x.safetensors", "cannot write x.safetensors.unfinished/…: File too large. Give a folder you may write to, with space left."),
    Row("no space", "triton-export good.onnx --out x", "cannot write x/…/model.onnx: File too large. Give a folder you may write to, with space left.", left="x"),
]
ELSEWHERE = [
    Row("no space", "prune-export --out …", "cannot write …: No space left on device. Give a folder you may write to, with space left.", test="cli/commands/test_bad_input.py::test_a_full_disk_leaves_nothing"),
    Row("another run is in the folder", "prune-export --out …", "another run writes to …. Wait for it, or give another --out.", test="core/pruning/test_layer_store.py::test_a_run_locks_its_folder_and_removes_it_at_the_end"),
    Row("interrupted: Ctrl-C or SIGTERM", "prune-export --out …", "interrupted. Finished files are kept. No file is half-written.", code=130, left="what was there before", test="cli/commands/test_bad_input.py::test_an_interrupted_run_leaves_the_old_output"),
    Row("a name that is not UTF-8", "verify …", "no file at ��.onnx. Give the path of an .onnx file.", test="errors/test_files.py::test_names_that_are_not_utf_8"),
    Row("no scheduler", "sweep --cluster tcp://10.0.0.1:8786 …", "no Dask scheduler answers at tcp://10.0.0.1:8786: …. Start one with `dask scheduler`, and give the address that it prints.", test="cli/sweep/test_executors.py::test_a_scheduler_that_does_not_answer_is_one_line"),
    Row("no Dask", "sweep --cluster tcp://10.0.0.1:8786 …", "tcp://10.0.0.1:8786 is a Dask scheduler, and Dask's distributed is not installed: …. Install it: pip install distributed.", test="cli/sweep/test_executors.py::test_a_missing_dask_is_one_line"),
    Row("no executor", "sweep --cluster mine.py:number …", "mine.py:number gives no executor of concurrent.futures but int. Give tcp://HOST:PORT of a Dask scheduler, or a function that returns an executor.", test="cli/sweep/test_executors.py::test_a_cluster_that_cannot_be_used_is_one_line"),
    Row("a worker that dies", "sweep --cluster tcp://10.0.0.1:8786 …", "net: balanced 2:4, 256 images, seed 0: its worker failed: …. Run again: finished cells are kept.", left="all other cells", test="cli/sweep/test_executors.py::test_an_item_that_no_worker_survives_is_lost_alone"),
]
# fmt: on
ROWS = [*PLAIN, *SHUT, *FULL, *ELSEWHERE]
