"""A voice in other programs, as late as the picture: devices that come and go, and real sound servers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from fakes import AT_LAST_S
from numpy.typing import NDArray

from streamer.clock import VirtualClock
from streamer.frame import LatencyTrace
from streamer.sound.devices import PIECE, RATE_HZ, DeviceGone, SoundError
from streamer.sound.portaudio_pair import output_named
from streamer.sound.pulse import slug_of
from streamer.sound.virtual_microphone import LATE_NOTICE_S, VirtualMicrophone

F32 = NDArray[np.float32]


class Stage:
    """Both devices, each piece let through by the test; time is what the test says."""

    def __init__(self) -> None:
        self.clock = VirtualClock(10**12)
        self.opened = {"in": 0, "out": 0}
        self.closed = {"in": 0, "out": 0}
        self.broken: set[str] = set()
        self.refused: set[str] = set()
        self.level = 1.0
        self.latency_s = 0.02
        self.written: list[F32] = []
        self._turn = {"in": threading.Semaphore(0), "out": threading.Semaphore(0)}
        self._done = {"in": threading.Semaphore(0), "out": threading.Semaphore(0)}
        self.over = False

    def pass_one(self, which: str) -> None:
        """One piece, or one failure."""
        self._turn[which].release()
        assert self._done[which].acquire(timeout=AT_LAST_S)

    def play(self, seconds: float) -> None:
        for _ in range(round(seconds * RATE_HZ / PIECE)):
            self.clock.advance(PIECE / RATE_HZ)
            self.pass_one("in")
            self.pass_one("out")

    def wait(self, which: str) -> None:
        self._turn[which].acquire(timeout=AT_LAST_S)
        try:
            if which in self.broken and not self.over:
                raise DeviceGone(f"the {which} device is gone")
        finally:
            self._done[which].release()

    def end(self) -> None:
        self.over = True
        for turn in self._turn.values():
            turn.release(10)

    def open(self, which: str) -> Device:
        if which in self.refused:
            raise SoundError(f"no {which} device; plug one in")
        self.opened[which] += 1
        return Device(self, which)


class Device:
    """Either end."""

    def __init__(self, stage: Stage, which: str) -> None:
        self.name = which
        self._stage = stage

    def read(self) -> tuple[F32, float]:
        self._stage.wait("in")
        return np.full(PIECE, self._stage.level, np.float32), 0.0

    def latency_s(self) -> float:
        self._stage.wait("out")
        return self._stage.latency_s

    def write(self, samples: F32) -> None:
        self._stage.written.append(samples)

    def close(self) -> None:
        self._stage.closed[self.name] += 1


@contextmanager
def speaking(trim_s: float = 0.0) -> Generator[tuple[Stage, VirtualMicrophone]]:
    stage = Stage()
    microphone = VirtualMicrophone(
        lambda: stage.open("in"), lambda: stage.open("out"), clock=stage.clock, retry_s=0.0, trim_s=trim_s
    )
    try:
        yield stage, microphone
    finally:
        stage.end()
        microphone.close()
    assert stage.opened == stage.closed


def picture(took_s: float) -> LatencyTrace:
    return LatencyTrace({"captured": 10**9, "sent": 10**9 + round(1e9 * took_s)})


def first_heard(stage: Stage) -> int:
    """Pieces of silence before the first sound."""
    return next(k for k, piece in enumerate(stage.written) if piece.any())


def test_sound_waits_as_long_as_the_picture_takes() -> None:
    with speaking() as (stage, microphone):
        microphone.sent(picture(0.3))
        assert microphone.delay_s == pytest.approx(0.3)
        stage.play(0.5)
    # the first sample is spoken as the first piece begins, and heard 0.3 s later, behind 20 ms of latency
    assert first_heard(stage) == pytest.approx((0.3 - 0.02) * RATE_HZ / PIECE, abs=1)


def test_the_trim_is_on_top_and_never_before_the_voice() -> None:
    with speaking(trim_s=0.1) as (_, microphone):
        assert microphone.delay_s == pytest.approx(0.1)
        microphone.sent(picture(0.3))
        assert microphone.delay_s == pytest.approx(0.4)
    with speaking(trim_s=-0.5) as (_, microphone):
        microphone.sent(picture(0.3))
        assert microphone.delay_s == 0


def test_it_tells_how_far_a_picture_is_from_its_sound() -> None:
    with speaking(trim_s=0.1) as (stage, microphone):
        microphone.sent(picture(0.3))
        assert microphone.skew_ms(picture(0.32)) == pytest.approx(20)
        assert microphone.skew_ms(LatencyTrace({"sent": 5})) is None
        stage.broken.add("in")
        stage.pass_one("in")
        assert microphone.skew_ms(picture(0.3)) is None, "there is no sound"


def test_muted_is_silent_at_once_and_goes_on_in_time() -> None:
    with speaking() as (stage, microphone):
        stage.play(0.5)
        microphone.muted = True
        stage.play(0.1)
        assert not np.concatenate(stage.written[-10:]).any()
        microphone.muted = False
        stage.play(0.1)
        assert np.concatenate(stage.written[-9:]).all()


@pytest.mark.parametrize("which", ["in", "out"])
def test_a_device_that_goes_away_is_opened_again_and_meanwhile_it_is_said(which: str) -> None:
    with speaking() as (stage, microphone):
        microphone.sent(picture(0.2))
        stage.play(0.3)
        stage.broken.add(which)
        stage.pass_one(which)
        stage.pass_one(which)
        [said] = microphone.notices
        assert f"the {which} device is gone" in said
        assert "by itself" in said
        stage.broken.clear()
        stage.play(0.5)
        assert microphone.notices == ()
        assert stage.opened[which] >= 2
        assert stage.written[-1].all()


def test_what_cannot_be_opened_at_first_is_an_error_and_leaves_nothing_open() -> None:
    stage = Stage()
    stage.refused.add("in")
    with pytest.raises(SoundError, match="plug one in"):
        VirtualMicrophone(lambda: stage.open("in"), lambda: stage.open("out"))
    assert stage.closed["out"] == stage.opened["out"] == 1


def test_devices_slower_than_the_picture_are_told_of() -> None:
    with speaking() as (stage, microphone):
        stage.latency_s = 0.15
        microphone.sent(picture(0.04))
        stage.play(1.0)
        assert microphone.late_s > LATE_NOTICE_S
        assert microphone.skew_ms(picture(0.04)) == pytest.approx(-1000 * microphone.late_s)
        [said] = microphone.notices
        assert "ms after the picture" in said


@pytest.mark.parametrize(
    ("name", "slug"), [("visavis mic", "visavis_mic"), ("Ada's", None), ("…", None), ("a" * 61, None)]
)
def test_names_of_microphones(name: str, slug: str | None) -> None:
    if slug is None:
        with pytest.raises(SoundError, match="visavis mic"):
            slug_of(name)
    else:
        assert slug_of(name) == slug


def test_an_output_is_found_by_its_name_or_how_it_begins() -> None:
    devices = [
        {"name": "CABLE Input (VB-Audio)", "max_output_channels": 0},
        {"name": "Speakers", "max_output_channels": 2},
        {"name": "CABLE Input (VB-Audio)", "max_output_channels": 8},
    ]
    assert output_named(devices, "cable input") == 2
    assert output_named(devices, "Speakers") == 1
    assert output_named(devices, "Cable Output") is None


# --- real servers ------------------------------------------------------------------------------------

# beeps into the microphone, and when each is heard in the virtual one; a process of its own: libpulse reads its
# environment once
CHILD = """
import json, sys, threading, time
import numpy as np, pasimple
from streamer.sound.devices import RATE_HZ
from streamer.sound.virtual_microphone import open_virtual_microphone
delay_s, beeps = float(sys.argv[1]), int(sys.argv[2])
class Recorder(threading.Thread):
    def __init__(self, name):
        super().__init__(daemon=True)
        self.name, self.rows, self.over = name, [], False
    def run(self):
        stream = pasimple.PaSimple(pasimple.PA_STREAM_RECORD, pasimple.PA_SAMPLE_FLOAT32LE, 1, RATE_HZ,
            app_name="recorder", device_name=self.name, fragsize=1920)
        while not self.over:
            x = np.frombuffer(stream.read(1920), np.float32)
            self.rows.append((time.monotonic() - stream.get_latency() / 1e6 - len(x) / RATE_HZ, x))
        stream.close()
    def onsets_s(self):
        found, last = [], -9.0
        for at_s, x in self.rows:
            loud = np.flatnonzero(np.abs(x) > 0.2)
            if len(loud):
                if at_s + loud[0] / RATE_HZ - last > 0.3:
                    found.append(at_s + loud[0] / RATE_HZ)
                last = at_s + loud[-1] / RATE_HZ
        return found
with open_virtual_microphone("visavis mic", trim_s=delay_s) as microphone:
    recorders = [Recorder("mic_in.monitor"), Recorder("visavis_mic_source")]
    for recorder in recorders:
        recorder.start()
    play = pasimple.PaSimple(pasimple.PA_STREAM_PLAYBACK, pasimple.PA_SAMPLE_FLOAT32LE, 1, RATE_HZ, app_name="player",
        device_name="mic_in", tlength=7680)
    beep = np.zeros(RATE_HZ, np.float32)
    beep[:960] = 0.8 * np.sin(np.arange(960) * 0.3)
    for _ in range(beeps):
        play.write(beep.tobytes())
    play.drain()
    time.sleep(delay_s + 0.5)
    for recorder in recorders:
        recorder.over = True
        recorder.join(2)
    print(json.dumps([recorder.onsets_s() for recorder in recorders]))
"""
DELAY_S = 0.2


def heard_after_ms(environment: dict[str, str], beeps: int) -> list[float]:
    """How long after each beep it is heard in the virtual microphone, once it has settled."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(DELAY_S), str(beeps)], env=environment, capture_output=True, text=True,
        timeout=beeps + 3 * AT_LAST_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    spoken, heard = (np.array(times) for times in json.loads(done.stdout.splitlines()[-1]))
    # beeps are a second apart: each is the one that began in the second before
    return [1000 * float(at - spoken[spoken <= at].max()) for at in heard[3:] if (spoken <= at).any()]


@contextmanager
def server(folder: Path, kind: str) -> Generator[dict[str, str]]:
    """PulseAudio or PipeWire of our own, whose default microphone is what is played into `mic_in`."""
    socket = folder / "pulse" / "native"
    environment = {
        **os.environ, "HOME": str(folder), "XDG_RUNTIME_DIR": str(folder), "PULSE_RUNTIME_PATH": str(socket.parent),
        "PIPEWIRE_RUNTIME_DIR": str(folder), "PULSE_SERVER": f"unix:{socket}",
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }  # fmt: skip
    socket.parent.mkdir()
    if kind == "pulseaudio":
        commands = [
            ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no",
             f"--log-target=file:{folder}/log", "-L", f"module-native-protocol-unix socket={socket} auth-anonymous=1"],
        ]  # fmt: skip
    else:
        commands = [["pipewire"], ["dbus-run-session", "wireplumber"], ["pipewire-pulse"]]
    for program in ("pactl", *(command[0] for command in commands)):
        if shutil.which(program) is None:
            pytest.skip(
                f"no {program}: apt-get install {kind} pulseaudio-utils pipewire-pulse wireplumber dbus"
            )
    started: list[subprocess.Popen[bytes]] = []
    try:
        for typed in commands:
            started.append(
                subprocess.Popen(typed, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            )
            if typed == ["pipewire"]:  # the others end where it is not there
                until((folder / "pipewire-0").exists)
        for command in (
            ["pactl", "load-module", "module-null-sink", "sink_name=mic_in", f"rate={RATE_HZ}", "channels=1"],
            ["pactl", "set-default-source", "mic_in.monitor"],
        ):
            until(lambda typed=command: call(typed, environment).returncode == 0)
        yield environment
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait(AT_LAST_S)


def call(typed: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(typed, env=environment, capture_output=True, text=True, check=False)


def until(happens: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + AT_LAST_S
    while not happens():
        if time.monotonic() > deadline_s:
            pytest.skip("the sound server does not start here")
        time.sleep(0.1)


def sources(environment: dict[str, str]) -> str:
    return subprocess.run(
        ["pactl", "list", "sources"], env=environment, capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pulseaudio", "pipewire"])
def test_a_real_server_has_the_microphone_while_it_is_wanted(kind: str, tmp_path: Path) -> None:
    """Other programs see it by its name, hear in it what is spoken, later, and it is gone with us."""
    with server(tmp_path, kind) as environment:
        after_ms = heard_after_ms(environment, 6)
        assert after_ms, "something is heard"
        assert min(after_ms) > 0.5 * 1000 * DELAY_S, "it waits"
        assert "visavis_mic" not in sources(environment)
        holding = "import time\nfrom streamer.sound.pulse import PulseMicrophone\nm = PulseMicrophone('visavis mic')\n"
        holding += "m.open()\nm.open()\nprint('made', flush=True)\ninput()\nm.close()\n"
        with subprocess.Popen(
            [sys.executable, "-c", holding],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "made\n"
            told = sources(environment)
            process.communicate("\n", AT_LAST_S)
        assert "Description: visavis mic" in told
        assert told.count("Name: visavis_mic_source") == 1
        assert "visavis_mic" not in sources(environment)


@pytest.mark.timing
@pytest.mark.parametrize("kind", ["pulseaudio", "pipewire"])
def test_it_is_heard_as_late_as_the_picture(kind: str, tmp_path: Path) -> None:
    with server(tmp_path, kind) as environment:
        after_ms = heard_after_ms(environment, 30)
    off_ms = np.array(after_ms) - 1000 * DELAY_S
    print(f"{kind}: off by {np.median(off_ms):+.1f} ms (median), {off_ms.min():+.1f} … {off_ms.max():+.1f}")
    assert abs(float(np.median(off_ms))) < 20
