"""The page in a real headless Firefox: a call with its camera and sound, another generator, the end."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from browser import PATIENCE_MS, Server, served, wait_for
from firefox import Firefox, launched

from engines.enrollment import Enrollment, save_enrollment

pytestmark = pytest.mark.browser

# window.onerror comes too late for modules; a console of errors is what a person would look at
WATCH = "(() => { addEventListener('error', e => (window.wrong ??= []).push(e.message)); return true })()"


@pytest.fixture(scope="module")
def server(astronaut: Enrollment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    avatar = tmp_path_factory.mktemp("avatars") / "face.avatar"
    save_enrollment(astronaut, avatar)
    with served("--avatar", str(avatar)) as running:
        yield running


@pytest.fixture(scope="module")
def firefox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firefox]:
    with launched(tmp_path_factory.mktemp("firefox")) as browser:
        yield browser


def numbers(server: Server) -> dict[str, Any]:
    with urllib.request.urlopen(f"{server.url}/metrics.json") as answer:
        return json.load(answer)


def test_firefox_calls_changes_and_ends(firefox: Firefox, server: Server) -> None:
    """Its own camera shows colours and no face: the avatar lives by itself, and what is tested is the way there."""
    firefox.goto(f"{server.url}/?drive=webcam&size=256&hud=1")
    assert firefox.evaluate(WATCH)
    wait_for(firefox, "window.visavis && window.visavis.stats().shown > 30")
    stats = firefox.evaluate("window.visavis.stats()")
    assert stats["resolution"] == "256x256"
    # the same frames that the server tells of in its channel, and the times of both
    wait_for(firefox, "window.visavis.stats().glass_to_glass_ms.n > 10")
    wait_for(firefox, "window.visavis.stats().audio.total > 48000")
    assert firefox.evaluate("document.querySelector('#camera').videoWidth") > 0
    wait_for(firefox, "document.querySelector('#picture').videoWidth == 256")

    before = stats["generator"]
    other = firefox.evaluate(
        "[...document.querySelector('#generator').options].map(o => o.value).find(v => v !== arguments[0])",
        before,
    )
    firefox.evaluate(
        "((e, v) => { e.value = v; e.dispatchEvent(new Event('change', {bubbles: true})) })"
        "(document.querySelector('#generator'), arguments[0])",
        other,
    )
    wait_for(firefox, f"window.visavis.stats().generator === {json.dumps(other)}")
    shown = firefox.evaluate("window.visavis.stats().shown")
    wait_for(firefox, f"window.visavis.stats().shown > {shown + 10}")

    firefox.click("#webcam")  # back to the demo: the camera is let go
    wait_for(firefox, "document.querySelector('#preview').hidden")
    shown = firefox.evaluate("window.visavis.stats().shown")
    wait_for(firefox, f"window.visavis.stats().shown > {shown + 10}")
    assert firefox.evaluate("window.wrong ?? []") == []
    assert len(numbers(server)["calls"]) == 1
    firefox.goto("about:blank")
    end = time.monotonic() + PATIENCE_MS / 1e3
    while numbers(server)["calls"]:
        assert time.monotonic() < end, "the call goes on though its page is gone"
        time.sleep(0.2)
