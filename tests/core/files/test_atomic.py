"""Files are written whole or not at all, and locked by one process at a time."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import time

import pytest

from sparsegpt_core.errors import InputError
from sparsegpt_core.files import (
    atomic_path,
    read_json,
    remove_abandoned,
    staged_file,
    staged_folder,
    take_lock,
    write_json,
    write_text,
)


def test_atomic_path_leaves_the_old_file_when_interrupted(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def interrupted():
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_path_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "inside.json"):
        with pytest.raises(InputError, match="cannot write"):
            write_json(path, {})


def test_json_refuses_nan_and_reports_damage(tmp_path):
    path = tmp_path / "x.json"
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert not path.exists()
    path.write_text("{")
    with pytest.raises(InputError, match="not a JSON file"):
        read_json(path)


def test_a_failed_read_in_the_block_is_not_called_a_failed_write(tmp_path):
    path, missing = tmp_path / "out.json", tmp_path / "missing.json"
    for staged in (atomic_path, staged_file, staged_folder):
        with pytest.raises(FileNotFoundError) as caught, staged(path):
            missing.read_bytes()
        assert caught.value.filename == str(missing)
    with pytest.raises(FileNotFoundError), atomic_path(path) as temporary:
        shutil.copyfile(missing, temporary)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("named", [True, False])
def test_a_failed_write_in_the_block_names_the_path(tmp_path, named):
    path = tmp_path / "out.json"
    with pytest.raises(InputError, match=f"^cannot write {path}: No space left"), atomic_path(path) as temporary:
        raise OSError(28, "No space left on device", *[str(temporary)] * named)
    assert not list(tmp_path.iterdir())


def test_writing_leaves_the_umask_alone(tmp_path, monkeypatch):
    before = os.umask(0o027)
    monkeypatch.setattr(os, "umask", lambda _: pytest.fail("other threads would create files that all can write"))
    write_text(tmp_path / "file", "text")
    monkeypatch.undo()
    os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_only_own_folders_of_dead_processes_are_abandoned(tmp_path):
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".a.json.1.partial").mkdir()
    (tmp_path / ".b.json.2.partial").mkdir()
    (tmp_path / ".c.json.3.partial").write_text("a file")
    with staged_folder(tmp_path / "a.json") as folder:
        assert {path.name for path in tmp_path.iterdir()} >= {".b.json.2.partial", folder.name}
        assert not (tmp_path / ".a.json.1.partial").exists()
        remove_abandoned(tmp_path)
        left = {path.name for path in tmp_path.iterdir()}
        assert left == {".c.json.3.partial", ".cache", folder.name}


def test_a_lock_on_a_removed_file_is_not_a_lock(tmp_path):
    path = tmp_path / "lock"
    with path.open("a") as file:
        path.unlink()
        assert not take_lock(file.fileno(), path)
        path.touch()
        assert not take_lock(file.fileno(), path)


def write_and_die(path, writing):
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        writing.set()
        time.sleep(60)


def test_the_next_writer_removes_the_temporary_files_of_a_killed_process(tmp_path):
    path = tmp_path / "[a].json"
    context = multiprocessing.get_context("spawn")
    writing = context.Event()
    process = context.Process(target=write_and_die, args=(path, writing))
    process.start()
    assert writing.wait(60)
    write_text(path, "beside it")  # the other one lives, so what it writes is left alone
    assert path.read_text() == "beside it"
    assert len(list(tmp_path.iterdir())) == 2
    process.kill()
    process.join()
    assert len(list(tmp_path.iterdir())) == 2
    write_text(tmp_path / "other.json", "nobody else's goes")
    assert len(list(tmp_path.iterdir())) == 3
    write_text(path, "new")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["[a].json", "other.json"]
