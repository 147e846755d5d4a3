"""Drives a headless Chromium by the DevTools protocol."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-extensions", "--disable-background-networking", "--disable-component-update", "--mute-audio",
    "--remote-debugging-port=0", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
    "--autoplay-policy=no-user-gesture-required", "--disable-background-timer-throttling",
    "--disable-renderer-backgrounding", "--disable-backgrounding-occluded-windows", "--force-color-profile=srgb",
)  # fmt: skip


def find_chromium() -> str:
    """Return the browser's path; CHROMIUM names another one."""
    named = os.environ.get("CHROMIUM")
    found = named or next(filter(None, map(shutil.which, NAMES)), None)
    assert found, "this test needs Chromium: apt-get install chromium, or name it as in CHROMIUM=/path/to/chromium"
    return found


class Chromium:
    """One browser with a profile of its own.

    Args:
        folder: for the profile.
        arguments: beside those that every test needs.
    """

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._folder = folder
        self._log = (folder / "chromium.log").open("wb")
        self._process = subprocess.Popen(
            [find_chromium(), *ARGUMENTS, *arguments, f"--user-data-dir={folder / 'profile'}", "about:blank"],
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        self._opened = ExitStack()
        self._socket = self._opened.enter_context(self._connect())
        self._ids = itertools.count(1)
        self.console: list[str] = []

    def __enter__(self) -> Chromium:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()
        self._process.terminate()
        self._process.wait(10)
        self._log.close()

    def open(self, address: str, width: int = 1280, height: int = 1080, script: str = "") -> Tab:
        """Open an address in a tab of its own, where a script runs before the page's."""
        target = self.call("Target.createTarget", {"url": "about:blank", "newWindow": True})["targetId"]
        session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        tab = Tab(self, target, session)
        for domain in ("Page", "Runtime", "Log"):
            tab.call(f"{domain}.enable")
        tab.resize(width, height)
        tab.call("Page.addScriptToEvaluateOnNewDocument", {"source": script})
        tab.call("Page.navigate", {"url": address})
        tab.wait_for("document.readyState === 'complete'")
        return tab

    def call(self, method: str, parameters: dict[str, Any] | None = None, session: str | None = None) -> Any:
        """Call a method of the protocol and return its result."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": parameters or {}}
        self._socket.send(json.dumps(message | ({"sessionId": session} if session else {})))
        while True:
            answer = json.loads(self._socket.recv(timeout=60))
            self._note(answer)
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def _note(self, event: dict[str, Any]) -> None:
        if event.get("method") == "Runtime.exceptionThrown":
            self.console.append(json.dumps(event["params"]["exceptionDetails"])[:500])
        if event.get("method") == "Log.entryAdded" and event["params"]["entry"]["level"] == "error":
            self.console.append(json.dumps(event["params"]["entry"])[:500])

    def _connect(self) -> ClientConnection:
        port_file = self._folder / "profile" / "DevToolsActivePort"
        wait_until(lambda: port_file.exists() and len(port_file.read_text().splitlines()) == 2, "Chromium", 30)
        port, path = port_file.read_text().splitlines()
        return connect(f"ws://127.0.0.1:{port}{path}", max_size=None)


class Tab:
    """One tab."""

    def __init__(self, browser: Chromium, target: str, session: str) -> None:
        self._browser, self._target, self._session = browser, target, session

    def call(self, method: str, parameters: dict[str, Any] | None = None) -> Any:
        return self._browser.call(method, parameters, self._session)

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression, which may be a promise."""
        result = self.call(
            "Runtime.evaluate",
            {"expression": expression, "returnByValue": True, "awaitPromise": True, "userGesture": True},
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait_for(self, expression: str, seconds: float = 30) -> None:
        wait_until(lambda: bool(self.evaluate(expression)), expression, seconds)

    def text(self, selector: str) -> str:
        return str(self.evaluate(f"document.querySelector({selector!r}).textContent"))

    def click(self, selector: str) -> None:
        self.evaluate(f"document.querySelector({selector!r}).click()")

    def resize(self, width: int, height: int, *, mobile: bool = False) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 2 if mobile else 1, "mobile": mobile},
        )

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", {"format": "png"})["data"]))

    def close(self) -> None:
        self._browser.call("Target.closeTarget", {"targetId": self._target})


def wait_until(holds: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
    """Wait until something holds; fail if it does not in time."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.05)
