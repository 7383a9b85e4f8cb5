"""Opens a page in headless Chromium and says what is wrong with it: `python -m tests.browser PAGE [--folder DIR]`.

Speaks the DevTools protocol over two pipes (messages of JSON that end in a zero byte), so nothing is added to the page
and the width and the colour scheme are exact.
"""

from __future__ import annotations

import argparse
import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
TIMEOUT = 60.0  # seconds for one answer of the browser
# Pictures are decoded first: one of broken content has a size of 0 by then.
LOOK = """
Promise.all([...document.images].map(image => image.decode().catch(() => null))).then(() => JSON.stringify({
  title: document.title,
  pictures: document.images.length,
  missing: [...document.images].filter(image => !image.naturalWidth).map(image => image.alt || image.src.slice(0, 80)),
  overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  height: document.documentElement.scrollHeight,
}))
"""


@dataclass
class Look:
    """A page as a browser shows it at one width."""

    title: str
    pictures: int
    missing: list[str]  # alternative texts of pictures that do not show
    overflow: int  # pixels that the page is wider than the window
    errors: list[str]  # messages of the console, whatever their level, and exceptions
    requests: list[str]  # addresses beyond the page itself and data inside it

    def problems(self) -> list[str]:
        """One sentence for each thing that is wrong."""
        found = [f"missing picture: {name}" for name in self.missing]
        found += [f"console: {text}" for text in self.errors]
        found += [f"request: {address}" for address in self.requests]
        if self.overflow > 0:
            found.append(f"wider than the window by {self.overflow} pixels")
        return found


def find_browser() -> str | None:
    """Path of Chromium, None where it is not installed."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


def look(
    page: Path, width: int = 1280, height: int = 900, is_dark: bool = False, screenshot: Path | None = None
) -> Look:
    """Open a file and look at it.

    Args:
        width, height: of the window, in pixels.
        is_dark: the reader prefers dark pages.
        screenshot: PNG of the whole page to write.

    Raises:
        RuntimeError: there is no browser, or it stopped or refused a command.
        TimeoutError: it did not answer.
    """
    address = page.resolve().as_uri()
    with _browser() as browser:
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        browser.session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            browser.call(f"{domain}.enable")
        browser.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        browser.call("Emulation.setEmulatedMedia", features=[scheme])
        if "errorText" in (answer := browser.call("Page.navigate", url=address)):
            raise RuntimeError(f"{address}: {answer['errorText']}")
        browser.wait_for("Page.loadEventFired")
        answer = browser.call("Runtime.evaluate", expression=LOOK, awaitPromise=True)
        if "value" not in answer["result"]:
            raise RuntimeError(f"{address}: the look at the page failed: {answer}")
        seen = json.loads(answer["result"]["value"])
        if screenshot:
            area = {"x": 0, "y": 0, "width": width, "height": seen["height"], "scale": 1}
            shot = browser.call("Page.captureScreenshot", captureBeyondViewport=True, clip=area)
            screenshot.write_bytes(base64.b64decode(shot["data"]))
        errors, requests = _errors(browser.events), _requests(browser.events, address)
    return Look(seen["title"], seen["pictures"], seen["missing"], seen["overflow"], errors, requests)


def _errors(events: list[dict[str, Any]]) -> list[str]:
    found = []
    for event in events:
        values = event.get("params", {})
        if event["method"] == "Log.entryAdded":
            found.append(values["entry"]["text"])
        elif event["method"] == "Runtime.exceptionThrown":
            details = values["exceptionDetails"]
            found.append(details.get("exception", {}).get("description", details["text"]))
        elif event["method"] == "Runtime.consoleAPICalled":
            found.append(" ".join(str(one.get("value", one.get("description", ""))) for one in values["args"]))
    return found


def _requests(events: list[dict[str, Any]], own: str) -> list[str]:
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return [address for address in asked if address != own and not address.startswith("data:")]


class _Browser:
    """A running browser: commands in, answers and events out."""

    def __init__(self, commands: int, answers: int) -> None:
        self.commands, self.answers = commands, answers
        self.session: str | None = None
        self.events: list[dict[str, Any]] = []
        self._number = 0
        self._rest = b""

    def call(self, method: str, **values: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": values}
        if self.session:
            message["sessionId"] = self.session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.commands, data) :]
        deadline = time.monotonic() + TIMEOUT
        while (answer := self._next(method, deadline)).get("id") != self._number:
            self.events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def wait_for(self, method: str) -> None:
        """Return when an event of this name has come."""
        deadline = time.monotonic() + TIMEOUT
        while not any(event["method"] == method for event in self.events):
            self.events.append(self._next(method, deadline))

    def _next(self, wanted: str, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.answers], [], [], left)[0]:
                raise TimeoutError(f"no answer of the browser to {wanted} in {TIMEOUT:.0f} s")
            part = os.read(self.answers, 1 << 16)
            if not part:
                raise RuntimeError(f"the browser stopped before it answered {wanted}")
            self._rest += part
        message, self._rest = self._rest.split(b"\0", 1)
        return json.loads(message)


def _pipe() -> list[int]:
    """A pipe whose descriptors are not among the first ten, so that the shell can put others in their place."""
    ends = os.pipe()
    moved = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for end in ends:
        os.close(end)
    return moved


@contextmanager
def _browser() -> Iterator[_Browser]:
    """Start the browser with a profile of its own; it reads commands from descriptor 3 and answers on 4."""
    path = find_browser()
    if path is None:
        raise RuntimeError(f"none of {', '.join(NAMES)} is there; on Debian: apt-get install chromium")
    commands_out, commands_in = _pipe()
    answers_out, answers_in = _pipe()
    flags = "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --hide-scrollbars --no-first-run"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        script = f'exec "$@" 3<&{commands_out} 4>&{answers_in}'
        command = [path, *flags.split(), "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(
            ["bash", "-c", script, "bash", *command],
            pass_fds=(commands_out, answers_in),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands_out)
        os.close(answers_in)
        try:
            yield _Browser(commands_in, answers_out)
        finally:
            os.close(commands_in)  # the end of its commands is a browser's end
            os.close(answers_out)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def main(argv: list[str] | None = None) -> int:
    """Look at a page on a wide light and a narrow dark screen; the exit status is 1 when something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path, help="HTML file")
    parser.add_argument("--folder", type=Path, help="where to write screenshots ({name}-{width}-{scheme}.png)")
    args = parser.parse_args(argv)
    problems = 0
    for width, scheme in ((1280, "light"), (400, "dark")):
        shot = args.folder / f"{args.page.stem}-{width}-{scheme}.png" if args.folder else None
        seen = look(args.page, width, is_dark=scheme == "dark", screenshot=shot)
        found = seen.problems()
        print(f"{args.page}, {width} px, {scheme}: {seen.pictures} pictures, {len(found)} problems")
        print("".join(f"  {line}\n" for line in found), end="")
        problems += len(found)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
