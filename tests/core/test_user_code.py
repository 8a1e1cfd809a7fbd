import hashlib
import subprocess
import sys

import pytest

from sparsegpt_core.errors import InputError
from sparsegpt_core.user_code import import_object, source_file, source_sha256


@pytest.fixture(autouse=True)
def path(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_module_is_found_in_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "own_metrics.py").write_text("def iou(): return 0.5\n")
    monkeypatch.chdir(tmp_path)
    assert import_object("own_metrics:iou")() == 0.5


@pytest.mark.parametrize("spec", ["{}/code.py:net", "./code.py:net", "code.py:net", "~/code.py:net"])
def test_a_file_is_imported_by_its_path(tmp_path, monkeypatch, spec):
    """``code`` is also a module of Python, which the file neither replaces nor is replaced by."""
    (tmp_path / "code.py").write_text("from beside import VALUE\ndef net(): return VALUE\n")
    (tmp_path / "beside.py").write_text("VALUE = 7\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delitem(sys.modules, "beside", raising=False)
    assert import_object(spec.format(tmp_path))() == 7
    import code

    assert code.InteractiveConsole


def test_a_file_is_imported_once_and_names_may_have_dots(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Loader:\n    size: int = 3\n    @staticmethod\n    def images(): return 'images'\n"
    )
    assert import_object(f"{file}:Loader") is import_object(f"{file}:Loader")
    assert import_object(f"{file}:Loader.images")() == "images"


def test_a_file_that_fails_is_run_again_once_it_is_fixed(tmp_path):
    file = tmp_path / "own.py"
    for fault in ("raise ValueError('bad luck')", "raise SystemExit(3)", "def ("):
        file.write_text(fault)
        with pytest.raises(InputError, match=r"cannot import net from .*own\.py: (bad luck|3|invalid syntax|'\('.*)"):
            import_object(f"{file}:net")
    file.write_text("net = 1  # a file of another size is compiled again\n")
    assert import_object(f"{file}:net") == 1


def test_a_name_that_is_not_there(tmp_path):
    (tmp_path / "own.py").write_text("def factory(): pass\nclass Other: pass\n")
    with pytest.raises(InputError, match=r"own\.py has no factry") as caught:
        import_object(f"{tmp_path / 'own.py'}:factry")
    assert caught.value.hint == f"Did you mean {tmp_path / 'own.py'}:factory?"
    with pytest.raises(InputError) as caught:
        import_object(f"{tmp_path / 'own.py'}:zzz")
    assert caught.value.hint == "It has factory, Other."
    with pytest.raises(InputError, match="there is no such file"):
        import_object(f"{tmp_path / 'none.py'}:net")


def test_it_loads_no_torch():
    line = "import sys; from sparsegpt_core.user_code import import_object; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", line], text=True).strip() == "False"


@pytest.mark.parametrize(
    "spec", ["own_scores.py:iou", "./own_scores.py:iou", "own_scores:iou", "package.inner:iou", "package:iou"]
)
def test_the_source_file_is_the_one_that_is_imported(tmp_path, monkeypatch, spec):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "package").mkdir()
    for file in ("own_scores.py", "package/__init__.py", "package/inner.py"):
        (tmp_path / file).write_text("from pathlib import Path\niou = Path(__file__)\n")
    found = source_file(spec)
    assert "package" not in sys.modules  # no code has run
    assert found.resolve() == import_object(spec).resolve()
    assert source_sha256(spec) == hashlib.sha256(found.read_bytes()).hexdigest()


@pytest.mark.parametrize("spec", ["miou", "nowhere.py:f", "no.such.module:f", "sys:path"])
def test_a_name_without_a_file_has_no_source(spec):
    assert source_file(spec) is None
    assert source_sha256(spec) is None
