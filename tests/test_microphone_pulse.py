"""A real microphone path: a private PulseAudio, its null sink played into and listened to.

Its clock is measured with `-m timing` (12 s) and `-m soak` (five minutes).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import wave
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from fakes import AT_LAST_S

MISSING = [name for name in ("pulseaudio", "paplay", "pactl") if shutil.which(name) is None]
if MISSING or not Path("/usr/share/alsa/alsa.conf").is_file():
    pytest.skip(
        "no PulseAudio: apt-get install pulseaudio pulseaudio-utils libasound2-plugins libportaudio2",
        allow_module_level=True,
    )

TICK_S, CLICK_S = 1.0, 0.1
RATE_HZ = 48_000
SETTLED_S = 2.0

# a process of its own: PortAudio reads its configuration once
CHILD = """
import json, os, sys, time
import psutil
from hearing import JAW, EchoSpeech
from streamer.sources.microphone import MicrophoneSource
from streamer.sources.heard import HEARD_FPS
from streamer.drive.voice import Voice
seconds = float(sys.argv[1])
voice = Voice(EchoSpeech())
rows, memory = [], []
with MicrophoneSource(voice=voice) as source:
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        frame = source.read(timeout_s=0.5)
        if frame is None:
            continue
        said = voice.at(frame.sequence / HEARD_FPS)
        times = frame.capture_time_ns / 1e9, time.monotonic()
        rows.append((frame.pts_s, float(said.answer[JAW]), *times, source.overflows))
        if len(rows) % 250 == 1:
            memory.append(psutil.Process().memory_info().rss / 1e6)
    print(json.dumps({"rows": rows, "memory_mb": memory, "dropped": source.dropped}))
"""


@contextmanager
def pulse(folder: Path) -> Generator[dict[str, str]]:
    """The environment in which the default microphone is what is played into the sink `mic_in`."""
    socket = folder / "native"
    asound = folder / "asound.conf"
    asound.write_text(
        "</usr/share/alsa/alsa.conf>\npcm.!default { type pulse }\nctl.!default { type pulse }\n"
    )
    environment = {
        **os.environ,
        "HOME": str(folder), "XDG_RUNTIME_DIR": str(folder), "PULSE_RUNTIME_PATH": str(folder),
        "PULSE_SERVER": f"unix:{socket}", "ALSA_CONFIG_PATH": str(asound),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])]),
    }  # fmt: skip
    daemon = subprocess.Popen(
        ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no",
         f"--log-target=file:{folder / 'log'}",
         "-L", f"module-native-protocol-unix socket={socket} auth-anonymous=1",
         "-L", f"module-null-sink sink_name=mic_in rate={RATE_HZ} channels=1"],
        env=environment,
    )  # fmt: skip
    try:
        deadline_s = time.monotonic() + AT_LAST_S
        while not socket.exists():
            if daemon.poll() is not None or time.monotonic() > deadline_s:
                pytest.skip("PulseAudio does not start here")
            time.sleep(0.05)
        subprocess.run(["pactl", "set-default-source", "mic_in.monitor"], env=environment, check=True)
        yield environment
    finally:
        daemon.terminate()
        daemon.wait(AT_LAST_S)


def write_clicks(path: Path, seconds: float) -> None:
    """A tone of a tenth of a second, once a second."""
    t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    samples = 12_000 * np.sin(2 * np.pi * 1000 * t) * (t % TICK_S < CLICK_S)
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE_HZ)
        out.writeframes(samples.astype(np.int16).tobytes())


@dataclass(frozen=True, slots=True)
class Heard:
    """Per frame: moment, loudness, when that was in the air, when it was read, overflows so far."""

    pts_s: np.ndarray[tuple[int], np.dtype[np.float64]]
    loud: np.ndarray[tuple[int], np.dtype[np.float64]]
    captured_s: np.ndarray[tuple[int], np.dtype[np.float64]]
    read_s: np.ndarray[tuple[int], np.dtype[np.float64]]
    overflows: np.ndarray[tuple[int], np.dtype[np.float64]]
    memory_mb: list[float]
    dropped: int


def listen(folder: Path, seconds: float) -> Heard:
    clicks = folder / "clicks.wav"
    write_clicks(clicks, seconds + 10)
    with pulse(folder) as environment:
        player = subprocess.Popen(["paplay", "-d", "mic_in", str(clicks)], env=environment)
        try:
            done = subprocess.run(
                [sys.executable, "-c", CHILD, str(seconds)], env=environment, capture_output=True, text=True,
                timeout=seconds + 3 * AT_LAST_S, check=False,
            )  # fmt: skip
        finally:
            player.kill()
            player.wait()
    assert done.returncode == 0, done.stderr[-2000:]
    data = json.loads(done.stdout.splitlines()[-1])
    columns = np.array(data["rows"], np.float64).T
    return Heard(*columns, memory_mb=data["memory_mb"], dropped=data["dropped"])


def onsets_s(heard: Heard) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """When clicks begin, after the first two seconds, in the sound's own time."""
    settled = heard.read_s > heard.read_s[0] + SETTLED_S
    return heard.pts_s[1:][(heard.loud[1:] > 0.05) & (heard.loud[:-1] <= 0.05) & settled[1:]]


@pytest.mark.slow
def test_a_real_microphone_is_heard(tmp_path: Path) -> None:
    heard = listen(tmp_path, 8.0)
    assert len(onsets_s(heard)) > 0
    assert (np.diff(heard.pts_s) > 0).all()


@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(12.0, marks=pytest.mark.timing, id="12s"),
        pytest.param(300.0, marks=pytest.mark.soak, id="5min"),
    ],
)
def test_a_real_microphone_neither_drifts_nor_stumbles(tmp_path: Path, seconds: float) -> None:
    heard = listen(tmp_path, seconds)
    settled = heard.read_s > heard.read_s[0] + SETTLED_S
    lost = heard.overflows[-1] - heard.overflows[settled][0]
    gap_s = np.diff(heard.read_s[settled]).max()
    # the sound's own clock against the computer's: a straight line of slope 1
    offset_s = heard.captured_s[settled] - heard.pts_s[settled]
    ends = max(10, len(offset_s) // 10)
    drift_ms = 1e3 * (np.median(offset_s[-ends:]) - np.median(offset_s[:ends]))
    # clicks once a second in the sound stay clicks once a second in the moments
    clicks_s = onsets_s(heard)
    steps_s = np.diff(clicks_s)
    grown_mb = heard.memory_mb[-1] - heard.memory_mb[min(1, len(heard.memory_mb) - 1)]
    print(
        f"\n{len(heard.pts_s)} moments in {heard.read_s[-1] - heard.read_s[0]:.1f} s, "
        f"overflows after start {lost:.0f}, "
        f"unread blocks {heard.dropped}, longest gap {1e3 * gap_s:.0f} ms, drift {drift_ms:.1f} ms, "
        f"click to click {steps_s.min():.2f} to {steps_s.max():.2f} s (n {len(steps_s)}), memory +{grown_mb:.1f} MB"
    )
    assert lost == 0
    assert heard.dropped == 0
    assert gap_s < 0.25
    assert abs(drift_ms) < 20
    assert len(clicks_s) >= seconds - SETTLED_S - 3
    assert np.abs(steps_s - TICK_S).max() < 0.06  # one moment of 40 ms, and rounding
    assert len(heard.pts_s[settled]) >= 24 * (heard.read_s[-1] - heard.read_s[settled][0])
    assert grown_mb < 5
