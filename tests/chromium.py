"""Debian's chromium, driven over its debugging pipe: pages are loaded, clicked, typed into and pictured."""

from __future__ import annotations

import base64
import itertools
import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
    "--hide-scrollbars --disable-component-update --disable-sync --disable-dev-shm-usage "
    "--remote-debugging-pipe"
)
CODES = {"Enter": 13, "ArrowLeft": 37, "ArrowRight": 39, "Tab": 9}
PATIENCE = 20.0  # seconds


class Page:
    """A tab."""

    def __init__(self, browser: Browser, session: str) -> None:
        self.browser, self.session = browser, session
        self.call("Page.enable")
        self.call("Network.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """A command of the Chrome DevTools Protocol."""
        return self.browser.call(method, session=self.session, **parameters)

    def sized(self, width: int, height: int, phone: bool = False) -> None:
        """A window of so many CSS pixels, with a finger on it if it is a phone's."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )
        self.call("Emulation.setTouchEmulationEnabled", enabled=phone)

    def go(self, url: str) -> None:
        """Load a page, to its end."""
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def js(self, expression: str) -> Any:
        """What an expression is in the page, as plain values."""
        told = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def until(self, expression: str) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + PATIENCE
        while not self._true(expression):
            assert time.monotonic() < end, f"still not: {expression}"
            time.sleep(0.03)

    def _true(self, expression: str) -> bool:
        told = self.call("Runtime.evaluate", expression=f"Boolean({expression})", returnByValue=True)
        return bool(told["result"].get("value"))  # an exception, as on a page just leaving, is no yes

    def text(self, selector: str) -> str:
        """What is read there."""
        return str(self.js(f"document.querySelector({json.dumps(selector)}).innerText"))

    def click(self, selector: str, times: int = 1) -> None:
        """Press the mouse in the middle of an element; twice is a double click."""
        place = f"document.querySelector({json.dumps(selector)})"
        box = self.js(
            f"{place}.scrollIntoView({{block: 'center'}}), {place}.getBoundingClientRect().toJSON()"
        )
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        for count in range(1, times + 1):
            for kind in ("mousePressed", "mouseReleased"):
                self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=count)

    def press(self, key: str, ctrl: bool = False) -> None:
        """Press a key."""
        told = {"key": key, "modifiers": 2 * ctrl}
        told["windowsVirtualKeyCode"] = CODES.get(key, ord(key.upper()[0]))
        text = (
            {"text": "\r" if key == "Enter" else key}
            if (len(key) == 1 or key == "Enter") and not ctrl
            else {}
        )
        self.call("Input.dispatchKeyEvent", type="keyDown", **told, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **told)

    def type(self, text: str) -> None:
        """Write into what has the focus."""
        self.call("Input.insertText", text=text)

    def picture(self, path: Path) -> None:
        """A PNG of the window."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


class Browser:
    """A browser with a profile of its own."""

    def __init__(self, profile: Path) -> None:
        read_here, write_there = os.pipe()
        read_there, write_here = os.pipe()
        # The browser reads commands from descriptor 3 and writes replies to 4.
        script = f'exec chromium "$@" 3<&{read_there} 4>&{write_there}'
        self.process = subprocess.Popen(
            ["bash", "-c", script, "chromium", *FLAGS.split(), f"--user-data-dir={profile}"],
            pass_fds=(read_there, write_there),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_there)
        os.close(write_there)
        self._in, self._out = os.fdopen(read_here, "rb"), os.fdopen(write_here, "wb")
        self._numbers = itertools.count(1)
        self._buffer = b""

    def call(self, method: str, session: str | None = None, **parameters: Any) -> Any:
        """Send a command and wait for its reply; events in between are passed over."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        self._out.write(json.dumps(message).encode() + b"\0")
        self._out.flush()
        while True:
            told = self._message()
            if told.get("id") == number:
                assert "error" not in told, told["error"]
                return told["result"]

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            some = self._in.read1(1 << 16)
            assert some, "chromium has gone"
            self._buffer += some
        message, _, self._buffer = self._buffer.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def page(self) -> Page:
        """A new tab, with cookies of its own."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        return Page(self, self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"])

    def close(self) -> None:
        """End it."""
        self._out.close()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._in.close()


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """A browser while the block lasts."""
    browser = Browser(profile)
    try:
        yield browser
    finally:
        browser.close()
