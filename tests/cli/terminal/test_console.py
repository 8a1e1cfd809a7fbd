"""Progress where there is no terminal: a line now and then, with the time left."""

import sparsegpt_cli.terminal.console
from sparsegpt_cli.terminal import Console


def _lines(monkeypatch, capsys, calls: list[tuple[str, int, int]]) -> list[str]:
    """What a minute between every two calls shows."""
    clock = iter(range(0, 60 * len(calls), 60))
    monkeypatch.setattr(sparsegpt_cli.terminal.console.time, "monotonic", lambda: float(next(clock)))
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
