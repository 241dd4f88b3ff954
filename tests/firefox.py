"""A real headless Firefox with its own fake camera and microphone, steered by Marionette, which every Firefox has."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FIREFOX_NAMES = ("firefox-esr", "firefox")
START_WITHIN_S = 180.0
ANSWER_WITHIN_S = 240.0  # only keeps a broken browser from hanging the tests

PREFERENCES: dict[str, bool | int | str] = {
    "marionette.port": 0,  # any; it is written to MarionetteActivePort
    "media.navigator.streams.fake": True,
    "media.navigator.permission.disabled": True,
    "media.autoplay.default": 0,
    # loopback only: nothing leaves this computer
    "media.peerconnection.ice.loopback": True,
    "media.peerconnection.ice.obfuscate_host_addresses": False,
    "app.update.disabledForTesting": True,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.homepage_override.mstone": "ignore",
    "browser.startup.page": 0,
    "datareporting.policy.dataSubmissionEnabled": False,
    "extensions.update.enabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "data:,",
    "toolkit.telemetry.enabled": False,
    # otherwise it asks Cisco's server for H264
    "media.gmp-manager.updateEnabled": False,
    "media.gmp-manager.url": "data:,",
}


class FirefoxError(Exception):
    """What Firefox answers when it cannot do what it was told, or a script of the page throws."""


class Firefox:
    """One tab. `evaluate` and `click` as `playwright`'s page has them, so that `browser.wait_for` takes it."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_WITHIN_S)
        self._rest = b""
        self._count = 0
        self._receive()  # it says who it is
        self._tell("WebDriver:NewSession", {"timeouts": {"script": round(1e3 * ANSWER_WITHIN_S)}})

    def goto(self, url: str) -> None:
        """Load a page."""
        self._tell("WebDriver:Navigate", {"url": url})

    def evaluate(self, expression: str, *given: Any) -> Any:
        """The value of a JavaScript expression in the page, awaited where it is a promise; `given` are `arguments`."""
        answer = self._tell(
            "WebDriver:ExecuteScript",
            {"script": f"return ({expression})", "args": list(given), "newSandbox": False, "sandbox": None},
        )
        return answer["value"]

    def click(self, selector: str) -> None:
        """Click as a person does: scrolled into view, nothing above it."""
        found = self._tell("WebDriver:FindElement", {"using": "css selector", "value": selector})["value"]
        self._tell("WebDriver:ElementClick", {"id": next(iter(found.values()))})

    def close(self) -> None:
        """End the connection; the process is ended by who began it."""
        self._socket.close()

    def _tell(self, command: str, parameters: dict[str, Any]) -> Any:
        self._count += 1
        told = json.dumps([0, self._count, command, parameters]).encode()
        self._socket.sendall(b"%d:%b" % (len(told), told))
        _, number, error, result = self._receive()
        assert number == self._count
        if error is not None:
            raise FirefoxError(f"{error['error']}: {error['message']}")
        return result

    def _receive(self) -> Any:
        while b":" not in self._rest:
            self._rest += self._some()
        length, _, rest = self._rest.partition(b":")
        while len(rest) < int(length):
            rest += self._some()
        told, self._rest = rest[: int(length)], rest[int(length) :]
        return json.loads(told)

    def _some(self) -> bytes:
        some = self._socket.recv(65_536)
        if not some:
            raise FirefoxError("it is gone")
        return some


def required_firefox() -> str:
    """Path of a Firefox; skips the test, with the reason, where there is none."""
    found = next((found for name in FIREFOX_NAMES if (found := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Firefox: apt-get install firefox-esr")
    return found


@contextmanager
def launched(folder: Path, more: Sequence[tuple[str, bool | int | str]] = ()) -> Generator[Firefox]:
    """A headless Firefox with a profile of its own in `folder`; skips as `required_firefox` does."""
    path = required_firefox()
    profile = folder / "profile"
    profile.mkdir()
    lines = [
        f"user_pref({json.dumps(k)}, {json.dumps(v)});" for k, v in {**PREFERENCES, **dict(more)}.items()
    ]
    (profile / "user.js").write_text("\n".join(lines))
    log = (folder / "firefox.log").open("wb")
    process = subprocess.Popen(
        [path, "--headless", "--marionette", "--no-remote", "--profile", str(profile), "about:blank"],
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    try:
        browser = Firefox(_port_of(profile, process))
        try:
            yield browser
        finally:
            browser.close()
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()


def _port_of(profile: Path, process: subprocess.Popen[bytes]) -> int:
    told = profile / "MarionetteActivePort"
    end = time.monotonic() + START_WITHIN_S
    while not (told.exists() and told.read_text().strip()):
        if process.poll() is not None or time.monotonic() > end:
            raise AssertionError(
                f"Firefox did not start: {(profile.parent / 'firefox.log').read_text()[-2000:]}"
            )
        time.sleep(0.1)
    return int(told.read_text())
