#!/usr/bin/env bash
# From a trained network to a report, in the container: prune-export, the three arms on TensorRT, report.
#
#   docker/benchmark.sh FOLDER PRUNE-EXPORT-OPTIONS... [-- BENCHMARK-OPTIONS...]
#
# FOLDER contains weights and data. It is the container's working folder, so paths in the options are relative to it. The
# results, with report.html, are in FOLDER/run; --force replaces those of an earlier call. Data options go to both commands.
# The FP16 models are compared; with --int8 the INT8 models. An example that is also a gate (exit status 1):
#
#   docker/benchmark.sh ~/job --weights net.safetensors --data cifar10 --data-root . -- --max-drop 0.5 --min-speedup 1.05
#
# Environment: ENGINE is docker or podman (default: the first that is installed), IMAGE the image (default: sparsegpt-trt).
set -euo pipefail

readonly NAME=${0##*/} IMAGE=${IMAGE:-sparsegpt-trt}

fail() { # MESSAGE HINT [STATUS]
  printf '%s: error: %s. %s\n' "$NAME" "$1" "$2" >&2
  exit "${3:-1}"
}

usage() {
  sed -n '2,/^set -/{/^set -/d; s/^# \{0,1\}//; p}' "$0"
}

find_engine() {
  local candidate
  for candidate in ${ENGINE:-docker podman}; do
    if command -v "$candidate" >/dev/null; then
      "$candidate" info >/dev/null 2>&1 ||
        fail "$candidate is installed but does not answer" "See '$candidate info': does its service run, may you use it?"
      echo "$candidate"
      return
    fi
  done
  fail "there is no ${ENGINE:-docker or podman}" "Install Docker or Podman, and NVIDIA's container toolkit."
}

check_gpu() { # ENGINE-COMMAND...
  local said
  if said=$("$@" --entrypoint nvidia-smi "$IMAGE" --list-gpus 2>&1) && [[ $said == *GPU* ]]; then
    echo "$said" >&2
    return
  fi
  nvidia-smi --list-gpus >/dev/null 2>&1 || fail "there is no NVIDIA GPU (nvidia-smi names none)" \
    "Use a machine with a GPU of the Ampere generation or newer and its driver."
  fail "containers do not see the GPU: ${said##*$'\n'}" "Install nvidia-container-toolkit and set it up with nvidia-ctk."
}

case ${1:-} in
  -h | --help) usage && exit ;;
  '' | -*) fail "no folder is named" "Usage: $NAME FOLDER PRUNE-EXPORT-OPTIONS... [-- BENCHMARK-OPTIONS...]" 2 ;;
esac
[[ -d $1 && -w $1 ]] || fail "'$1' is not a folder that you may write to" "Make it, with weights and data inside." 2
folder=$(cd "$1" && pwd -P)
shift

prune=() data=() benchmark=() precision=fp16
while (($#)); do
  case $1 in
    --)
      shift
      benchmark=("$@")
      break
      ;;
    --out | --out=*) fail "--out cannot be chosen" "Results are written to $folder/run." 2 ;;
    --int8) precision=int8 ;;
    --data=* | --data-root=* | --eval-data=* | --eval-samples=* | --image-size=* | --mean=* | --std=*) data+=("$1") ;;
    --data | --data-root | --eval-data | --eval-samples | --image-size | --mean | --std)
      (($# > 1)) || fail "$1 has no value" "Give it one." 2
      data+=("$1" "$2")
      prune+=("$1")
      shift
      ;;
  esac
  prune+=("$1")
  shift
done
((${#prune[@]})) || fail "nothing is said of the network" "Give at least --model or --weights, and --data." 2

engine=$(find_engine)
"$engine" image inspect "$IMAGE" >/dev/null 2>&1 ||
  fail "there is no image '$IMAGE'" "Build it in the repository: $engine build --tag $IMAGE ."

# The options that NVIDIA recommends for PyTorch. The caller owns the output. A health check would disturb the timing.
run=("$engine" run --rm --ipc=host --user "$(id -u):$(id -g)" --no-healthcheck
  --mount "type=bind,source=$folder,target=/data")
if [[ $engine == *podman ]]; then
  run+=(--device nvidia.com/gpu=all --userns=keep-id --security-opt=label=disable --ulimit host)
else
  run+=(--gpus all --ulimit memlock=-1 --ulimit stack=67108864)
fi
check_gpu "${run[@]}"

"${run[@]}" "$IMAGE" sparsegpt-trt prune-export --out run "${prune[@]}"
status=0
"${run[@]}" "$IMAGE" sparsegpt-trt benchmark "run/dense.$precision.onnx" "run/sparse.$precision.onnx" "${data[@]}" \
  --runtime tensorrt --plans run/plans --out run/benchmark.json --force "${benchmark[@]}" || status=$?
"${run[@]}" "$IMAGE" sparsegpt-trt report run
echo "$folder/run/report.html"
exit "$status"
