#!/bin/sh
# Measures the raw results of docs/results.md: sh benchmarks/results/measure.sh RUNS [NETWORK ...]
#
# Checkpoints and sweeps go to RUNS. The raw results go to a folder here for each network. All four networks take days on two
# cores. Finished results are not computed again, and a checkpoint that is already in RUNS is used.
# TABLES="two-four finetune" measures only these tables. SEEDS=0 uses one draw of calibration images instead of three.
# `make results` then writes the page.
set -eu
runs=$1
shift
[ $# -gt 0 ] || set -- simple_cnn cifar_cnn resnet18 vgg16
root=$(dirname "$0")
tool=${TOOL:-sparsegpt-trt}
seeds=${SEEDS:-0 1 2}
data="--data fashion-mnist --data-root ${DATA_ROOT:-/usr/share/datasets}"

wanted() {
    case " ${TABLES:-two-four training finetune patterns samples} " in *" $1 "*) ;; *) false ;; esac
}

train() { # NAME, and flags that differ from the network's configuration
    name=$1
    shift
    [ -e "$runs/$name.safetensors" ] ||
        $tool train --config "configs/$network-fashion-mnist.yaml" "$@" --json --out "$runs/$name.safetensors" \
            >"$runs/$name.json"
    [ ! -e "$runs/$name.json" ] || cp "$runs/$name.json" "$raw/train${name#"$network"}.json"
}

sweep() { # TABLE, CHECKPOINT, and what spans the grid
    table=$1 checkpoint=$2
    shift 2
    if [ -e "$raw/$table.csv" ] || ! wanted "$table"; then return 0; fi
    $tool sweep --weights "$runs/$checkpoint.safetensors" $data --out "$runs/$network-sweep" \
        $(printf -- '--seeds %s ' $seeds) "$@"
    if [ "$table" = two-four ]; then cp "$runs/$network-sweep/layers.csv" "$raw/layers.csv"; fi
    cp "$runs/$network-sweep/sweep.json" "$raw/$table.json" # the grid and the environment
    cp "$runs/$network-sweep/results.csv" "$raw/$table.csv"
}

for network; do
    raw=$root/$network
    mkdir -p "$raw"
    train "$network"
    if wanted training; then train "$network-1-epoch" --epochs 1; fi
    sweep two-four "$network" --pattern 2:4 \
        --method magnitude --method cnn-sparsegpt --method sparsegpt --method balanced --method best
    sweep training "$network-1-epoch" --pattern 2:4 \
        --method magnitude --method cnn-sparsegpt --method sparsegpt --method balanced
    for seed in $seeds; do
        pruned=$runs/$network-2-4-$seed.safetensors tuned=$runs/$network-2-4-$seed-tuned.safetensors
        if [ -e "$raw/finetune-$seed.json" ] || ! wanted finetune; then continue; fi
        $tool prune --weights "$runs/$network.safetensors" $data --samples 2048 --seed $seed --out "$pruned"
        $tool finetune --config "configs/$network-fashion-mnist.yaml" --weights "$pruned" \
            --dense "$runs/$network.safetensors" --seed $seed --json --out "$tuned" >"$runs/$network-finetune-$seed.json"
        cp "$runs/$network-finetune-$seed.json" "$raw/finetune-$seed.json"
    done
    sweep patterns "$network" --method magnitude --method sparsegpt --method balanced \
        --pattern 1:4 --pattern 4:8 --pattern 2:8 --pattern 0.5 --pattern 0.7 --pattern 0.9
    sweep samples "$network" --method sparsegpt --method balanced --pattern 2:4 \
        --samples 32 --samples 64 --samples 128 --samples 256 --samples 512 --samples 1024 --samples 2048
done
