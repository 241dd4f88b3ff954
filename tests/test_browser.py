"""The page in a real headless Chromium: frames per second, glass to glass, sound, two visitors at once."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import SHARED_CLIPS, Server, find_chromium, flags, served, wait_for, write_camera
from clips import DemoClip, demo_clip  # noqa: F401 (a fixture)
from PIL import Image

from engines.enrollment import Enrollment, save_enrollment

pytestmark = pytest.mark.browser

CHROMIUM = find_chromium()
if CHROMIUM is None:
    pytest.skip("no Chromium: apt-get install chromium", allow_module_level=True)
playwright_api = pytest.importorskip("playwright.sync_api")

MEASURE_S = 8.0
TURNS = 3
PLAYING = "window.visavis && window.visavis.stats().shown > 30"


@pytest.fixture(scope="module")
def camera(demo_clip: DemoClip, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:  # noqa: F811
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
    with playwright_api.sync_playwright() as api:
        browser = api.chromium.launch(executable_path=CHROMIUM, headless=True, args=flags(*camera))
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    context = chromium.new_context(viewport={"width": 960, "height": 720})
    page = context.new_page()
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


def test_speed_and_sound_of_a_call(page: Any, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """≥ 25 fps at 512², at most 30 ms above echo, ≤ 2 % concealed. A disturbed computer gets one more try.

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
        if attempt == 2 or (fps >= 25 and above <= 30 and max(concealed) <= 0.02):
            break
    assert {a["resolution"] for a in avatars} == {"512x512"}
    assert fps >= 25
    assert above <= 30
    assert max(concealed) <= 0.02
    assert all(a["audio_s"] > MEASURE_S / 2 for a in avatars)
    # the arithmetic behind glass to glass: capture times from sender reports lie on the camera's own frames
    assert all(a["capture_check_ms"] is not None and a["capture_check_ms"] < 10 for a in avatars)


def median(results: list[dict[str, Any]]) -> float:
    return float(np.median([r["glass_to_glass_ms"]["p50"] for r in results]))


def shown_picture(page: Any) -> np.ndarray:
    """What the visitor sees in the avatar's place, (H, W, 3)."""
    data = page.locator("#picture").screenshot()
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_demo_moves_by_itself_and_webcam_takes_over(page: Any, server: Server) -> None:
    page.goto(f"{server.url}/")
    wait_for(page, PLAYING)
    first = shown_picture(page).astype(int)
    time.sleep(1.5)
    assert np.abs(shown_picture(page) - first).mean() > 0.5  # it moves
    assert first.std() > 20  # and it is a picture
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
    page.wait_for_selector("#enroll", state="hidden", timeout=30_000)


def test_two_visitors_never_see_each_other(
    chromium: Any, server: Server, astronaut_photo: Path, tmp_path: Path
) -> None:
    """Two browsers, two photos, at once: one reddish, one bluish; each sees only its own."""
    contexts = [chromium.new_context(viewport={"width": 640, "height": 600}) for _ in range(2)]
    pages = [context.new_page() for context in contexts]
    gains = {"red": (1.0, 0.35, 0.35), "blue": (0.35, 0.35, 1.0)}
    for page, (name, gain) in zip(pages, gains.items(), strict=True):
        page.goto(f"{server.url}/")
        wait_for(page, PLAYING)
        upload(page, tinted(astronaut_photo, tmp_path, name, gain))
    for page in pages:
        page.evaluate("window.visavis.reset()")
    time.sleep(3)
    for _ in range(5):
        red, blue = (shown_picture(page).astype(float).mean((0, 1)) for page in pages)
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
    page.wait_for_selector("#enroll-error:not([hidden])", timeout=20_000)
    assert "face" in page.inner_text("#enroll-error")
