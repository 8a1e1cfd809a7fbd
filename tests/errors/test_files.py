"""Wrong configurations, and outputs that cannot be written."""

import os
import resource
from pathlib import Path

import onnx
import pytest

from tests.support.error_rows import check, save_good, spoil
from tests.support.error_rows.files import FULL, PLAIN, SHUT
from tests.support.graphs import model

NOBODY = 65534


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    spoil(folder, ("yaml", "safetensors", "onnx", "plan", "json", "npz"))
    save_good(folder / "good.safetensors")
    onnx.save(model(), str(folder / "good.onnx"))
    (folder / "large.yaml").write_text("# \n" * 30000)
    (folder / "latin.yaml").write_bytes(b"data: caf\xe9\n")
    (folder / "tab.yaml").write_text("prune:\n\tsamples: 16\n")
    (folder / "list.yaml").write_text("mean: [0.5, 0.25]\n")
    (folder / "under.yaml").write_text("prune_export:\n  samples: 16\n")
    (folder / "sizes.yaml").write_text("sweep:\n  sizes: 3\n")
    (folder / "key.yaml").write_text("sampels: 3\n")
    (folder / "value.yaml").write_text("samples: many\n")
    folder.chmod(0o777)
    (folder / "shut").mkdir(mode=0o700)
    (folder / "shut.onnx").write_bytes(b"secret")
    (folder / "shut.onnx").chmod(0o600)
    return folder


@pytest.fixture
def nobody(cli):
    """Run a command without root's rights, which stand above permissions."""

    def run(*arguments):
        cli("predict", "good.onnx", "--estimate")  # loads what nobody may not read, perhaps
        if os.geteuid():
            return cli(*arguments)
        os.seteuid(NOBODY)
        try:
            return cli(*arguments)
        finally:
            os.seteuid(0)

    return run


@pytest.fixture
def full(cli):
    """Run a command that cannot make files larger than 256 bytes: as on a full disk, writing fails half-way."""

    def run(*arguments):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (256, before[1]))
        try:
            return cli(*arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return run


# fmt: on


@pytest.mark.parametrize("row", PLAIN, ids=str)
def test_a_row(cli, folder, monkeypatch, row):
    check(row, cli, folder, monkeypatch)


@pytest.mark.parametrize("row", SHUT, ids=str)
def test_a_row_without_permission(nobody, folder, monkeypatch, row):
    check(row, nobody, folder, monkeypatch)


@pytest.mark.parametrize("row", FULL, ids=str)
def test_a_row_without_space(full, folder, monkeypatch, row):
    check(row, full, folder, monkeypatch)


def test_names_that_are_not_utf_8(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = os.fsdecode(b"\xff\xfe.onnx")
    outcome = cli("verify", name)
    assert (outcome.code, outcome.err) == (1, "error: no file at ��.onnx. Give the path of an .onnx file.\n")
    onnx.save(model(), os.fsencode(name))
    assert cli("verify", name, "--json").json["model"] == name
    assert cli("predict", name, "--estimate", "--out", os.fsdecode(b"\xfe.json")).code == 0
    assert cli("triton-export", name, "--out", os.fsdecode(b"\xfd")).code == 1  # Triton's names are plain
    assert {path.name for path in Path().iterdir()} == {os.fsdecode(b"\xfe.json"), name}
