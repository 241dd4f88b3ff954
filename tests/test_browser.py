"""The page in a real headless Chromium: calls, settings, two visitors at once; with `-m timing` its speed."""

from __future__ import annotations

import io
import json
import socket
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from browser import PATIENCE_MS, SHARED_CLIPS, Server, launched, served, wait_for, write_camera
from calls import GREEN, RED, Painter, plain_enrollment
from clips import DemoClip
from PIL import Image

from engines.enrollment import Enrollment, save_enrollment
from engines.generators.names import DEFAULT_GENERATOR, FALLBACK_GENERATOR
from engines.motion import read_motion
from engines.presets import preset_names
from engines.retarget import Controls
from engines.templates import load_templates
from streamer.latency.trace import read_trace
from streamer.serve.app import create_app
from streamer.serve.config import ServeSettings
from streamer.serve.store import AvatarStore
from streamer.webrtc.session import Session

pytestmark = pytest.mark.browser

MEASURE_S = 8.0
TURNS = 3
PLAYING = "window.visavis && window.visavis.stats().shown > 30"


@pytest.fixture(scope="module")
def camera(demo_clip: DemoClip, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A talking face for the fake camera: a real clip in development, else one rendered by visavis."""
    folder = tmp_path_factory.mktemp("camera")
    clip = SHARED_CLIPS / "AOC_01.mp4"
    if not clip.exists():
        clip = demo_clip(6, 30, 480)
    print(f"\ncamera plays {clip.name}")
    return write_camera(clip, folder)


@pytest.fixture(scope="module")
def server(astronaut: Enrollment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    avatar = tmp_path_factory.mktemp("avatars") / "face.avatar"
    save_enrollment(astronaut, avatar)
    with served("--avatar", str(avatar)) as running:
        yield running


@pytest.fixture(scope="module")
def chromium(camera: tuple[Path, Path]) -> Iterator[Any]:
    with launched(*camera) as browser:
        yield browser


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    context = chromium.new_context(viewport={"width": 960, "height": 720})
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    yield page
    context.close()
    assert problems == []


def measure(page: Any, url: str, seconds: float = MEASURE_S) -> dict[str, Any]:
    """Statistics of the last ten seconds after the call has settled."""
    page.goto(url)
    wait_for(page, "window.visavis && window.visavis.stats().glass_to_glass_ms.n > 30")
    time.sleep(2)  # Chromium's first seconds are its own: bitrate ramp, first key frames
    page.evaluate("window.visavis.reset()")
    before = page.evaluate("window.visavis.stats()")["audio"]
    time.sleep(seconds)
    stats: dict[str, Any] = page.evaluate("window.visavis.stats()")
    total = stats["audio"]["total"] - before["total"]
    stats["concealed_share"] = (stats["audio"]["concealed"] - before["concealed"]) / max(total, 1)
    stats["audio_s"] = total / 48_000
    page.goto("about:blank")  # hang up
    return stats


def summary(stats: dict[str, Any]) -> str:
    g = stats["glass_to_glass_ms"]
    return (
        f"{stats['fps']:.1f} fps, glass to glass p50 {g['p50']:.1f} p95 {g['p95']:.1f} ms (n {g['n']}), "
        f"audio concealed {100 * stats['concealed_share']:.2f} %, stages {json.dumps(stats['stage_ms'])}"
    )


@pytest.mark.parametrize("mode", ["echo", "avatar"])
def test_a_call_shows_pictures_and_plays_sound(page: Any, server: Server, mode: str) -> None:
    page.goto(f"{server.url}/?drive=webcam&mode={mode}&size=512&hud=1&audio=raw")
    wait_for(page, "window.visavis && window.visavis.stats().glass_to_glass_ms.n > 30")
    wait_for(page, "window.visavis.stats().audio.total > 48000")
    wait_for(page, "window.visavis.stats().capture_check_ms !== null")
    stats = page.evaluate("window.visavis.stats()")
    assert stats["resolution"] == ("512x512" if mode == "avatar" else "640x480")


@pytest.mark.timing
def test_speed_and_sound_of_a_call(page: Any, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """≥ 25 fps at 512², at most 60 ms above echo, ≤ 2 % concealed. A disturbed computer gets one more try.

    Echo and avatar take turns, and the medians of their calls are compared: within one call the camera and
    the screen keep their phase, which alone moves glass to glass by up to a screen period (17 ms).
    """
    for attempt in (1, 2):
        echoes: list[dict[str, Any]] = []
        avatars: list[dict[str, Any]] = []
        for _ in range(TURNS):
            for mode, results in (("echo", echoes), ("avatar", avatars)):
                url = f"{server.url}/?drive=webcam&mode={mode}&size=512&hud=1&audio=raw"
                results.append(measure(page, url))
                with capsys.disabled():
                    print(f"\n  {mode:6s} {summary(results[-1])}", end="")
        above = median(avatars) - median(echoes)
        fps = float(np.median([a["fps"] for a in avatars]))
        concealed = [sum(r["concealed_share"] for r in results) / TURNS for results in (echoes, avatars)]
        with capsys.disabled():
            print(
                f"\n  avatar: {fps:.1f} fps, median glass to glass {median(avatars):.1f} ms, "
                f"{above:.1f} ms above echo; "
                f"audio concealed {100 * concealed[1]:.2f} % (echo {100 * concealed[0]:.2f} %)"
            )
        if attempt == 2 or (fps >= 25 and above <= 60 and max(concealed) <= 0.02):
            break
    assert {a["resolution"] for a in avatars} == {"512x512"}
    assert fps >= 25
    # the full head costs a few milliseconds a frame more than the face mesh did (30 ms held then): with the
    # browser on the same two cores a frame now often waits for the one before
    assert above <= 60
    assert max(concealed) <= 0.02
    assert all(a["audio_s"] > MEASURE_S / 2 for a in avatars)
    # the arithmetic behind glass to glass: capture times from sender reports lie on the camera's own frames
    assert all(a["capture_check_ms"] is not None and a["capture_check_ms"] < 10 for a in avatars)


@pytest.mark.timing
def test_glass_to_glass_side_by_side(page: Any, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """`geometric` at most 25 ms (median) and 40 ms (p95) above the untouched echo at 512²; the default is stated."""
    ways = {"echo": "mode=echo"}
    ways |= {name: f"generator={name}" for name in dict.fromkeys((FALLBACK_GENERATOR, DEFAULT_GENERATOR))}
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    for _ in range(TURNS):
        for name, asked in ways.items():
            results[name].append(
                measure(page, f"{server.url}/?drive=webcam&size=512&hud=1&audio=raw&{asked}")
            )
    with capsys.disabled():
        print(f"\n  512 x 512, {TURNS} calls each by turns, medians of {MEASURE_S:.0f} s; ms, and above echo")
        for name, of_it in results.items():
            p50, p95 = median(of_it), median(of_it, "p95")
            above = p50 - median(results["echo"]), p95 - median(results["echo"], "p95")
            fps = float(np.median([r["fps"] for r in of_it]))
            print(
                f"  {name:10s} p50 {p50:6.1f} ({above[0]:+.1f})  p95 {p95:6.1f} ({above[1]:+.1f})  {fps:.1f} fps"
            )
    drawn = [r["generator"] for name in ways for r in results[name] if name != "echo"]
    assert drawn == [name for name in ways for _ in range(TURNS) if name != "echo"], "another one drew"
    assert median(results[FALLBACK_GENERATOR]) - median(results["echo"]) <= 25
    assert median(results[FALLBACK_GENERATOR], "p95") - median(results["echo"], "p95") <= 40


def median(results: list[dict[str, Any]], which: str = "p50") -> float:
    return float(np.median([r["glass_to_glass_ms"][which] for r in results]))


def shown_picture(page: Any) -> np.ndarray:
    """What the visitor sees in the avatar's place, (S, S, 3): the square picture without what is beside it."""
    data = page.locator("#picture").screenshot()
    seen = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    (height, width), side = seen.shape[:2], min(seen.shape[:2])
    top, left = (height - side) // 2, (width - side) // 2
    return seen[top : top + side, left : left + side]


def see(what: Callable[[], bool], else_: str) -> None:
    """Look until it is true."""
    end = time.monotonic() + PATIENCE_MS / 1e3
    while not what():
        assert time.monotonic() < end, else_
        time.sleep(0.1)


def test_demo_moves_by_itself_and_webcam_takes_over(page: Any, server: Server) -> None:
    page.goto(f"{server.url}/")
    wait_for(page, PLAYING)
    first = shown_picture(page).astype(int)
    assert first.std() > 20, "it is no picture"
    see(lambda: np.abs(shown_picture(page) - first).mean() > 0.5, "it does not move")
    page.click("#webcam")
    wait_for(
        page, "window.visavis.stats().glass_to_glass_ms.n > 15 && window.visavis.stats().state == 'tracking'"
    )
    wait_for(page, "document.querySelector('#camera').videoWidth > 0")
    page.locator("#head").evaluate(
        "e => { e.value = '0.5'; e.dispatchEvent(new Event('input', {bubbles: true})) }"
    )
    page.click("#recalibrate")
    wait_for(page, "['calibrating', 'tracking'].includes(window.visavis.stats().state)")
    page.click("#webcam")  # back to the demo
    wait_for(page, "document.querySelector('#preview').hidden")


def test_phone_sized_window(chromium: Any, server: Server) -> None:
    context = chromium.new_context(viewport={"width": 360, "height": 640})
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(f"{server.url}/")
    wait_for(page, PLAYING)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.locator("#webcam").is_visible()
    context.close()


def tinted(photo: Path, folder: Path, name: str, gain: tuple[float, float, float]) -> Path:
    image = np.asarray(Image.open(photo).convert("RGB")).astype(np.float32) * gain
    path = folder / f"{name}.png"
    Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(path)
    return path


def upload(page: Any, photo: Path) -> None:
    page.set_input_files("#photo", str(photo))
    page.fill("#consent", "public domain")
    page.click("#enroll-go")
    page.wait_for_selector("#enroll", state="hidden")


def test_two_visitors_never_see_each_other(
    chromium: Any, server: Server, astronaut_photo: Path, tmp_path: Path
) -> None:
    """Two browsers, two photos, at once: one reddish, one bluish; each sees only its own."""
    contexts = [chromium.new_context(viewport={"width": 640, "height": 600}) for _ in range(2)]
    pages = [context.new_page() for context in contexts]
    for page in pages:
        page.set_default_timeout(PATIENCE_MS)
    gains = {"red": (1.0, 0.35, 0.35), "blue": (0.35, 0.35, 1.0)}
    for page, (name, gain) in zip(pages, gains.items(), strict=True):
        page.goto(f"{server.url}/")
        wait_for(page, PLAYING)
        upload(page, tinted(astronaut_photo, tmp_path, name, gain))

    def seen() -> list[np.ndarray]:
        return [shown_picture(page).astype(float).mean((0, 1)) for page in pages]

    # each page saw the public avatar before
    see(lambda: seen()[0][0] > 1.5 * seen()[0][2], "the red visitor never saw the red avatar")
    see(lambda: seen()[1][2] > 1.5 * seen()[1][0], "the blue visitor never saw the blue avatar")
    for _ in range(5):
        red, blue = seen()
        assert red[0] > 1.5 * red[2], f"the red visitor saw {red}"
        assert blue[2] > 1.5 * blue[0], f"the blue visitor saw {blue}"
        time.sleep(0.3)
    listed = "fetch('/api/avatars').then(r => r.json()).then(d => d.avatars.map(a => a.name))"
    names = [page.evaluate(listed) for page in pages]
    assert all(not any(n.startswith("u-") for n in found) for found in names)  # uploads are nobody else's
    for context in contexts:
        context.close()


def test_upload_of_no_face_says_so(page: Any, server: Server, tmp_path: Path) -> None:
    flat = tmp_path / "wall.png"
    Image.fromarray(np.full((400, 400, 3), 128, np.uint8)).save(flat)
    page.goto(f"{server.url}/")
    wait_for(page, PLAYING)
    page.set_input_files("#photo", str(flat))
    page.fill("#consent", "nobody")
    page.click("#enroll-go")
    page.wait_for_selector("#enroll-error:not([hidden])")
    assert "face" in page.inner_text("#enroll-error")


class Studio:
    """A server in this process: its avatars can be looked at. They only paint; what counts are their controls."""

    def __init__(self, url: str, store: AvatarStore, painters: list[Painter]) -> None:
        self.url = url
        self.store = store
        self.painters = painters

    @property
    def controls(self) -> Controls:
        """Of the avatar of the newest call."""
        return self.painters[-1].controls

    def saved(self, name: str) -> Controls | None:
        entry = self.store.get(name)
        assert entry is not None
        return entry.enrollment.controls

    def wait(self, wanted: Controls, what: str) -> None:
        end = time.monotonic() + PATIENCE_MS / 1e3
        while self.controls != wanted:
            assert time.monotonic() < end, f"{what}: {self.controls}, not {wanted}"
            time.sleep(0.02)


@pytest.fixture
def studio() -> Iterator[Studio]:
    store = AvatarStore()
    for name in ("red", "green"):
        store.add_public(plain_enrollment(RED if name == "red" else GREEN, name))
    painters: list[Painter] = []

    def make_avatar(session: Session) -> Painter:
        painters.append(Painter(session))
        return painters[-1]

    app = create_app(ServeSettings(max_sessions=4), store, make_avatar=make_avatar)  # type: ignore[arg-type]
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="studio")
    thread.start()
    try:
        yield Studio(f"http://127.0.0.1:{listener.getsockname()[1]}", store, painters)
    finally:
        server.should_exit = True
        thread.join(60)
        listener.close()
    assert not thread.is_alive()


def press(page: Any, slider: str, key: str, times: int) -> None:
    page.locator(f"#{slider}").focus()
    for _ in range(times):
        page.keyboard.press(key)


def shown_values(page: Any) -> dict[str, str]:
    """What each slider says."""
    return page.evaluate(
        "Object.fromEntries([...document.querySelectorAll('.slider')].map("
        "(s) => [s.querySelector('input').id, s.querySelector('output').value]))"
    )


def test_settings_reach_the_avatar_of_the_running_call(page: Any, studio: Studio) -> None:
    page.goto(f"{studio.url}/")
    wait_for(page, PLAYING)
    studio.wait(Controls(), "as the driver does it")
    assert set(shown_values(page).values()) == {"100 %"}
    assert page.locator("#preset option").count() == 1 + len(preset_names())

    press(page, "head", "ArrowLeft", 4)
    studio.wait(Controls(head=0.8), "a slider moved by the keyboard")
    assert shown_values(page)["head"] == "80 %"
    assert page.get_attribute("#head", "aria-valuetext") == "80 %"
    page.click("#head-reset")
    studio.wait(Controls(), "its own reset")
    press(page, "lips", "Home", 1)
    studio.wait(Controls(lips=0), "all the way down")
    page.locator("#lips").dblclick(position={"x": 20, "y": 15})
    studio.wait(Controls(), "a double click")

    press(page, "eyes", "End", 1)
    page.click("label:has(#keep_blink)")
    press(page, "gaze", "ArrowRight", 2)
    studio.wait(Controls(eyes=2, keep_blink=False, gaze=1.1), "two sliders and a switch")
    page.get_by_role("button", name="Reset expression", exact=True).click()
    studio.wait(Controls(gaze=1.1), "the reset of one group leaves the others")

    assert page.is_disabled("#preset_strength"), "there is no emotion yet"
    page.select_option("#preset", "happily_surprised")
    press(page, "preset_strength", "ArrowRight", 10)
    wanted = Controls(gaze=1.1, preset="happily_surprised", preset_strength=1.5)
    studio.wait(wanted, "an emotion and its strength")
    page.click("label:has(input[name=motion][value=absolute])")
    page.click("label:has(#place_absolutely)")
    page.click("label:has(input[name=region][value=lip])")
    wanted = replace(wanted, motion="absolute", place_absolutely=True, region="lip")
    studio.wait(wanted, "pose, place and region")
    assert page.is_disabled("#head")

    page.get_by_role("button", name="Lively").click()
    wanted = replace(wanted, region="all", gaze=1.0, expression=1.3, head=1.3, position=1.3)
    studio.wait(wanted, "a ready-made setting")
    assert page.get_attribute("button:text-is('Lively')", "aria-pressed") == "true"
    page.click("#reset-all")
    studio.wait(Controls(), "all of it back")
    assert len(studio.painters) == 1, "it was one call, from beginning to end"
    assert page.locator(".notice").count() == 0


def test_settings_are_remembered_for_each_avatar_and_saved_with_it(
    page: Any, chromium: Any, studio: Studio
) -> None:
    page.goto(f"{studio.url}/")
    wait_for(page, PLAYING)
    press(page, "brows", "ArrowLeft", 10)
    studio.wait(Controls(brows=0.5), "red's own")
    page.get_by_text("green", exact=True).click()
    wait_for(page, "document.querySelector('#brows').value === '1'")
    studio.wait(Controls(), "green is another avatar")
    press(page, "gaze", "Home", 1)
    studio.wait(Controls(gaze=0), "green's own")
    page.reload()
    wait_for(page, PLAYING)
    studio.wait(Controls(gaze=0), "the one that was chosen last, as it was left")
    assert shown_values(page)["gaze"] == "0 %"
    page.get_by_text("red", exact=True).click()
    wait_for(page, "document.querySelector('#brows').value === '0.5'")
    studio.wait(Controls(brows=0.5), "red again, as it was left")

    assert studio.saved("red") is None
    page.click("#save")
    wait_for(page, "document.querySelector('#save-state').textContent.startsWith('Saved')")
    assert studio.saved("red") == Controls(brows=0.5)
    assert studio.saved("green") is None
    press(page, "head", "Home", 1)
    wait_for(page, "document.querySelector('#save-state').textContent.startsWith('Changed')")
    page.click("#revert")
    studio.wait(Controls(brows=0.5), "back to what is saved")
    press(page, "gaze", "End", 1)
    studio.wait(Controls(brows=0.5, gaze=2), "once more on top of what is saved")
    page.reload()
    wait_for(page, PLAYING)
    assert shown_values(page)["gaze"] == "200 %", "not saved, but remembered"
    assert page.inner_text("#save-state").startswith("Changed")

    # a visitor who has never been here
    context = chromium.new_context(viewport={"width": 960, "height": 720})
    other = context.new_page()
    other.set_default_timeout(PATIENCE_MS)
    other.goto(f"{studio.url}/")
    wait_for(other, PLAYING)
    assert shown_values(other)["brows"] == "50 %"
    assert shown_values(other)["gaze"] == "100 %"
    assert other.inner_text("#save-state").startswith("Saved")
    studio.wait(Controls(brows=0.5), "the call started with them")
    press(other, "head", "Home", 1)
    other.click("#save")
    wait_for(other, "document.querySelector('#save-state').textContent.startsWith('Saved')")
    context.close()
    page.reload()
    wait_for(page, PLAYING)
    assert shown_values(page)["head"] == "0 %", "saved elsewhere since"


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (390, 844), (360, 640), (844, 390)])
def test_settings_fit_the_window(chromium: Any, studio: Studio, width: int, height: int) -> None:
    context = chromium.new_context(viewport={"width": width, "height": height}, has_touch=width < 900)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(f"{studio.url}/")
    wait_for(page, PLAYING)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.locator("#position").focus()
    box, stage = page.locator("#position").bounding_box(), page.locator("#stage").bounding_box()
    assert box["width"] >= 90, "wide enough for a finger"
    assert box["y"] >= 0
    assert box["y"] + box["height"] <= height
    if height > 600:
        assert stage["y"] >= 0, "the avatar stays in sight"
        assert stage["y"] + stage["height"] <= box["y"] or stage["x"] + stage["width"] <= box["x"]
    context.close()


def test_all_emotions_are_seen_and_saved(page: Any, server: Server, tmp_path: Path) -> None:
    """Ready-made faces first; those of people with another sheet; both can be saved; closing ends what is drawn."""
    page.goto(f"{server.url}/?drive=demo&size=128")
    wait_for(page, PLAYING)
    page.click("#faces")
    sheets: dict[str, tuple[int, int]] = {}
    for kind in ("presets", "templates"):
        page.locator(f"input[name=faces][value={kind}]").check(force=True)
        wait_for(page, "!document.querySelector('#faces-save').disabled")
        wait_for(page, "document.querySelector('#faces-sheet').naturalWidth > 0")
        with page.expect_download() as found:
            page.click("#faces-save")
        assert found.value.suggested_filename.endswith(f"-{kind}.png")
        found.value.save_as(tmp_path / f"{kind}.png")
        with Image.open(tmp_path / f"{kind}.png") as sheet:
            sheets[kind] = sheet.size
    assert sheets["presets"][1] > sheets["templates"][1] > 256  # 22 and 18 of them
    with page.expect_download() as found:
        page.click("#faces-save-all")
    found.value.save_as(tmp_path / "faces.zip")
    with zipfile.ZipFile(tmp_path / "faces.zip") as archive:
        assert len(archive.namelist()) == len(load_templates().by_emotion)
    page.locator("input[name=faces][value=presets]").check(force=True)
    with page.expect_event("requestfailed", lambda asked: asked.url.endswith("/emotions")):
        page.click("#faces-close")
    page.wait_for_selector("#faces-dialog", state="hidden")
    assert page.is_hidden("#faces-error")


def test_a_call_is_recorded_and_downloaded(page: Any, server: Server, tmp_path: Path) -> None:
    """Off until pressed, told all the while, two files that the commands read, and nothing left on the server."""
    downloads: list[Any] = []
    page.on("download", lambda download: downloads.append(download))
    answers: list[str] = []
    page.on(
        "response", lambda answer: answers.append(f"{answer.request.method} {answer.status} {answer.url}")
    )
    page.goto(f"{server.url}/?drive=demo&size=128")
    wait_for(page, PLAYING)
    assert page.locator("#stage[data-recording]").count() == 0
    page.click("#developer summary")
    assert page.inner_text("#record") == "Record motion"
    shown = page.evaluate("window.visavis.stats().shown")
    page.click("#record")
    page.wait_for_selector("#stage[data-recording]")
    wait_for(page, f"window.visavis.stats().shown > {shown + 40}")
    assert page.inner_text("#record").startswith("Stop and download (0:")
    page.click("#record")
    while len(downloads) < 2 or not page.is_enabled("#record"):
        page.wait_for_timeout(100)
    assert page.locator("#stage[data-recording]").count() == 0
    assert page.inner_text("#record") == "Record motion"
    for download in downloads:
        download.save_as(tmp_path / download.suggested_filename.split("-")[-1])
    track = read_motion(tmp_path / "motion.jsonl")
    assert len(track.motions) > 10
    assert track.neutral is not None
    assert len(read_trace(tmp_path / "trace.jsonl").frames) > 10
    asked = [line.split()[:2] for line in answers if line.endswith(("/recording", "/recording/trace"))]
    assert asked == [["POST", "200"], ["GET", "200"], ["GET", "200"], ["DELETE", "204"]]
