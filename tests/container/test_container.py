"""What can be said of the container without a container engine; docker/test-build.sh builds it."""

import importlib.util
import os
import re
import shutil
import subprocess
import sysconfig
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from sparsegpt_core import __version__
from tests.support.paths import ROOT

DOCKER = ROOT / "docker"
DOCKERFILES = [ROOT / "Dockerfile", DOCKER / "Dockerfile.slim"]
SCRIPTS = [*sorted(DOCKER.glob("*.sh")), ROOT / "tests/gpu_contract/install.sh"]
GPU_LIST = "GPU 0: NVIDIA A100"
ENGINE = """#!/bin/bash
# A stand-in for an engine: it notes what it is asked, and answers as the test wants.
printf '%s\\n' "$*" >>"$LOG"
case $* in
  info) exit "${INFO:-0}" ;;
  image*) exit "${IMAGE_THERE:-0}" ;;
  *nvidia-smi*) echo "${GPU_IN_CONTAINER}" && [[ $GPU_IN_CONTAINER == GPU* ]] ;;
  *'sparsegpt-trt benchmark'*) exit "${BENCHMARK:-0}" ;;
esac
"""


def tool(name):
    path = shutil.which(name, path=os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]]))
    if path is None:
        pytest.fail(f"there is no {name}: pip install -e '.[dev]'")
    return path


def instructions(path):
    lines = re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    return [tuple(line.split(maxsplit=1)) for line in lines if line.strip()]


def check(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_finds_nothing(path):
    check(tool("hadolint"), str(path))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(path):
    assert os.access(path, os.X_OK)
    check("bash", "-n", str(path))
    check(tool("shellcheck"), str(path))


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_the_bases_entrypoint_stays_and_the_user_is_not_root(path):
    said = instructions(path)
    last = dict(said)
    assert "ENTRYPOINT" not in last
    assert last["USER"] not in ("0", "root", "0:0")
    assert "doctor" in last["HEALTHCHECK"]
    assert f"VERSION={__version__}" in last["ARG"].split()
    assert "org.opencontainers.image.base.name" in last["LABEL"]


def test_both_bases_are_of_one_month_so_that_plans_go_from_one_to_the_other():
    bases = [dict(reversed(instructions(path)))["ARG"] for path in DOCKERFILES]  # the first, hence the last reversed
    months = [re.fullmatch(r"BASE=nvcr\.io/nvidia/(pytorch|tensorrt):(\d\d\.\d\d)-py3", base) for base in bases]
    assert months[0][2] == months[1][2]


def test_the_build_context_holds_what_the_images_are_made_of():
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    found = re.search(r"^include = \[(.*)\]", (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)[1]
    packages = re.findall(r'"(\w+)\*"', found)
    mounted = [name for path in DOCKERFILES for name in re.findall(r"source=(docker/[^,\s]+)", path.read_text())]
    assert {*packages, "pyproject.toml", "README.md", "LICENSE"} <= {*kept}
    for name in mounted:
        assert (ROOT / name).is_file()
        assert any(Path(name).match(pattern) for pattern in kept)


@pytest.mark.parametrize(
    ("name", "extras", "absent"),
    [
        ("requirements.txt", ["gpu", "timm"], {"torch", "torchvision", "numpy"}),
        ("requirements-slim.txt", ["gpu"], {"torch", "torchvision", "onnxscript"}),
    ],
)
def test_the_lock_meets_the_project_and_holds_nothing_of_nvidias(name, extras, absent):
    text = (DOCKER / name).read_text()
    pins = dict(re.findall(r"^([a-z0-9-]+)==(\S+) \\\n +--hash=sha256:", text, flags=re.MULTILINE))
    assert len(pins) == len(re.findall(r"^[a-z]", text, flags=re.MULTILINE)), "a requirement without version or hash"
    for requirement in map(Requirement, metadata.requires("sparsegpt-trt")):
        needed = not requirement.marker or any(requirement.marker.evaluate({"extra": extra}) for extra in extras)
        if needed and requirement.name not in absent:
            assert requirement.specifier.contains(pins[requirement.name]), requirement
    assert not absent & pins.keys()
    assert not [pin for pin in pins if re.match(r"tensorrt|triton|nvidia-(?!ml-py)", pin)]


def test_compose_gives_both_services_a_gpu_memory_and_the_folder():
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    assert services.keys() == {"sparsegpt-trt", "slim"}
    for service in services.values():
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
        assert (service["ipc"], service["ulimits"]) == ("host", {"memlock": -1, "stack": 67108864})
        assert service["volumes"][0]["target"] == "/data"
        build = service["build"]
        assert (DOCKER / build["context"] / build.get("dockerfile", "Dockerfile")).is_file()


def test_the_readme_names_every_file():
    text = (DOCKER / "README.md").read_text()
    files = {path.name for path in DOCKER.iterdir() if path.is_file()} - {"README.md"}
    assert not [name for name in files if name not in text and not name.startswith("requirements")]


@pytest.fixture
def environment_check():
    spec = importlib.util.spec_from_file_location("check_environment", DOCKER / "check_environment.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_module_that_hides_the_bases_is_found(environment_check, monkeypatch):
    monkeypatch.setattr("sys.prefix", "/elsewhere")
    assert [*environment_check.lost(["numpy"])] == []
    monkeypatch.setattr("sys.prefix", sysconfig.get_path("purelib"))
    (hidden,) = environment_check.lost(["numpy"])
    (missing,) = environment_check.lost(["no_such_module"])
    assert hidden.startswith("numpy: ")
    assert "hides" in hidden
    assert missing == "no_such_module: the base image has none"


def test_an_unmet_requirement_is_found(environment_check, monkeypatch, tmp_path):
    folder = tmp_path / "ours-1.0.dist-info"
    folder.mkdir()
    lines = ["numpy>=1", "numpy>=99", "nowhere", "torch>=99", "other; extra == 'x'"]
    requires = "".join(f"Requires-Dist: {line}\n" for line in lines)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: ours\nVersion: 1.0\n{requires}")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    old, none = environment_check.unmet({"torch"})
    assert old.startswith("ours requires numpy>=99, and there is ")
    assert none == "ours requires nowhere, and there is none"


@pytest.fixture
def benchmark(tmp_path):
    """Call benchmark.sh where nothing but the named engines is there; returns what it did and what they were asked."""
    programs, log, folder = tmp_path / "bin", tmp_path / "log", tmp_path / "a job"
    programs.mkdir()
    folder.mkdir()
    for name in ("bash", "id", "sed"):
        (programs / name).symlink_to(shutil.which(name))

    def call(*arguments, engines=("docker",), **variables):
        for name in engines:
            (programs / name).write_text(ENGINE)
            (programs / name).chmod(0o755)
        variables = {"PATH": str(programs), "LOG": str(log), "GPU_IN_CONTAINER": GPU_LIST, **variables}
        command = [str(DOCKER / "benchmark.sh"), *(str(folder) if text == "FOLDER" else text for text in arguments)]
        done = subprocess.run(command, capture_output=True, text=True, env=variables)
        return done, log.read_text().splitlines() if log.exists() else []

    call.folder, call.programs = folder, programs
    return call


def test_benchmark_prunes_times_and_reports(benchmark):
    options = ["--weights", "w.safetensors", "--data=npz:a.npz", "--eval-data", "npz:b.npz", "--", "--max-drop", "0.5"]
    done, asked = benchmark("FOLDER", *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{benchmark.folder}/run/report.html"
    prune, measure, report = [line.partition("sparsegpt-trt sparsegpt-trt ")[2] for line in asked[-3:]]
    data = "--data=npz:a.npz --eval-data npz:b.npz"
    assert prune == f"prune-export --out run --weights w.safetensors {data}"
    assert measure == (
        f"benchmark run/dense.fp16.onnx run/sparse.fp16.onnx {data} --runtime tensorrt --plans run/plans "
        "--out run/benchmark.json --force --max-drop 0.5"
    )
    assert report == "report run"
    for line in asked[-3:]:
        assert "--gpus all --ulimit memlock=-1 --ulimit stack=67108864 " in line
        assert f"--ipc=host --user {os.getuid()}:{os.getgid()} --no-healthcheck" in line
        assert f"source={benchmark.folder},target=/data" in line


def test_benchmark_compares_int8_where_it_is_asked_for(benchmark):
    done, asked = benchmark("FOLDER", "--data", "digits", "--int8")
    assert done.returncode == 0
    assert "prune-export --out run --data digits --int8" in asked[-3]
    assert "benchmark run/dense.int8.onnx run/sparse.int8.onnx --data digits " in asked[-2]


def test_benchmark_on_podman(benchmark):
    _, asked = benchmark("FOLDER", "--data", "digits", engines=["podman"])
    assert "--device nvidia.com/gpu=all --userns=keep-id" in asked[-1]
    assert "--gpus" not in asked[-1]


def test_a_gate_that_fails_is_reported_all_the_same(benchmark):
    done, asked = benchmark("FOLDER", "--data", "digits", BENCHMARK="1")
    assert done.returncode == 1
    assert asked[-1].endswith("sparsegpt-trt report run")


@pytest.mark.parametrize(
    ("arguments", "situation", "status", "words"),
    [
        ([], {}, 2, "no folder is named"),
        (["--data", "digits"], {}, 2, "no folder is named"),
        (["/nowhere", "--data", "digits"], {}, 2, "not a folder that you may write to"),
        (["FOLDER"], {}, 2, "nothing is said of the network"),
        (["FOLDER", "--data"], {}, 2, "--data has no value"),
        (["FOLDER", "--out", "x"], {}, 2, "--out cannot be chosen"),
        (["FOLDER", "--data", "digits"], {"engines": []}, 1, "there is no docker or podman"),
        (["FOLDER", "--data", "digits"], {"ENGINE": "podman"}, 1, "there is no podman"),
        (["FOLDER", "--data", "digits"], {"INFO": "1"}, 1, "docker is installed but does not answer"),
        (["FOLDER", "--data", "digits"], {"IMAGE_THERE": "1"}, 1, "there is no image 'sparsegpt-trt'"),
        (["FOLDER", "--data", "digits"], {"GPU_IN_CONTAINER": "no driver"}, 1, "there is no NVIDIA GPU"),
    ],
)
def test_benchmark_says_what_is_missing(benchmark, arguments, situation, status, words):
    done, asked = benchmark(*arguments, **situation)
    assert done.returncode == status
    (line,) = done.stderr.splitlines()
    assert line.startswith("benchmark.sh: error: ")
    assert words in line
    assert not [request for request in asked if "prune-export" in request]


def test_a_gpu_that_containers_do_not_see_is_the_toolkits_fault(benchmark):
    (benchmark.programs / "nvidia-smi").symlink_to(shutil.which("true"))
    done, _ = benchmark("FOLDER", "--data", "digits", GPU_IN_CONTAINER="could not select device driver")
    assert done.returncode == 1
    assert (
        "containers do not see the GPU: could not select device driver. Install nvidia-container-toolkit" in done.stderr
    )


def test_options_of_data_are_options_of_both_commands(cli):
    shared = re.search(r"^    (--data \| .*)\)$", (DOCKER / "benchmark.sh").read_text(), flags=re.MULTILINE)[1].split(
        " | "
    )
    assert len(shared) > 5
    for command in ("prune-export", "benchmark"):
        usage = cli(command, "--help-all").out
        assert not [option for option in shared if not re.search(rf"{option}\b", usage)]
