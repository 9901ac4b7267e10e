"""The system's Firefox, driven over Marionette.

That is the protocol behind geckodriver: each message is its length, a colon and a JSON array.
Playwright drives a Firefox of its own, or by WebDriver BiDi one younger than Debian's.
"""

from __future__ import annotations

import json
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

PATIENCE = 60  # seconds; a busy machine is slow, not wrong
# Errors that the console holds: of scripts, and of what a page's policy refused.
COMPLAINTS = """
return Services.console.getMessageArray()
    .filter((each) => each instanceof Ci.nsIScriptError && !(each.flags & each.warningFlag))
    .filter((each) => /^content|^CSP/.test(each.category))
    .map((each) => each.errorMessage);
"""


class Firefox:
    """One window of a Firefox that has the empty folder `profile` to itself."""

    def __init__(self, program: str, profile: Path) -> None:
        (profile / "user.js").write_text('user_pref("marionette.port", 0);\n')  # any that is free
        command = [program, "--headless", "--marionette", "--remote-allow-system-access"]
        self._job = subprocess.Popen(
            [*command, "--no-remote", "--profile", str(profile)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._asked = 0
        try:
            self._socket = self._connected(profile / "MarionetteActivePort")
            self._stream = self._socket.makefile("rb")
            self._message()  # a greeting
            self._ask("WebDriver:NewSession")
            self._ask("WebDriver:SetTimeouts", script=1000 * PATIENCE)
        except BaseException:
            self._job.kill()
            raise

    def open(self, address: str) -> None:
        """Open a page and wait until it is loaded; what the console said before is forgotten."""
        self._ask("Marionette:SetContext", value="chrome")
        self.run("Services.console.reset()")
        self._ask("Marionette:SetContext", value="content")
        self._ask("WebDriver:Navigate", url=address)

    def run(self, script: str, *arguments: Any) -> Any:
        """Return what a function with this body returns, or resolves with, in the page."""
        return self._ask("WebDriver:ExecuteScript", script=script, args=arguments)["value"]

    def choose_files(self, selector: str, *paths: Path) -> None:
        """Choose files in an input of the page."""
        found = self._ask("WebDriver:FindElement", using="css selector", value=selector)["value"]
        (element,) = found.values()
        self._ask("WebDriver:ElementSendKeys", id=element, text="\n".join(map(str, paths)))

    def complaints(self) -> list[str]:
        """Return the errors that the page's console holds."""
        self._ask("Marionette:SetContext", value="chrome")
        found: list[str] = self.run(COMPLAINTS)
        self._ask("Marionette:SetContext", value="content")
        return found

    def close(self) -> None:
        """End it."""
        self._socket.close()
        self._job.terminate()
        self._job.wait(PATIENCE)

    def _connected(self, port: Path) -> socket.socket:
        deadline = time.monotonic() + PATIENCE
        while not (port.exists() and port.read_text()):
            if self._job.poll() is not None:
                raise RuntimeError(f"Firefox ended with status {self._job.returncode}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"Firefox opened no port in {PATIENCE} s")
            time.sleep(0.05)
        return socket.create_connection(("127.0.0.1", int(port.read_text())), 2 * PATIENCE)

    def _ask(self, command: str, **parameters: Any) -> Any:
        self._asked += 1
        message = json.dumps([0, self._asked, command, parameters]).encode()
        self._socket.sendall(b"%d:%b" % (len(message), message))
        _, _, error, result = self._message()
        if error is not None:
            raise RuntimeError(f"{command}: {error['error']}: {error['message']}")
        return result

    def _message(self) -> Any:
        length = b""
        while (byte := self._stream.read(1)) != b":":
            if not byte:
                raise RuntimeError("Firefox closed the connection")
            length += byte
        return json.loads(self._stream.read(int(length)))
