"""Files that are whole or not there, windows, virtual cameras."""

from __future__ import annotations

import errno
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import av
import numpy as np
import pytest
from clips import onset_s, sound_of, times_of
from fakes import AT_LAST_S, FakeSink, picture, sine, small_disk, write_video
from numpy.typing import NDArray

from engines.errors import DriverError, SinkError
from streamer.frame import Frame, LatencyTrace
from streamer.sinks.file import FileSink, pad_to_even
from streamer.sinks.open import open_sink
from streamer.sinks.sink import Sink, SinkClosed, SinkInfo, fit_picture
from streamer.sinks.virtualcam import VirtualCameraSink, driver_fix, find_device
from streamer.sinks.window import WindowSink, display_problem, windows_hang
from streamer.sources.video import VideoSource

U8 = NDArray[np.uint8]
ROOT = Path(__file__).parent.parent


def frames_at(times_s: list[float], width: int = 64, height: int = 48) -> Iterator[Frame]:
    for k, t in enumerate(times_s):
        yield Frame(t, 0, sequence=k, image=picture(k, width, height))


def write(sink: Sink, frames: Iterator[Frame], info: SinkInfo) -> None:
    with sink:
        sink.open(info)
        for frame in frames:
            sink.write(frame)


def durations_s(path: Path) -> dict[str, float]:
    with av.open(str(path)) as container:
        return {
            s.type: float(s.duration * s.time_base) for s in container.streams if s.duration and s.time_base
        }


NTSC = 30000 / 1001


@pytest.mark.slow
@pytest.mark.parametrize("fps", [25.0, 30.0, NTSC, 23.976, 60.0, 12.5])
def test_times_and_duration_are_the_drivers(tmp_path: Path, fps: float) -> None:
    times = [k / fps for k in range(50)]
    path = tmp_path / "out.mp4"
    write(FileSink(path), frames_at(times), SinkInfo(64, 48, fps))
    assert times_of(path) == pytest.approx(times, abs=1e-4)
    assert durations_s(path)["video"] == pytest.approx(50 / fps, abs=1e-3)
    with VideoSource(path) as source:
        assert source.info.fps == pytest.approx(fps, rel=0.01)


def test_variable_times_are_kept(tmp_path: Path) -> None:
    times = [0, 0.01, 0.05, 0.3, 0.31, 0.9, 1.7]
    path = tmp_path / "out.mp4"
    write(FileSink(path), frames_at(times), SinkInfo(64, 48, 10))
    assert times_of(path) == pytest.approx(times, abs=1e-4)
    assert durations_s(path)["video"] == pytest.approx(1.8, abs=1e-3)


def test_live_times_start_at_zero_and_never_run_backwards(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    write(FileSink(path), frames_at([7.0, 7.04, 7.04, 7.03, 7.12]), SinkInfo(64, 48, 25))
    times = times_of(path)
    assert times == pytest.approx([0, 0.04, 0.04, 0.04, 0.12], abs=1e-3)
    assert times == sorted(set(times))


def test_the_picture_is_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    write(FileSink(path), frames_at([k / 30 for k in range(10)], 320, 240), SinkInfo(320, 240, 30))
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt, context.colorspace) == ("h264", "yuv420p", 1)
    with VideoSource(path) as source:
        for k in range(10):
            frame = source.read()
            assert frame is not None
            assert np.abs(frame.image.astype(int) - picture(k, 320, 240)).mean() < 3
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), (
        "the index comes first, so the file plays while it loads"
    )
    assert list(tmp_path.iterdir()) == [path]


def test_odd_sizes_are_padded_by_their_edge(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    write(FileSink(path), frames_at([0.0, 0.04], 65, 49), SinkInfo(65, 49, 25))
    with VideoSource(path) as source:
        assert source.info.size_px == (66, 50)
        frame = source.read()
    assert frame is not None
    assert frame.image[45, 65].min() > 180, "the white corner goes on to the edge"
    image = np.arange(3 * 5 * 3, dtype=np.uint8).reshape(3, 5, 3)
    padded = pad_to_even(image)
    assert padded.shape == (4, 6, 3)
    assert np.array_equal(padded[3, :5], image[2])
    assert np.array_equal(padded[:3, 5], image[:, 4])
    assert pad_to_even(padded) is padded


@pytest.mark.slow
@pytest.mark.parametrize(
    ("container", "codec", "rate_hz", "kept_as"),
    [
        ("mp4", "aac", 48000, "aac"),
        ("mp4", "aac", 44100, "aac"),
        ("mp4", "libmp3lame", 44100, "mp3"),
        ("mkv", "ac3", 48000, "ac3"),
        ("webm", "libopus", 48000, "opus"),
        ("mkv", "pcm_s16le", 44100, "aac"),
        ("avi", "pcm_s16le", 8000, "aac"),
        ("ts", "aac", 48000, "aac"),
        ("mkv", "flac", 48000, "aac"),
    ],
)
def test_audio_comes_along_in_sync(
    tmp_path: Path, container: str, codec: str, rate_hz: int, kept_as: str
) -> None:
    seconds, tone_s = 2.0, 0.8
    driver = write_video(
        tmp_path / f"driver.{container}",
        [picture(k) for k in range(60)],
        audio=sine(seconds, rate_hz, start_s=tone_s),
        audio_codec=codec,
        audio_rate_hz=rate_hz,
        codec="libvpx" if container == "webm" else "libx264",
    )
    path = tmp_path / "out.mp4"
    with VideoSource(driver) as source:
        frames = list(iter(source.read, None))
    write(FileSink(path, audio_from=driver), iter(frames), SinkInfo(64, 48, 30))
    with av.open(str(path)) as result:
        assert result.streams.audio[0].codec_context.codec.canonical_name == kept_as
    length = durations_s(path)
    assert length["video"] == pytest.approx(seconds, abs=1 / 30)
    assert length["audio"] == pytest.approx(seconds, abs=0.06)
    assert times_of(path)[0] == 0
    # The tone begins in the picture's time where it begins in the driver's; AVI has no times of showing, and
    # those that FFmpeg makes up for it are late by one picture.
    begins_s = onset_s(sound_of(driver)) - (0.0 if container == "avi" else times_of(driver)[0])
    assert begins_s == pytest.approx(tone_s, abs=0.04)
    error_ms = (onset_s(sound_of(path)) - begins_s) * 1000
    print(f"{container}/{codec}: onset off by {error_ms:+.1f} ms")
    assert abs(error_ms) < 2


def test_copied_audio_is_bit_for_bit_the_drivers(tmp_path: Path) -> None:
    driver = write_video(tmp_path / "d.mp4", [picture(k) for k in range(30)], audio=sine(1.0))
    path = tmp_path / "out.mp4"
    write(FileSink(path, audio_from=driver), frames_at([k / 30 for k in range(30)]), SinkInfo(64, 48, 30))

    def packets(file: Path) -> list[bytes]:
        with av.open(str(file)) as container:
            return [bytes(p) for p in container.demux(audio=0) if p.size]

    copied, original = packets(path), packets(driver)
    assert len(copied) >= len(original) - 1
    assert copied == original[: len(copied)]


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
def test_audio_is_trimmed_to_the_video(tmp_path: Path, codec: str) -> None:
    driver = write_video(
        tmp_path / "d.mkv", [picture(k) for k in range(60)], audio=sine(2.0), audio_codec=codec
    )
    path = tmp_path / "out.mp4"
    write(FileSink(path, audio_from=driver), frames_at([k / 30 for k in range(20)]), SinkInfo(64, 48, 30))
    assert durations_s(path)["audio"] == pytest.approx(20 / 30, abs=1 / 30)


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
def test_audio_before_the_first_picture_is_cut_off(tmp_path: Path, codec: str) -> None:
    times = [0.5 + k / 30 for k in range(45)]
    driver = write_video(
        tmp_path / "d.mkv",
        [picture(k) for k in range(45)],
        times_s=times,
        audio=sine(2.0, start_s=1.2),
        audio_codec=codec,
    )
    path = tmp_path / "out.mp4"
    write(FileSink(path, audio_from=driver), frames_at([k / 30 for k in range(45)]), SinkInfo(64, 48, 30))
    assert onset_s(sound_of(path)) == pytest.approx(0.7, abs=0.02)
    assert times_of(path)[0] == pytest.approx(0, abs=0.03)


def test_a_driver_without_sound_and_one_that_is_missing(tmp_path: Path) -> None:
    mute = write_video(tmp_path / "mute.mp4", [picture()] * 3)
    path = tmp_path / "out.mp4"
    write(FileSink(path, audio_from=mute), frames_at([0, 0.1]), SinkInfo(64, 48, 10))
    assert "audio" not in durations_s(path)
    path.unlink()
    sink = FileSink(path, audio_from=tmp_path / "no.mp4")
    with pytest.raises(DriverError, match="does not exist"), sink:
        sink.open(SinkInfo(64, 48, 10))
    assert list(tmp_path.iterdir()) == [mute]


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt(), SystemExit(1)])
def test_a_failure_leaves_the_old_file(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(b"the old one")

    def frames() -> Iterator[Frame]:
        yield from frames_at([k / 30 for k in range(20)])
        raise error

    with pytest.raises(type(error)):
        write(FileSink(path), frames(), SinkInfo(64, 48, 30))
    assert path.read_bytes() == b"the old one"
    assert list(tmp_path.iterdir()) == [path]


def test_interrupted_while_closing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(fd: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("engines.files.os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(FileSink(tmp_path / "out.mp4"), frames_at([0, 0.1]), SinkInfo(64, 48, 10))
    assert list(tmp_path.iterdir()) == []


def test_a_closed_window_keeps_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    sink = FileSink(path)

    def frames() -> Iterator[Frame]:
        yield from frames_at([0, 0.1, 0.2])
        raise SinkClosed("enough")

    with pytest.raises(SinkClosed):
        write(sink, frames(), SinkInfo(64, 48, 30))
    assert len(times_of(path)) == 3


WRITER = """
    import sys, time
    import numpy as np
    from pathlib import Path
    from streamer.frame import Frame
    from streamer.sinks.file import FileSink
    from streamer.sinks.sink import SinkInfo
    image = np.random.default_rng(0).integers(0, 255, (96, 96, 3), dtype=np.uint8)
    with FileSink(Path(sys.argv[1])) as sink:
        sink.open(SinkInfo(96, 96, 30))
        k = 0
        while True:
            sink.write(Frame(k / 30, 0, image=image))
            k += 1
            if k == 30:
                print("writing", flush=True)
            time.sleep(0.002)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_signals_leave_nothing(tmp_path: Path, name: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path / "out.mp4")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        assert len(list(tmp_path.iterdir())) == 1, "the hidden file is there while writing"
        process.send_signal(getattr(signal, name))
        status = process.wait(AT_LAST_S)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    assert status != 0
    assert name != "SIGTERM" or status == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


def test_other_peoples_signal_handlers_are_left_alone(tmp_path: Path) -> None:
    def own(number: int, frame: object) -> None: ...

    before = signal.signal(signal.SIGTERM, own)
    try:
        with FileSink(tmp_path / "a.mp4") as sink:
            sink.open(SinkInfo(64, 48, 30))
            assert signal.getsignal(signal.SIGTERM) is own
            sink.write(Frame(0, 0, image=picture()))
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with FileSink(tmp_path / "b.mp4") as sink:
            sink.open(SinkInfo(64, 48, 30))
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
            sink.write(Frame(0, 0, image=picture()))
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "tiny", "1m") as folder:
        yield folder


def noise_frames(count: int) -> Iterator[Frame]:
    rng = np.random.default_rng(0)
    for k in range(count):
        yield Frame(k / 30, 0, image=rng.integers(0, 255, (128, 128, 3), dtype=np.uint8))


@pytest.mark.parametrize("count", [200, 45])
def test_a_full_disk_is_explained_and_leaves_nothing(tiny_disk: Path, count: int) -> None:
    """200 frames fill the disk while writing; with 45 the encoder's own buffer hides it until the end."""
    path = tiny_disk / "out.mp4"
    path.write_bytes(b"old")
    # The 45-frame case: leave only so much room that the last packets do not fit.
    if count == 45:
        (tiny_disk / "ballast").write_bytes(bytes(900_000))
    kept = sorted(tiny_disk.iterdir())
    with pytest.raises(SinkError, match=r"disk full while writing .*free \d+ MB .*-o") as caught:
        write(FileSink(path), noise_frames(count), SinkInfo(128, 128, 30, duration_s=60))
    assert isinstance(caught.value.__cause__, OSError)
    assert path.read_bytes() == b"old"
    assert sorted(tiny_disk.iterdir()) == kept


def test_a_disk_that_fills_at_the_very_end(tiny_disk: Path) -> None:
    """Whatever room is left, the result is a whole file or an error, never a short file."""
    path = tiny_disk / "out.mp4"
    outcomes: set[bool] = set()
    for room in (20_000, 120_000, 240_000, 260_000, 270_000, 280_000, 290_000, 300_000, 340_000):
        ballast = tiny_disk / "ballast"
        ballast.write_bytes(bytes(1_048_576 - room // 4096 * 4096 - 4096))
        with suppress(SinkError):
            write(FileSink(path), noise_frames(20), SinkInfo(128, 128, 30))
        outcomes.add(path.exists())
        if path.exists():
            assert len(times_of(path)) == 20
            path.unlink()
        assert sorted(tiny_disk.iterdir()) == [ballast]
        ballast.unlink()
    assert outcomes == {True, False}, "the sizes tried straddle the edge"


def test_a_full_disk_told_by_any_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = FileSink(tmp_path / "out.mp4")
    sink.open(SinkInfo(64, 48, 30))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sink, "_write", full)
    with pytest.raises(SinkError, match="disk full"):
        sink.write(Frame(0, 0, image=picture()))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SinkError, match="not open"):
        sink.write(Frame(0, 0, image=picture()))


def test_names_that_cannot_work_are_refused_before_any_work(tmp_path: Path) -> None:
    cases = {
        tmp_path / "out.gif": "ends in .mp4",
        tmp_path / "no" / "out.mp4": "mkdir -p",
    }
    for path, words in cases.items():
        with pytest.raises(SinkError, match=words):
            FileSink(path)
    (tmp_path / "dir.mp4").mkdir()
    with pytest.raises(SinkError, match="is a folder"):
        FileSink(tmp_path / "dir.mp4")
    driver = write_video(tmp_path / "d.mp4", [picture()])
    with pytest.raises(SinkError, match="driving video itself"):
        FileSink(driver, audio_from=driver)


def test_a_film_goes_where_a_link_leads(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "link.mp4").symlink_to("far/film.mp4")
    write(FileSink(tmp_path / "link.mp4"), frames_at([0, 1 / 30, 2 / 30]), SinkInfo(64, 48, 30))
    assert (tmp_path / "link.mp4").is_symlink()
    assert len(times_of(tmp_path / "far" / "film.mp4")) == 3
    assert [p.name for p in (tmp_path / "far").iterdir()] == ["film.mp4"]


def test_nothing_written_is_an_error_and_close_is_idempotent(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "out.mp4")
    sink.open(SinkInfo(64, 48, 30))
    with pytest.raises(SinkError, match="no frame"):
        sink.close()
    sink.close()
    sink.abort()
    assert list(tmp_path.iterdir()) == []


def test_a_name_with_a_colon(tmp_path: Path) -> None:
    path = tmp_path / "take 1: best.mp4"
    write(FileSink(path), frames_at([0, 0.1]), SinkInfo(64, 48, 10))
    assert list(tmp_path.iterdir()) == [path]


def test_open_sink_understands_its_names(tmp_path: Path) -> None:
    assert isinstance(open_sink("window"), WindowSink)
    assert isinstance(open_sink("virtualcam"), VirtualCameraSink)
    named = open_sink("virtualcam:My: Cam")
    assert isinstance(named, VirtualCameraSink)
    assert named._name == "My: Cam"
    file = open_sink(str(tmp_path / "a.MP4"), crf=20)
    assert isinstance(file, FileSink)
    assert file.path == tmp_path / "a.MP4"
    for wrong in ("windw", "webcam", "out.avi"):
        with pytest.raises(SinkError, match=r"\.mp4"):
            open_sink(wrong)
    with pytest.raises(SinkError, match="choose window, virtualcam"):
        open_sink(" ")


def test_fit_picture_letterboxes() -> None:
    image = np.full((50, 100, 3), 200, np.uint8)
    fitted = fit_picture(image, 60, 60)
    assert fitted.shape == (60, 60, 3)
    assert fitted[30, 30].tolist() == [200] * 3
    assert fitted[5].max() == 0
    assert fitted[-5].max() == 0
    assert (fitted[:, 30, 0] == 200).sum() == 30
    assert fit_picture(image, 100, 50) is image
    assert fit_picture(np.zeros((1000, 1, 3), np.uint8), 2, 2).shape == (2, 2, 3)


class FakeScreen:
    def __init__(self) -> None:
        self.shown: list[U8] = []
        self.pressed: list[int] = []
        self.visible = False

    def open(self, title: str) -> None:
        self.visible = True

    def show(self, title: str, bgr: U8) -> None:
        self.shown.append(bgr)

    def key(self) -> int:
        return self.pressed.pop(0) if self.pressed else -1

    def is_open(self, title: str) -> bool:
        return self.visible

    def close(self, title: str) -> None:
        self.visible = False


@pytest.mark.parametrize("key", [ord("q"), 27])
def test_the_window_shows_and_closes_by_key(key: int) -> None:
    screen = FakeScreen()
    heard: list[str] = []
    sink = WindowSink(screen, keys=heard.append)
    sink.open(SinkInfo(64, 48, 30))
    sink.write(Frame(0, 0, image=picture()))
    screen.pressed = [ord("r"), key]
    sink.write(Frame(0.1, 0, image=picture()))
    with pytest.raises(SinkClosed):
        sink.write(Frame(0.2, 0, image=picture()))
    sink.close()
    assert heard == ["r"]
    assert not screen.visible
    assert len(screen.shown) == 3
    assert np.array_equal(screen.shown[0], picture()[..., ::-1])


def test_m_shows_the_window_as_a_mirror_and_back() -> None:
    screen = FakeScreen()
    heard: list[str] = []
    sink = WindowSink(screen, keys=heard.append)
    sink.open(SinkInfo(64, 48, 30))
    screen.pressed = [ord("m"), ord("m")]
    for k in range(3):
        sink.write(Frame(k / 10, 0, image=picture()))
    as_others_see = picture()[..., ::-1]
    assert not np.array_equal(as_others_see, as_others_see[:, ::-1]), "a picture that tells the difference"
    assert np.array_equal(screen.shown[0], as_others_see)
    assert np.array_equal(screen.shown[1], as_others_see[:, ::-1])
    assert np.array_equal(screen.shown[2], as_others_see)
    assert heard == []


def test_the_windows_close_button() -> None:
    screen = FakeScreen()
    sink = WindowSink(screen)
    sink.open(SinkInfo(64, 48, 30))
    screen.visible = False
    with pytest.raises(SinkClosed):
        sink.write(Frame(0, 0, image=picture()))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks for an X or Wayland display")
def test_no_display_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr("streamer.sinks.window.windows_hang", lambda _: False)
    sink = WindowSink()
    with pytest.raises(SinkError, match=r"DISPLAY is not set.*--to FILE\.mp4"), sink:
        sink.open(SinkInfo(64, 48, 30))


@pytest.mark.slow
@pytest.mark.parametrize(
    "module", ["streamer.sources.video", "streamer.sinks.file", "streamer.sinks.soundtrack"]
)
def test_opencv_is_loaded_before_pyav(module: str) -> None:
    """The other order makes windows hang for ever."""
    code = (
        f"import sys, {module}; from streamer.sinks.window import windows_hang; "
        "print(windows_hang(list(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
    assert windows_hang(["av", "cv2"])


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="X sockets are Unix sockets")
def test_a_dead_display_is_noticed(tmp_path: Path) -> None:
    assert "nothing answers" in (display_problem({"DISPLAY": ":997"}, tmp_path) or "")
    assert display_problem({"WAYLAND_DISPLAY": "wayland-0"}, tmp_path) is None
    assert display_problem({"DISPLAY": "host:0"}, tmp_path) is None
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "X997"))
        server.listen()
        assert display_problem({"DISPLAY": ":997.0"}, tmp_path) is None


class FakeCameraBackend:
    """A pyvirtualcam backend that keeps what it is sent."""

    made: ClassVar[list[FakeCameraBackend]] = []

    def __init__(
        self, *, width: int, height: int, fps: float, fourcc: int, device: str | None, **_: Any
    ) -> None:
        if device == "taken":
            raise RuntimeError("device is in use")
        self.size = (width, height)
        self.fps = fps
        self.name = device or "/dev/fake0"
        self.sent: list[U8] = []
        self.closed = False
        FakeCameraBackend.made.append(self)

    def send(self, frame: U8) -> None:
        self.sent.append(frame.reshape(self.size[1], self.size[0], 3).copy())

    def close(self) -> None:
        self.closed = True

    def device(self) -> str:
        return self.name

    def native_fourcc(self) -> None:
        return None


@pytest.fixture
def fake_backend() -> Iterator[type[FakeCameraBackend]]:
    pyvirtualcam = pytest.importorskip("pyvirtualcam", reason="pip install 'visavis[virtualcam]'")
    pyvirtualcam.register_backend("fake", FakeCameraBackend)
    FakeCameraBackend.made.clear()
    yield FakeCameraBackend
    pyvirtualcam.camera.BACKENDS.pop("fake")


def test_the_virtual_camera_gets_the_frames(fake_backend: type[FakeCameraBackend]) -> None:
    with VirtualCameraSink(backend="fake") as sink:
        assert sink.device is None
        sink.open(SinkInfo(65, 48, 25))
        assert sink.device == "/dev/fake0"
        sink.write(Frame(0, 0, image=picture(0, 66, 48)))
        sink.write(Frame(0.04, 0, image=np.full((100, 33, 3), 9, np.uint8)))
        sink.write(Frame(0.08, 0, image=picture(0, 66, 48)[:, ::-1]))
    camera = fake_backend.made[0]
    assert (camera.size, camera.fps, camera.closed) == ((66, 48), 25, True)
    assert np.array_equal(camera.sent[0], picture(0, 66, 48)), "RGB, untouched when it fits"
    assert camera.sent[1].shape == (48, 66, 3)
    assert camera.sent[1][:, 33].min() == 9
    assert camera.sent[1][:, 0].max() == 0
    assert np.array_equal(camera.sent[2], picture(0, 66, 48)[:, ::-1])
    sink.close()


def test_a_camera_in_use_is_explained(fake_backend: type[FakeCameraBackend]) -> None:
    sink = VirtualCameraSink("taken", backend="fake")
    with pytest.raises(SinkError, match=r"camera taken does not open.*device is in use") as caught:
        sink.open(SinkInfo(64, 48, 30))
    assert driver_fix() in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(SinkError, match="not open"):
        sink.write(Frame(0, 0, image=picture()))


def test_no_camera_driver_is_explained() -> None:
    pytest.importorskip("pyvirtualcam", reason="pip install 'visavis[virtualcam]'")
    sink = VirtualCameraSink("no such camera")
    with pytest.raises(SinkError, match="no such camera does not open"):
        sink.open(SinkInfo(64, 48, 30))


def test_the_missing_package_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyvirtualcam", None)
    with pytest.raises(SinkError, match=r"pip install 'visavis\[virtualcam\]'"):
        VirtualCameraSink().open(SinkInfo(64, 48, 30))


def test_each_system_has_its_fix() -> None:
    linux = driver_fix("linux")
    assert "sudo apt install v4l2loopback-dkms" in linux
    assert "sudo modprobe v4l2loopback exclusive_caps=1 card_label=visavis" in linux
    assert "OBS" in driver_fix("win32")
    assert "OBS" in driver_fix("darwin")
    assert "--to window" in driver_fix("plan9")


def test_cameras_are_found_by_label_or_number(tmp_path: Path) -> None:
    for number, label in ((0, "Integrated Camera"), (10, "visavis")):
        folder = tmp_path / f"video{number}"
        folder.mkdir()
        (folder / "name").write_text(label + "\n")
    assert find_device("visavis", tmp_path) == "/dev/video10"
    assert find_device("10", tmp_path) == "/dev/video10"
    assert find_device("/dev/video3", tmp_path) == "/dev/video3"
    assert find_device("OBS Virtual Camera", tmp_path / "none") == "OBS Virtual Camera"


def test_the_fake_sink_keeps_the_contract() -> None:
    sink = FakeSink(fail_at=1)
    with pytest.raises(RuntimeError, match="told to fail"):
        write(sink, frames_at([0, 1]), SinkInfo(64, 48, 30))
    assert sink.outcome == "aborted"
    assert len(sink.frames) == 1
    held = FakeSink()
    held.gate.clear()
    thread = threading.Thread(target=held.write, args=(Frame(float(Fraction(1, 2)), 0, image=picture()),))
    thread.start()
    assert held.frames == []
    held.gate.set()
    thread.join(AT_LAST_S)
    assert len(held.frames) == 1
    held.close()
    assert held.outcome == "closed"


# --- files with alpha


def see_through(times_s: list[float], width: int = 64, height: int = 48) -> Iterator[Frame]:
    """Red on the left, opaque; a quarter clear in the middle; nothing on the right."""
    image = np.zeros((height, width, 4), np.uint8)
    image[:, : width // 2] = (220, 30, 40, 255)
    image[:, width // 4 : width // 2, 3] = 192
    for k, time_s in enumerate(times_s):
        yield Frame(time_s, 0, LatencyTrace({}), k, image=image)


def rgba_of(path: Path) -> list[U8]:
    """All frames (H, W, 4). VP9's alpha is only read by libvpx, not by FFmpeg's own decoder."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        if path.suffix == ".webm":
            decoder = av.CodecContext.create("libvpx-vp9", "r")
            frames = [frame for packet in container.demux(stream) for frame in decoder.decode(packet)]
        else:
            frames = list(container.decode(stream))
        return [np.asarray(frame.to_ndarray(format="rgba"), np.uint8) for frame in frames]


@pytest.mark.parametrize("suffix", [".mov", ".webm"])
def test_alpha_comes_through(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    write(FileSink(path, alpha=True), see_through([k / 25 for k in range(5)]), SinkInfo(64, 48, 25))
    frames = rgba_of(path)
    assert len(frames) == 5
    for frame in frames:
        assert frame.shape == (48, 64, 4)
        assert frame[:, 2:14, 3].min() >= 250
        assert np.abs(frame[:, 18:30, 3].astype(int) - 192).max() <= 6
        assert frame[:, 36:, 3].max() <= 5
        assert np.abs(frame[4:-4, 4:12, :3].astype(int) - (220, 30, 40)).max() <= 12
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(("suffix", "codec"), [(".mov", "aac"), (".webm", "opus")])
def test_a_film_with_alpha_has_the_drivers_sound(tmp_path: Path, suffix: str, codec: str) -> None:
    driver, path = tmp_path / "driver.mp4", tmp_path / f"out{suffix}"
    write_video(driver, [picture(k) for k in range(30)], fps=30, audio=sine(1.0))
    times = [k / 30 for k in range(30)]
    write(FileSink(path, audio_from=driver, alpha=True), see_through(times), SinkInfo(64, 48, 30))
    with av.open(str(path)) as container:
        assert container.streams.audio[0].codec_context.codec.canonical_name == codec
        samples = np.concatenate([f.to_ndarray().mean(0) for f in container.decode(audio=0)])
    assert len(samples) / 48000 == pytest.approx(1.0, abs=0.06)
    assert np.abs(samples).max() > 0.1


@pytest.mark.parametrize("name", ["a.mp4", "a.m4v", "a.gif", "a"])
def test_alpha_needs_an_ending_that_can(tmp_path: Path, name: str) -> None:
    with pytest.raises(SinkError, match=r"cannot be transparent.*\.mov.*\.webm"):
        FileSink(tmp_path / name, alpha=True)


@pytest.mark.parametrize("name", ["a.mov", "a.webm"])
def test_endings_with_alpha_are_for_alpha(tmp_path: Path, name: str) -> None:
    with pytest.raises(SinkError, match=r"ends in \.mp4"):
        FileSink(tmp_path / name)


def test_pictures_with_alpha_are_fitted_on_nothing() -> None:
    fitted = fit_picture(np.full((10, 10, 4), 200, np.uint8), 30, 10)
    assert fitted.shape == (10, 30, 4)
    assert (fitted[:, :10] == 0).all()
    assert (fitted[:, 10:20] == 200).all()
