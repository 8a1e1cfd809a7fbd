#!/usr/bin/env bash
# Builds both images without a Docker engine, on stand-ins for NVIDIA's base images, and runs them.
#
# A base is Debian's Python with empty packages named torch, torchvision, tensorrt and pycuda in versions like
# NVIDIA's, a real numpy, a pip constraint that contradicts our lock, and an entrypoint that prints a banner. This shows
# that the Dockerfiles build, that no package of the base is replaced, that its entrypoint remains, and that commands work for
# a user without an entry in /etc/passwd.
#
# It does NOT cover: a GPU; NVIDIA's real images, libraries and entrypoint; the compilation of PyCUDA; anything that needs
# torch, which is an empty package here (so doctor also lacks scikit-learn and timm); Python 3.12 (Debian has 3.11); BuildKit
# (buildah is used); docker, podman and compose.
#
# Needs root, Debian or Ubuntu with buildah and debootstrap, their archive and PyPI; 5 GB under TMPDIR; ten minutes.
# ROOTFS=FOLDER saves debootstrap: a Debian with python3, python3-pip and ca-certificates.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly TORCH=2.12.0a0+5aff3928d8.nv26.05 TORCHVISION=0.27.0a0+nv26.05 TENSORRT=10.16.0.1 NUMPY=2.1.0
readonly SITE=/usr/local/lib/python3.11/dist-packages ANYONE=12345:54321

step() { printf '\n== %s\n' "$*"; }

fail() {
  printf '%s: error: %s\n' "${0##*/}" "$1" >&2
  exit 1
}

quietly() { # COMMAND...: what it says is shown where it fails
  "$@" >"$scratch/log" 2>&1 || { tail -40 "$scratch/log" >&2 && fail "$1 failed, as above"; }
}

storage() { buildah --root "$scratch/store" --runroot "$scratch/state" --storage-driver vfs "$@"; }

stand_in() { # CONTAINER NAME VERSION: a package that is there and does nothing
  local info=$scratch/stand-in/$2-$3.dist-info
  rm -rf "$scratch/stand-in"
  mkdir -p "$scratch/stand-in/$2" "$info"
  echo "__version__ = '$3'" >"$scratch/stand-in/$2/__init__.py"
  printf 'Metadata-Version: 2.1\nName: %s\nVersion: %s\n' "$2" "$3" >"$info/METADATA"
  storage add --quiet "$1" "$scratch/stand-in" "$SITE" >/dev/null
}

make_bases() {
  local base pycuda
  pycuda=$(sed -n 's/^pycuda==\([^ ]*\).*/\1/p' docker/requirements.txt)
  base=$(storage from scratch)
  storage add --quiet "$base" "$ROOTFS" / >/dev/null
  printf '#!/bin/sh\necho "a banner, as NVIDIA prints one"\nexec "$@"\n' >"$scratch/entrypoint"
  chmod 755 "$scratch/entrypoint"
  storage add --quiet "$base" "$scratch/entrypoint" /opt/nvidia/nvidia_entrypoint.sh >/dev/null
  printf 'onnx==1.18.0\ntyper==0.15.0\n' >"$scratch/constraint.txt"
  storage add --quiet "$base" "$scratch/constraint.txt" /etc/pip/constraint.txt >/dev/null
  storage config --env PIP_CONSTRAINT=/etc/pip/constraint.txt --env PATH=/usr/local/bin:/usr/bin:/bin \
    --entrypoint '["/opt/nvidia/nvidia_entrypoint.sh"]' "$base"
  stand_in "$base" pycuda "$pycuda"
  stand_in "$base" tensorrt "$TENSORRT"
  storage commit --quiet "$base" base-tensorrt >/dev/null
  stand_in "$base" torch "$TORCH"
  stand_in "$base" torchvision "$TORCHVISION"
  quietly storage run "${certificates[@]}" "$base" -- pip install --break-system-packages "numpy==$NUMPY"
  storage commit --quiet "$base" base-pytorch >/dev/null
  storage rm "$base" >/dev/null
}

build() { # IMAGE DOCKERFILE BASE
  quietly storage bud --format docker "${certificates[@]}" --build-arg "BASE=localhost/$3" --file "$2" --tag "$1" .
}

run() { # COMMAND... in the container, through the entrypoint, as a user whom nobody knows
  storage run --user "$ANYONE" "$container" -- /opt/nvidia/nvidia_entrypoint.sh "$@"
}

check_configuration() { # IMAGE
  storage inspect --type image "$1" | python3 -c '
import json, sys
found = json.load(sys.stdin)["Docker"]["config"]
assert found["Entrypoint"] == ["/opt/nvidia/nvidia_entrypoint.sh"], found
assert found["User"] not in ("", "root", "0"), found
assert found["Healthcheck"]["Test"][:3] == ["CMD", "sparsegpt-trt", "doctor"], found
assert "org.opencontainers.image.version" in found["Labels"], found
assert "PIP_CONSTRAINT=/etc/pip/constraint.txt" in found["Env"], found'
}

check_versions() { # NAME VERSION NAME VERSION...: what Python in the image imports
  while (($#)); do
    [[ $(run python -c "import $1; print($1.__version__)" | tail -1) == "$2" ]] || fail "$1 is not $2 any more"
    shift 2
  done
}

check_commands() {
  run sparsegpt-trt --help | grep -q prune-export
  run python -W error -c 'import matplotlib.pyplot, pathlib; (pathlib.Path.home() / ".cache" / "mine").touch()'
  run python - <<'PYTHON'
import numpy as np, onnx
for name, step in (("dense", 1), ("sparse", 2)):
    weights = np.zeros((8, 8, 3, 3), np.float32)
    weights[:, ::step] = 1
    first, last = np.ones((8, 1, 1, 1), np.float32), np.ones((10, 8, 8, 8), np.float32)
    text = """<ir_version: 10, opset_import: ["": 20]> g (float[N, 1, 8, 8] x) => (float[N, 10] y) {
        a = Conv(x, first)  b = Conv <pads = [1, 1, 1, 1]> (a, weights)  c = Conv(b, last)  y = Flatten(c) }"""
    model = onnx.parser.parse_model(text)
    for key, array in (("first", first), ("weights", weights), ("last", last)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, key))
    onnx.save(model, f"{name}.onnx")
PYTHON
  run sparsegpt-trt verify sparse.onnx
  run sparsegpt-trt predict dense.onnx --shapes 1/8/8 --quiet
  run sparsegpt-trt explain sparse.onnx --quiet
  run sparsegpt-trt benchmark dense.onnx sparse.onnx --data digits --eval-samples 100 --quick --quiet --out benchmark.json
}

[[ $(id -u) == 0 ]] || fail "this needs root, to make and enter a root file system"
for program in buildah debootstrap; do
  command -v "$program" >/dev/null || fail "there is no $program: apt-get install buildah debootstrap"
done
export BUILDAH_ISOLATION=chroot # no service, no cgroups
scratch=$(mktemp --directory --tmpdir sparsegpt-trt-build.XXXXXX)
trap 'storage rm --all >/dev/null; rm -rf "$scratch"' EXIT
certificates=(--volume /etc/ssl/certs:/etc/ssl/certs:ro) # the host's, which may know more authorities than Debian

step "a root file system"
if [[ -z ${ROOTFS:-} ]]; then
  ROOTFS=$scratch/rootfs
  quietly debootstrap --variant=minbase --include=python3,python3-pip,ca-certificates bookworm "$ROOTFS"
fi
step "two base images"
make_bases
rm -rf "$scratch/rootfs"

step "the image"
build sparsegpt-trt Dockerfile base-pytorch
check_configuration sparsegpt-trt
container=$(storage from sparsegpt-trt)
check_versions torch "$TORCH" torchvision "$TORCHVISION" tensorrt "$TENSORRT" numpy "$NUMPY"
run sparsegpt-trt doctor --strict
check_commands
storage rm "$container" >/dev/null
storage rmi sparsegpt-trt >/dev/null

step "the slim image"
build sparsegpt-trt:slim docker/Dockerfile.slim base-tensorrt
check_configuration sparsegpt-trt:slim
container=$(storage from sparsegpt-trt:slim)
check_versions tensorrt "$TENSORRT"
run sparsegpt-trt doctor
check_commands

step "passed, in $SECONDS s. Not covered, see the top of this file: GPU, NVIDIA's images, PyCUDA, torch, BuildKit"
