#!/bin/sh
# Measures everything that needs a GPU with sparse tensor cores: benchmarks/gpu/run.sh OUT [CHECKPOINT]
#
# Each part writes a JSON file to OUT; commit OUT as benchmarks/gpu/results. ONNX files and checkpoints go to OUT/models, which is
# not committed. A part whose file exists is not measured again. CHECKPOINT is a ResNet-18 trained on Fashion-MNIST. By default it
# is the one of the baselines, whose images are in DATA_ROOT.
#
# PYTHON runs the parts that need torch. TRT_PYTHON runs the parts that need TensorRT, PyCUDA, Polygraphy, onnx and onnxruntime. By
# default both are the same. On a host without network, TRT_PYTHON can be Python 3.9 with TensorRT 8.6. PARTS names the parts to run.
set -eu
out=$1 checkpoint=${2:-}
python=${PYTHON:-python3}
trt=${TRT_PYTHON:-$python}
parts=${PARTS:-baselines models questions engines accuracy pruning nccl page}
status=0
mkdir -p "$out"

part() { # NAME COMMAND...: a failed part does not keep the others from running
    case " $parts " in *" $1 "*) ;; *) return 0 ;; esac
    name=$1
    shift
    echo "== $name" >&2
    "$@" || { echo "$name failed" >&2; status=1; }
}

baselines() { # on a GPU for longer than the configurations, which are for two cores, have it
    mkdir -p "$out/models"
    for network in simple_cnn cifar_cnn resnet18 vgg16; do
        trained=$out/models/$network.safetensors told=$out/baseline-$network.json
        [ ! -e "$told" ] || continue
        "$python" -m sparsegpt_cli train --config "configs/$network-fashion-mnist.yaml" --augment crop-flip --epochs 20 \
            --data-root "${DATA_ROOT:-/usr/share/datasets}" --json --out "$trained" >"$trained.json" || return 1
        mv "$trained.json" "$told"
    done
}

part baselines baselines
trained=$out/models/resnet18.safetensors
[ -n "$checkpoint" ] || [ ! -e "$trained" ] || checkpoint=$trained
part models "$python" -m benchmarks.gpu.models "$out/models" ${checkpoint:+--checkpoint "$checkpoint"}
part questions "$trt" -m benchmarks.gpu.questions "$out"
part accuracy "$trt" -m benchmarks.gpu.accuracy "$out/models" "$out"
part engines "$trt" -m benchmarks.gpu.engines "$out/models" "$out"
part pruning "$python" -m benchmarks.gpu.pruning "$out"
part nccl "$python" -m torch.distributed.run --nproc-per-node 1 -m benchmarks.gpu.pruning "$out" --nccl
part page "$python" -m benchmarks.gpu.page "$out"
exit $status
