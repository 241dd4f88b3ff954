"""The page in a real headless Chromium: what is chosen changes inside the running call; who may not call hears why."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import PATIENCE_MS, required_chromium, served, wait_for
from raw import Running, running
from test_browser import see

from engines.enrollment import Enrollment, save_enrollment

pytestmark = pytest.mark.browser

# counts the connections, keeps what the server said, and every line that stood where the status stands
SPYING = """
window.connections = 0;
window.heard = { states: [], neutral: [], notices: [] };
window.lines = [];
window.RTCPeerConnection = class extends RTCPeerConnection {
  constructor(...parts) {
    super(...parts);
    window.connections += 1;
  }
  createDataChannel(...parts) {
    const channel = super.createDataChannel(...parts);
    channel.addEventListener("message", ({ data }) => {
      const message = JSON.parse(data);
      if (message.type === "frame") window.heard.states.push(message.state);
      if (message.type === "neutral") window.heard.neutral.push(message);
      if (message.type === "notice") window.heard.notices.push(message.text);
    });
    return channel;
  }
};
document.addEventListener("DOMContentLoaded", () => {
  const read = () => {
    const line = document.querySelector("#status-text").textContent;
    if (line && window.lines.at(-1) !== line) window.lines.push(line);
  };
  new MutationObserver(read).observe(document.body, { subtree: true, childList: true, characterData: true });
});
window.corner = () => {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [8, 8];
  const video = document.querySelector("#picture");
  const context = canvas.getContext("2d");
  context.drawImage(video, 2, 2, 8, 8, 0, 0, 8, 8);
  return [...context.getImageData(4, 4, 1, 1).data].slice(0, 3);
};
window.middle = () => {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [1, 1];
  const { videoWidth: w, videoHeight: h } = document.querySelector("#picture");
  const context = canvas.getContext("2d");
  context.drawImage(document.querySelector("#picture"), w * 0.4, h * 0.4, w * 0.2, h * 0.2, 0, 0, 1, 1);
  return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
};
"""
PLAYING = (
    "window.visavis && window.visavis.stats().connection === 'connected' && window.visavis.stats().shown > 5"
)


class Page:
    """A page and what it asked of running calls."""

    def __init__(self, context: Any) -> None:
        self.page: Any = context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.add_init_script(SPYING)
        self.changes: list[dict[str, Any]] = []
        self.offers: list[dict[str, Any]] = []
        self.problems: list[str] = []
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", self._asked)

    def _asked(self, request: Any) -> None:
        if request.method == "PATCH":
            self.changes.append(json.loads(request.post_data))
        elif request.url.endswith("/api/offer"):
            self.offers.append(json.loads(request.post_data))

    def tell(self, code: str) -> Any:
        return self.page.evaluate(code)

    def until(self, condition: str) -> None:
        wait_for(self.page, condition)


@pytest.fixture
def page(chromium: Any) -> Iterator[Page]:
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    page = Page(context)
    yield page
    context.close()
    assert page.problems == []


def close_to(colour: list[int], wanted: tuple[int, int, int]) -> bool:
    return max(abs(a - b) for a, b in zip(colour, wanted, strict=True)) < 60


def shoot(page: Any, name: str) -> None:
    """For those who want to look."""
    if folder := os.environ.get("VISAVIS_SHOTS"):
        page.screenshot(path=str(Path(folder) / f"{name}.png"))


def test_everything_that_can_be_chosen_changes_in_one_call(
    page: Page, astronaut: Enrollment, tmp_path: Path
) -> None:
    files = [tmp_path / "face.avatar", tmp_path / "red.avatar"]
    save_enrollment(astronaut, files[0])
    red = (astronaut.photo * np.array([1.0, 0.3, 0.3])).astype(np.uint8)
    save_enrollment(replace(astronaut, name="red", photo=red), files[1])
    with served("--avatar", str(files[0]), "--avatar", str(files[1])) as server:
        page.page.goto(f"{server.url}/?drive=webcam&generator=geometric")
        page.until(PLAYING)
        page.until("window.heard.neutral.some((each) => each.state === 'taken' && each.kept)")
        page.until("window.visavis.stats().state === 'tracking'")
        revision = page.tell("window.heard.neutral.at(-1).revision")
        page.tell("window.heard.neutral.length = window.heard.states.length = 0")
        shoot(page.page, "before")

        page.page.click("label:has(input[name=aspect][value='16:9'])")
        page.until("window.visavis.stats().resolution === '910x512'")
        page.page.select_option("#background", "colour")
        see(lambda: close_to(page.tell("window.corner()"), (0, 255, 0)), "the background never was green")
        # the picker is still open
        page.tell(
            "(() => { const e = document.querySelector('#background-colour'); e.value = '#0000ff';"
            " e.dispatchEvent(new Event('input', { bubbles: true })); })()"
        )
        see(lambda: close_to(page.tell("window.corner()"), (0, 0, 255)), "the background never was blue")
        shoot(page.page, "wide-blue")
        assert page.tell("window.visavis.stats().generator") == "geometric"
        page.page.click("#developer summary")
        page.page.select_option("#generator", "visavis")
        page.until("window.visavis.stats().generator === 'visavis'")
        page.page.click("label:has(#voice-helps)")
        see(lambda: {"voice_helps": False} in page.changes, "the call was not asked to stop listening")
        before = page.tell("window.middle()")
        assert before[0] < 1.6 * before[2]
        page.page.get_by_text("red", exact=True).click()
        see(
            lambda: page.tell("window.middle()[0] > 1.6 * window.middle()[2]"),
            "the other face was never seen",
        )
        see(lambda: close_to(page.tell("window.corner()"), (0, 0, 255)), "its background is the same")
        shoot(page.page, "red")

        assert page.tell("window.connections") == len(page.offers) == 1
        # later evidence may revise it; a change never takes it anew
        reports = page.tell("window.heard.neutral")
        assert all(each["state"] == "taken" and each["revision"] >= revision for each in reports)
        assert "calibrating" not in page.tell("window.heard.states")
        assert [set(c) for c in page.changes][:2] == [{"aspect"}, {"background"}]
        assert page.tell("window.visavis.stats().resolution") == "910x512"
        assert page.tell("window.heard.notices") == []

        # the next call begins with the neutral of this one
        kept = page.tell("JSON.parse(sessionStorage.getItem('visavis.neutral')).kept")
        page.page.reload()
        page.until(PLAYING)
        see(lambda: len(page.offers) > 1, "a new call")
        assert page.offers[-1]["neutral"] == kept


@pytest.fixture(scope="module")
def painters() -> Iterator[Running]:
    with running(max_sessions=1) as server:
        yield server


def url_of(server: Running) -> str:
    return f"http://127.0.0.1:{server.port}/?drive=demo"


def test_what_the_server_refuses_is_said_and_the_page_shows_what_goes_on(
    page: Page, painters: Running
) -> None:
    page.page.goto(url_of(painters))
    page.until(PLAYING)
    page.page.click("#developer summary")
    chosen = page.tell("document.querySelector('#generator').value")
    other = next(
        o
        for o in page.tell("[...document.querySelectorAll('#generator option')].map((o) => o.value)")
        if o != chosen
    )
    sentence = {"error": "with 1 other call up there is no room for that"}
    page.page.route(
        "**/api/calls/*", lambda route: route.fulfill(status=503, json=sentence, headers={"Retry-After": "4"})
    )
    page.page.select_option("#generator", other)
    page.page.wait_for_selector(".notice:has-text('no room for that')")
    assert page.tell("document.querySelector('#generator').value") == chosen
    assert page.tell("window.visavis.stats().connection") == "connected"
    assert page.tell("window.connections") == 1
    shoot(page.page, "refused")
    # a call that is gone is made anew
    page.page.unroute("**/api/calls/*")
    gone = {"error": "this call is over; begin another one", "what": "call"}
    page.page.route("**/api/calls/*", lambda route: route.fulfill(status=404, json=gone), times=1)
    page.page.select_option("#generator", other)
    page.until("window.connections === 2")
    page.until(PLAYING)
    assert page.offers[-1]["generator"] == other


def test_a_change_that_cannot_be_made_is_taken_back_on_the_page(page: Page, painters: Running) -> None:
    page.page.goto(url_of(painters))
    page.until(PLAYING)
    (call,) = (s for s in painters.app.state.service.calls.sessions if not s.ending)
    painter = call._avatar.avatar
    painter.unmakeable = RuntimeError("there is no such face in it")
    chosen = page.tell("document.querySelector('input[name=avatar]:checked').value")
    other = page.page.locator("input[name=avatar]:not(:checked)").first
    name = other.get_attribute("value")
    assert name != chosen
    other.locator("xpath=..").click()
    page.page.wait_for_selector(".notice:has-text('no such face')")
    assert page.tell("document.querySelector('input[name=avatar]:checked').value") == chosen
    painter.unmakeable = None
    other.locator("xpath=..").click()
    see(lambda: painter.figure.enrollment.name == name, "the other face")
    assert page.tell("window.connections") == 1


def test_a_full_server_is_called_full_until_there_is_room(
    chromium: Any, page: Page, painters: Running
) -> None:
    context = chromium.new_context(viewport={"width": 390, "height": 844})
    first = Page(context)
    first.page.goto(url_of(painters))
    first.until(PLAYING)
    page.page.goto(url_of(painters))
    page.page.wait_for_selector("#veil:not([hidden])")
    page.until("window.lines.includes('The server is full, waiting')")
    page.until("document.querySelector('#veil-detail').textContent.startsWith('Trying again in')")
    assert "hang one up" in page.tell("document.querySelector('#veil-text').textContent")
    shoot(page.page, "full")
    context.close()
    page.until(PLAYING)
    assert not [line for line in page.tell("window.lines") if "lost" in line]


def test_a_killed_browser_gives_its_place_to_the_next_page(
    page: Page, painters: Running, tmp_path: Path
) -> None:
    command = [
        required_chromium(),
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path}",
    ]
    command += ["--allow-loopback-in-peer-connection", "--disable-features=WebRtcHideLocalIpsWithMdns"]
    calls = painters.app.state.service.calls
    see(lambda: not calls.sessions, "the calls before to end")
    browser = subprocess.Popen(
        [*command, url_of(painters)], stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        see(lambda: any(s.work.drawn > 5 for s in calls.sessions), "its call")
        (dead,) = calls.sessions
    finally:
        os.killpg(browser.pid, signal.SIGKILL)
        browser.wait()
    page.page.goto(url_of(painters))
    page.until(PLAYING)
    assert dead.ending or dead.resting
    see(lambda: dead.closed, "the dead call to be freed")
    lines = page.tell("window.lines")
    assert not [line for line in lines if "lost" in line]
    assert page.tell("window.visavis.stats().connection") == "connected"
