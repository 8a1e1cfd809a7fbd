#!/bin/sh
# Measures everything that needs a GPU with sparse tensor cores: benchmarks/gpu/run.sh OUT [CHECKPOINT]
# benchmarks/gpu/README.md describes the parts, what they need and how to rehearse them.
set -eu
out=$1 checkpoint=${2:-}
python=${PYTHON:-python3}
trt=${TRT_PYTHON:-$python}
parts=${PARTS:-machine baselines models questions accuracy engines provider pruning nccl page}
device=${DEVICE:-cuda}
if [ "$device" = cuda ]; then # otherwise a rehearsal
    networks="simple_cnn cifar_cnn resnet18 vgg16" trained=resnet18 epochs=20
else
    networks=simple_cnn trained=simple_cnn epochs=1
fi
mkdir -p "$out/logs"
: >"$out/logs/failed"

part() { # NAME COMMAND...: a failed part does not keep the others from running
    case " $parts " in *" $1 "*) ;; *) return 0 ;; esac
    name=$1
    shift
    echo "== $name" >&2
    { "$@" 2>&1 || echo "$name" >>"$out/logs/failed"; } | tee "$out/logs/$name.log" >&2
}

machine() { # what the results were measured on
    "$python" -m benchmarks.gpu.machine "$out/machine-python.json" &&
        "$trt" -m benchmarks.gpu.machine "$out/machine-trt-python.json"
}

baselines() { # on a GPU for longer than the configurations, which are for two cores, have it
    mkdir -p "$out/models"
    for network in $networks; do
        weights=$out/models/$network.safetensors told=$out/baseline-$network.json
        [ ! -e "$told" ] || continue
        "$python" -m sparsegpt_cli train --config "configs/$network-fashion-mnist.yaml" --augment crop-flip --epochs "$epochs" \
            --data-root "${DATA_ROOT:-/usr/share/datasets}" --device "$device" --json --out "$weights" --force >"$weights.json" || return 1
        mv "$weights.json" "$told"
    done
}

nccl() { # between two GPUs; in a rehearsal between two processes, with gloo
    gpus=$("$python" -c 'import torch; print(torch.cuda.device_count())') || return 1
    [ "$device" = cuda ] || gpus=2
    if [ "$gpus" -lt 2 ]; then
        echo "not measured, because it needs two GPUs and there are $gpus"
        return 0
    fi
    "$python" -m torch.distributed.run --nproc-per-node "$gpus" -m benchmarks.gpu.pruning "$out" --device "$device" --nccl
}

summary() { # one line for each part
    for name in $parts; do
        last=$(tail -n 1 "$out/logs/$name.log")
        if grep -qx "$name" "$out/logs/failed"; then
            echo "$name: failed: $last"
        else
            case $last in "not measured"*) echo "$name: $last" ;; *) echo "$name: done" ;; esac
        fi
    done
}

part machine machine
part baselines baselines
weights=$out/models/$trained.safetensors
[ -n "$checkpoint" ] || [ ! -e "$weights" ] || checkpoint=$weights
part models "$python" -m benchmarks.gpu.models "$out/models" ${checkpoint:+--checkpoint "$checkpoint"} ${NETWORKS:+--networks $NETWORKS}
part questions "$trt" -m benchmarks.gpu.questions "$out"
part accuracy "$trt" -m benchmarks.gpu.accuracy "$out/models" "$out"
part engines "$trt" -m benchmarks.gpu.engines "$out/models" "$out"
part provider "$python" -m benchmarks.gpu.provider "$out/models" "$out"
part pruning "$python" -m benchmarks.gpu.pruning "$out" --device "$device"
part nccl nccl
[ "$device" = cuda ] && page=docs/gpu.md || page=$out/gpu.md
part page "$python" -m benchmarks.gpu.page "$out" "$page"
echo "== summary" >&2
summary | tee "$out/logs/summary" >&2
[ ! -s "$out/logs/failed" ]
