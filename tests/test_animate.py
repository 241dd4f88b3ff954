"""Offline: frame for frame, sound in sync, and nothing half-made whatever happens."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from clips import DemoClip, length_s, onset_s, pictures_of, render, sound_of, times_of
from fakes import AT_LAST_S, FakeGenerator, entry, picture, sine, small_disk, write_video
from numpy.typing import NDArray

from engines.enrollment import Enrollment, save_enrollment
from engines.errors import DriverError, GeneratorError, SinkError
from engines.generators.registry import GENERATORS
from engines.head.landmarks import LandmarkDetector
from engines.motion import Motion, MotionTrack, read_motion, write_motion
from engines.retarget import Controls
from streamer import animate as animate_module
from streamer import recordings
from streamer.animate import Done, Job, animate
from streamer.drive.demo import demo_track
from streamer.frame import Frame
from streamer.latency.trace import TraceError, read_trace
from streamer.recordings import ahead
from streamer.sinks.file import FileSink

ROOT = Path(__file__).parent.parent
NTSC = Fraction(30000, 1001)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The output, alone in its folder."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "out.mp4"


def assert_nothing_left(out: Path) -> None:
    assert list(out.parent.iterdir()) == []


def demo_motion(path: Path, frames: int) -> Path:
    track = demo_track()
    write_motion(path, track.motions[:frames], track.fps, track.neutral)
    return path


@pytest.mark.slow
def test_a_recorded_motion_drives(astronaut: Enrollment, tmp_path: Path, out: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    job = Job(demo_motion(tmp_path / "m.jsonl", 30), out, size_px=256)
    done = animate(astronaut, job, progress=lambda n, total: seen.append((n, total)))
    pictures = pictures_of(out)
    assert done.frames == done.faces == len(pictures) == 30
    assert done.notices == ()
    assert pictures[0].shape == (256, 256, 3)
    assert length_s(out) == pytest.approx(30 / demo_track().fps, abs=1e-3)
    assert seen == [(n + 1, 30) for n in range(30)]
    assert np.abs(pictures[0].astype(int) - pictures[29]).mean() > 0.5, "nothing moves"


def test_a_file_shows_its_generator_what_comes(
    astronaut: Enrollment, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Live there is nothing ahead; in a file there is, but after the last picture."""
    generator = FakeGenerator(past=1, ahead=2)
    monkeypatch.setitem(GENERATORS, "fake", entry(lambda _: generator))
    driver = demo_motion(tmp_path / "m.jsonl", 6)
    assert animate(astronaut, Job(driver, out, size_px=64, generator="fake")).frames == 6
    times = [m.time_s for m in read_motion(driver).motions]
    windows = generator.windows[-6:]  # the first picture of all is that of the photo at rest
    assert [w.now.time_s for w in windows] == pytest.approx(times)
    assert times[1] - times[0] == pytest.approx(1 / 25, abs=0.01)
    told = [[m.time_s for m in w.motions] for w in windows]
    wanted = [[times[min(max(k + d, 0), 5)] for d in (-1, 0, 1, 2)] for k in range(6)]
    assert told == [pytest.approx(w) for w in wanted]


@pytest.mark.slow
def test_a_video_drives_frame_for_frame(
    astronaut: Enrollment, demo_clip: DemoClip, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The output has the driver's frames and length; motion and trace files are whole and true."""
    written: list[NDArray[np.uint8]] = []  # before the encoder, whose noise is not our business
    write = FileSink.write

    def keep(sink: FileSink, frame: Frame) -> None:
        written.append(frame.image)
        write(sink, frame)

    monkeypatch.setattr(FileSink, "write", keep)
    driver = demo_clip(3, 25, 512)
    motion, trace = tmp_path / "motion.jsonl", tmp_path / "trace.jsonl"
    # networks would make more of what is rounded
    job = Job(driver, out, motion_output=motion, trace=trace, generator="geometric")
    done = animate(astronaut, job)
    print(f"\nanimate at 512 px, 3 s clip: {done.fps:.1f} fps")
    assert done.fps > 0
    assert (done.frames, done.faces, done.notices) == (75, 75, ())
    assert times_of(out) == pytest.approx(times_of(driver), abs=1e-3)
    assert length_s(out) == pytest.approx(length_s(driver), abs=1 / 25)
    assert length_s(out, "audio") == pytest.approx(length_s(driver), abs=1 / 25)

    track = read_motion(motion)
    assert (len(track.motions), track.fps) == (75, 25)
    assert track.neutral is not None
    stages = read_trace(trace)
    assert [f.sequence for f in stages.frames] == list(range(75))
    wanted = {"captured", "decoded", "tracked", "fitted", "rasterised", "generated", "composited", "encoded"}
    assert all(set(f.trace.stamps_ns) == wanted for f in stages.frames)
    assert all(ms >= 0 for f in stages.frames for ms in f.trace.stage_ms().values())

    first = list(written)
    written.clear()
    animate(astronaut, Job(motion, out, generator="geometric"))
    difference = [np.abs(a.astype(int) - b).mean() for a, b in zip(first, written, strict=True)]
    moved = np.abs(first[0].astype(int) - first[40]).mean()
    assert max(difference) < 0.05 < 1 < moved, "the recorded motion is not the motion"


@pytest.mark.slow
def test_a_video_is_smoothed_with_both_neighbours_and_its_recording_not_again(
    astronaut: Enrollment, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One frame of look-ahead: every frame but the ends, and none is lost or doubled by it."""
    face = next(render(astronaut, [0.0], 256))
    driver = write_video(tmp_path / "face.mp4", [face] * 12 + [np.full_like(face, 90)] + [face] * 12)
    around: list[tuple[float, float, float]] = []
    centred = recordings.centred

    def note(before: Motion, now: Motion, after: Motion) -> Motion:
        around.append((before.time_s, now.time_s, after.time_s))
        return centred(before, now, after)

    monkeypatch.setattr(recordings, "centred", note)
    motion = tmp_path / "motion.jsonl"
    done = animate(astronaut, Job(driver, out, size_px=64, motion_output=motion))
    assert done.frames == len(read_motion(motion).motions) == 25
    assert [m.time_s for m in read_motion(motion)] == pytest.approx([k / 30 for k in range(25)], abs=1e-3)
    assert done.faces - 6 <= len(around) <= done.faces - 2, "not across the frames without a face"
    assert all(a < b < c < a + 0.07 for a, b, c in around)
    around.clear()
    animate(astronaut, Job(motion, out, size_px=64))
    assert around == []


def flash_clip(astronaut: Enrollment, path: Path, fps: Fraction, times_s: list[float] | None = None) -> float:
    """A clip whose sound sets in with its frame 20; that frame's time."""
    count = 40
    shown_s = times_s or [float(k / fps) for k in range(count)]
    at_s = shown_s[20]
    still = list(render(astronaut, [0.0], 256)) * count
    write_video(path, still, fps=fps, times_s=times_s, audio=sine(shown_s[-1] + float(1 / fps), start_s=at_s))
    return at_s


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["25 fps", "29.97 fps", "variable"])
def test_sound_stays_in_sync(astronaut: Enrollment, tmp_path: Path, out: Path, kind: str) -> None:
    fps = NTSC if kind == "29.97 fps" else Fraction(25)
    times_s: list[float] | None = None
    if kind == "variable":
        gaps = [0.02 if k % 3 else 0.08 for k in range(39)]
        times_s = [0.0, *np.cumsum(gaps).round(4).tolist()]
    driver = tmp_path / "driver.mp4"
    at_s = flash_clip(astronaut, driver, fps, times_s)
    done = animate(astronaut, Job(driver, out, size_px=128))
    assert done.frames == 40
    shown = times_of(out)
    assert shown == pytest.approx(times_of(driver), abs=1e-3)
    assert length_s(out) == pytest.approx(length_s(driver), abs=float(1 / fps))
    heard_s = onset_s(sound_of(out))
    print(f"\n{kind}: sound starts {1000 * (heard_s - shown[20]):+.1f} ms from its frame")
    assert heard_s == pytest.approx(at_s, abs=0.02)
    assert heard_s == pytest.approx(shown[20], abs=0.02)


@pytest.mark.slow
def test_own_clip_in_photo_framing_lands_where_it_is(
    astronaut: Enrollment, demo_clip: DemoClip, out: Path
) -> None:
    """Absolute motion in the photo's framing: the face is where the driver's is, pixel for pixel."""
    driver = demo_clip(3, 25, 512, framing="photo")
    animate(astronaut, Job(driver, out, framing="photo", controls=Controls(motion="absolute")))
    wanted, got = pictures_of(driver), pictures_of(out)
    assert got[0].shape == astronaut.photo.shape
    detector = LandmarkDetector(video=False)
    errors: list[float] = []
    moves: list[float] = []
    try:
        start = detector.detect(wanted[0])[0].points_px[:, :2]
        for k in range(5, 75, 10):
            a = detector.detect(wanted[k])[0].points_px[:, :2]
            b = detector.detect(got[k])[0].points_px[:, :2]
            errors.append(float(np.linalg.norm(a - b, axis=1).mean()))
            moves.append(float(np.linalg.norm(a - start, axis=1).mean()))
    finally:
        detector.close()
    face_px = float(np.ptp(astronaut.landmarks_px[:, 1]))
    print(f"\nlandmark error {np.mean(errors):.2f} px (worst {max(errors):.2f}), face {face_px:.0f} px high")
    assert np.mean(errors) < 0.015 * face_px
    assert np.mean(errors) < 0.6 * np.mean(moves), "the output does not follow the driver"


@pytest.mark.slow
def test_a_driver_without_a_face_is_refused(astronaut: Enrollment, tmp_path: Path, out: Path) -> None:
    driver = write_video(tmp_path / "nobody.mp4", [picture(k, 320, 240) for k in range(20)])
    with pytest.raises(DriverError, match=r"no face found in nobody\.mp4; use a video"):
        animate(astronaut, Job(driver, out, size_px=128))
    assert_nothing_left(out)


@pytest.mark.slow
def test_a_face_that_leaves_is_held_and_noticed(astronaut: Enrollment, tmp_path: Path, out: Path) -> None:
    face = next(render(astronaut, [0.0], 256))
    images = [face] * 15 + [np.full_like(face, 90)] * 15
    driver = write_video(tmp_path / "leaves.mp4", images)
    done = animate(astronaut, Job(driver, out, size_px=128))
    assert done.frames == len(pictures_of(out)) == 30
    assert 14 <= done.faces <= 16
    assert done.notices == (f"no face in {30 - done.faces} of 30 frames: held and eased to neutral there",)


@pytest.mark.slow
def test_a_truncated_driver_works_up_to_the_damage(
    astronaut: Enrollment, demo_clip: DemoClip, tmp_path: Path, out: Path
) -> None:
    """An .mp4 whose index survived (moved to the front) but whose end did not."""
    whole = demo_clip(3, 25, 512)
    front = tmp_path / "front.mp4"
    write_video(front, pictures_of(whole), fps=25, options={"movflags": "+faststart"})
    cut = tmp_path / "cut.mp4"
    data = front.read_bytes()
    cut.write_bytes(data[: len(data) * 6 // 10])
    done = animate(astronaut, Job(cut, out, size_px=128))
    assert 10 < done.frames < 75
    assert len(pictures_of(out)) == done.frames
    assert any("cut.mp4" in n and ("missing" in n or "damaged" in n) for n in done.notices)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["garbage", "no index", "empty", "text", "missing", "a folder"])
def test_a_driver_that_is_no_video_is_refused(
    astronaut: Enrollment, demo_clip: DemoClip, tmp_path: Path, out: Path, what: str
) -> None:
    path = tmp_path / "driver.mp4"
    if what == "garbage":
        path.write_bytes(np.random.default_rng(0).bytes(50_000))
    elif what == "no index":
        path.write_bytes(demo_clip(3, 25, 512).read_bytes()[:40_000])
    elif what == "empty":
        path.touch()
    elif what == "text":
        path.write_text("hello\n" * 100)
    elif what == "a folder":
        path.mkdir()
    with pytest.raises(DriverError, match=r"driver\.mp4"):
        animate(astronaut, Job(path, out, size_px=128))
    assert_nothing_left(out)


@pytest.mark.slow
def test_damage_in_the_middle_costs_frames_not_the_job(
    astronaut: Enrollment, demo_clip: DemoClip, tmp_path: Path, out: Path
) -> None:
    data = bytearray(demo_clip(3, 25, 512).read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = np.random.default_rng(1).bytes(3000)
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    done = animate(astronaut, Job(path, out, size_px=128))
    assert 20 < done.frames <= 75
    assert len(pictures_of(out)) == done.frames
    assert any("damaged.mp4" in n for n in done.notices)


@pytest.mark.slow
def test_a_broken_motion_file_names_its_line(astronaut: Enrollment, tmp_path: Path, out: Path) -> None:
    path = demo_motion(tmp_path / "m.jsonl", 5)
    path.write_text(path.read_text() + '{"t": 1}\n')
    with pytest.raises(DriverError, match="line 7"):
        animate(astronaut, Job(path, out))
    assert_nothing_left(out)


def test_places_that_do_not_exist_are_known_before_the_work(
    astronaut: Enrollment, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("work began before the places were checked")

    monkeypatch.setattr(animate_module, "Avatar", never)
    driver = demo_motion(tmp_path / "m.jsonl", 3)
    nowhere = tmp_path / "nowhere"
    with pytest.raises(SinkError, match=r"mkdir -p .*nowhere"):
        animate(astronaut, Job(driver, nowhere / "o.mp4"))
    with pytest.raises(SinkError, match=r"mkdir -p .*nowhere"):
        animate(astronaut, Job(driver, out, motion_output=nowhere / "m.jsonl"))
    with pytest.raises(SinkError, match="is a folder"):
        animate(astronaut, Job(driver, out, motion_output=tmp_path))
    with pytest.raises(TraceError, match="nowhere"):
        animate(astronaut, Job(driver, out, trace=nowhere / "t.jsonl"))
    assert_nothing_left(out)


def test_an_unknown_generator_leaves_nothing(astronaut: Enrollment, tmp_path: Path, out: Path) -> None:
    with pytest.raises(GeneratorError, match=r"choose one of: .*geometric"):
        animate(astronaut, Job(demo_motion(tmp_path / "m.jsonl", 3), out, generator="nosuch"))
    assert_nothing_left(out)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "tiny", "48k") as folder:
        yield folder


@pytest.mark.slow
def test_a_full_disk_leaves_nothing(astronaut: Enrollment, demo_clip: DemoClip, tiny_disk: Path) -> None:
    out = tiny_disk / "out.mp4"
    with pytest.raises(SinkError, match=r"disk full .* free \d+ MB .* -o"):
        animate(astronaut, Job(demo_clip(3, 25, 512), out))
    assert_nothing_left(out)
    assert not [t for t in threading.enumerate() if t.name == "ahead"]


@pytest.mark.slow
def test_a_disk_that_fills_up_leaves_nothing_simulated(
    astronaut: Enrollment, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same where no disk can be mounted: the muxer reports ENOSPC at the tenth packet."""
    count = 0

    def full(*_: object) -> None:
        nonlocal count
        count += 1
        if count == 10:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(FileSink, "_mux", full)
    with pytest.raises(SinkError, match="disk full"):
        animate(astronaut, Job(demo_motion(tmp_path / "m.jsonl", 60), out, size_px=128))
    assert count == 10
    assert_nothing_left(out)
    assert not [t for t in threading.enumerate() if t.name == "ahead"]


@pytest.mark.slow
def test_a_disk_that_fills_up_at_the_motion_keeps_the_video(
    astronaut: Enrollment, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *_: object) -> None:
        path.write_text("half of a file")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(animate_module, "write_motion", full)
    driver = demo_motion(tmp_path / "m.jsonl", 3)
    with pytest.raises(SinkError, match=r"cannot write the motion .*No space left.*the video was kept"):
        animate(astronaut, Job(driver, out, size_px=128, motion_output=out.with_name("motion.jsonl")))
    assert [p.name for p in out.parent.iterdir()] == ["out.mp4"]


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_no_half_file(
    astronaut: Enrollment, tmp_path: Path, out: Path, sign: signal.Signals
) -> None:
    """Exit 130 (143 for SIGTERM); an older file under the same name stays as it was."""
    save_enrollment(astronaut, tmp_path / "a.avatar")
    out.write_bytes(b"the old one")
    arguments = ["animate", str(tmp_path / "a.avatar"), "--driver", "streamer/data/demo_motion.jsonl"]
    process = subprocess.Popen(
        [sys.executable, "-m", "streamer.cli.main", *arguments, "-o", str(out)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        deadline_s = time.monotonic() + AT_LAST_S
        while not [p for p in out.parent.glob(".*.part*") if p.stat().st_size > 0]:
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            assert time.monotonic() < deadline_s, "nothing was being written"
            time.sleep(0.02)
        process.send_signal(sign)
        stdout, stderr = process.communicate(timeout=AT_LAST_S)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()
    assert process.returncode == 128 + sign
    assert stdout == ""
    if sign is signal.SIGINT:
        assert stderr.strip() == "visavis: stopped"
    assert [p.name for p in out.parent.iterdir()] == ["out.mp4"]
    assert out.read_bytes() == b"the old one"


def test_ahead_keeps_order_raises_and_stops() -> None:
    assert list(ahead(range(100))) == list(range(100))

    def breaks() -> Iterator[int]:
        yield 1
        raise DriverError("broke")

    items = ahead(breaks())
    assert next(items) == 1
    with pytest.raises(DriverError, match="broke"):
        next(items)

    made: list[int] = []
    endless = ahead(made.append(k) or k for k in iter(lambda: len(made), -1))
    assert next(endless) == 0
    endless.close()
    count = len(made)
    assert count < 10, "it ran far ahead of its consumer"
    time.sleep(0.15)
    assert len(made) == count, "the producer still runs"


def test_done_and_track_arithmetic() -> None:
    assert Done(100, 2.0, 100, ()).fps == 50
    assert Done(0, 0.0, 0, ()).fps == 0
    assert MotionTrack(25, demo_track().motions[:50]).duration_s == 2
