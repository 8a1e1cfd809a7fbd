"""A tab of a real browser with trusted clicks and keys, by the DevTools protocol over a pipe."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.reports import BROWSER, FLAGS

KEYS = {"Enter": ("Enter", 13, "\r"), "Space": (" ", 32, " "), "Tab": ("Tab", 9, "")}


class Tab:
    """One tab. Every method returns when the browser has done it."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = os.fdopen(commands, "wb"), os.fdopen(answers, "rb")
        self._session: dict[str, str] = {}
        self._number = 0
        self._waiting = b""
        target = self._send("Target.createTarget", url="about:blank")["targetId"]
        attached = self._send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}

    def close(self) -> None:
        """Close the pipe, which ends the browser."""
        self._commands.close()
        self._answers.close()

    def open(self, page: Path, width: int = 1280, dark: bool = False, fragment: str = "") -> None:
        """Load a page in a window of this width."""
        address = page.as_uri() + (f"#{fragment}" if fragment else "")
        self._send("Page.navigate", url="about:blank")
        self._send(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._send("Emulation.setEmulatedMedia", features=[scheme])
        self._send("Page.navigate", url=address)
        loaded = "document.readyState == 'complete' || new Promise(done => addEventListener('load', () => done(true)))"
        while self.value("location.href") != address:
            pass
        self.value(loaded)
        self.settle()

    def value(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page."""
        found = self._send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def click(self, element: str) -> None:
        """Click on the middle of an element, given as a JavaScript expression."""
        where = self.value(
            f"(e => {{ e.scrollIntoView({{block: 'center'}}); const r = e.getBoundingClientRect();"
            f" return {{x: r.x + r.width / 2, y: r.y + r.height / 2}}; }})({element})"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self._send("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **where)
        self.settle()

    def press(self, key: str) -> None:
        """Press a key of ``KEYS``."""
        name, code, text = KEYS[key]
        pressed = {"key": name, "code": key, "windowsVirtualKeyCode": code}
        self._send("Input.dispatchKeyEvent", type="keyDown", text=text, **pressed)
        self._send("Input.dispatchKeyEvent", type="keyUp", **pressed)
        self.settle()

    def settle(self) -> None:
        """Wait until the page has been drawn twice."""
        self.value("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")

    def picture(self, path: Path, whole: bool = False) -> None:
        """Write a PNG of the window, or of the whole page."""
        found = self._send("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    def _send(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters, **self._session}
        self._commands.write(json.dumps(message).encode() + b"\0")
        self._commands.flush()
        while (answer := self._receive()).get("id") != self._number:
            pass
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._waiting:
            received = os.read(self._answers.fileno(), 1 << 20)
            assert received, "the browser has ended"
            self._waiting += received
        first, _, self._waiting = self._waiting.partition(b"\0")
        answer: dict[str, Any] = json.loads(first)
        return answer


@contextlib.contextmanager
def browser_tab(profile: Path) -> Iterator[Tab]:
    """Start a browser and open a tab in it."""
    (reads, commands), (answers, writes) = os.pipe(), os.pipe()
    start = ["bash", "-c", f'exec "$@" 3<&{reads} 4>&{writes}', "bash", str(BROWSER), *FLAGS]
    process = subprocess.Popen(
        [*start, f"--user-data-dir={profile}", "--remote-debugging-pipe"],
        pass_fds=(reads, writes),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(reads)
    os.close(writes)
    try:
        with contextlib.closing(Tab(commands, answers)) as tab:
            yield tab
    finally:
        process.terminate()
        process.wait(timeout=30)
