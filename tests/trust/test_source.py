"""What no module of ours may call: unpickling, unpacking, evaluating, and YAML that makes objects."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.support.paths import ROOT

FILES = [
    path
    for package in ("sparsegpt_core", "calibration", "export", "deploy", "sparsegpt_cli")
    for path in sorted((ROOT / package).rglob("*.py"))
]
FORBIDDEN = {
    *("eval", "exec", "os.system", "os.popen", "marshal.load", "marshal.loads", "shelve.open", "joblib.load"),
    *("pickle.load", "pickle.loads", "torch.jit.load", "torch.hub.load", "torch.export.load", "np.fromregex"),
    *("yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "yaml.Loader", "yaml.UnsafeLoader"),
    *("shutil.unpack_archive", "tarfile.open", "zipfile.ZipFile.extractall"),
}
METHODS = {"extract", "extractall", "unpack_archive"}
NEEDED = {
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
}


def calls(source: str) -> Iterator[tuple[str, dict[str, object]]]:
    """Yield the dotted name and the constant keywords of every call."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            constants = {each.arg: each.value.value for each in node.keywords if isinstance(each.value, ast.Constant)}
            yield ast.unparse(node.func), {str(key): value for key, value in constants.items()}


def problems(source: str) -> list[str]:
    found = []
    for name, keywords in calls(source):
        if name in FORBIDDEN or name.rpartition(".")[2] in METHODS or keywords.get("shell"):
            found.append(name)
        if name in NEEDED:
            key, value = NEEDED[name]
            if keywords.get(key) is not value:
                found.append(f"{name} without {key}={value}")
    return found


def test_nothing_that_runs_what_it_reads():
    assert {path: found for path in FILES if (found := problems(path.read_text()))} == {}


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "np.load(f, allow_pickle=True)",
        "yaml.load(f, Loader=yaml.Loader)",
        "zipfile.ZipFile(f).extractall()",
        "subprocess.run(c, shell=True)",
        "eval(x)",
    ],
)
def test_the_check_finds_what_it_looks_for(source):
    assert problems(source)


def test_all_that_is_allowed_is_there():
    names = {name for path in FILES for name, _ in calls(path.read_text())}
    assert {"torch.load", "np.load", "yaml.parse"} <= names
