#!/bin/sh
# Measure everything that docs/results.md is made of: sh benchmarks/results/measure.sh [RUNS]
#
# RUNS (runs/ by default) gets checkpoints and a sweep, this folder the raw results. Days on two cores; whatever is
# finished is not computed again. A checkpoint that is in RUNS already is taken as it is. `make results` then
# writes the page.
set -eu
runs=${1:-runs}
here=$(dirname "$0")
tool=${TOOL:-sparsegpt-trt}
data="--data fashion-mnist --data-root ${DATA_ROOT:-/usr/share/datasets}"
networks="simple_cnn cifar_cnn resnet18 vgg16"

sweep() { # TABLE, the checkpoints' ending, and what spans the grid
    table=$1 ending=$2
    shift 2
    weights=""
    for network in $networks; do
        weights="$weights --weights $runs/$network$ending.safetensors"
    done
    $tool sweep $weights $data --out "$runs/sweep" --seeds 0 --seeds 1 --seeds 2 "$@"
    cp "$runs/sweep/results.csv" "$here/$table.csv"
    if [ "$table" = two-four ]; then cp "$runs/sweep/layers.csv" "$here/layers.csv"; fi
    cp "$runs/sweep/sweep.json" "$here/$table.json" # the grid and the environment
}

for network in $networks; do
    trained=$runs/$network.safetensors early=$runs/$network-1-epoch.safetensors config=configs/$network-fashion-mnist.yaml
    [ -e "$trained" ] || $tool train --config "$config" --out "$trained"
    [ -e "$early" ] || $tool train --config "$config" --epochs 1 --out "$early"
done

sweep two-four "" --methods magnitude --methods cnn-sparsegpt --methods sparsegpt --methods balanced --methods best \
    --patterns 2:4
sweep training -1-epoch --methods magnitude --methods cnn-sparsegpt --methods sparsegpt --methods balanced \
    --patterns 2:4
sweep patterns "" --methods magnitude --methods sparsegpt --methods balanced \
    --patterns 1:4 --patterns 4:8 --patterns 2:8 --patterns 0.5 --patterns 0.7 --patterns 0.9
sweep samples "" --methods sparsegpt --methods balanced --patterns 2:4 \
    --samples 32 --samples 64 --samples 128 --samples 256 --samples 512 --samples 1024 --samples 2048

for network in $networks; do
    for seed in 0 1 2; do
        pruned=$runs/$network-2-4-$seed.safetensors tuned=$runs/$network-2-4-$seed-tuned.safetensors
        [ -e "$pruned" ] ||
            $tool prune --weights "$runs/$network.safetensors" $data --samples 256 --seed $seed --out "$pruned"
        [ -e "$here/finetune-$network-$seed.json" ] ||
            $tool finetune --weights "$pruned" --dense "$runs/$network.safetensors" $data --epochs 1 --seed $seed \
                --json --out "$tuned" >"$runs/finetune.json"
        [ -e "$here/finetune-$network-$seed.json" ] || mv "$runs/finetune.json" "$here/finetune-$network-$seed.json"
    done
done
