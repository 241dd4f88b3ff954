"""Video files of every condition and a camera that comes and goes."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import psutil
import pytest
from fakes import AT_LAST_S, FakeClock, FakeSource, picture, read_all, set_display_matrix, sine, write_video
from numpy.typing import NDArray

from engines.errors import DriverError
from streamer.sources.audio_track import audio_of
from streamer.sources.camera import CameraConfig
from streamer.sources.source import SourceState
from streamer.sources.video import VideoSource
from streamer.sources.video_reading import upright
from streamer.sources.webcam import WebcamSource, capture_time_ns

U8 = NDArray[np.uint8]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_video(tmp_path / "clip.mp4", [picture(k) for k in range(30)], audio=sine(1.0))


def colour(image: U8, x: float, y: float) -> tuple[int, int, int]:
    h, w = image.shape[:2]
    r, g, b = (int(v) for v in image[int(y * h), int(x * w)])
    return r, g, b


def test_frames_are_rgb_with_exact_times(clip: Path) -> None:
    with VideoSource(clip) as source:
        assert source.info.size_px == (64, 48)
        assert source.info.fps == pytest.approx(30, abs=0.01)
        assert source.info.duration_s == pytest.approx(1.0, abs=0.03)
        assert source.info.has_audio
        assert not source.info.is_live
        frames = read_all(source)
        assert source.state is SourceState.ENDED
        assert source.notice is None
    assert len(frames) == 30
    assert [f.pts_s for f in frames] == pytest.approx([k / 30 for k in range(30)], abs=1e-4)
    assert [f.sequence for f in frames] == list(range(30))
    assert frames[0].image.dtype == np.uint8
    assert np.abs(frames[7].image.astype(int) - picture(7)).mean() < 6
    assert {"captured", "decoded"} <= set(frames[0].trace.stamps_ns)


@pytest.mark.parametrize(("height", "tagged"), [(64, True), (64, False), (720, False)])
def test_colours_survive_their_matrix(tmp_path: Path, height: int, tagged: bool) -> None:
    """A flat colour comes back whether the file names its matrix or players guess (601 SD, 709 HD)."""
    colour_rgb = np.array([190, 60, 110], np.uint8)
    image = np.broadcast_to(colour_rgb, (height, 64, 3)).copy()
    matrix = "ITU709" if tagged or height >= 720 else "ITU601"
    path = tmp_path / "flat.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "5"})
        stream.height, stream.width, stream.pix_fmt = height, 64, "yuv420p"
        if tagged:
            stream.codec_context.colorspace = 1
        for _ in range(3):
            yuv = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format="yuv420p", dst_colorspace=matrix)
            if not tagged:
                yuv.colorspace = 2
            container.mux(stream.encode(yuv))
        container.mux(stream.encode(None))
    with VideoSource(path) as source:
        frame = source.read()
    assert frame is not None
    assert np.abs(frame.image.reshape(-1, 3).mean(0) - colour_rgb).max() < 4


@pytest.mark.parametrize(
    ("matrix", "size", "top_left"),
    [
        ((1, 0, 0, 1), (64, 48), "red"),
        ((0, 1, -1, 0), (48, 64), "blue"),  # a phone held upright: turned 90° clockwise to be shown
        ((0, -1, 1, 0), (48, 64), "green"),
        ((-1, 0, 0, -1), (64, 48), "white"),
        ((-1, 0, 0, 1), (64, 48), "green"),  # mirrored
    ],
)
def test_rotation_is_honoured(
    tmp_path: Path, matrix: tuple[int, int, int, int], size: tuple[int, int], top_left: str
) -> None:
    path = write_video(tmp_path / "turned.mp4", [picture()] * 3)
    set_display_matrix(path, *matrix)
    with VideoSource(path) as source:
        assert source.info.size_px == size
        frame = source.read()
    assert frame is not None
    assert frame.image.shape == (size[1], size[0], 3)
    assert frame.image.flags.c_contiguous
    r, g, b = colour(frame.image, 0.2, 0.1)
    seen = "white" if min(r, g, b) > 150 else ("red", "green", "blue")[int(np.argmax((r, g, b)))]
    assert seen == top_left


def test_upright_is_a_quarter_turn_clockwise() -> None:
    image = np.arange(6, dtype=np.uint8).reshape(2, 3, 1).repeat(3, 2)
    turned = upright(image, (0, 1, 0, -1, 0, 0, 0, 0, 1))
    assert np.array_equal(turned, np.rot90(image, -1))


def test_wide_pixels_are_made_square(tmp_path: Path) -> None:
    def anamorphic(stream: av.VideoStream) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)

    path = write_video(tmp_path / "dv.mp4", [picture()] * 2, tags=anamorphic)
    with VideoSource(path) as source:
        assert source.info.size_px == (85, 48)


def test_variable_frame_times_are_kept(tmp_path: Path) -> None:
    times_s = [0, 0.01, 0.05, 0.3, 0.31, 0.9, 1.0]
    path = write_video(tmp_path / "vfr.mkv", [picture(k) for k in range(7)], times_s=times_s)
    with VideoSource(path) as source:
        assert 5 <= source.info.fps <= 40
        got = [f.pts_s for f in read_all(source)]
    assert got == pytest.approx(times_s, abs=0.0011)  # Matroska counts milliseconds


def test_a_file_that_starts_late_starts_at_zero(tmp_path: Path) -> None:
    times_s = [2 + k / 30 for k in range(10)]
    path = write_video(tmp_path / "late.mkv", [picture(k) for k in range(10)], times_s=times_s)
    with VideoSource(path) as source:
        assert [f.pts_s for f in read_all(source)] == pytest.approx([k / 30 for k in range(10)], abs=0.0011)


def test_a_truncated_file_gives_its_frames_then_says_so(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (96, 128, 3), dtype=np.uint8) for _ in range(60)]
    path = write_video(tmp_path / "cut.mp4", noise, options={"movflags": "faststart"})
    data = path.read_bytes()
    with VideoSource(path) as source:
        whole = read_all(source)
    path.write_bytes(data[: len(data) // 2])
    with VideoSource(path) as source:
        frames = read_all(source)
        assert source.damage is not None
        assert source.notice == source.damage
        assert "cut.mp4 ends at" in source.damage
        assert "2.0 s" in source.damage
    assert 20 < len(frames) < 40
    for a, b in zip(frames, whole, strict=False):
        assert np.array_equal(a.image, b.image), "nothing made up from half a packet is delivered"


def test_a_damaged_middle_is_skipped_to_the_next_key_frame(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    noise = [rng.integers(0, 255, (96, 128, 3), dtype=np.uint8) for _ in range(60)]
    path = write_video(tmp_path / "hit.mp4", noise, options={"movflags": "faststart"}, gop=10)
    data = bytearray(path.read_bytes())
    with VideoSource(path) as source:
        whole = {round(f.pts_s, 3): f.image for f in read_all(source)}
    middle = len(data) // 2
    data[middle : middle + 3000] = rng.integers(0, 255, 3000, dtype=np.uint8).tobytes()
    path.write_bytes(data)
    with VideoSource(path) as source:
        frames = read_all(source)
        assert source.damage is not None
        assert "is damaged at" in source.damage
    assert 40 <= len(frames) < 60
    assert frames[-1].pts_s == pytest.approx(59 / 30, abs=0.01)
    same = [np.array_equal(f.image, whole[round(f.pts_s, 3)]) for f in frames]
    assert sum(not s for s in same) <= 1, "damaged pictures are not delivered"


def png_bytes() -> bytes:
    ok, data = cv2.imencode(".png", picture())
    assert ok
    return bytes(data)


def moov_less() -> bytes:
    target = io.BytesIO()
    with av.open(target, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for k in range(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(k))))
        container.mux(stream.encode(None))
    data = target.getvalue()
    return data[: data.index(b"moov") - 4]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.mp4", lambda: b"", "empty"),
        ("noise.mp4", lambda: bytes(range(256)) * 40, "not a video"),
        ("notes.txt", lambda: b"these are notes\n" * 50, "not a video"),
        ("picture.mp4", png_bytes, "not a video"),
        ("cutoff.mp4", moov_less, "cut off"),
        ("list.m3u8", lambda: b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n", "list.m3u8"),
    ],
)
def test_what_is_no_video_is_said_in_a_sentence(
    tmp_path: Path, name: str, content: Callable[[], bytes], words: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content())
    with pytest.raises(DriverError, match=words) as caught:
        VideoSource(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files_folders_and_sound_only(tmp_path: Path) -> None:
    with pytest.raises(DriverError, match="does not exist"):
        VideoSource(tmp_path / "no.mp4")
    with pytest.raises(DriverError, match="is a folder"):
        VideoSource(tmp_path)
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(sine(0.5), "fltp", "mono")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(DriverError, match="no video"):
        VideoSource(path)


def test_a_name_with_a_colon_is_a_file(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", [picture()]).rename(tmp_path / "http:take 1.mp4")
    with VideoSource(path) as source:
        assert len(read_all(source)) == 1


def test_realtime_keeps_to_the_capture_times(clip: Path) -> None:
    clock = FakeClock(start_ns=10**9)
    with VideoSource(clip, realtime=True, clock=clock) as source:
        arrivals: list[float] = []
        for k, frame in enumerate(iter(source.read, None)):
            assert frame is not None
            arrivals.append((clock.now_ns() - 10**9) / 1e9 - frame.pts_s)
            assert frame.capture_time_ns == 10**9 + round(frame.pts_s * 1e9)
            if k == 10:
                clock.advance(0.25)  # a slow reader: later frames come at once until it has caught up
    assert len(arrivals) == 30
    assert arrivals[:11] == pytest.approx([0] * 11, abs=1e-6)
    assert arrivals[11] == pytest.approx(0.25 - 1 / 30, abs=1e-3)
    assert arrivals[-1] == pytest.approx(0, abs=1e-6)


def test_close_ends_a_waiting_read(tmp_path: Path) -> None:
    path = write_video(tmp_path / "slow.mkv", [picture(), picture(1)], times_s=[0, 60])
    source = VideoSource(path, realtime=True)
    assert source.read() is not None
    threading.Timer(0.1, source.close).start()
    assert source.read() is None  # its next picture is a minute away, and then it would give that
    assert source.state is SourceState.ENDED


def test_loop_goes_on_in_time(clip: Path) -> None:
    with VideoSource(clip, loop=True) as source:
        assert source.info.duration_s is None
        times = [f.pts_s for f in (source.read() for _ in range(95)) if f is not None]
    assert times == pytest.approx([k / 30 for k in range(95)], abs=2e-3)


@pytest.mark.slow
def test_looping_keeps_memory_and_files_flat(tmp_path: Path) -> None:
    path = write_video(tmp_path / "short.mp4", [picture(k, 320, 240) for k in range(5)], audio=sine(0.2))
    process = psutil.Process()
    with VideoSource(path, loop=True) as source:

        def passes(count: int) -> None:
            for _ in range(5 * count):
                assert source.read() is not None

        passes(60)
        before, threads = process.memory_info().rss, process.num_threads()
        files = process.num_fds() if hasattr(process, "num_fds") else 0
        passes(150)
        grown_mb = (process.memory_info().rss - before) / 1e6
        print(f"150 passes of a 320x240 clip grew memory by {grown_mb:.1f} MB")
        assert grown_mb < 5
        assert process.num_threads() <= threads + 4, "decoders of earlier passes are still alive"
        if files:
            assert process.num_fds() <= files + 1


def test_audio_of_shares_the_videos_clock(tmp_path: Path, clip: Path) -> None:
    track = audio_of(clip)
    assert track is not None
    with track:
        times_s = [float(p.pts * p.time_base) for p in track.packets() if p.pts is not None]
        assert track.stream.codec_context.name == "aac"
        assert times_s[-1] - track.start_s == pytest.approx(1.0, abs=0.05)
    assert audio_of(write_video(tmp_path / "mute.mp4", [picture()])) is None


class FakeCamera:
    """Stands in for a camera: 640×480 BGR at 200 pictures a second until it is unplugged."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.fourcc = "BGR"
        rig.opened += 1
        self.released = False

    def isOpened(self) -> bool:
        return self.rig.plugged

    def read(self) -> tuple[bool, U8 | None]:
        if self.rig.hang.is_set():
            self.rig.hanging.set()
            self.rig.unhang.wait()
        time.sleep(0.005)
        if not self.rig.plugged:
            return False, None
        self.rig.shots += 1
        self.shot_ns = time.monotonic_ns()
        image = np.zeros((480, 640, 3), np.uint8)
        image[..., 0] = 200  # blue, in BGR
        return True, image

    def get(self, propId: int) -> float:
        if propId == cv2.CAP_PROP_FPS:
            return 30.0
        return (self.shot_ns - 4_000_000) / 1e6 if propId == cv2.CAP_PROP_POS_MSEC else 0.0

    def release(self) -> None:
        assert not self.released
        self.released = True
        self.rig.released += 1


class Rig:
    """A plug that can be pulled, and counts."""

    def __init__(self) -> None:
        self.plugged = True
        self.opened = self.released = self.shots = 0
        self.hang, self.hanging, self.unhang = threading.Event(), threading.Event(), threading.Event()

    def open(self, config: CameraConfig) -> FakeCamera:
        return FakeCamera(self)


def wait_for(
    condition: Callable[[], bool],
) -> None:
    end = time.monotonic() + AT_LAST_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def test_the_newest_camera_picture_wins() -> None:
    rig = Rig()
    with WebcamSource(3, open_capture=rig.open) as camera:
        assert camera.info.is_live
        assert (camera.info.size_px, camera.info.fps) == ((640, 480), 30.0)
        assert camera.info.name == "camera 3"
        first = camera.read(AT_LAST_S)
        assert first is not None
        assert first.image[0, 0].tolist() == [0, 0, 200]
        wait_for(lambda: rig.shots >= 60)
        shots = rig.shots
        frame = camera.read(AT_LAST_S)
        assert frame is not None
        # of 200 a second about every seventh is followed, and the last shot may be on its way still
        assert frame.sequence >= shots - 9, "an old picture was delivered"
        assert frame.pts_s > first.pts_s >= 0
        assert camera.dropped >= 1
        assert frame.trace.stage_ms()["received"] >= 3.99, "the driver's own stamp was not used"
    assert camera.state is SourceState.ENDED
    assert camera.read(0) is None
    assert rig.opened == rig.released == 1


def test_a_camera_that_vanishes_comes_back() -> None:
    rig = Rig()
    with WebcamSource(open_capture=rig.open, retry_s=0.02) as camera:
        assert camera.read(AT_LAST_S) is not None
        rig.plugged = False
        wait_for(lambda: camera.state is SourceState.LOST)
        assert "plug it in" in (camera.notice or "")
        camera.read(0)
        assert camera.read(0.05) is None
        opened = rig.opened
        wait_for(lambda: rig.opened >= opened + 2)  # it keeps trying
        rig.plugged = True
        frame = camera.read(AT_LAST_S)
        assert frame is not None
        assert camera.state is SourceState.READY
        assert camera.notice is None
        assert frame.pts_s > 0.05
    assert rig.opened == rig.released, "a capture was left open"


def test_a_camera_that_hangs_counts_as_lost_and_does_not_block_close() -> None:
    rig = Rig()
    clock = FakeClock(start_ns=time.monotonic_ns())
    camera = WebcamSource(open_capture=rig.open, clock=clock)
    rig.hang.set()
    assert rig.hanging.wait(AT_LAST_S)
    assert camera.state is SourceState.READY
    clock.advance(2.5)
    assert camera.state is SourceState.LOST
    threading.Timer(0.2, rig.unhang.set).start()
    camera.close()
    assert rig.opened == rig.released


def test_no_camera_is_said_in_a_sentence() -> None:
    rig = Rig()
    rig.plugged = False
    with pytest.raises(DriverError, match=r"camera 7 gives no picture.*visavis devices"):
        WebcamSource(7, open_capture=rig.open)
    assert rig.opened == rig.released


def test_a_driver_that_raises_is_a_camera_without_pictures() -> None:
    def explode(config: CameraConfig) -> FakeCamera:
        raise cv2.error("no backend")

    with pytest.raises(DriverError, match="camera 0"):
        WebcamSource(open_capture=explode)


def test_only_plausible_driver_stamps_are_believed() -> None:
    now = 5_000_000_000
    assert capture_time_ns(4990.0, now) == 4_990_000_000
    assert capture_time_ns(0.0, now) == now  # not given
    assert capture_time_ns(33.3, now) == now  # a stream position
    assert capture_time_ns(5010.0, now) == now  # the future
    assert capture_time_ns(1.7e12, now) == now  # wall time


def test_the_fake_keeps_the_contract() -> None:
    clock = FakeClock()
    source = FakeSource(count=3, is_live=True, clock=clock)
    assert [f.pts_s for f in read_all(source)] == pytest.approx([0, 1 / 30, 2 / 30])
    assert source.state is SourceState.ENDED
    endless = FakeSource(clock=clock)
    endless.lost = True
    assert endless.read(0.5) is None
    assert endless.state is SourceState.LOST
    endless.close()
    assert endless.state is SourceState.ENDED
