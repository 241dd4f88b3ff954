"""The page in a real headless Chromium when things come in another order than was thought: the newest choice counts."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image
from raw import Running, running
from visitor import PLAYING, Visitor

from engines.enrollment import Enrollment, save_enrollment
from engines.retarget import Controls
from streamer.serve.service import Service

pytestmark = pytest.mark.browser

DRIVES = "document.querySelector('#{}-label').textContent.startsWith('Stop')"
# holds each answer of that kind until `window.letGo()`
HOLDING = """
(what) => {
  const real = window.fetch;
  const held = [];
  window.holds = 0;
  window.fetch = async (path, options) => {
    const answer = await real(path, options);
    if (what === (options?.method ?? "GET") + " " + String(path).split("/").slice(0, 2).join("/")) {
      window.holds += 1;
      await new Promise((resolve) => held.push(resolve));
    }
    return answer;
  };
  window.letGo = () => { window.fetch = real; for (const go of held) go(); };
}
"""


@pytest.fixture(scope="module")
def painters() -> Iterator[Running]:
    with running(max_sessions=8) as server:
        yield server


@pytest.fixture
def visitor(chromium: Any, painters: Running) -> Iterator[Visitor]:
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    visitor = Visitor(context)
    visitor.open(f"http://127.0.0.1:{painters.port}")
    yield visitor
    assert visitor.problems == []
    context.close()


def test_a_recording_goes_on_over_another_face(visitor: Visitor) -> None:
    page = visitor.page
    page.click("#developer summary")
    page.click("#record")
    visitor.until("document.querySelector('#record').getAttribute('aria-pressed') === 'true'")
    with page.expect_response(lambda answer: answer.request.method == "PATCH"):
        page.get_by_text("green", exact=True).click()
    visitor.until("document.querySelector('input[value=green]').checked")
    page.click("#record")  # stops and downloads: it was never over
    visitor.told("Two files were downloaded")
    assert not page.evaluate("window.said.some((text) => text.includes('recording is gone'))")
    assert page.is_enabled("#record")


def test_settings_of_a_face_that_was_passed_over_go_to_nobody_else(
    visitor: Visitor, painters: Running
) -> None:
    page = visitor.page
    store = cast(Service, painters.app.state.service).store
    first = visitor.chosen
    assert first is not None
    assert store.set_controls("green", Controls(head=0.3))
    page.evaluate(HOLDING, "PATCH api/calls")
    page.get_by_text("green", exact=True).click()
    visitor.until("window.holds === 1")
    page.locator(f"input[name=avatar][value={first}]").check(force=True)
    with page.expect_request(lambda asked: asked.method == "PATCH"):
        page.evaluate("window.letGo()")
    visitor.until(f"JSON.parse(localStorage['visavis.controls'])[{json.dumps(first)}] !== undefined")
    page.click("#background")  # whatever is asked next comes after it
    with page.expect_response(lambda answer: answer.request.method == "PATCH"):
        page.select_option("#background", "blur")
    assert visitor.chosen == first
    assert page.locator("#head").input_value() == "1"


def test_a_picture_on_its_way_does_not_take_the_place_of_what_was_chosen_since(
    visitor: Visitor, tmp_path: Path
) -> None:
    page = visitor.page
    beach = tmp_path / "beach.png"
    Image.fromarray(np.full((90, 160, 3), (30, 90, 200), np.uint8)).save(beach)
    page.evaluate(HOLDING, "POST api/backgrounds")
    page.set_input_files("#background-file", str(beach))
    visitor.until("window.holds === 1")
    page.select_option("#background", "blur")
    page.evaluate("window.letGo()")
    with page.expect_response(lambda answer: answer.request.method == "PATCH"):
        page.locator("input[name=aspect][value='16:9']").check(force=True)
    assert page.locator("#background").input_value() == "blur"
    assert visitor.offers[-1]["background"] == "blur"


def test_who_speaks_and_may_not_use_the_camera_goes_on_speaking(visitor: Visitor) -> None:
    page = visitor.page
    with page.expect_request(lambda asked: asked.url.endswith("/api/offer")):
        page.click("#voice")
    visitor.until(DRIVES.format("voice"))
    page.evaluate(
        """() => {
          navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException("no", "NotAllowedError"));
        }"""
    )
    page.click("#webcam")
    visitor.told("The browser may not use the camera.")
    visitor.until("!document.querySelector('#webcam').disabled")
    assert page.evaluate(DRIVES.format("voice")), "else the microphone stays open for nothing"
    assert visitor.offers[-1]["drive"] == "voice"


def test_an_unplugged_camera_is_waited_for(visitor: Visitor) -> None:
    page = visitor.page
    page.click("#webcam")
    visitor.until(DRIVES.format("webcam"))
    visitor.until(PLAYING)
    page.evaluate(
        """() => {
          const devices = navigator.mediaDevices;
          const real = devices.getUserMedia.bind(devices);
          window.here = false;
          window.looks = 0;
          devices.getUserMedia = (asked) =>
            window.here ? real(asked) : Promise.reject(new DOMException("none", "NotFoundError"));
          devices.enumerateDevices = async () => {
            window.looks += 1;
            return window.here ? [{ kind: "videoinput" }] : [];
          };
          document.querySelector("#camera").srcObject.getVideoTracks()[0].dispatchEvent(new Event("ended"));
        }"""
    )
    visitor.told("The camera was disconnected.")
    count = len(visitor.offers)
    # a browser says of the unplugging itself that the devices are others
    page.evaluate("navigator.mediaDevices.dispatchEvent(new Event('devicechange'))")
    visitor.until("window.looks === 1 || window.said.some((text) => text.startsWith('No camera was found'))")
    assert page.evaluate(DRIVES.format("webcam")), "the demo does not take the place"
    with page.expect_request(lambda asked: asked.url.endswith("/api/offer")):
        page.evaluate("window.here = true; navigator.mediaDevices.dispatchEvent(new Event('devicechange'))")
    visitor.until(PLAYING)
    assert [offer["drive"] for offer in visitor.offers[count:]] == ["webcam"]


def test_the_way_into_a_call_is_never_that_of_another_avatar(visitor: Visitor) -> None:
    page = visitor.page
    command = "document.querySelector('#use-command').textContent"
    page.route(
        "**/api/camera?*",
        lambda route: route.fulfill(
            json={
                "system": "linux",
                "drivers": {"linux": "x"},
                "missing": [],
                "cameras": {},
                "program": "visavis",
                "avatar": "ada",
            }
        ),
    )
    page.click("#use")
    visitor.until(f"{command}.includes('visavis run ada')")
    page.click("#use-close")
    page.unroute("**/api/camera?*")
    page.route("**/api/camera?*", lambda route: route.abort())
    page.click("#use")
    visitor.until("!document.querySelector('#use-error').hidden")
    assert page.evaluate(command) == ""


def test_of_several_avatar_files_it_is_said_which_is_used(
    visitor: Visitor, astronaut: Enrollment, tmp_path: Path
) -> None:
    file = tmp_path / "ada.avatar"
    save_enrollment(astronaut, file)
    visitor.page.evaluate(
        """(bytes) => {
          const transfer = new DataTransfer();
          for (const name of ["ada", "eve"]) {
            transfer.items.add(new File([Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0))], `${name}.avatar`));
          }
          const event = new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true });
          document.body.dispatchEvent(event);
        }""",
        base64.b64encode(file.read_bytes()).decode(),
    )
    visitor.until("document.querySelector('input[name=avatar]:checked').value.startsWith('u-')")
    visitor.told("Only the first of these files is used.")


@pytest.fixture
def phone(chromium: Any, painters: Running) -> Iterator[Visitor]:
    context = chromium.new_context(viewport={"width": 390, "height": 844})
    visitor = Visitor(context)
    visitor.open(f"http://127.0.0.1:{painters.port}")
    yield visitor
    assert visitor.problems == []
    context.close()


def test_on_a_phone_no_message_hides_what_is_to_be_filled_in(phone: Visitor, astronaut_photo: Path) -> None:
    page = phone.page
    phone.upload(astronaut_photo)
    page.evaluate(
        """async () => {
          const { Notices } = await import("./static/notices.js");
          const words = "Only 6 of 30 pictures a second arrive: this computer is too slow for it. ".repeat(2);
          new Notices(document.querySelector("#notices")).show(words, "error", {
            action: { label: "Make the picture smaller", go() {} },
          });
        }"""
    )
    page.click("#own-keep")
    covered = page.evaluate(
        """() => {
          const seen = (id) => {
            const { left, top, width, height } = document.getElementById(id).getBoundingClientRect();
            return document.elementFromPoint(left + width / 2, top + height / 2)?.id === id;
          };
          return ["own-name", "own-go"].filter((id) => !seen(id));
        }"""
    )
    assert covered == []
    assert page.evaluate("document.activeElement.id") == "own-name"


def test_on_a_phone_the_statistics_are_whole_in_full_screen(phone: Visitor) -> None:
    page = phone.page
    page.click("#webcam")
    phone.until("!document.querySelector('#preview').hidden")
    page.click("#full")
    phone.until("document.fullscreenElement !== null && innerWidth < 896")
    inside = page.evaluate(
        """() => {
          const hud = document.querySelector("#hud");
          const { left, top, width, height } = document.querySelector("#hud-fps").getBoundingClientRect();
          const first = document.elementFromPoint(left + width / 2, top + height / 2);
          const preview = document.querySelector("#preview").getBoundingClientRect();
          return [hud.contains(first), preview.bottom <= hud.getBoundingClientRect().top];
        }"""
    )
    assert inside == [True, True]


def test_the_page_finds_its_way_to_the_server_and_says_what_stands_in_it(visitor: Visitor) -> None:
    """Beside a call that goes on."""
    page = visitor.page
    visitor.until(PLAYING)
    page.click("#connection summary")
    page.click("#reach")
    visitor.until("document.querySelector('#reach-state').textContent === 'Nothing stands in the way.'")
    lines = page.locator("#reach-findings li").all_inner_texts()
    assert len(lines) == 2
    assert lines[0].startswith("The server answers in")
    assert lines[1].endswith("by way of this network.")
    page.route(
        "**/api/connection-test", lambda route: route.fulfill(status=503, body='{"error": "Not now."}')
    )
    page.click("#reach")
    visitor.until("document.querySelector('#reach-state').textContent === 'Something stands in the way:'")
    assert page.locator("#reach-findings li[data-good=false]").all_inner_texts() == ["Not now."]
