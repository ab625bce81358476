"""Headless Chromium over its DevTools protocol on two pipes (--remote-debugging-pipe): it takes Chromium alone."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--no-first-run",
)
PATIENCE_S = 60.0


def find_chromium() -> str | None:
    """Return the browser on the PATH, or None."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


@contextmanager
def browser(program: str, profile: Path) -> Iterator[Tab]:
    """Yield a tab of a fresh browser with its files in `profile`."""
    to_read, our_write = os.pipe()
    our_read, to_write = os.pipe()

    def place() -> None:  # the protocol is spoken on descriptors 3 and 4
        low, high = os.dup2(to_read, 20), os.dup2(to_write, 21)
        os.dup2(low, 3)
        os.dup2(high, 4)

    command = [program, *FLAGS, "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(
        command, preexec_fn=place, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    for descriptor in (to_read, to_write):
        os.close(descriptor)
    try:
        yield Tab(our_read, our_write)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for descriptor in (our_read, our_write):
            os.close(descriptor)


class Tab:
    """One tab; `problems` gathers console errors and warnings, uncaught exceptions, and every request that it made."""

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write, self._buffer, self._last, self._session = read, write, b"", 0, ""
        self.problems: list[str] = []
        self.requests: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def open(self, path: Path, width: int, height: int = 900, *, dark: bool = False, ready: str) -> None:
        """Load a file at a width in CSS pixels, and wait until the expression `ready` is true."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="", features=[scheme])
        self.call("Page.navigate", url=path.absolute().as_uri())
        end = time.monotonic() + PATIENCE_S
        while not self.evaluate(f"location.href !== 'about:blank' && Boolean({ready})"):
            assert time.monotonic() < end, f"{ready} never became true: {self.problems}"
            time.sleep(0.05)

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def screenshot(self, path: Path, top: int = 0, height: int | None = None) -> None:
        """Write a PNG of the page from `top` on, all of it without a height."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": top, "width": size["width"], "height": height or size["height"] - top, "scale": 1}
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))

    def pdf(self, path: Path) -> None:
        """Write the page as it prints on A4."""
        path.write_bytes(base64.b64decode(self.call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69)["data"]))

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._last:
                assert "error" not in answer, answer["error"]
                result = answer["result"]
                assert isinstance(result, dict)
                return result
            self._note(answer.get("method", ""), answer.get("params", {}))

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], PATIENCE_S)
            received = os.read(self._read, 1 << 16) if ready else b""
            assert received, "the browser does not answer"
            self._buffer += received
        message, _, self._buffer = self._buffer.partition(b"\0")
        value = json.loads(message)
        assert isinstance(value, dict)
        return value

    def _note(self, method: str, event: dict[str, Any]) -> None:
        if method == "Runtime.consoleAPICalled" and event["type"] in ("error", "warning", "assert"):
            self.problems.append(str([item.get("value", item.get("description")) for item in event["args"]]))
        elif method == "Runtime.exceptionThrown":
            details = event["exceptionDetails"]
            self.problems.append(str(details.get("exception", {}).get("description", details["text"])))
        elif method == "Log.entryAdded":
            self.problems.append(event["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(event["request"]["url"])
