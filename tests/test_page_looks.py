"""How the page looks and is handled: mirror, light and dark, fingers and keys, both sizes, the way into a call."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from browser import PATIENCE_MS, wait_for
from calls import GREEN, RED, Painter, plain_enrollment

from calibration.neutral import NeutralReport
from engines.enrollment import save_enrollment
from streamer.avatar import Shown
from streamer.drive.driver import Drive
from streamer.frame import Moment
from streamer.serve.app import create_app
from streamer.serve.config import ServeSettings
from streamer.serve.store import AvatarStore
from streamer.sinks.virtualcam import driver_fix
from streamer.webrtc.session import Session

pytestmark = pytest.mark.browser

DESKTOP, PHONE = (1280, 800), (390, 844)
TOKEN = "an-access-token.0"
PLAYING = "window.visavis && window.visavis.stats().shown > 5"
CAMERA_ON = "!document.querySelector('#preview').hidden && window.visavis.stats().state === 'tracking'"
# what each of the pictures is turned by, were it in sight: -1 for a mirror
TURNS = """() => ['picture', 'still', 'camera', 'mesh'].map((id) => {
    const element = document.getElementById(id);
    const was = element.hidden;
    element.hidden = false;
    const turn = new DOMMatrix(getComputedStyle(element).transform).a;
    element.hidden = was;
    return turn;
})"""
# name, width and height of what takes the finger, and of what shows, for every control in sight
CONTROLS = """() => [...document.querySelectorAll('button, input, select, summary, label[for=photo]')]
    .filter((e) => e.checkVisibility({visibilityProperty: true}) && !e.matches('.unseen, [name=aspect], [type=radio]'))
    .map((e) => {
        const hit = (e.closest('label') ?? e).getBoundingClientRect();
        const shown = e.getBoundingClientRect();
        const more = getComputedStyle(e, '::after');
        const farther = more.position === 'absolute' ? -2 * parseFloat(more.top) : 0;
        return [e.id || e.className || e.textContent, hit.width + farther, hit.height + farther, shown.height];
    })"""


class SlowPainter(Painter):
    """Takes so long for a picture that five or six come a second."""

    def show_drive(self, drive: Drive, moment: Moment) -> Shown:
        time.sleep(0.16)
        return super().show_drive(drive, moment)


class CalmPainter(Painter):
    """Waits for a calm face when it is asked to, and is disturbed by talk."""

    def _recalibrate(self) -> None:
        self.driver.neutral_report = NeutralReport("waiting", ("talking",), 1)


class GrumblingPainter(Painter):
    """Has something to say as soon as it is made."""

    notice = "its weights did not load: another generator draws"


class Stage:
    """A server in this process whose avatars only paint."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.sizes_px: list[int] = []  # of each call
        self.painter: type[Painter] = Painter
        self.painters: list[Painter] = []

    def make_avatar(self, session: Session) -> Painter:
        self.sizes_px.append(session.options.size_px)
        self.painters.append(self.painter(session))
        return self.painters[-1]


@contextmanager
def staged(folder: Path, settings: ServeSettings) -> Generator[Stage]:
    store = AvatarStore()
    store.add_public(plain_enrollment(RED, "red"))
    file = folder / "green.avatar"
    save_enrollment(plain_enrollment(GREEN, "green"), file)
    store.add_public(plain_enrollment(GREEN, "green"), file)
    stage = Stage("")
    app = create_app(settings, store, make_avatar=stage.make_avatar)  # type: ignore[arg-type]
    listener = socket.create_server(("127.0.0.1", 0))
    stage.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="stage")
    thread.start()
    try:
        yield stage
    finally:
        server.should_exit = True
        thread.join(60)
        listener.close()
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("stage"), ServeSettings(max_sessions=4)) as running:
        yield running


@contextmanager
def visit(chromium: Any, size: tuple[int, int] = DESKTOP, **how: Any) -> Generator[Any]:
    """A page of that size; no error may stand in its console."""
    is_phone = size[0] < 600
    context = chromium.new_context(
        viewport={"width": size[0], "height": size[1]}, has_touch=is_phone, is_mobile=is_phone, **how
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
    try:
        yield page
    finally:
        context.close()
    assert problems == []


def turns(page: Any) -> set[float]:
    """What picture, still picture, own camera and mesh are turned by."""
    return set(page.evaluate(TURNS))


def test_who_drives_by_webcam_sees_a_mirror_and_nobody_else_does(chromium: Any, stage: Stage) -> None:
    with visit(chromium) as page:
        page.goto(f"{stage.url}/")
        wait_for(page, PLAYING)
        assert turns(page) == {1}, "the demo is no mirror"
        assert page.is_disabled("#mirror")
        assert page.locator("#mirror-words").is_hidden()
        page.click("#webcam")
        wait_for(page, CAMERA_ON)
        assert turns(page) == {-1}, "preview, mesh, picture and its still agree"
        assert "others see you the right way round" in page.inner_text("#mirror-words")
        assert page.get_attribute("#mirror", "aria-pressed") == "true"
        page.click("#mirror")
        assert turns(page) == {1}
        assert page.inner_text("#mirror-words").startswith("Not mirrored")
        page.goto(f"{stage.url}/?drive=webcam")
        wait_for(page, CAMERA_ON)
        assert turns(page) == {1}, "it is remembered"
        page.click("#mirror")
        page.click("#voice")
        # the webcam's call may still be the one that is connected
        wait_for(page, f"({TURNS})().every((turn) => turn === 1)")
        wait_for(page, "window.visavis.stats().connection === 'connected'")
        assert turns(page) == {1}, "nor is the voice one"
        for asked, turn in (("", 1), ("&mirror=0", 1), ("&mirror=1", -1)):
            page.goto(f"{stage.url}/?bare=1&drive=webcam{asked}")
            wait_for(page, PLAYING)
            assert turns(page) == {turn}, f"what others see{asked}"
            assert page.locator("#mirror-words").is_hidden()


@pytest.mark.parametrize("width", [900, 960, 1280, 1600])
def test_no_button_lies_under_the_panel(chromium: Any, stage: Stage, width: int) -> None:
    with visit(chromium, (width, 800)) as page:
        page.goto(f"{stage.url}/?drive=voice")
        wait_for(page, "document.querySelector('#voice-label').textContent.startsWith('Stop')")
        wait_for(page, "!document.querySelector('#level').hidden")
        for longest in ("Stop webcam (demo)", "Waiting for permission"):
            page.evaluate(f"document.querySelector('#webcam-label').textContent = '{longest}'")
            stage_box = page.locator("#stage").bounding_box()
            right = stage_box["x"] + stage_box["width"]
            boxes = page.locator(".toolbar button:visible")
            assert boxes.count() == 7
            for k in range(7):
                box = boxes.nth(k).bounding_box()
                assert box["x"] + box["width"] <= right + 1, (longest, boxes.nth(k).inner_text())


def test_the_voice_has_a_latency_and_names_of_its_own(chromium: Any, stage: Stage) -> None:
    with visit(chromium) as page:
        page.goto(f"{stage.url}/?drive=voice&audio=raw&hud=1")
        wait_for(page, "window.visavis && window.visavis.stats().glass_to_glass_ms.n > 10")
        wait_for(page, "document.querySelector('#hud-p50').textContent !== '–'")
        assert page.inner_text("#hud-latency-name") == "Voice to glass"
        assert "microphone" in page.get_attribute("#hud-latency-name", "title")
        legend = page.inner_text("#hud-legend")
        assert "Look-ahead" in legend
        assert "Decode" not in legend
        stats = page.evaluate("window.visavis.stats()")
        # the look-ahead lies within the whole way
        assert stats["glass_to_glass_ms"]["p50"] > stats["stage_ms"]["decoded"] > 0


def test_a_finger_reaches_every_control_of_a_phone(chromium: Any, stage: Stage) -> None:
    with visit(chromium, PHONE) as page:
        page.goto(f"{stage.url}/?drive=webcam")
        wait_for(page, CAMERA_ON)
        page.evaluate("document.querySelector('#developer').open = true")
        page.select_option("#background", "colour")
        wait_for(page, CAMERA_ON)
        found = page.evaluate(CONTROLS)
        assert {"webcam", "use", "voice-helps", "trim", "head", "save", "background-colour", "keep_lips"} <= {
            name for name, *_ in found
        }
        small = [each for each in found if each[1] < 44 or each[2] < 44 or each[3] < 24]
        assert small == []
        radios = page.evaluate(
            "[...document.querySelectorAll('.switch label')].filter((e) => e.checkVisibility())"
            ".map((e) => e.getBoundingClientRect().height)"
        )
        assert min(radios) >= 44
        page.click("#use")
        page.wait_for_selector("#use-command > *")
        assert [each for each in page.evaluate(CONTROLS) if each[1] < 44 or each[2] < 44] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]


def test_on_a_phone_what_is_set_comes_before_what_is_measured(chromium: Any, stage: Stage) -> None:
    with visit(chromium, PHONE) as page:
        page.goto(f"{stage.url}/?hud=1")
        wait_for(page, PLAYING)
        order = ["#stage", ".toolbar", "#tiles", "#movement", "#developer", "#hud"]
        tops = [page.locator(each).bounding_box()["y"] for each in order]
        assert tops == sorted(tops)
        page.click("#hud-toggle")
        assert page.locator("#hud").is_hidden()
        page.click("#hud-toggle")
        wait_for(
            page, "document.querySelector('#hud').getBoundingClientRect().top < innerHeight", 10
        )  # who asks for the numbers is taken there


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_light_and_dark_follow_the_system(chromium: Any, stage: Stage, size: tuple[int, int]) -> None:
    seen: dict[str, tuple[int, ...]] = {}
    with visit(chromium, size) as page:
        page.goto(f"{stage.url}/")
        wait_for(page, PLAYING)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
            seen[scheme] = tuple(int(part) for part in colour[4:-1].split(","))
            themes = page.locator("meta[name=theme-color]").evaluate_all(
                "(all) => all.filter((meta) => matchMedia(meta.media).matches).map((meta) => meta.content)"
            )
            assert len(themes) == 1
    assert min(seen["light"]) > 200
    assert max(seen["dark"]) < 40


@pytest.mark.parametrize("how", [{"reduced_motion": "reduce"}, {"forced_colors": "active"}])
def test_the_page_stands_still_and_in_colours_of_the_visitors_own(
    chromium: Any, stage: Stage, how: dict[str, Any]
) -> None:
    with visit(chromium, **how) as page:
        page.goto(f"{stage.url}/?drive=webcam")
        wait_for(page, CAMERA_ON)
        if "reduced_motion" in how:
            assert page.evaluate("document.getAnimations().length") == 0
        else:
            chosen = page.locator("input[name=aspect][value='1:1'] + span")
            assert chosen.evaluate("(e) => getComputedStyle(e).outlineStyle") == "solid", (
                "told by more than a colour"
            )


def test_twice_the_size_fits(chromium: Any, stage: Stage) -> None:
    """1280 × 800 at 200 % is 640 × 400."""
    with visit(chromium, (640, 400)) as page:
        page.goto(f"{stage.url}/?drive=webcam")
        wait_for(page, CAMERA_ON)
        assert page.evaluate("document.documentElement.scrollWidth") <= 640
        page.locator("#save").scroll_into_view_if_needed()
        assert page.locator("#save").is_visible()
        page.locator("#use").click()
        page.wait_for_selector("#use-command > *")
        box = page.locator("#use-dialog").bounding_box()
        assert box["x"] >= 0
        assert box["y"] >= 0
        assert box["x"] + box["width"] <= 640
        assert box["y"] + box["height"] <= 400


def test_every_control_is_reached_by_keys_alone(chromium: Any, stage: Stage) -> None:
    with visit(chromium) as page:
        page.goto(f"{stage.url}/?drive=webcam")
        wait_for(page, CAMERA_ON)
        reached: list[str] = []
        for _ in range(80):
            page.keyboard.press("Tab")
            name = page.evaluate(
                "document.activeElement.id || document.activeElement.value || document.activeElement.tagName"
            )
            if name == "BODY" or name in reached[:1]:
                break
            reached.append(name)
        wanted = [
            "use", "webcam", "voice", "recalibrate", "mirror", "sound", "full", "hud-toggle", "red", "photo",
            "faces", "background", "expression", "keep_lips", "head", "preset", "save", "voice-helps", "trim",
        ]  # fmt: skip
        places = [reached.index(each) for each in wanted]
        assert places == sorted(places), "in the order in which they lie"
        page.locator("#use").focus()
        page.keyboard.press("Enter")
        page.wait_for_selector("#use-command > *")
        page.keyboard.press("h")
        assert page.get_attribute("#hud-toggle", "aria-pressed") == "true", "keys are the dialog's now"
        page.keyboard.press("Escape")
        page.wait_for_selector("#use-dialog", state="hidden")
        assert page.evaluate("document.activeElement.id") == "use"


def test_the_page_says_how_to_get_into_a_call(chromium: Any, stage: Stage) -> None:
    with visit(chromium) as page:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.goto(f"{stage.url}/")
        wait_for(page, PLAYING)
        for name in ("Zoom", "Meet", "Teams", "Discord", "OBS"):
            assert name in page.inner_text("#use"), "in sight, not under Developer"
        page.click("#use")
        page.wait_for_selector("#use-command > *")
        assert "add your own photo" in page.inner_text("#use-command"), "red came from no file"
        page.click("#use-close")
        page.get_by_text("green", exact=True).click()
        page.click("label:has(input[name=aspect][value='16:9'])")
        page.click("#use")
        page.wait_for_selector("#use-command code")
        command = page.inner_text("#use-command code")
        assert command.endswith("green.avatar --from webcam --to virtualcam --aspect 16:9")
        page.click("#use-command .copy")
        wait_for(page, "document.querySelector('#use-said').textContent === 'Copied'")
        assert page.evaluate("navigator.clipboard.readText()") == command
        if sys.platform == "linux":
            fix = driver_fix().split("`")[1]
            shown = page.inner_text("#use-camera")
            assert fix in " ".join(shown.split()) or "It is there already" in shown
        assert page.locator("#use-system-row").is_hidden(), "the server's system is known"
        bare = page.inner_text("#use-bare code")
        assert "bare=1" in bare
        assert "token" not in bare
        assert page.locator("#use-bare-secret").is_hidden()
        page.goto(bare)
        wait_for(page, PLAYING)
        assert page.evaluate("document.body.classList.contains('bare')")


def test_where_there_is_a_token_the_avatar_alone_gets_it(chromium: Any, tmp_path: Path) -> None:
    with (
        staged(tmp_path, ServeSettings(max_sessions=4, token=TOKEN)) as guarded,
        visit(chromium) as page,
    ):
        page.goto(f"{guarded.url}/?token={TOKEN}")
        wait_for(page, PLAYING)
        page.click("#use")
        page.wait_for_selector("#use-command > *")
        assert page.locator("#use-bare-secret").is_visible()
        bare = page.inner_text("#use-bare code")
        with page.context.expect_page() as opened:
            page.click("#bare-link")
        wait_for(opened.value, PLAYING)
        assert TOKEN not in opened.value.url
        # another program, which knows nothing
        with visit(chromium) as other:
            other.goto(bare)
            wait_for(other, PLAYING)


def test_a_slow_computer_says_so_and_what_helps(chromium: Any, stage: Stage) -> None:
    stage.painter = SlowPainter
    try:
        with visit(chromium) as page:
            page.goto(f"{stage.url}/")
            page.wait_for_selector(".notice[data-topic=pace]")
            words = page.inner_text(".notice[data-topic=pace] p")
            assert "of 30 pictures a second" in words
            assert "this computer is too slow" in words
            page.click(".notice[data-topic=pace] .notice-action")
            end = time.monotonic() + PATIENCE_MS / 1e3
            while stage.sizes_px[-1] != 256:
                assert time.monotonic() < end, "no smaller picture was asked for"
                page.wait_for_timeout(50)
            assert page.locator(".notice[data-topic=pace]").count() == 0
    finally:
        stage.painter = Painter


def test_what_a_call_complains_of_ends_with_it(chromium: Any, stage: Stage) -> None:
    stage.painter = GrumblingPainter
    try:
        with visit(chromium) as page:
            page.goto(f"{stage.url}/")
            page.wait_for_selector(".notice[data-level=error]")
            assert page.inner_text(".notice p") == "Its weights did not load: another generator draws."
            stage.painter = Painter
            page.click("#voice")
            page.wait_for_selector(".notice", state="detached")
            wait_for(page, "document.querySelector('#status-text').textContent === 'Listening'")
            assert page.locator(".notice").count() == 0
    finally:
        stage.painter = Painter


def test_the_request_to_look_here_ends_when_the_calm_face_is_taken(chromium: Any, stage: Stage) -> None:
    stage.painter = CalmPainter
    notice = ".notice[data-topic=neutral]"

    def says(words: str) -> str:
        return f"document.querySelector('#status-text').textContent === '{words}'"

    try:
        with visit(chromium) as page:
            page.goto(f"{stage.url}/?drive=webcam")
            wait_for(page, CAMERA_ON)
            driver = stage.painters[-1].driver
            wait_for(page, says("Tracking"))
            page.click("#recalibrate")
            page.wait_for_selector(notice)
            assert "Look straight ahead" in page.inner_text(notice)
            wait_for(page, says("Looking for your calm face: you are talking"))
            driver.neutral_report = NeutralReport("taken", (), 2)
            wait_for(page, says("Tracking"))
            assert page.inner_text(f"{notice} p") == "Your calm face is taken."
            page.wait_for_selector(notice, state="detached")
            driver.neutral_report = NeutralReport("taken", (), 3)
            page.wait_for_selector(notice)
            assert "corrected" in page.inner_text(notice)
            page.click("#webcam")  # the demo has none
            page.wait_for_selector(notice, state="detached")
    finally:
        stage.painter = Painter
