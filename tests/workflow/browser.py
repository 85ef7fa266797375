"""A headless Chromium, spoken to over a pipe in the Chrome DevTools Protocol: no dependency beyond the browser."""

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from customization.json_types import Json, JsonObject, as_object, as_text

_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome", "headless_shell")
_SECONDS_TO_CLOSE = 10
_TROUBLE = {"Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"}


def find_browser() -> str | None:
    """Return the path of a Chromium, or None where none is installed."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


class Browser:
    """One browser; `open` shows a page in a tab of its own."""

    def __init__(self, program: str, profile: Path) -> None:
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        # The browser reads its commands from file 3 and answers on file 4
        script = f'exec "$0" "$@" 3<&{to_browser} 4>&{from_browser}'
        options = (
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
            *("--disable-background-networking", "--hide-scrollbars", "--remote-debugging-pipe"),
            f"--user-data-dir={profile}",
        )
        self._process = subprocess.Popen(  # noqa: S603  the browser that is installed
            ["/bin/bash", "-c", script, program, *options],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._number = 0
        self._left = b""
        self.happened: list[JsonObject] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._send({"id": 0, "method": "Browser.close"})
        try:
            self._process.wait(_SECONDS_TO_CLOSE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._out)
        os.close(self._in)

    def call(self, method: str, session: str = "", **parameters: Json) -> JsonObject:
        """Return the result of a command; what happens meanwhile is kept in `happened`."""
        self._number += 1
        command: JsonObject = {"id": self._number, "method": method, "params": dict(parameters)}
        self._send({**command, **({"sessionId": session} if session else {})})
        while True:
            message = self._receive()
            if message.get("id") == self._number:
                assert "error" not in message, message
                return as_object(message["result"], method)
            self.happened.append(message)

    def wait_for(self, event: str, session: str) -> None:
        """Wait for an event of a session."""
        while not any(item.get("method") == event and item.get("sessionId") == session for item in self.happened):
            self.happened.append(self._receive())

    def open(self, page: Path, *, width: int, height: int = 900, scheme: str = "light") -> "Tab":
        """Return a tab of so many pixels that shows a file, in the colours of `scheme`."""
        return Tab(self, page, width=width, height=height, scheme=scheme)

    def _send(self, message: JsonObject) -> None:
        os.write(self._out, json.dumps(message).encode() + b"\0")

    def _receive(self) -> JsonObject:
        while b"\0" not in self._left:
            piece = os.read(self._in, 1 << 20)
            assert piece, "the browser has ended"
            self._left += piece
        message, _, self._left = self._left.partition(b"\0")
        return as_object(json.loads(message), "message")


class Tab:
    """A page as the browser shows it."""

    def __init__(self, browser: Browser, page: Path, *, width: int, height: int, scheme: str) -> None:
        self._browser = browser
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        attached = browser.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = as_text(attached["sessionId"], "sessionId")
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")
        self._call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self._call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self._call("Page.navigate", url=page.as_uri())
        browser.wait_for("Page.loadEventFired", self._session)

    def _call(self, method: str, **parameters: Json) -> JsonObject:
        return self._browser.call(method, self._session, **parameters)

    def trouble(self) -> list[JsonObject]:
        """Return every message of the console and every exception so far."""
        self._call("Runtime.evaluate", expression="1")
        mine = [item for item in self._browser.happened if item.get("sessionId") == self._session]
        return [item for item in mine if item.get("method") in _TROUBLE]

    def value(self, expression: str) -> Json:
        """Return what a JavaScript expression comes to in the page."""
        found = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return as_object(found["result"], "result").get("value")

    def save_picture(self, path: Path) -> None:
        """Write the whole page as PNG."""
        taken = self._call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(as_text(taken["data"], "data")))

    def save_piece(self, path: Path, top: int, height: int) -> None:
        """Write a part of the page as PNG."""
        width = self.value("document.documentElement.clientWidth")
        clip: JsonObject = {"x": 0, "y": top, "width": width, "height": height, "scale": 1}
        taken = self._call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(as_text(taken["data"], "data")))
