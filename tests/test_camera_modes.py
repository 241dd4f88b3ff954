"""What a camera is asked for, what is read of it, and how many of its pictures are followed."""

from __future__ import annotations

import struct
import threading
from typing import Any

import av
import cv2
import numpy as np
import pytest
from fakes import AT_LAST_S, FakeClock, picture

from engines.enrollment import Enrollment
from engines.geometry import rotation_matrix, rotation_vector
from engines.motion import Motion
from streamer.drive.trackers.mediapipe import MediaPipeTracker
from streamer.frame import Frame
from streamer.sources.camera import CameraConfig, asked
from streamer.sources.camera_modes import CameraMode, best_mode
from streamer.sources.camera_pixels import rgb_of_shot, shape_of
from streamer.sources.thinning import Thinning
from streamer.sources.v4l2 import modes_told
from streamer.sources.webcam import WebcamSource
from streamer.webrtc.broadcast import Broadcast
from streamer.webrtc.media import video_frame_of
from streamer.webrtc.worker import Incoming, Worker

U8 = np.ndarray[Any, np.dtype[np.uint8]]
CONFIG = CameraConfig(0, 640, 480, 30.0)


def modes(text: str) -> list[CameraMode]:
    """`MJPG 640x480 30, …` as `v4l2-ctl --list-formats-ext` tells them."""
    out: list[CameraMode] = []
    for told in text.split(","):
        fourcc, size, fps = told.split()
        width, height = size.split("x")
        out.append(CameraMode(fourcc, int(width), int(height), float(fps)))
    return out


CAMERAS = {
    # what cameras of that kind list (shortened to the sizes that matter)
    "a usual USB camera": (
        "YUYV 640x480 30, YUYV 320x240 30, YUYV 1280x720 10, YUYV 1920x1080 5, "
        "MJPG 640x480 30, MJPG 1280x720 30, MJPG 1920x1080 30",
        "YUYV 640x480 30",
    ),
    "60 pictures a second only compressed": (
        "YUYV 640x480 30, YUYV 1280x720 10, MJPG 640x480 60, MJPG 1280x720 60, MJPG 1920x1080 30",
        "MJPG 640x480 60",
    ),
    "faster than is of use": ("MJPG 640x480 120, MJPG 640x480 60, MJPG 640x480 30", "MJPG 640x480 60"),
    "uncompressed HD, slow": ("YUYV 1280x720 10, YUYV 1920x1080 5, MJPG 1280x720 30", "MJPG 1280x720 30"),
    "uncompressed only, full rate when small": ("YUYV 320x240 30, YUYV 640x480 15", "YUYV 320x240 30"),
    "uncompressed only, too coarse when quick": ("YUYV 160x120 30, YUYV 640x480 15", "YUYV 640x480 15"),
    "NV12 of a laptop's own": (
        "NV12 640x480 30, NV12 1280x720 30, MJPG 640x480 30, MJPG 1280x720 30",
        "NV12 640x480 30",
    ),
    "wide only": ("MJPG 640x360 30, MJPG 1280x720 30, MJPG 1920x1080 30", "MJPG 640x360 30"),
    "a phone held upright": ("YU12 720x1280 30", "YU12 720x1280 30"),
    "a phone with a choice": ("MJPG 480x640 30, MJPG 1080x1920 30, MJPG 240x320 30", "MJPG 480x640 30"),
    "4:3, large": ("MJPG 1600x1200 30, MJPG 800x600 30, YUYV 800x600 20", "MJPG 800x600 30"),
    "infrared beside colour": ("GREY 640x480 60, YUYV 640x480 30", "YUYV 640x480 30"),
    "infrared alone": ("GREY 340x340 30, GREY 640x360 15", "GREY 340x340 30"),
    "29.97": ("MJPG 640x480 29.97, YUYV 640x480 15", "MJPG 640x480 29.97"),
    "formats that nobody reads here": ("H264 640x480 60, Z16 640x480 30, MJPG 640x480 30", "MJPG 640x480 30"),
    "a rate that is not told": ("MJPG 640x480 0, YUYV 640x480 5", "YUYV 640x480 5"),
}


@pytest.mark.parametrize("camera", CAMERAS)
def test_what_a_camera_is_asked_for(camera: str) -> None:
    offered, expected = CAMERAS[camera]
    for order in (modes(offered), modes(offered)[::-1]):
        assert best_mode(order, 640, 480, 30.0) == modes(expected)[0]


def test_a_camera_without_a_usable_mode_is_left_to_opencv() -> None:
    assert best_mode([], 640, 480, 30.0) is None
    assert best_mode(modes("H264 640x480 30, MJPG 640x480 0"), 640, 480, 30.0) is None


class Driver:
    """A driver of V4L2 with these modes; sizes of `scaled` are a range of 16 … 4096 in steps of 16."""

    def __init__(self, told: list[CameraMode], *, scaled: bool = False, endless: bool = False) -> None:
        self.told, self.scaled, self.endless = told, scaled, endless
        self.asked = 0

    def __call__(self, code: int, given: bytes) -> bytes:
        self.asked += 1
        index = struct.unpack_from("=I", given)[0]
        answer = bytearray(given)
        if code == 0xC0405602:
            kinds = list(dict.fromkeys(m.fourcc for m in self.told))
            struct.pack_into("=I", answer, 44, int.from_bytes(self.pick(kinds, index).encode(), "little"))
            return bytes(answer)
        fourcc = struct.unpack_from("=I", given, 4)[0].to_bytes(4, "little").decode()
        mine = [m for m in self.told if m.fourcc == fourcc]
        if code == 0xC02C564A:
            if self.scaled:
                self.pick([0], index)
                struct.pack_into("=I6I", answer, 8, 3, 16, 4096, 16, 16, 4096, 16)
            else:
                m = self.pick(list(dict.fromkeys((m.width_px, m.height_px) for m in mine)), index)
                struct.pack_into("=III", answer, 8, 1, *m)
            return bytes(answer)
        assert code == 0xC034564B
        size = struct.unpack_from("=II", given, 8)
        rates = [m.fps for m in mine if self.scaled or (m.width_px, m.height_px) == size]
        struct.pack_into("=III", answer, 16, 1, 1000, round(1000 * self.pick(rates, index)))
        return bytes(answer)

    def pick(self, of: list[Any], index: int) -> Any:
        if self.endless:
            return of[0]
        if index >= len(of):
            raise OSError(22, "Invalid argument")
        return of[index]


def test_a_driver_tells_its_modes() -> None:
    offered = modes("YUYV 640x480 30, YUYV 1280x720 10, MJPG 640x480 60, MJPG 1920x1080 29.97")
    assert list(modes_told(Driver(offered), 640, 480)) == offered
    slower_too = [*modes("MJPG 640x480 15"), *offered]
    assert set(modes_told(Driver(slower_too), 640, 480)) == set(offered), (
        "each size counts with its best rate"
    )


def test_a_driver_that_scales_is_asked_for_what_is_wanted() -> None:
    told = list(modes_told(Driver(modes("NV12 16x16 30"), scaled=True), 650, 9000))
    assert told == modes("NV12 640x4096 30")


def test_a_driver_whose_lists_never_end_is_asked_no_more_than_so_often() -> None:
    driver = Driver(modes("MJPG 640x480 30"), endless=True)
    told = modes_told(driver, 640, 480)
    assert next(told) == modes("MJPG 640x480 30")[0]
    assert driver.asked < 300
    assert sum(1 for _ in told) < 256 * 256


def planes_of(rgb: U8, pixel_format: str) -> U8:
    """What a camera gives of `rgb`, made by another library than reads it; (N,)."""
    frame = av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(format=pixel_format)
    planes = [np.frombuffer(bytes(p), np.uint8).reshape(p.height, p.line_size) for p in frame.planes]
    bytes_wide = {"nv12": 1, "yuv420p": 1, "yuyv422": 2, "uyvy422": 2}[pixel_format]
    across = [
        p.width * (2 if pixel_format == "nv12" and k else bytes_wide) for k, p in enumerate(frame.planes)
    ]
    return np.concatenate([p[:, :n].reshape(-1) for p, n in zip(planes, across, strict=True)])


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (320, 240)])
@pytest.mark.parametrize(
    ("fourcc", "name"), [("NV12", "nv12"), ("YU12", "yuv420p"), ("YUYV", "yuyv422"), ("UYVY", "uyvy422")]
)
def test_each_format_is_read_in_its_colours(fourcc: str, name: str, size: tuple[int, int]) -> None:
    rgb = np.asarray(cv2.GaussianBlur(picture(3, *size), (0, 0), 5), np.uint8)
    raw = planes_of(rgb, name)
    shape = shape_of(fourcc, *size)
    assert shape is not None
    read = rgb_of_shot(raw.reshape(shape), fourcc)
    assert read is not None
    assert read.shape == rgb.shape
    # limited range: 220 steps of 256; swscale rounds its own way
    assert np.abs(read.astype(int) - rgb).mean() < 2
    assert np.abs(read.astype(int) - rgb).max() <= 12


def test_jpeg_is_read_at_once_to_rgb_and_a_torn_one_is_none() -> None:
    rgb = np.asarray(cv2.GaussianBlur(picture(3, 640, 480), (0, 0), 5), np.uint8)
    done, coded = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 95])
    assert done
    raw = np.asarray(coded, np.uint8).reshape(1, -1)
    read = rgb_of_shot(raw, "MJPG")
    assert read is not None
    assert np.abs(read.astype(int) - rgb).mean() < 2
    assert rgb_of_shot(raw[:, :20], "MJPG") is None
    assert rgb_of_shot(raw[:, :0], "MJPG") is None


class FakeVideo:
    """Stands in for `cv2.VideoCapture`: takes the format and size it is asked for, if it has them."""

    def __init__(self, shots: list[U8], has: str = "MJPG", convert: bool = True) -> None:
        self.shots, self.has, self.converts = shots, has, convert
        self.told: dict[int, float] = {cv2.CAP_PROP_FOURCC: cv2.VideoWriter.fourcc(*has)}
        self.order: list[int] = []

    def isOpened(self) -> bool:
        return True

    def set(self, propId: int, value: float) -> bool:
        self.order.append(propId)
        if propId == cv2.CAP_PROP_CONVERT_RGB and not self.converts:
            return False
        if propId != cv2.CAP_PROP_FOURCC or value == cv2.VideoWriter.fourcc(*self.has):
            self.told[propId] = value
        return True

    def get(self, propId: int) -> float:
        return self.told.get(propId, 0.0)

    def read(self) -> tuple[bool, Any]:
        if not self.shots:
            return False, None
        if self.told.get(cv2.CAP_PROP_CONVERT_RGB) == 0:
            return True, self.shots.pop(0)
        self.shots.pop(0)
        return True, np.full((480, 640, 3), (200, 0, 0), np.uint8)

    def release(self) -> None:
        pass


def test_a_camera_is_asked_for_its_best_mode_and_read_as_it_sends() -> None:
    rgb = np.full((480, 640, 3), (30, 60, 200), np.uint8)
    video = FakeVideo([planes_of(rgb, "nv12").reshape(1, -1)], has="NV12")
    camera = asked(video, CONFIG, modes("NV12 640x480 29.97, MJPG 640x480 15"))
    assert camera.fourcc == "NV12"
    assert (video.told[cv2.CAP_PROP_FRAME_WIDTH], video.told[cv2.CAP_PROP_FRAME_HEIGHT]) == (640, 480)
    assert video.told[cv2.CAP_PROP_FPS] == 30
    assert video.order[0] == cv2.CAP_PROP_FOURCC
    assert video.order[-1] == cv2.CAP_PROP_CONVERT_RGB, "OpenCV lays out its picture when it is told this"
    ok, raw = camera.read()
    assert ok
    read = rgb_of_shot(raw, camera.fourcc)
    assert read is not None
    assert np.abs(read[240, 320].astype(int) - (30, 60, 200)).max() < 4


@pytest.mark.parametrize("why", ["another format", "it does not give its own", "no modes", "padding"])
def test_where_a_camera_does_not_do_as_asked_opencv_converts(why: str) -> None:
    shots = [np.zeros((1, 700 * 480 * 2), np.uint8), np.zeros(1, np.uint8)]
    video = FakeVideo(shots, has="MJPG" if why == "another format" else "YUYV")
    video.converts = why != "it does not give its own"
    camera = asked(video, CONFIG, [] if why == "no modes" else modes("YUYV 640x480 30"))
    ok, raw = camera.read()
    assert ok
    assert camera.fourcc == "BGR"
    read = rgb_of_shot(raw, camera.fourcc)
    assert read is not None
    assert read[0, 0].tolist() == [0, 0, 200]


def test_the_first_halves_of_a_jpeg_are_passed_over() -> None:
    _, coded = cv2.imencode(".jpg", np.full((480, 640, 3), (0, 0, 250), np.uint8))
    whole = np.asarray(coded, np.uint8).reshape(1, -1)
    video = FakeVideo([whole[:, :10], whole[:, :10], whole])
    clock = FakeClock(start_ns=10**12)
    mode = modes("MJPG 640x480 30")
    with WebcamSource(open_capture=lambda c: asked(video, c, mode), clock=clock, retry_s=60.0) as camera:
        assert camera.info.size_px == (640, 480)
        frame = camera.read(5.0)
        assert frame is not None
        assert frame.sequence == 2
        assert np.abs(frame.image[0, 0].astype(int) - (250, 0, 0)).max() < 5


@pytest.mark.parametrize(
    ("camera_fps", "followed_fps"),
    [(15, 15), (24, 24), (29.97, 29.97), (30, 30), (50, 25), (60, 30), (90, 30), (120, 30), (200, 30)],
)
def test_as_many_pictures_are_followed_as_are_worth_drawing(camera_fps: float, followed_fps: float) -> None:
    rng = np.random.default_rng(0)
    thinning, kept = Thinning(), []
    for k in range(round(10 * camera_fps)):
        # drivers stamp within a few milliseconds
        taken_ns = round(1e9 * (1 + k / camera_fps + rng.uniform(-0.1, 0.1) / camera_fps))
        thinning = thinning.after(taken_ns)
        if thinning.keeps:
            kept.append(taken_ns)
    assert len(kept) / 10 == pytest.approx(followed_fps, rel=0.05)
    steps_ms = np.diff(kept) / 1e6
    assert steps_ms.max() < 1.35e3 / followed_fps, "they are evenly spaced"


def test_a_camera_that_becomes_slow_in_the_dark_loses_none() -> None:
    thinning, kept = Thinning(), 0
    for k in range(60):
        thinning = thinning.after(10**9 + k * 16_666_667)
    begin = 10**9 + 60 * 16_666_667
    for k in range(30):
        thinning = thinning.after(begin + k * 66_666_667)
        kept += thinning.keeps
    assert kept >= 29


def test_times_that_jump_begin_anew() -> None:
    thinning = Thinning().after(10**9).after(10**9 + 10**7)
    assert not thinning.keeps
    assert thinning.after(5).keeps
    assert thinning.after(10**10).keeps


class Paced(FakeVideo):
    """Says that it gives 60 pictures a second, and gives fewer for 8 s; then it hangs until `over`."""

    def __init__(self, clock: FakeClock, fps: float) -> None:
        super().__init__([np.zeros((480, 640, 3), np.uint8)] * round(8 * fps))
        self.clock, self.fps = clock, fps
        self.given, self.over = threading.Event(), threading.Event()

    def get(self, propId: int) -> float:
        return 60.0 if propId == cv2.CAP_PROP_FPS else super().get(propId)

    def read(self) -> tuple[bool, Any]:
        if not self.shots:
            self.given.set()
            self.over.wait(AT_LAST_S)
        self.clock.advance(1 / self.fps)
        return super().read()


@pytest.mark.parametrize(("fps", "said"), [(60, False), (30, False), (15, True)])
def test_a_camera_is_slow_that_gives_fewer_than_are_followed(fps: float, said: bool) -> None:
    clock = FakeClock(start_ns=10**12)
    video = Paced(clock, fps)
    with WebcamSource(open_capture=lambda c: asked(video, c, []), clock=clock, retry_s=60.0) as camera:
        assert camera.info.fps == 30
        assert video.given.wait(AT_LAST_S)
        assert ("15 of 30 pictures a second" in (camera.notice or "")) == said
        video.over.set()


@pytest.mark.parametrize(("camera_fps", "followed"), [(30, 60), (60, 60), (15, 30)])
def test_a_call_follows_no_more_of_a_quick_camera_than_of_a_usual_one(camera_fps: int, followed: int) -> None:
    worker = Worker(lambda: pytest.fail("it was not started"), Broadcast(lambda _: None), FakeClock())
    frame = video_frame_of(picture(0, 64, 48), 0)
    gave_way = 0
    for k in range(2 * camera_fps):
        gave_way += worker.offer(Incoming(frame, k * 90_000 // camera_fps, k, None))
    newest = worker.frames.take(0)
    assert newest is not None
    assert newest.pts >= 90_000 * 2 - 2 * 90_000 // camera_fps, "an old picture stayed"
    assert gave_way + 1 == pytest.approx(followed, abs=1)


def placed(photo: U8, size: tuple[int, int]) -> U8:
    """A square photo in the middle of a picture of this (width, height), as large as fits."""
    width, height = size
    side = min(size)
    out = np.full((height, width, 3), 90, np.uint8)
    left, top = (width - side) // 2, (height - side) // 2
    out[top : top + side, left : left + side] = cv2.resize(photo, (side, side), interpolation=cv2.INTER_AREA)
    return out


def motion_in(image: U8) -> Motion:
    with MediaPipeTracker() as tracker:
        tracks = [tracker.track(Frame(k / 30, 0, image=image)) for k in range(3)]
    found = tracks[-1].motion
    assert found is not None, "the face was not found"
    return found


@pytest.fixture(scope="module")
def square(astronaut: Enrollment) -> Motion:
    return motion_in(placed(astronaut.photo, (480, 480)))


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (640, 360), (360, 640), (1280, 720), (720, 1280)])
def test_a_face_is_followed_alike_in_every_shape_of_picture(
    size: tuple[int, int], square: Motion, astronaut: Enrollment
) -> None:
    """A portrait phone's, 4:3, wide: nothing is stretched, so it is the same face that looks the same way."""
    seen = motion_in(placed(astronaut.photo, size))
    turned = rotation_matrix(seen.rotation_rad) @ rotation_matrix(square.rotation_rad).T
    assert np.degrees(np.linalg.norm(rotation_vector(turned))) < 4
    assert np.abs(seen.closure - square.closure).max() < 0.2
    # the camera's focal length goes by the longer side: so much further away is a head that fills less of it
    further = seen.translation_hu[2] / square.translation_hu[2]
    assert further == pytest.approx(max(size) / min(size), rel=0.05)
