"""A headless Chromium, driven over a pair of pipes: it opens a page, answers questions about it and takes pictures."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars")


def find() -> str | None:
    """The first browser there is."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Tab:
    """One page. The browser answers each command with its number, and tells of requests in between."""

    def __init__(self, send: int, receive: int) -> None:
        self._out, self._in = os.fdopen(send, "wb"), os.fdopen(receive, "rb")
        self._rest, self._number, self._session = b"", 0, None
        self.events: list[dict[str, Any]] = []
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime"):
            self._ask(f"{domain}.enable")

    def open(self, file: Path, width: int = 1400, dark: bool = False) -> None:
        """Load a file at a width, in a colour scheme, and wait for all of it."""
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._ask("Emulation.setEmulatedMedia", features=scheme)
        self._ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.events.clear()
        self._ask("Page.navigate", url=file.resolve().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._take()

    def value(self, expression: str) -> Any:
        """What a JavaScript expression gives, promises awaited."""
        found = self._ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def requests(self) -> list[str]:
        """The addresses that the page asked for; pictures inside it aside."""
        sent = [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return [url for url in sent if not url.startswith("data:")]

    def picture(self, file: Path, height: int | None = None) -> None:
        """Save the page as a PNG, all of it or so many pixels from the top."""
        size = self._ask("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": height or size["height"], "scale": 1}
        data = self._ask("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)["data"]
        file.write_bytes(base64.b64decode(data))

    def close(self) -> None:
        """End the browser."""
        self._session = None
        self._ask("Browser.close")
        self._out.close()
        self._in.close()

    def _ask(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        message |= {"sessionId": self._session} if self._session else {}
        self._out.write(json.dumps(message).encode() + b"\0")
        self._out.flush()
        while True:
            answer = self._take()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return dict(answer["result"])

    def _take(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = self._in.read1(1 << 20)
            assert part, "the browser ended"
            self._rest += part
        first, self._rest = self._rest.split(b"\0", 1)
        message: dict[str, Any] = json.loads(first)
        if "method" in message:
            self.events.append(message)
        return message


@contextmanager
def opened(program: str, profile: Path) -> Iterator[Tab]:
    """A browser with an empty profile, and a tab in it."""
    to_browser, send = os.pipe()
    receive, from_browser = os.pipe()

    def as_3_and_4() -> None:
        os.dup2(to_browser, 1023)
        os.dup2(from_browser, 4)
        os.dup2(1023, 3)

    command = [program, *FLAGS, f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]
    with open(profile.with_suffix(".log"), "wb") as log:
        process = subprocess.Popen(command, preexec_fn=as_3_and_4, pass_fds=(3, 4), stdout=log, stderr=log)
    os.close(to_browser)
    os.close(from_browser)
    try:
        tab = Tab(send, receive)
        yield tab
        tab.close()
    finally:
        process.terminate()
        process.wait(timeout=30)
