"""
A small WebDriver client for Debian's chromium and chromedriver.

Run as a program, this module starts chromedriver.  When its standard input ends, it kills
chromedriver and all other descendants.  So the browser ends with the test process, however that
ends.
"""

from __future__ import annotations

import atexit
import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from base64 import b64decode
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tests import environment, needs

no_browser = needs("chromium") or needs("chromedriver")
"""The reason to skip tests that need a browser, or None."""

_STARTED = re.compile(r"started successfully on port (\d+)")
_REQUEST_TIMEOUT = 60
_MARKER = "the last message so far"
_SUBREAPER = 36
"""C{PR_SET_CHILD_SUBREAPER} of Linux's ``prctl``."""


class Browser:
    """
    A headless browser with one tab.  A context manager.

    @param width: the width of the window in pixels.
    @param dark: whether the browser prefers dark pages.
    """

    def __init__(self, width: int = 1600, height: int = 1000, dark: bool = False) -> None:
        self._driver = subprocess.Popen(
            [sys.executable, "-m", "tests.browser"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # An interrupt from the keyboard is for the test process.
            start_new_session=True,
            env=environment(),
        )
        try:
            assert self._driver.stdout is not None
            for line in self._driver.stdout:
                if started := _STARTED.search(line):
                    break
            else:
                raise RuntimeError("chromedriver did not start")
            self._root = f"http://127.0.0.1:{started[1]}"
            arguments = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage"]
            arguments += [f"--window-size={width},{height}", "--hide-scrollbars"]
            if dark:
                arguments.append("--blink-settings=preferredColorScheme=0")
            options = {"args": arguments, "binary": shutil.which("chromium")}
            wanted = {
                "goog:chromeOptions": options,
                "goog:loggingPrefs": {"browser": "ALL"},
                "timeouts": {"script": 30000},
            }
            session = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
            self._root += f"/session/{session['sessionId']}"
        except BaseException:
            self.close()
            raise

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = Request(self._root + path, data, method=method)
        try:
            with urlopen(request, timeout=_REQUEST_TIMEOUT) as response:
                return json.load(response)["value"]
        except HTTPError as error:
            with error:
                message = json.load(error)["value"]["message"]
            raise AssertionError(message) from None

    def reset(self) -> None:
        """Close all tabs but one, show nothing in it, and forget messages."""
        first, *others = self.tabs
        for tab in others:
            self.show(tab)
            self._call("DELETE", "/window")
        self.show(first)
        self._call("POST", "/url", {"url": "about:blank"})
        self.devtools("Emulation.clearDeviceMetricsOverride")
        self.messages()

    @property
    def tabs(self) -> list[str]:
        """The tabs, in the order of their creation."""
        found: list[str] = self._call("GET", "/window/handles")
        return found

    def new_tab(self) -> str:
        """Add a tab and show it; the others become hidden."""
        tab: str = self._call("POST", "/window/new", {"type": "tab"})["handle"]
        self.show(tab)
        return tab

    def show(self, tab: str) -> None:
        """Show a tab; the others become hidden."""
        self._call("POST", "/window", {"handle": tab})

    def devtools(self, command: str, **parameters: object) -> Any:
        """Send a command of Chrome's DevTools to the tab."""
        return self._call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def heap_size(self) -> int:
        """Return the number of bytes that the page's objects take, without garbage."""
        self.devtools("HeapProfiler.collectGarbage")
        return int(self.devtools("Runtime.getHeapUsage")["usedSize"])

    def open(self, url: str) -> None:
        """Open a page, also one that differs only in the fragment."""
        self._call("POST", "/url", {"url": "about:blank"})
        self._call("POST", "/url", {"url": url})

    def run(self, script: str, *arguments: object) -> Any:
        """Run the body of an async function, and return its result."""
        script = f"return (async function () {{ {script} }}).apply(null, arguments)"
        return self._call("POST", "/execute/sync", {"script": script, "args": arguments})

    def wait_for(self, condition: str, *arguments: object) -> Any:
        """Wait until an expression is true, and return its value."""
        script = (
            "const until = performance.now() + 20000;"
            "const given = arguments;"
            f"async function holds() {{ return ({condition}); }}"
            "for (;;) { const value = await holds.apply(null, given).catch(() => null);"
            " if (value) return value;"
            " if (performance.now() > until) return null;"
            " await new Promise((resolve) => setTimeout(resolve, 20)); }"
        )
        value = self.run(script, *arguments)
        if value is None:
            raise AssertionError(f"never true: {condition}; {self.messages()}")
        return value

    def keys(self, text: str) -> None:
        """Press keys, one after the other, where the focus is."""
        actions = [{"type": kind, "value": key} for key in text for kind in ("keyDown", "keyUp")]
        body = {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]}
        self._call("POST", "/actions", body)

    def resize(self, width: int, height: int) -> None:
        """Set the size of the page, also to that of a phone."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )

    def screenshot(self) -> bytes:
        """Return a PNG file of what is visible."""
        return b64decode(self._call("GET", "/screenshot"))

    def messages(self) -> list[str]:
        """Return and forget the console's messages, with violations of the security policy."""
        # They arrive later than the results of scripts.
        self.run("console.debug(arguments[0])", _MARKER)
        found: list[str] = []
        until = time.monotonic() + 20
        while not any(_MARKER in message for message in found):
            if time.monotonic() > until:
                raise AssertionError(f"the console has no marker: {found}")
            entries = self._call("POST", "/se/log", {"type": "browser"})
            found += [entry["message"] for entry in entries]
        return [message for message in found if _MARKER not in message]

    def close(self) -> None:
        """Stop the browser."""
        with self._driver:
            assert self._driver.stdin is not None
            self._driver.stdin.close()

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


_shared: list[Browser] = []


def shared_browser() -> Browser:
    """Return a browser that several tests use, one after the other; each returns it."""
    if not _shared:
        _shared.append(Browser())
        atexit.register(_shared[0].close)
    return _shared[0]


def return_browser() -> None:
    """Prepare the browser for the next test.  If that fails, the next test gets another one."""
    try:
        _shared[0].reset()
    except BaseException:
        _shared.pop().close()
        raise


def _run_driver() -> None:
    # Orphans among the descendants become children of this process.
    ctypes.CDLL(None).prctl(_SUBREAPER, 1)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        subprocess.Popen(
            ["chromedriver", "--port=0"],
            stdin=subprocess.DEVNULL,
            env={**os.environ, "HOME": home, "TMPDIR": home},
        )
        sys.stdin.read()
        with suppress(ChildProcessError):
            while True:
                for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
                    os.kill(int(child), signal.SIGKILL)
                os.wait()


if __name__ == "__main__":
    _run_driver()
