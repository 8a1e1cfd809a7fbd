#!/bin/sh
# Measures everything that needs a GPU with sparse tensor cores: benchmarks/gpu/run.sh OUT [CHECKPOINT]
#
# Each part writes a JSON file to OUT; commit OUT as benchmarks/gpu/results. ONNX files and checkpoints go to OUT/models, which is
# not committed. A part whose file exists is not measured again. CHECKPOINT is a ResNet-18 trained on Fashion-MNIST. By default it
# is the one of the baselines, whose images are in DATA_ROOT.
#
# PYTHON runs the parts that need torch. TRT_PYTHON runs the parts that need TensorRT, PyCUDA, Polygraphy, onnx and onnxruntime. By
# default both are the same. On a host without network, TRT_PYTHON can be Python 3.9 with TensorRT 8.6. PARTS names the parts to run.
# DEVICE=cpu rehearses pruning and nccl on the CPU with a small network; the page is then OUT/gpu.md.
set -eu
out=$1 checkpoint=${2:-}
python=${PYTHON:-python3}
trt=${TRT_PYTHON:-$python}
parts=${PARTS:-baselines models questions engines accuracy provider pruning nccl page}
device=${DEVICE:-cuda}
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
            --data-root "${DATA_ROOT:-/usr/share/datasets}" --json --out "$trained" --force >"$trained.json" || return 1
        mv "$trained.json" "$told"
    done
}

provider() { # the same arms on ONNX Runtime's TensorRT provider, for files that "models" wrote
    available=$("$python" -c 'import onnxruntime; print(*onnxruntime.get_available_providers())') || return 1
    case " $available " in *" TensorrtExecutionProvider "*) ;; *)
        echo "provider: not measured, because onnxruntime has no TensorRT provider; install onnxruntime-gpu" >&2
        return 0
        ;;
    esac
    failed=0
    for dense in "$out"/models/*.dense.*.onnx; do
        name=$(basename "$dense" .onnx)
        network=${name%%.*} precision=${name##*.}
        told=$out/provider-$network-$precision.json
        [ ! -e "$told" ] || continue
        "$python" -m sparsegpt_cli benchmark "$dense" "$out/models/$network.sparse.$precision.onnx" \
            --runtime onnxruntime-tensorrt --batch 32 --out "$told" || failed=1
    done
    return "$failed"
}

nccl() { # between two GPUs; in a rehearsal between two processes, with gloo
    gpus=$("$python" -c 'import torch; print(torch.cuda.device_count())') || return 1
    [ "$device" = cuda ] || gpus=2
    if [ "$gpus" -lt 2 ]; then
        echo "nccl: not measured, because it needs two GPUs and there are $gpus" >&2
        return 0
    fi
    "$python" -m torch.distributed.run --nproc-per-node "$gpus" -m benchmarks.gpu.pruning "$out" --device "$device" --nccl
}

part baselines baselines
trained=$out/models/resnet18.safetensors
[ -n "$checkpoint" ] || [ ! -e "$trained" ] || checkpoint=$trained
part models "$python" -m benchmarks.gpu.models "$out/models" ${checkpoint:+--checkpoint "$checkpoint"}
part questions "$trt" -m benchmarks.gpu.questions "$out"
part accuracy "$trt" -m benchmarks.gpu.accuracy "$out/models" "$out"
part engines "$trt" -m benchmarks.gpu.engines "$out/models" "$out"
part provider provider
part pruning "$python" -m benchmarks.gpu.pruning "$out" --device "$device"
part nccl nccl
if [ "$device" = cuda ]; then
    part page "$python" -m benchmarks.gpu.page "$out"
else
    part page "$python" -m benchmarks.gpu.page "$out" "$out/gpu.md"
fi
exit $status
