#!/usr/bin/env bash
# Installs what `make gpu-contract` tests against: tests/gpu_contract/install.sh FOLDER PYTHON
# PYTHON is a Python 3.10, since TensorRT 8.6.0 has no package for later ones. Needs gcc, g++ and 3 GB.
set -euo pipefail
here=$(dirname "$0")
folder=$1

"$2" -m venv "$folder"
install() { "$folder/bin/python" -m pip install --disable-pip-version-check --quiet "$@"; }

# What deploy and its commands need, in the oldest versions that pyproject.toml allows. They run without torch.
install -c "$here/../constraints-lowest.txt" pytest hypothesis numpy onnx onnxruntime polygraphy typer rich pyyaml pillow \
  psutil scikit-learn jinja2 matplotlib safetensors

# Next to them, and without what they depend on: the stand-ins take its place.
install --no-deps -r "$here/packages.txt"

# Four versions of the bindings, each in a folder of its own.
while read -r name version; do
  install --no-deps --target "$folder/bindings/$version" "$name==$version"
done <"$here/bindings.txt"

# PyCUDA has no binary package. The stand-in driver is loaded before it, so it is not linked to one.
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
"$folder/bin/python" >"$build/.aksetup-defaults.py" <<'PYTHON'
import nvidia.cu13

print(f"CUDA_INC_DIR = ['{list(nvidia.cu13.__path__)[0]}/include']")
print("CUDADRV_LIBNAME = []")
print("CUDA_ENABLE_CURAND = False")
PYTHON
HOME=$build install pycuda==2026.1
