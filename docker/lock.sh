#!/usr/bin/env bash
# Writes requirements.txt and requirements-slim.txt: all that the images add to their bases, with versions and hashes.
# What the bases bring, or the slim image does without, is overridden away and so cannot be installed by any path.
# For Python 3.11, which test-build.sh has; the bases have 3.12, for which all of it exists too.
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
