#!/usr/bin/env bash
# Writes requirements.txt and requirements-slim.txt: the packages that the images add to their bases, with versions and hashes.
# Packages of the bases, and packages that the slim image does not need, are excluded, also as dependencies.
# Resolved for Python 3.11, which test-build.sh uses. All packages also exist for the bases' Python 3.12.
# Needs uv (pip install uv). Run it again when the dependencies of pyproject.toml or the bases change.
set -euo pipefail
cd "$(dirname "$0")/.."

lock() { # OUTPUT EXTRAS... -- ABSENT...
  local output=$1 extras=()
  shift
  while [[ $1 != -- ]]; do
    extras+=(--extra "$1")
    shift
  done
  shift
  {
    printf '%s; python_version < "0"\n' "$@"
    echo 'cuda-python~=13.2.0' # the bases' CUDA
  } | uv pip compile pyproject.toml "${extras[@]}" --override - --python-version 3.11 --python-platform linux \
    --generate-hashes --custom-compile-command docker/lock.sh --quiet --output-file "docker/$output"
}

lock requirements.txt gpu timm -- torch torchvision numpy
lock requirements-slim.txt gpu -- torch torchvision onnxscript
