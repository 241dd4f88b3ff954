"""Sound as a live source: files at their own pace and microphones, whatever becomes of them."""

from __future__ import annotations

import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from fakes import AT_LAST_S, FakeClock
from hearing import JAW, EchoSpeech, tone, write_wav
from numpy.typing import NDArray

from engines.errors import DriverError
from engines.speech.features import RATE_HZ
from streamer.drive.open import open_driver
from streamer.drive.voice import Voice
from streamer.frame import Moment
from streamer.sources.blocks import RING_S, Block, SoundRing
from streamer.sources.heard import HEARD_FPS, HeardSource, Loudness, latency_text
from streamer.sources.microphone import (
    Input,
    InputConfig,
    MicrophoneSource,
    OnBlock,
    open_input,
)
from streamer.sources.open import open_source
from streamer.sources.sound import SoundFileSource
from streamer.sources.sound_reading import SoundReading
from streamer.sources.source import SourceState

F32 = NDArray[np.float32]


def heard(source: HeardSource) -> list[Moment]:
    """All moments of a file."""
    frames: list[Moment] = []
    while source.state is not SourceState.ENDED:
        frame = source.read(timeout_s=0.1)
        if frame is not None:
            frames.append(frame)
    return frames


def jaws(moments: list[Moment]) -> list[float]:
    """How far a driver opens the jaw, asked at each moment."""
    driver = open_driver(None, lambda error: pytest.fail(str(error)))
    return [float(driver.drive(m).motion.expression[JAW]) for m in moments]


# ---- files


@pytest.mark.parametrize("rate_hz", [8000, 16_000, 44_100])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_file_is_heard_at_its_own_pace(tmp_path: Path, rate_hz: int, channels: int) -> None:
    """Every moment once, in order, no sooner than it sounds and as late as the network looks ahead."""
    samples = tone(1.2, rate_hz)
    path = write_wav(tmp_path / "a.wav", np.repeat(samples[:, None], channels, 1), rate_hz)
    clock = FakeClock(start_ns=5_000_000_000)
    with SoundFileSource(path, Voice(EchoSpeech()), clock=clock) as source:
        assert source.info.duration_s == pytest.approx(1.2, abs=0.01)
        assert source.info.size_px is None, "there are no pictures"
        frames = heard(source)
    assert [f.sequence for f in frames] == list(range(30))
    assert [f.pts_s for f in frames] == pytest.approx([k / HEARD_FPS for k in range(30)])
    for f in frames:
        captured_s = f.capture_time_ns / 1e9 - 5
        assert captured_s == pytest.approx(f.pts_s, abs=0.021)
        decoded_s = f.trace.stamps_ns["decoded"] / 1e9 - 5
        assert 0.059 <= decoded_s - f.pts_s <= 0.11, "look-ahead, a piece and the resampler"


def test_what_is_shown_is_what_sounds_then(tmp_path: Path) -> None:
    sound = np.concatenate([np.zeros(8000, np.float32), tone(0.4), np.zeros(8000, np.float32)])
    path = write_wav(tmp_path / "a.wav", sound)
    source = SoundFileSource(path, Voice(EchoSpeech()), clock=FakeClock())
    driver = open_driver(None, lambda error: pytest.fail(str(error)))
    loud: list[float] = []
    while source.state is not SourceState.ENDED:
        frame = source.read(timeout_s=0.1)
        if frame is not None and driver.drive(frame).motion.expression[JAW] > 0.2:
            loud.append(frame.pts_s)
    assert loud[0] == pytest.approx(0.5, abs=0.041)
    assert loud[-1] == pytest.approx(0.9, abs=0.041)


def test_a_repeated_file_goes_on(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", tone(0.3))
    with SoundFileSource(path, Voice(EchoSpeech()), loop=True, clock=FakeClock()) as source:
        assert source.info.duration_s is None
        frames = [f for f in (source.read(timeout_s=0.1) for _ in range(60)) if f is not None]
    assert len(frames) > 50
    assert [f.sequence for f in frames] == list(range(len(frames)))
    assert source.state is SourceState.ENDED
    assert source.read(timeout_s=0.1) is None


def test_a_reader_that_was_late_gets_the_newest_moment(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", tone(2))
    clock = FakeClock()
    source = SoundFileSource(path, Voice(EchoSpeech()), clock=clock)
    first = source.read()
    assert first is not None
    clock.advance(0.8)
    late = source.read()
    assert late is not None
    assert late.pts_s == pytest.approx(first.pts_s + 0.8, abs=0.041)
    assert jaws([late])[0] == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize("content", [b"", b"no sound at all" * 50])
def test_a_broken_sound_file_is_said_in_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.wav"
    path.write_bytes(content)
    with pytest.raises(DriverError, match=r"broken\.wav .*(a sound|sound file)"):
        SoundFileSource(path, Voice(EchoSpeech()))
    with pytest.raises(DriverError, match=r"the driving sound .*nope\.wav does not exist"):
        SoundFileSource(tmp_path / "nope.wav", Voice(EchoSpeech()))
    path.write_bytes(write_wav(tmp_path / "empty.wav", np.zeros(0, np.float32)).read_bytes())
    with pytest.raises(DriverError, match="holds no sound that can be decoded"):
        SoundFileSource(path, Voice(EchoSpeech()))


def test_a_file_that_breaks_off_ends_there(tmp_path: Path) -> None:
    whole = write_wav(tmp_path / "a.wav", tone(2)).read_bytes()
    (tmp_path / "b.wav").write_bytes(whole[: len(whole) // 2])
    frames = heard(SoundFileSource(tmp_path / "b.wav", Voice(EchoSpeech()), clock=FakeClock()))
    assert len(frames) == pytest.approx(25, abs=1)


@pytest.mark.slow
def test_three_hours_are_read_as_they_are_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four minutes into them no more has been read than was heard, and nothing of it is kept."""
    path = write_wav(tmp_path / "a.wav", tone(0.1))
    given = 0

    def hours(_: SoundReading) -> Iterator[F32]:
        nonlocal given
        for _second in range(3 * 3600):
            given += 1
            yield tone(1)

    monkeypatch.setattr(SoundReading, "blocks", hours)
    source = SoundFileSource(path, Voice(EchoSpeech()), clock=FakeClock())
    for _ in range(100):
        source.read()
    tracemalloc.start()
    try:
        start = tracemalloc.get_traced_memory()[0]
        for _ in range(25 * 240 - 1):
            source.read()
        frame = source.read()
        grown = tracemalloc.get_traced_memory()[0] - start
    finally:
        tracemalloc.stop()
    assert frame is not None
    assert frame.pts_s == pytest.approx(244, abs=0.5)
    assert given <= 246, "it reads ahead"
    assert grown < 300_000, "a second of sound is 64 000 bytes"


def test_silent_and_clipped_files_are_noticed(tmp_path: Path) -> None:
    def notice(sound: F32) -> str | None:
        path = write_wav(tmp_path / "a.wav", sound)
        source = SoundFileSource(path, Voice(EchoSpeech()), clock=FakeClock())
        heard(source)
        return source.notice

    assert notice(tone(7)) is None
    assert notice(np.concatenate([tone(1), np.zeros(7 * RATE_HZ, np.float32)])) is None, "a pause"
    assert "a.wav is silent" in (notice(np.zeros(7 * RATE_HZ, np.float32)) or "")
    assert "a.wav is clipped" in (notice(tone(3, level=4.0)) or "")


# ---- microphones


class FakeInput:
    """An open device; blocks come when the test says so."""

    def __init__(self, on_block: OnBlock, rate_hz: float = RATE_HZ, name: str = "Mic") -> None:
        self.on_block = on_block
        self.rate_hz = rate_hz
        self.name = name
        self.latency_s = 0.03
        self.active = True
        self.closed = False

    def give(self, samples: F32, overflowed: bool = False) -> None:
        self.on_block(samples if samples.ndim == 2 else samples[:, None], self.rate_hz, overflowed)

    def close(self) -> None:
        self.closed = True


class FakeDevices:
    """What `open_device` stands for: opens while `there`, and keeps all that was opened."""

    def __init__(self, rate_hz: float = RATE_HZ) -> None:
        self.there = True
        self.hangs = threading.Event()
        self.rate_hz = rate_hz
        self.asked: list[InputConfig] = []
        self.opened: list[FakeInput] = []

    def __call__(self, config: InputConfig, on_block: OnBlock) -> Input:
        self.asked.append(config)
        if not self.there:
            raise DriverError("no microphone can be opened")
        self.opened.append(FakeInput(on_block, self.rate_hz))
        return self.opened[-1]

    @property
    def now(self) -> FakeInput:
        return self.opened[-1]


def wait(what: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + AT_LAST_S
    while not what():
        assert time.monotonic() < deadline_s, "it never happened"
        time.sleep(0.005)


def microphone(devices: FakeDevices, index: int | None = None, **options: Any) -> MicrophoneSource:
    return MicrophoneSource(index, Voice(EchoSpeech()), open_device=devices, retry_s=0.02, **options)


@pytest.mark.parametrize("rate_hz", [16_000, 44_100, 48_000, 8_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_any_rate_and_stereo_are_heard_as_16_khz_mono(rate_hz: int, channels: int) -> None:
    devices = FakeDevices(rate_hz)
    # in stereo one side is silent: the mean is half as loud
    sides = np.zeros((rate_hz, channels), np.float32)
    sides[:, 0] = tone(1, rate_hz, level=0.4)
    with microphone(devices) as source:
        for block in np.array_split(sides, 40):
            devices.now.give(block)
        frame = source.read(timeout_s=0.5)
        assert frame is not None
        assert source.voice.heard_s == pytest.approx(1.0, abs=0.01)
        assert frame.pts_s == pytest.approx(0.92, abs=0.021), "the newest moment, not the first"
        assert jaws([frame])[0] == pytest.approx(0.4 / channels, rel=0.05)
        assert source.read(timeout_s=0.01) is None
        assert source.state is SourceState.READY


def test_captured_is_when_the_sound_of_the_moment_came() -> None:
    devices = FakeDevices()
    clock = FakeClock(start_ns=10**9)
    with microphone(devices, clock=clock) as source:
        for _ in range(10):
            clock.advance(0.02)
            devices.now.give(tone(0.02))
        clock.advance(0.005)
        frame = source.read(timeout_s=0.0)
    assert frame is not None
    assert frame.pts_s == pytest.approx(0.12)
    stamps = frame.trace.stamps_ns
    assert stamps["captured"] == frame.capture_time_ns == 10**9 + 120_000_000
    assert stamps["received"] == 10**9 + 120_000_000
    assert stamps["decoded"] - stamps["captured"] == 85_000_000


def test_unread_sound_is_bounded_and_what_was_lost_counts_as_time() -> None:
    devices = FakeDevices()
    with microphone(devices) as source:
        for _ in range(600):
            devices.now.give(tone(0.02))  # 12 s that nobody reads
        assert source.dropped == 600 - RING_S / 0.02
        frame = source.read(timeout_s=0.1)
        assert frame is not None
        assert frame.pts_s == pytest.approx(12 - 0.06, abs=0.041)
        assert source.voice.speech.heard == pytest.approx(RING_S * RATE_HZ)  # type: ignore[attr-defined]


def test_the_ring_holds_at_least_one_block() -> None:
    ring = SoundRing(0.1)
    for _ in range(2):
        ring.put(Block(np.zeros((3200, 1), np.float32), RATE_HZ, 0, 0))
    blocks, lost_s = ring.take(0)
    assert (len(blocks), lost_s, ring.dropped) == (1, pytest.approx(0.2), 1)
    assert ring.take(0) == ([], 0.0)
    ring.close()
    ring.put(blocks[0])
    assert ring.take(None) == ([], 0.0)


@pytest.mark.parametrize("index", [None, 3])
def test_a_microphone_that_goes_away_comes_back(index: int | None) -> None:
    devices = FakeDevices()
    clock = FakeClock()
    with microphone(devices, index, clock=clock) as source:
        first = devices.now
        clock.advance(0.5)
        first.give(tone(0.5))
        before = source.read(timeout_s=0.1)
        assert before is not None
        devices.there = False
        first.active = False
        wait(lambda: source.state is SourceState.LOST)
        wait(lambda: len(devices.asked) > 3)
        assert first.closed
        assert "the microphone Mic is gone; plug it in again" in (source.notice or "")
        assert source.read(timeout_s=0.02) is None
        first.give(tone(0.1))
        assert source.state is SourceState.LOST, "the last words of the old device"
        clock.advance(3600)
        devices.there = True
        wait(lambda: len(devices.opened) == 2)
        assert source.state is SourceState.LOST, "nothing came yet"
        clock.advance(0.2)
        devices.now.give(tone(0.2))
        assert source.state is SourceState.READY
        assert source.notice is None
        after = source.read(timeout_s=0.1)
        assert after is not None
        assert after.pts_s - before.pts_s == pytest.approx(3600.2, abs=0.09), "its time is real time"
        assert jaws([after])[0] > 0.25
    assert all(config.anew for config in devices.asked[1:]), "PortAudio must look again"
    assert devices.asked[-1].name == (None if index is None else "Mic"), "numbers change, names do not"
    assert devices.now.closed


def test_a_microphone_that_hangs_is_opened_again() -> None:
    devices = FakeDevices()
    clock = FakeClock()
    with microphone(devices, clock=clock) as source:
        devices.now.give(tone(0.2))
        clock.advance(1.5)
        time.sleep(0.25)
        assert source.state is SourceState.READY
        clock.advance(1.0)
        wait(lambda: len(devices.opened) == 2)
        assert devices.opened[0].closed


def test_close_ends_a_waiting_read() -> None:
    source = microphone(FakeDevices())
    closer = threading.Timer(0.1, source.close)
    closer.start()
    assert source.read() is None
    closer.join()
    assert source.state is SourceState.ENDED
    assert not [t for t in threading.enumerate() if t.name == "microphone"]


def test_overflows_are_counted_and_muted_or_clipped_sound_is_noticed() -> None:
    devices = FakeDevices()
    with microphone(devices) as source:

        def speak(sound: F32) -> str | None:
            for block in np.split(sound, 20):
                devices.now.give(block)
                source.read(timeout_s=0.01)
            return source.notice

        assert speak(tone(2)) is None
        assert speak(np.zeros(4 * RATE_HZ, np.float32)) is None
        assert "nothing but silence: unmute it" in (speak(np.zeros(2 * RATE_HZ, np.float32)) or "")
        assert speak(1e-5 * tone(1)) is None, "quiet is not mute"
        devices.now.give(tone(0.1), overflowed=True)
        assert source.overflows == 1
        assert "too loud and clips; turn its level down" in (speak(np.clip(tone(2, level=3), -1, 1)) or "")


def test_loudness_counts_trailing_zeros_across_blocks() -> None:
    level = Loudness()
    for block in (tone(0.5), np.zeros(800, np.float32), np.zeros(0, np.float32), np.zeros(800, np.float32)):
        level = level.after(block)
    assert level.mute_s == pytest.approx(0.1, abs=1e-3)


def fake_sounddevice(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> SimpleNamespace:
    """A `sounddevice` with one stereo microphone of 48 kHz at number 1; calls are kept."""

    class PortAudioError(Exception):
        pass

    devices = [
        {"index": 0, "name": "Speaker", "max_input_channels": 0, "default_samplerate": 48000.0},
        {"index": 1, "name": "USB Mic", "max_input_channels": 4, "default_samplerate": 44100.0},
    ]
    calls: list[Any] = []

    class InputStream:
        latency = 0.04
        active = True

        def __init__(self, **options: Any) -> None:
            calls.append(options)

        def start(self) -> None:
            calls.append("start")

        def close(self, ignore_errors: bool = True) -> None:
            calls.append("close")

    def query_devices(device: int | None = None, kind: str | None = None) -> Any:
        return devices[1] if kind else devices

    module = SimpleNamespace(
        PortAudioError=PortAudioError,
        InputStream=InputStream,
        query_devices=query_devices,
        check_input_settings=lambda *_, **__: None,
        _terminate=lambda: calls.append("terminate"),
        _initialize=lambda: calls.append("initialize"),
        calls=calls,
    )
    for name, change in changes.items():
        setattr(module, name, change(module))
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    return module


def test_the_device_is_asked_for_16_khz_and_else_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    module = fake_sounddevice(monkeypatch)
    got: list[tuple[int, float, bool]] = []
    device = open_input(InputConfig(1), lambda s, rate, lost: got.append((s.shape[1], rate, lost)))
    options = module.calls[0]
    assert (options["samplerate"], options["channels"], options["device"]) == (16_000, 2, 1)
    assert (options["latency"], options["dtype"], module.calls[1]) == (0.1, "float32", "start")
    options["callback"](np.zeros((5, 2), np.float32), 5, None, SimpleNamespace(input_overflow=True))
    assert got == [(2, 16_000, True)]
    assert (device.name, device.latency_s, device.active) == ("USB Mic", 0.04, True)
    device.close()
    assert module.calls[-1] == "close"

    def refuse(module: Any) -> Callable[..., None]:
        def check(*_: Any, **__: Any) -> None:
            raise module.PortAudioError("Invalid sample rate")

        return check

    module = fake_sounddevice(monkeypatch, check_input_settings=refuse)
    open_input(InputConfig(None, "USB Mic", anew=True), lambda *_: None)
    assert module.calls[:2] == ["terminate", "initialize"]
    assert module.calls[2]["samplerate"] == 44_100


@pytest.mark.parametrize(
    "config", [InputConfig(0), InputConfig(7), InputConfig(1, "Gone"), InputConfig(None)], ids=str
)
def test_no_such_microphone_is_said_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, config: InputConfig
) -> None:
    def nothing(module: Any) -> Callable[..., Any]:
        query = module.query_devices

        def ask(device: int | None = None, kind: str | None = None) -> Any:
            if kind:
                raise module.PortAudioError("Error querying device -1")
            return query()

        return ask

    fake_sounddevice(monkeypatch, query_devices=nothing)
    with pytest.raises(DriverError, match=r"no microphone .*`visavis devices` lists them"):
        open_input(config, lambda *_: None)


def test_a_device_that_does_not_start_is_closed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    module = fake_sounddevice(monkeypatch)

    def start(_: Any) -> None:
        raise module.PortAudioError("Device unavailable")

    monkeypatch.setattr(module.InputStream, "start", start)
    with pytest.raises(DriverError, match="Device unavailable"):
        open_input(InputConfig(1), lambda *_: None)
    assert module.calls[-1] == "close"


def test_without_portaudio_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError("PortAudio library not found")

    monkeypatch.setattr("streamer.sources.portaudio.importlib.import_module", missing)
    with pytest.raises(DriverError, match="libportaudio2" if sys.platform == "linux" else "sounddevice"):
        open_input(InputConfig(), lambda *_: None)


def test_names_of_sources_and_the_stated_latency(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DriverError, match=r"'mic:front' is no microphone; write mic:N"):
        open_source("mic:front")
    monkeypatch.setattr("streamer.sources.heard.Voice", lambda: Voice(EchoSpeech()))
    monkeypatch.setattr("streamer.sources.sound.Voice", lambda: Voice(EchoSpeech()))
    path = write_wav(tmp_path / "a.wav", tone(0.5))
    with open_source(str(path)) as source:
        assert isinstance(source, SoundFileSource)
        assert latency_text(source) == (
            "lips follow the voice by 92 ms (features and look-ahead) and up to 40 ms to the next picture"
        )
    with microphone(FakeDevices()) as mic:
        assert latency_text(mic).endswith("and 30 ms in the sound device")


def test_flac_and_others_are_sound(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("flac", rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 48_000), np.int16), "s16", "mono")
        frame.sample_rate = 48_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert len(heard(SoundFileSource(path, Voice(EchoSpeech()), clock=FakeClock()))) == 25
