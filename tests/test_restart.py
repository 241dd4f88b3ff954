"""The server forgets the avatar of a call: nobody else is ever shown, it is said, and it comes back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import numpy as np
import pytest
from browser import served
from fastapi import FastAPI
from PIL import Image
from raw import Running, running
from visitor import PLAYING, Visitor

from engines.enrollment import Enrollment, save_enrollment
from streamer.serve.service import Service

pytestmark = pytest.mark.browser

HELD = "document.querySelector('#status-text').textContent === 'No avatar: add or choose one'"
PORTRAIT = "!document.querySelector('#still').hidden"


@pytest.fixture(scope="module")
def painters() -> Iterator[Running]:
    with running(max_sessions=8) as server:
        yield server


@pytest.fixture(scope="module")
def photo(astronaut_photo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Somebody in red light: not the face that the server starts with."""
    image = np.asarray(Image.open(astronaut_photo).convert("RGB")).astype(np.float32) * (1.0, 0.35, 0.35)
    path = tmp_path_factory.mktemp("photo") / "ada.png"
    Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(path)
    return path


def service_of(server: Running) -> Service:
    return cast(Service, server.app.state.service)


def url_of(server: Running) -> str:
    return f"http://127.0.0.1:{server.port}"


def forget(server: Running, *names: str) -> None:
    """As a server that was started again: it knows none of them."""
    for name in names:
        assert service_of(server).store.remove_upload(name)


def hang_up(server: Running) -> None:
    """All its calls end, as they do with a server."""
    server.run(lambda: [session.end("the test ends it") for session in service_of(server).calls.sessions])


def test_a_server_that_is_killed_brings_the_same_face_back(
    visitor: Visitor, astronaut: Enrollment, photo: Path, tmp_path: Path
) -> None:
    page = visitor.page
    avatar, beach = tmp_path / "stranger.avatar", tmp_path / "beach.png"
    save_enrollment(astronaut, avatar)
    Image.fromarray(np.full((90, 160, 3), (30, 90, 200), np.uint8)).save(beach)
    with served("--avatar", str(avatar)) as server:
        port = urlsplit(server.url).port
        visitor.open(server.url)
        name = visitor.upload(photo)
        visitor.until(PLAYING)
        visitor.stand_before(beach)
        page.locator("#head").focus()
        for _ in range(4):
            page.keyboard.press("ArrowLeft")
        page.click("#save")
        visitor.until("document.querySelector('#save-state').textContent.startsWith('Saved')")
        page.locator("#lips").focus()
        page.keyboard.press("ArrowRight")
        visitor.until(PLAYING)
        face, count = visitor.picture_of(name), len(visitor.offers)
        background = visitor.offers[-1]["background"]
        server.process.kill()
        server.process.wait()
        visitor.until(PORTRAIT)
    with served("--port", str(port), "--avatar", str(avatar)):
        visitor.told("The server no longer has “ada”.")
        visitor.told("It is sent again.")
        visitor.until(PLAYING)
        assert len(visitor.offers) > count
        assert set(visitor.faces[count:]) == {name}, "nobody else's face was ever asked for"
        assert {offer["background"] for offer in visitor.offers[count:]} == {background}
        assert visitor.chosen == name
        assert visitor.picture_of(name) == face
        assert page.locator("#head").input_value() == "0.8"
        assert page.locator("#lips").input_value() == "1.05"
        assert page.inner_text("#save-state").startswith("Changed"), "and what was saved is saved again"
        page.click("#revert")
        visitor.until("document.querySelector('#lips').value === '1'")
        assert page.locator("#head").input_value() == "0.8"
        visitor.plain()


def test_pushed_out_by_newer_photos_it_comes_back(visitor: Visitor, painters: Running, photo: Path) -> None:
    visitor.open(url_of(painters))
    name = visitor.upload(photo)
    visitor.until(PLAYING)
    store, count = service_of(painters).store, len(visitor.offers)
    entry = store.get(name)
    assert entry is not None
    for _ in range(32):
        store.add_upload(entry.enrollment, "somebody else")
    assert store.get(name) is None
    hang_up(painters)
    visitor.told("newer photos took the place")
    visitor.until(PLAYING)
    assert set(visitor.faces[count:]) == {name}
    assert store.get(name) is not None


def test_a_tab_without_the_photo_holds_and_asks(visitor: Visitor, painters: Running, photo: Path) -> None:
    visitor.open(url_of(painters))
    name = visitor.upload(photo)
    visitor.until(PLAYING)
    visitor.open(url_of(painters))
    assert visitor.chosen == name, "a reload keeps the chosen one"
    count = len(visitor.offers)
    forget(painters, name)
    hang_up(painters)
    visitor.told("“ada” is no longer on the server.")
    visitor.told("nobody else is shown")
    visitor.until(HELD)
    visitor.until(PORTRAIT)
    assert visitor.page.inner_text("#veil-retry") == "Add the photo again"
    assert visitor.chosen == name
    # loaded again it holds as well, though no picture was seen yet
    visitor.open(url_of(painters), HELD)
    assert set(visitor.faces[count:]) == {name}
    with visitor.page.expect_file_chooser() as chooser:
        visitor.page.click("#veil-retry")
    chooser.value.set_files(str(photo))
    visitor.page.fill("#consent", "public domain")
    visitor.page.click("#enroll-go")
    visitor.until(PLAYING)
    assert set(visitor.faces[count:]) == {name}
    visitor.plain()


def test_who_deletes_the_avatar_of_the_call_is_told_what_comes_next(
    visitor: Visitor, context: Any, chromium: Any, painters: Running, photo: Path
) -> None:
    visitor.open(url_of(painters))
    name = visitor.upload(photo)
    visitor.until(PLAYING)
    # a tab that was duplicated knows the same avatars
    other = Visitor(context)
    other.page.goto(f"{url_of(painters)}/api/health")
    kept = visitor.page.evaluate("JSON.stringify({...sessionStorage})")
    fill = "(kept) => Object.entries(JSON.parse(kept)).forEach(([k, v]) => sessionStorage.setItem(k, v))"
    other.page.evaluate(fill, kept)
    other.open(url_of(painters))
    assert other.chosen == name
    # and what shows it in OBS is no tab of this browser
    obs = Visitor(chromium.new_context())
    obs.open(f"{url_of(painters)}/?avatar={name}&bare=1")
    counts = len(visitor.offers), len(other.offers)
    visitor.page.click(".tile-delete")
    visitor.told("You deleted “ada”.")
    visitor.told("Choose another avatar, or add a photo")
    visitor.until(HELD)
    assert not visitor.page.evaluate(PORTRAIT), "of a face that is deleted no picture stays"
    other.told("“ada” was deleted in another tab.")
    other.until(HELD)
    visitor.page.click("#webcam")  # whatever else is changed: nobody is shown until somebody is chosen
    visitor.until("document.querySelector('#webcam-label').textContent.startsWith('Stop')")
    visitor.until(HELD)
    assert (len(visitor.offers), len(other.offers)) == counts
    obs.until("window.visavis.stats().connection === 'reconnecting'")
    assert not [s for s in service_of(painters).calls.sessions if s.enrollment.name == name and not s.ending]
    obs.page.context.close()
    visitor.page.get_by_text("green", exact=True).click()
    visitor.until(PLAYING)
    assert visitor.faces[counts[0] :] == ["green"]
    other.plain()


@pytest.mark.parametrize("bare", ["", "&bare=1"])
def test_an_address_of_nobody_shows_nobody(visitor: Visitor, painters: Running, bare: str) -> None:
    visitor.open(f"{url_of(painters)}/?avatar=nobody{bare}", "!document.querySelector('#veil').hidden")
    visitor.told("There is no avatar called “nobody” here.")
    if bare:
        visitor.until("window.said.filter((text) => text.startsWith('Trying again')).length > 1")
    assert set(visitor.faces) == {"nobody"}
    secret = "u-" + "x" * 22
    visitor.open(f"{url_of(painters)}/?avatar={secret}{bare}", "!document.querySelector('#veil').hidden")
    visitor.told("The avatar of this address is no longer on the server.")
    assert set(visitor.faces) == {"nobody", secret}


def test_a_link_in_obs_comes_back_with_the_page_that_made_the_avatar(
    visitor: Visitor, context: Any, painters: Running, photo: Path
) -> None:
    visitor.open(url_of(painters))
    name = visitor.upload(photo)
    visitor.until(PLAYING)
    obs = Visitor(context)
    obs.open(f"{url_of(painters)}/?avatar={name}&bare=1")
    forget(painters, name)
    hang_up(painters)
    visitor.told("made again")
    visitor.until(PLAYING)
    obs.until(PLAYING)
    assert set(obs.faces) == {name}
    assert obs.page.evaluate("document.querySelector('#veil').hidden"), (
        "a broadcast shows no message over its picture"
    )


def test_a_server_without_any_avatar_says_so(visitor: Visitor) -> None:
    def empty(app: FastAPI) -> None:
        store = cast(Service, app.state.service).store
        for name, _ in store.public():
            store.remove_kept(name)

    with running(change=empty) as server:
        visitor.open(url_of(server), HELD)
        visitor.told("No avatar is here yet.")
        assert visitor.page.inner_text("#veil-retry") == "Add a photo"
        assert visitor.offers == []


def test_a_reload_offers_the_camera_with_one_click_and_asks_for_nothing(
    visitor: Visitor, painters: Running
) -> None:
    page = visitor.page
    visitor.open(url_of(painters))
    page.get_by_text("green", exact=True).click()
    visitor.until(PLAYING)
    page.click("#webcam")
    visitor.until("document.querySelector('#webcam-label').textContent.startsWith('Stop')")
    page.add_init_script(
        "const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);"
        "navigator.mediaDevices.getUserMedia = (asked) => { window.asked = 1; return open(asked); };"
    )
    visitor.open(url_of(painters))
    assert page.inner_text("#webcam-label") == "Use my webcam again"
    assert "again" in page.get_attribute("#webcam", "class")
    assert page.evaluate("window.asked ?? 0") == 0
    assert (visitor.chosen, visitor.offers[-1]["avatar"], visitor.offers[-1]["drive"]) == (
        "green",
        "green",
        "demo",
    )
    page.click("#webcam")
    visitor.until("document.querySelector('#webcam-label').textContent.startsWith('Stop')")
    visitor.until(PLAYING)
    assert visitor.offers[-1]["drive"] == "webcam"
    page.click("#webcam")
    visitor.until(PLAYING)
    visitor.open(url_of(painters))
    assert page.inner_text("#webcam-label") == "Use my webcam", "who stopped it is not asked again"
    # a new tab of this browser has the avatar that was chosen last
    fresh = Visitor(page.context)
    fresh.open(url_of(painters))
    assert fresh.faces == ["green"]
    assert json.loads(fresh.page.evaluate("localStorage.getItem('visavis.chosen')"))["name"] == "green"
