"""The entry point: ``sparsegpt-trt COMMAND``."""

from __future__ import annotations

import contextlib
import importlib.util
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from sparsegpt_cli.commands import COMMANDS
from sparsegpt_cli.framework import ClickException, PanelCommand, Session
from sparsegpt_cli.terminal import logged_warnings, report_error, robust_streams
from sparsegpt_core import __version__
from sparsegpt_core.errors import InputError, MissingDependencyError, SparseGPTError, first_line
from sparsegpt_core.progress import WARNINGS
from sparsegpt_core.torchrun import world_size

__all__ = ["app", "main"]

_INTERRUPTED = 130
_HOME = Path(__file__).resolve().parent.parent

app = typer.Typer(
    name="sparsegpt-trt",
    help="One-shot 2:4 pruning of CNNs with SparseGPT, down to verified ONNX and TensorRT engines.",
    context_settings={"max_content_width": 100},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for _function in COMMANDS:
    app.command(_function.__name__.replace("_", "-"), cls=PanelCommand)(_function)


@app.callback(invoke_without_command=True)
def _version(version: bool = typer.Option(False, "--version", help="Show the version.")) -> None:
    if version:
        typer.echo(f"sparsegpt-trt {__version__}")
        raise typer.Exit


def main(arguments: list[str] | None = None) -> int:
    """Run a command. A reader that closes the pipe early, such as `head`, changes nothing.

    Returns:
        The exit status: 0: done; 1: a check failed or an input is wrong; 2: usage; 130: interrupted.
    """
    with robust_streams():
        return _run((sys.argv[1:] if arguments is None else arguments) or ["--help"])


def _run(arguments: list[str]) -> int:
    session = Session(as_json="--json" in arguments)
    try:
        _check_packages()
        with _terminable(), logged_warnings(WARNINGS):
            code = app(arguments, standalone_mode=False, obj=session) or 0
        if code == _INTERRUPTED:  # some versions of Typer raise, others return this
            raise KeyboardInterrupt
        return code
    except SparseGPTError as error:
        _report(error, session.as_json)
        return 1
    except ImportError as error:
        from deploy.machine import INSTALL  # loads NumPy, which --help does not need

        module = (error.name or "").partition(".")[0]
        hint = (
            f"Install it: {INSTALL[module]}."
            if module in INSTALL
            else "`sparsegpt-trt doctor` lists the missing libraries."
        )
        _report(MissingDependencyError(first_line(error), hint), session.as_json)
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        hint = "Check the path, its permissions, and the free space."
        _report(SparseGPTError(f"{where}{error.strerror or first_line(error)}", hint), session.as_json)
        return 1
    except (KeyboardInterrupt, typer.Abort):
        _report(SparseGPTError("interrupted", "Finished files are kept. No file is half-written."), session.as_json)
        return _INTERRUPTED
    except ClickException as error:
        message = error.format_message()
        _report(SparseGPTError(message.rstrip("."), "See --help."), session.as_json)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        place = " on the GPU" if "CUDA" in str(error) else ""
        hint = "Use a smaller --batch-size, fewer --samples, smaller images or fewer classes."
        _report(SparseGPTError(f"out of memory{place}", hint), session.as_json)
        return 1


def _is_out_of_memory(error: BaseException) -> bool:
    """Recognise the errors of Python and PyTorch without importing PyTorch, which has no error class for the CPU."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
    )


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Make SIGTERM raise KeyboardInterrupt, as Ctrl-C does, so that temporary files are removed."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _report(error: SparseGPTError, as_json: bool) -> None:
    """Show an error. Under ``torchrun`` only the first process that fails shows it."""
    if world_size() > 1:
        from sparsegpt_core.execution import speaks_for_all

        if not speaks_for_all():
            return
    report_error(error, as_json)


def _check_packages() -> None:
    """Check that Python finds our packages: ``export`` and ``deploy`` are common names.

    Raises:
        InputError: Python finds another package of the same name first.
    """
    for name in ("sparsegpt_core", "calibration", "export", "deploy"):
        spec = importlib.util.find_spec(name)
        origin = Path(spec.origin).resolve() if spec and spec.origin else None
        if origin is None or origin.parent.parent != _HOME:
            raise InputError(
                f"'{name}' is {origin or 'missing'}, not the package of sparsegpt-trt",
                "Rename that file, or run from another folder or in another environment.",
            )
