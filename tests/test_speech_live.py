"""The manual trim of sound in files, notices during a run, and sound that is no near, clean speech."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from clips import onset_s, sound_of
from fakes import FakeClock, FakeSink, FakeSource
from hearing import tone, write_wav
from numpy.typing import NDArray

from engines.enrollment import Enrollment
from engines.motion import ARKIT_INDEX
from engines.speech.features import RATE_HZ
from streamer.animate import Job, animate
from streamer.avatar import Avatar
from streamer.clock import SystemClock
from streamer.drive.open import open_driver
from streamer.drive.voice import Voice
from streamer.latency.ledger import Ledger
from streamer.live import LiveLoop
from streamer.options import AvatarOptions
from streamer.sources.sound import SoundFileSource
from streamer.sources.source import SourceState
from streamer.start_live import LiveOptions, run_live

F32 = NDArray[np.float32]
JAW = ARKIT_INDEX["jawOpen"]


def beep(path: Path) -> Path:
    """Two seconds, silent but for half a second from 1 s on; `path` says whether it is encoded or copied."""
    sound = np.concatenate(
        [np.zeros(48_000, np.float32), tone(0.5, 48_000, 0.8), np.zeros(24_000, np.float32)]
    )
    if path.suffix == ".wav":
        return write_wav(path, sound, 48_000)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(sound[None], "fltp", "mono")
        frame.sample_rate = 48_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", ["talk.wav", "talk.m4a"])
@pytest.mark.parametrize("trim_ms", [0.0, 200.0, -300.0])
def test_trim_moves_the_sound_of_a_file(
    tmp_path: Path, astronaut: Enrollment, name: str, trim_ms: float
) -> None:
    driver, out = beep(tmp_path / name), tmp_path / "out.mp4"
    animate(astronaut, Job(driver, out, generator="geometric", size_px=64, trim_ms=trim_ms))
    assert onset_s(sound_of(out)) == pytest.approx(onset_s(sound_of(driver)) + trim_ms / 1e3, abs=0.005)


@pytest.mark.slow
def test_run_into_a_file_takes_the_sound_along(tmp_path: Path, astronaut: Enrollment) -> None:
    driver, out = beep(tmp_path / "talk.wav"), tmp_path / "out.mp4"
    said: list[str] = []
    options = LiveOptions(str(driver), str(out), generator="geometric", size_px=64, trim_ms=100)
    outcome, snapshot = run_live(astronaut, options, said.append)
    assert outcome.frames > 0
    assert snapshot.faults == 0
    assert onset_s(sound_of(out)) == pytest.approx(1.1, abs=0.012)
    assert [text for text in said if "lips follow the voice by" in text] == said


@pytest.mark.slow
def test_a_notice_is_said_once_while_it_runs_and_not_again_at_the_end(astronaut: Enrollment) -> None:
    source = FakeSource(count=20, is_live=True, notice="the microphone is muted")
    avatar = Avatar(astronaut, open_driver(None), AvatarOptions(generator="geometric", size_px=64))
    said: list[str] = []
    with FakeSink() as sink:
        loop = LiveLoop(source, avatar, sink, ledger=Ledger(), clock=SystemClock(), say=said.append)
        outcome = loop.run()
    assert said == ["the microphone is muted"]
    assert outcome.notice is None


def opening(path: Path) -> F32:
    """(N,) jaw of every moment of a file, by the network that ships."""
    source = SoundFileSource(path, Voice(), clock=FakeClock())
    driver = open_driver(None, lambda error: pytest.fail(str(error)))
    jaws: list[float] = []
    while source.state is not SourceState.ENDED:
        moment = source.read(timeout_s=0.1)
        if moment is not None:
            jaws.append(float(driver.drive(moment).motion.expression[JAW]))
    return np.array(jaws, np.float32)


def chords(seconds: float) -> F32:
    """Triads of four harmonics with soft attacks, a new one every half second, as an organ would play them."""
    t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    roots = np.array([220.0, 174.6, 261.6, 196.0])[(t / 0.5).astype(int) % 4]
    phase = 2 * np.pi * np.cumsum(roots) / RATE_HZ
    sound = sum(np.sin(k * ratio * phase) / k for ratio in (1, 5 / 4, 3 / 2) for k in range(1, 5))
    return np.asarray(0.08 * sound * np.minimum(1, (t % 0.5) / 0.05), np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["music", "silence", "hum"])
def test_what_is_no_voice_leaves_the_mouth_still(tmp_path: Path, kind: str) -> None:
    sound = {
        "music": chords(6),
        "silence": np.zeros(6 * RATE_HZ, np.float32),
        "hum": tone(6, hz=50, level=0.2),
    }
    jaws = opening(write_wav(tmp_path / "a.wav", sound[kind]))
    print(
        f"\n{kind}: jaw median {np.median(jaws):.3f}, 95 % {np.percentile(jaws, 95):.3f}, most {jaws.max():.3f}"
    )
    assert np.median(jaws) < 0.01
    assert np.percentile(jaws, 95) < 0.06, "an attack may stir it"


def vowels(seconds: float) -> F32:
    """A buzz through two formants, voiced in bursts of syllables: a rough voice."""
    t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    f0 = 120 + 20 * np.sin(2 * np.pi * 0.7 * t)
    phase = 2 * np.pi * np.cumsum(f0) / RATE_HZ
    sound = np.zeros_like(t)
    for k in range(1, 30):
        gain = sum(1 / (1 + ((k * 120 - f) / 90) ** 2) for f in (700, 1200, 2600))
        sound += gain * np.sin(k * phase)
    syllables = np.clip(np.sin(2 * np.pi * 4 * t), 0, 1) * (t % 2 < 1.4)
    return np.asarray(0.3 * sound * syllables / np.abs(sound).max(), np.float32)


@pytest.mark.slow
def test_a_telephone_voice_still_moves_the_mouth(tmp_path: Path) -> None:
    wide = vowels(6)
    jaws = opening(write_wav(tmp_path / "wide.wav", wide))
    spectrum = np.fft.rfft(wide)
    hz = np.fft.rfftfreq(len(wide), 1 / RATE_HZ)
    spectrum[(hz < 300) | (hz > 3400)] = 0
    narrow = np.fft.irfft(spectrum, len(wide))[::2].astype(np.float32)
    phone = opening(write_wav(tmp_path / "phone.wav", narrow, 8000))
    print(f"\njaw 95 %: wide {np.percentile(jaws, 95):.3f}, telephone {np.percentile(phone, 95):.3f}")
    assert np.percentile(phone, 95) > 0.3 * np.percentile(jaws, 95) > 0.02


def test_a_clipped_voice_still_moves_the_mouth(tmp_path: Path) -> None:
    jaws = opening(write_wav(tmp_path / "a.wav", np.clip(8 * vowels(6), -1, 1)))
    assert np.percentile(jaws, 95) > 0.05
