"""A real headless Chromium with a fake camera and microphone, and a real server: for the browser tests."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import time
import wave
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamer.pyav import av

WIDTH, HEIGHT, FPS = 640, 480, 30
PATIENCE_MS = 120_000.0  # only keeps a broken page from hanging the tests
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SHARED_CLIPS = Path(__file__).resolve().parents[2] / "shared" / "data" / "clips512"


def find_chromium() -> str | None:
    """Path of a Chromium, or None."""
    return next((found for name in CHROMIUM_NAMES if (found := shutil.which(name))), None)


def required_chromium() -> str:
    """Path of a Chromium; skips the test, with the reason, where there is none or nothing to steer it."""
    pytest.importorskip("playwright.sync_api")
    found = find_chromium()
    if found is None:
        pytest.skip("no Chromium: apt-get install chromium")
    return found


@contextmanager
def launched(camera: Path, sound: Path) -> Generator[Any]:
    """A headless Chromium with that camera and microphone; skips as `required_chromium` does."""
    path = required_chromium()
    from playwright.sync_api import sync_playwright  # an extra

    with sync_playwright() as api:
        browser = api.chromium.launch(executable_path=path, headless=True, args=flags(camera, sound))
        yield browser
        browser.close()


def flags(camera: Path, sound: Path) -> list[str]:
    """A browser that sees `camera` (.y4m), hears `sound` (.wav) and asks nobody."""
    return [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--autoplay-policy=no-user-gesture-required",
        # loopback only: nothing leaves this computer
        "--allow-loopback-in-peer-connection",
        "--disable-features=WebRtcHideLocalIpsWithMdns",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={camera}",
        f"--use-file-for-fake-audio-capture={sound}",
    ]


def write_camera(source: Path, folder: Path, seconds: float = 6.0) -> tuple[Path, Path]:
    """A camera (.y4m) and microphone (.wav) that play a clip; its sound, or a warble when it has none."""
    camera, sound = folder / "camera.y4m", folder / "sound.wav"
    with av.open(str(source)) as clip, camera.open("wb") as out:
        out.write(f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F{FPS}:1 Ip A1:1 C420jpeg\n".encode())
        rate = float(clip.streams.video[0].average_rate or 25)
        pictures = []
        for frame in clip.decode(video=0):
            side = HEIGHT
            inner = np.asarray(frame.reformat(side, side, "rgb24").to_ndarray(), np.uint8)
            picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
            picture[:, (WIDTH - side) // 2 : (WIDTH + side) // 2] = inner
            pictures.append(picture)
            if len(pictures) >= seconds * rate:
                break
        for index in range(int(min(seconds, len(pictures) / rate) * FPS)):
            picture = pictures[min(int(index * rate / FPS), len(pictures) - 1)]
            planes = (
                av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p").to_ndarray()
            )
            out.write(b"FRAME\n" + np.ascontiguousarray(planes).tobytes())
    t = np.arange(int(48_000 * seconds)) / 48_000
    voice = np.sin(2 * np.pi * (180 + 40 * np.sin(2 * np.pi * 3 * t)) * t) * (
        0.5 + 0.5 * np.sin(2 * np.pi * 4 * t)
    )
    samples = (8000 * voice).astype(np.int16)
    with av.open(str(source)) as clip:
        if clip.streams.audio:
            resampler = av.AudioResampler("s16", "mono", 48_000)
            parts = [r.to_ndarray()[0] for f in clip.decode(audio=0) for r in resampler.resample(f)]
            samples = np.concatenate(parts).astype(np.int16)[: len(samples)]
    with wave.open(str(sound), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(48_000)
        out.writeframes(samples.tobytes())
    return camera, sound


class Server:
    """A `visavis serve` process."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.url = url


@contextmanager
def served(*arguments: str) -> Generator[Server]:
    """`visavis serve` on a free port until the block ends."""
    # how many calls this computer can show is the subject of other tests
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "VISAVIS_MAX_SESSIONS": "4"}
    command = [sys.executable, "-m", "streamer.cli.main", "serve", "--port", "0", *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )
    lines: list[str] = []
    url: list[str] = []
    ready = threading.Event()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if found := re.search(r"visavis is ready: (\S+)", line):
                url.append(found[1])
                ready.set()
        ready.set()

    threading.Thread(target=read, daemon=True).start()
    try:
        if not ready.wait(120) or not url:
            raise AssertionError(f"the server did not start: {''.join(lines)}")
        yield Server(process, url[0].replace("localhost", "127.0.0.1"))
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(page: Any, condition: str, timeout_s: float = PATIENCE_MS / 1e3) -> None:
    """Until a JavaScript expression is true in the page; fails with the page's statistics."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if page.evaluate(condition):
            return
        time.sleep(0.2)
    raise AssertionError(
        f"{condition} never became true; {page.evaluate('window.visavis && window.visavis.stats()')}"
    )
