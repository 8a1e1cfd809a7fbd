"""Messages and progress: lines where there is no terminal, bars where there is one."""

import io
import time

import pytest
from rich.console import Console as RichConsole

import sparsegpt_cli.terminal.progress
from sparsegpt_cli.terminal import Console, table


def _lines(monkeypatch, capsys, calls: list[tuple[str, int, int]]) -> list[str]:
    """What a minute between every two calls shows."""
    clock = iter(range(0, 60 * len(calls), 60))
    monkeypatch.setattr(sparsegpt_cli.terminal.progress.time, "monotonic", lambda: float(next(clock)))
    with Console().progress() as progress:
        for call in calls:
            progress(*call)
    return capsys.readouterr().err.splitlines()


def test_the_time_left_is_by_the_steps_made_so_far(monkeypatch, capsys) -> None:
    assert _lines(monkeypatch, capsys, [("train", 0, 3), ("train", 1, 3), ("train", 2, 3), ("train", 3, 3)]) == [
        "train ...",
        "train 1/3 in 1 min 0 s, about 2 min 0 s left",
        "train 2/3 in 2 min 0 s, about 1 min 0 s left",
        "train 3/3 in 3 min 0 s",
    ]


def test_steps_of_an_earlier_run_took_no_time(monkeypatch, capsys) -> None:
    """A training that goes on after a kill begins at the step where it was."""
    assert _lines(monkeypatch, capsys, [("train", 97, 100), ("train", 98, 100)]) == [
        "train 97/100 ...",
        "train 98/100 in 1 min 0 s, about 2 min 0 s left",
    ]


def test_a_repeated_stage_restarts_its_clock(monkeypatch, capsys) -> None:
    lines = _lines(monkeypatch, capsys, [("a", 0, 2), ("a", 2, 2), ("a", 0, 2), ("a", 1, 2)])
    assert lines[-1] == "a 1/2 in 1 min 0 s, about 1 min 0 s left"


def test_a_long_step_is_said_again(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sparsegpt_cli.terminal.progress, "_SECONDS_OF_SILENCE", 0.02)
    monkeypatch.setattr(sparsegpt_cli.terminal.progress, "_SECONDS_BETWEEN_LINES", 0.01)
    with Console().progress() as progress:
        progress("prune", 0, 2)
        progress("prune", 1, 2)
        time.sleep(0.2)
        progress("prune", 2, 2)
        time.sleep(0.2)
    said = capsys.readouterr().err
    assert "prune 1/2, 0." in said
    assert "working, 0." in said.partition("prune 2/2 in")[2]


def test_work_without_progress_is_said_once(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sparsegpt_cli.terminal.progress, "_SECONDS_OF_SILENCE", 0.05)
    with Console().working(), Console().working():
        time.sleep(0.12)
        before = capsys.readouterr().err.splitlines()
        with Console().progress() as progress:
            progress("prune", 0, 1)
            time.sleep(0.12)
    assert 1 <= len(before) <= 2
    assert all(line.startswith("working for 0.") for line in before)
    assert "working for" not in capsys.readouterr().err
    with Console(quiet=True).working():
        time.sleep(0.12)
    assert capsys.readouterr().err == ""


def test_bars_fit_into_80_columns_and_move_between_stages() -> None:
    file = io.StringIO()
    console = RichConsole(file=file, force_terminal=True, color_system=None, width=80)
    with sparsegpt_cli.terminal.progress.progress_bars(console) as progress:
        for stage in ("export magnitude", "mine:train"):
            progress(stage, 0, 1000)
            assert "working" not in _last_frame(file)
            progress(stage, 1000, 1000)
            assert "working" in _last_frame(file)
    shown = _last_frame(file)
    assert "working" not in shown
    assert "mine:train" in shown
    assert shown.count("1000/1000 0:00:00 left 0:00:00") == 2


def test_the_name_of_a_stage_is_not_cut_off() -> None:
    file = io.StringIO()
    console = RichConsole(file=file, force_terminal=True, color_system=None, width=80)
    with sparsegpt_cli.terminal.progress.progress_bars(console) as progress:
        progress("dense outputs of resnet18-fashion-mnist-30-epochs", 0, 1000)
    shown = _last_frame(file)
    assert "…" not in shown
    assert all(part in shown for part in ("dense outputs of", "resnet18-fashion-mnist-30-ep", "ochs"))


def _last_frame(file: io.StringIO) -> str:
    """What the terminal shows: bars are drawn ten times a second."""
    time.sleep(0.25)
    return file.getvalue().rpartition("\x1b[2K")[2]


@pytest.mark.parametrize("show", ["say", "warn", "error"])
def test_colons_are_no_pictures(capsys, show) -> None:
    getattr(Console(), show)("--data mine:train:1 [/x]")
    assert "mine:train:1 [/x]" in capsys.readouterr().err


def test_a_result_has_no_pictures(capsys) -> None:
    Console().result({}, ["a :train: b", table(["x :train:"], [], [["y :train:"]])])
    assert capsys.readouterr().out.count(":train:") == 3


def test_sentences_wrap_at_words_and_commands_stay_whole(terminal) -> None:
    sentence = "No gain is expected on this GPU, because no layer is faster with a sparse kernel than with a dense one."
    command = "next: sparsegpt-trt benchmark run/dense.fp16.onnx run/sparse.fp16.onnx --data digits --out run/x.json"
    first, second, last = terminal(80, [sentence, command]).splitlines()
    assert (f"{first} {second}", last) == (sentence, command)
    assert len(first) <= 80
    path = terminal(20, ["The file is in /a/path/that/is/longer/than/the/line."])
    assert path == "The file is in /a/path/that/is/longer/than/the/line.\n"
