"""Files as people have them: joined, damaged, with covers, previews and tracks that nobody can decode."""

from __future__ import annotations

import shutil
import wave
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import av
import cv2
import numpy as np
import pytest
from clips import sound_of, times_of
from fakes import FakeClock, picture, read_all, sine, write_video
from hearing import EchoSpeech, write_wav
from numpy.typing import NDArray

from engines.errors import DriverError
from engines.speech.features import RATE_HZ
from streamer.drive.driver import Driver
from streamer.drive.trackers.tracker import NoTracker
from streamer.drive.voice import Voice
from streamer.frame import Frame
from streamer.recordings import recording_of
from streamer.sinks.file import FileSink
from streamer.sinks.sink import SinkInfo
from streamer.sources.audio_track import audio_of
from streamer.sources.blocks import Block, RingSource
from streamer.sources.downmix import Downmix
from streamer.sources.heard import heard_info
from streamer.sources.open import open_source
from streamer.sources.outside import length_notice
from streamer.sources.sound import SoundFileSource
from streamer.sources.sound_reading import SoundReading
from streamer.sources.source import SourceInfo, SourceState
from streamer.sources.timeline import Timeline
from streamer.sources.tracks import TrackFacts, best_first, is_sound_alone
from streamer.sources.video import VideoSource

pytestmark = pytest.mark.slow  # films and sounds are made and read

F32 = NDArray[np.float32]
FAULTS = Path(__file__).parents[2] / "shared/faults"
CLIP_FPS = 25


def write_sound(
    path: Path, codec: str, samples: F32 | None = None, *, cover: bool = False, rate_hz: int = 48_000
) -> Path:
    """(C, S) `samples` at `rate_hz` (default: two seconds of a tone), with a picture of the album on the way."""
    samples = sine(2.0, rate_hz) if samples is None else samples
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(samples)]
    with av.open(str(path), "w") as file:
        stream = cast(av.AudioStream, file.add_stream(codec, rate=rate_hz))
        stream.layout = layout
        if cover:
            shown = file.add_stream("png", rate=1)
            shown.width, shown.height, shown.pix_fmt = 320, 240, "rgb24"
            shown.disposition = av.stream.Disposition.attached_pic  # pyright: ignore[reportAttributeAccessIssue]
            file.start_encoding()
            packet = av.Packet(cv2.imencode(".png", picture(0, 320, 240))[1].tobytes())
            packet.stream, packet.pts, packet.dts = shown, 0, 0
            file.mux(packet)
        resampler = av.AudioResampler(stream.codec_context.format.name, layout, rate_hz)
        for begin in range(0, samples.shape[1], 960):
            piece = np.ascontiguousarray(samples[:, begin : begin + 960])
            frame = av.AudioFrame.from_ndarray(piece, "fltp", layout)
            frame.sample_rate, frame.pts = rate_hz, begin
            for made in resampler.resample(frame):
                file.mux(stream.encode(made))
        file.mux(stream.encode(None))
    return path


def clip(path: Path, count: int = 50, **options: object) -> Path:
    """Two seconds of pictures with B-frames, and a tone."""
    codec = "libvpx-vp9" if path.suffix == ".webm" else "libx264"
    sound = "libopus" if path.suffix == ".webm" else "aac"
    pictures = [picture(k) for k in range(count)]
    usual: dict[str, object] = {"fps": CLIP_FPS, "audio": sine(count / CLIP_FPS), "audio_codec": sound}
    return write_video(path, pictures, codec=codec, **(usual | options))  # pyright: ignore[reportArgumentType]


def heard(path: Path) -> tuple[F32, tuple[str, ...]]:
    """All of its sound at 16 kHz, and what is said of it."""
    with SoundReading(path) as reading:
        return np.concatenate(list(reading.blocks())), reading.final_notices()


def seen(path: Path) -> tuple[list[float], tuple[str, ...]]:
    """When each picture is shown, and what is said of the file."""
    with VideoSource(path) as source:
        return [f.pts_s for f in read_all(source)], source.notices


# ---- times


def times(*stamps: tuple[float | None, float | None], in_order: bool = False) -> list[float]:
    timeline = Timeline(1.0, in_order)
    answer: list[float] = []
    for pts_s, dts_s in stamps:
        timeline = timeline.after(pts_s, dts_s)
        assert timeline.last_s is not None
        answer.append(timeline.last_s)
    return answer


def test_times_rise_whatever_the_stamps_do() -> None:
    assert times((5, 3), (6.5, 4), (7, 5)) == [5, 6.5, 7], "stamps that rise are kept"
    assert times((0, None), (None, None), (None, None)) == [0, 1, 2], "none at all"
    assert times((None, 0), (None, 1), (None, 2)) == [0, 1, 2], "only those of decoding"
    assert times((1, 0), (3, 1), (2, 2), (5, 3), in_order=True) == [0, 1, 2, 3], "AVI: these are made up"
    wrong = times((0, 0), (0.3, 0.1), (0.2, 0.4), (0.45, 0.5), (0.6, 0.6))
    assert wrong == [0, 0.3, 0.4, 0.5, 0.6], "wrong from the third on"
    assert times((0, 0), (1, 1), (2, 2), (0, 0), (1, 1)) == [0, 1, 2, 3, 4], (
        "a second recording behind the first"
    )
    assert times((95443, 0), (95443.7, 0), (0.7, 0), (1.7, 0)) == [95443, 95443.7, 95444.7, 95445.7], "a wrap"
    assert times((0, 0), (1, 1), (90000, 90000), (90001, 90001)) == [0, 1, 2, 3], "a clock that jumps"
    assert times((0, 0), (500, 500)) == [0, 500], "a pause"
    assert times((0, None), (0, None), (0, None)) == [0, 1, 2], "all the same"


def test_all_pictures_of_an_avi_with_b_frames_are_used_evenly(tmp_path: Path) -> None:
    path = clip(tmp_path / "b.avi")
    raw = times_of(path)
    assert sorted(raw) != raw, "its times of showing are made up"
    assert seen(path) == (pytest.approx([k / CLIP_FPS for k in range(50)]), ())


@pytest.mark.parametrize("ending", ["avi", "mkv", "ts", "webm"])
def test_videos_joined_by_cat_are_shown_to_the_end(tmp_path: Path, ending: str) -> None:
    path = clip(tmp_path / f"a.{ending}")
    path.write_bytes(2 * path.read_bytes())
    got, notices = seen(path)
    # at the seam FFmpeg marks a picture of a .ts as broken
    left_out = 1 if ending == "ts" else 0
    assert len(got) == 100 - left_out
    assert got[-1] == pytest.approx(99 / CLIP_FPS, abs=0.003)
    assert notices == (
        ("a.ts is damaged at 1.8 s; frames are skipped there", "1 of 100 pictures of a.ts could not be used")
        if left_out
        else ()
    )
    track = audio_of(path)
    assert track is not None
    with track:
        stamps = [float(p.pts * p.time_base) for p in track.packets() if p.pts is not None]
    assert stamps == sorted(stamps)
    assert stamps[-1] - track.start_s == pytest.approx(4.0, abs=0.1)


@pytest.mark.parametrize("ending", ["mp4", "mov"])
def test_a_second_recording_that_is_never_read_is_said(tmp_path: Path, ending: str) -> None:
    path = clip(tmp_path / f"a.{ending}")
    assert seen(path) == (pytest.approx([k / CLIP_FPS for k in range(50)]), ())
    path.write_bytes(2 * path.read_bytes())
    got, notices = seen(path)
    assert len(got) == 50
    assert notices == (
        f"a.{ending} holds a second recording behind the first (joined by cat?); only the first 50 % of it was "
        "used: join them with an editor",
    )


def test_pictures_that_do_not_decode_are_counted(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    noise = [rng.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(60)]
    path = write_video(tmp_path / "hit.mp4", noise, options={"movflags": "faststart"}, gop=10)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = rng.integers(0, 255, 2000, dtype=np.uint8).tobytes()
    path.write_bytes(data)
    got, notices = seen(path)
    assert 40 < len(got) < 60
    assert notices[1:] == (f"{60 - len(got)} of 60 pictures of hit.mp4 could not be used",)


@pytest.mark.parametrize("ending", ["mkv", "mp4", "ts"])
def test_pictures_that_a_decoder_drops_without_a_word_are_counted(tmp_path: Path, ending: str) -> None:
    """A recording that begins between two key frames, as a cut or a stream that was joined late does."""
    path = tmp_path / f"late.{ending}"
    with av.open(str(clip(tmp_path / "a.mkv", audio=None))) as whole, av.open(str(path), "w") as late:
        stream = late.add_stream_from_template(whole.streams.video[0])
        for packet in [p for p in whole.demux(video=0) if p.size][6:]:
            packet.stream = stream
            late.mux(packet)
    got, notices = seen(path)
    assert 30 < len(got) < 44
    assert notices == (f"{44 - len(got)} of 44 pictures of late.{ending} could not be used",)


def test_sound_that_goes_on_behind_the_pictures_is_said(tmp_path: Path) -> None:
    _, notices = seen(clip(tmp_path / "a.mp4", count=25, audio=sine(4.0)))
    assert notices == ("the sound of a.mp4 goes on for 3.0 s behind its last picture; that is left out",)


# ---- tracks


def test_no_preview_and_no_cover_before_the_picture() -> None:
    preview = TrackFacts(0, area_px=64 * 36)
    small, large = TrackFacts(1, area_px=640 * 360), TrackFacts(2, area_px=720 * 480)
    assert best_first([preview, small, large]) == [2, 1, 0]
    assert best_first([preview, TrackFacts(1, True, area_px=640 * 360), large]) == [1, 2, 0]
    assert best_first([TrackFacts(0, True, area_px=64 * 36), small, large]) == [2, 1, 0], (
        "whatever it says of itself"
    )
    assert best_first([TrackFacts(3, for_others=True), TrackFacts(5), TrackFacts(7, default=True)]) == [
        7,
        5,
        3,
    ]
    assert best_first([TrackFacts(4), TrackFacts(6)]) == [4, 6]
    still = TrackFacts(0, True, area_px=4000 * 3000, still=True)
    assert best_first([still, small]) == [1, 0]
    assert best_first([still, TrackFacts(3, True, area_px=64 * 36), small]) == [1, 3, 0], (
        "nor makes it previews"
    )


def still_beside(path: Path, *, film: int, sound: bool = False) -> Path:
    """A large picture that nobody marked as a cover, the first and default track, before `film` pictures."""
    with av.open(str(path), "w") as container:
        cover = container.add_stream("mjpeg", rate=CLIP_FPS)
        cover.width, cover.height, cover.pix_fmt = 128, 96, "yuvj420p"
        cover.disposition = av.stream.Disposition.default  # pyright: ignore[reportAttributeAccessIssue]
        stream = container.add_stream("libx264", rate=CLIP_FPS) if film else None
        if stream:
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            stream.disposition = av.stream.Disposition(0)  # pyright: ignore[reportAttributeAccessIssue]
        voice = container.add_stream("aac", rate=48_000, layout="mono") if sound else None
        container.start_encoding()
        container.mux(cover.encode(av.VideoFrame.from_ndarray(picture(0, 128, 96), "rgb24")))
        container.mux(cover.encode(None))
        if stream:
            for k in range(film):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(k, 64, 48), "rgb24")))
            container.mux(stream.encode(None))
        if voice:
            frame = av.AudioFrame.from_ndarray(sine(2.0), "fltp", "mono")
            frame.sample_rate = 48_000
            container.mux(voice.encode(frame))
            container.mux(voice.encode(None))
    return path


@pytest.mark.parametrize("ending", ["mp4", "mkv", "mov", "avi"])
@pytest.mark.parametrize("film", [2, 300])
def test_a_picture_that_nobody_marked_is_no_film(tmp_path: Path, ending: str, film: int) -> None:
    with VideoSource(still_beside(tmp_path / f"a.{ending}", film=film)) as source:
        assert source.info.size_px == (64, 48)
        assert len(read_all(source)) == film


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_sound_beside_one_picture_is_sound_alone(tmp_path: Path, ending: str) -> None:
    assert is_sound_alone(still_beside(tmp_path / f"a.{ending}", film=0, sound=True))
    assert not is_sound_alone(still_beside(tmp_path / f"b.{ending}", film=2, sound=True))
    assert not is_sound_alone(still_beside(tmp_path / f"c.{ending}", film=0)), "a picture is none"


def later(path: Path, source: Path, shift_s: float) -> Path:
    """`source` again with all times later."""
    with av.open(str(source)) as given, av.open(str(path), "w") as made:
        streams = {
            s.index: made.add_stream_from_template(s) for s in (*given.streams.video, *given.streams.audio)
        }
        for packet in given.demux():
            if packet.size and packet.pts is not None and packet.dts is not None:
                shift = round(shift_s / packet.time_base)
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                packet.stream = streams[packet.stream.index]
                made.mux(packet)
    return path


@pytest.mark.parametrize("ending", ["mkv", "mp4", "mov", "ts"])
def test_a_film_whose_times_begin_late_is_whole(tmp_path: Path, ending: str) -> None:
    """Matroska states when the end is, not how long it lasts."""
    path = later(tmp_path / f"a.{ending}", clip(tmp_path / "b.mp4"), 5.0)
    with VideoSource(path) as source:
        assert source.info.duration_s == pytest.approx(2.0, abs=0.1)
        assert len(read_all(source)) == 50
        assert source.notices == ()
    if ending == "mkv":
        path.write_bytes(path.read_bytes()[: -path.stat().st_size // 3])
        assert "the rest is missing" in str(seen(path)[1])


def test_sound_whose_times_begin_late_is_whole(tmp_path: Path) -> None:
    path = later(tmp_path / "a.mka", write_sound(tmp_path / "b.mka", "libopus"), 5.0)
    with SoundReading(path) as reading:
        assert reading.stated_s == pytest.approx(2.0, abs=0.05)
    assert heard(path)[1] == ()


def test_a_single_picture_that_lasts_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=CLIP_FPS)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        packets = [
            *stream.encode(av.VideoFrame.from_ndarray(picture(0, 64, 48), "rgb24")),
            *stream.encode(None),
        ]
        for packet in packets:
            packet.duration = round(4 / packet.time_base)
            container.mux(packet)
    assert seen(path) == ([0], ("a.mp4 lasts 4.0 s and shows a single picture; is it the film?",))


def two_videos(
    path: Path, first_px: tuple[int, int], second_px: tuple[int, int], seconds: float = 1.0
) -> Path:
    with av.open(str(path), "w") as container:
        streams: list[av.VideoStream] = []
        for width, height in (first_px, second_px):
            stream = container.add_stream("libx264", rate=CLIP_FPS)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            streams.append(stream)
        for k in range(round(seconds * CLIP_FPS)):
            for stream in streams:
                frame = av.VideoFrame.from_ndarray(picture(k, stream.width, stream.height), "rgb24")
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("ending", ["mkv", "mp4", "ts"])
def test_the_larger_of_two_videos_drives(tmp_path: Path, ending: str) -> None:
    path = two_videos(tmp_path / f"a.{ending}", (64, 36), (160, 120))
    with VideoSource(path) as source:
        assert source.info.size_px == (160, 120)
        assert len(read_all(source)) == CLIP_FPS


def test_a_track_that_gives_no_picture_is_passed_over(tmp_path: Path) -> None:
    path = two_videos(tmp_path / "a.mkv", (64, 48), (160, 120))
    data = path.read_bytes()
    with av.open(str(path)) as container:
        packets = [bytes(p) for p in container.demux(video=1) if p.size]
    for packet in packets:
        data = data.replace(packet, bytes(len(packet)))
    path.write_bytes(data)
    with VideoSource(path) as source:
        assert source.info.size_px == (64, 48)
        assert len(read_all(source)) == CLIP_FPS


def test_a_cover_before_the_video_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        cover = container.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 320, 240, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic  # pyright: ignore[reportAttributeAccessIssue]
        stream = container.add_stream("libx264", rate=CLIP_FPS)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
        packet = av.Packet(cv2.imencode(".png", picture(0, 320, 240))[1].tobytes())
        packet.stream, packet.pts, packet.dts = cover, 0, 0
        container.mux(packet)
        for k in range(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(k), "rgb24")))
        container.mux(stream.encode(None))
    with VideoSource(path) as source:
        assert source.info.size_px == (64, 48)
        assert len(read_all(source)) == 10


def test_a_video_track_without_a_picture_leaves_sound_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        empty = container.add_stream("libx264", rate=CLIP_FPS)
        empty.width, empty.height, empty.pix_fmt = 64, 48, "yuv420p"
        stream = container.add_stream("pcm_s16le", rate=48_000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray((20_000 * sine(1.0)).astype(np.int16), "s16", "mono")
        frame.sample_rate = 48_000
        container.mux(stream.encode(frame))
    assert is_sound_alone(path)
    assert len(heard(path)[0]) == pytest.approx(RATE_HZ, abs=100)


def test_one_picture_is_a_video(tmp_path: Path) -> None:
    got, notices = seen(clip(tmp_path / "a.mp4", count=1, audio=sine(3.0)))
    assert got == [0]
    assert len(notices) == 1
    assert "goes on for 3.0 s behind its last picture" in notices[0]


def with_unknown(path: Path, *codecs: bytes) -> Path:
    """A film whose tracks of these kinds nobody knows: the names of the codecs are overwritten."""
    data = path.read_bytes()
    for codec in codecs:
        assert codec in data
        data = data.replace(codec, codec[:2].ljust(len(codec), b"X"))
    path.write_bytes(data)
    return path


def test_a_sound_that_nobody_can_decode_is_left_out_and_said(tmp_path: Path) -> None:
    path = with_unknown(clip(tmp_path / "a.mkv"), b"A_AAC")
    got, notices = seen(path)
    assert len(got) == 50
    assert notices == ("the sound of a.mkv is in a format that cannot be decoded; it is left out",)
    assert audio_of(path) is None
    with FileSink(tmp_path / "out.mp4", audio_from=path) as sink, VideoSource(path) as source:
        sink.open(SinkInfo(64, 48, CLIP_FPS))
        for frame in read_all(source):
            sink.write(frame)
    with av.open(str(tmp_path / "out.mp4")) as result:
        assert not result.streams.audio


def test_a_video_that_nobody_can_decode_is_refused_in_a_sentence(tmp_path: Path) -> None:
    path = with_unknown(clip(tmp_path / "a.mkv"), b"V_MPEG4/ISO/AVC")
    with pytest.raises(
        DriverError, match=r"the video of .*a\.mkv is in a format that cannot be decoded; export"
    ):
        VideoSource(path)


def test_sound_alone_that_nobody_can_decode_is_refused_in_a_sentence(tmp_path: Path) -> None:
    path = with_unknown(write_sound(tmp_path / "a.mka", "aac"), b"A_AAC")
    assert is_sound_alone(path)
    with pytest.raises(
        DriverError, match=r"a\.mka holds no sound that can be decoded; export it again as \.wav"
    ):
        SoundReading(path)


@pytest.mark.parametrize(
    ("name", "codec", "cover"),
    [
        ("a.webm", "libopus", False),
        ("a.mp4", "aac", False),
        ("a.mka", "libopus", False),
        ("a.caf", "pcm_s16le", False),
        ("a.ts", "aac", False),
        ("a.mp3", "libmp3lame", True),
        ("a.flac", "flac", True),
        ("a.mp4", "aac", True),
    ],
)
def test_sound_alone_is_known_by_what_it_is(tmp_path: Path, name: str, codec: str, cover: bool) -> None:
    path = write_sound(tmp_path / name, codec, cover=cover)
    for named in (path, Path(shutil.copy(path, tmp_path / "speech"))):  # without an ending
        assert is_sound_alone(named)
        sound, notices = heard(named)
        assert len(sound) == pytest.approx(2 * RATE_HZ, abs=0.05 * RATE_HZ)
        assert np.abs(sound).max() > 0.1
        assert notices == ()


def test_a_video_is_known_by_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = clip(tmp_path / "a.mp4")
    monkeypatch.setattr("streamer.sources.sound.Voice", lambda: Voice(EchoSpeech()))
    for name in ("talk.wav", "talk"):
        with open_source(str(shutil.copy(path, tmp_path / name))) as source:
            assert isinstance(source, VideoSource)
    wav = write_sound(tmp_path / "b.wav", "pcm_s16le").rename(tmp_path / "b.mp4")
    with open_source(str(wav)) as source:
        assert isinstance(source, SoundFileSource)


@pytest.mark.parametrize(
    ("codec", "pixels", "name"),
    [
        ("libx265", "yuv420p10le", "ten.mp4"),
        ("libx264", "gray", "grey.mp4"),
        ("libx264", "yuvj420p", "full.mp4"),
        ("ffv1", "yuv444p", "whole.mkv"),
        ("qtrle", "argb", "alpha.mov"),
        ("mjpeg", "yuvj420p", "camera.avi"),
        ("mpeg4", "yuv420p", "old.avi"),
    ],
)
def test_pictures_of_any_kind_look_the_same(tmp_path: Path, codec: str, pixels: str, name: str) -> None:
    path = tmp_path / name
    with av.open(str(path), "w") as container:
        stream = cast(av.VideoStream, container.add_stream(codec, rate=CLIP_FPS))
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
        stream.codec_context.options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
        for k in range(10):
            frame = av.VideoFrame.from_ndarray(picture(k), "rgb24").reformat(format=pixels)
            frame.pts = k
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with VideoSource(path) as source:
        frames = read_all(source)
        assert source.notices == ()
    assert len(frames) == 10
    wanted = cv2.cvtColor(picture(3), cv2.COLOR_RGB2GRAY) if pixels == "gray" else picture(3)
    given = frames[3].image[..., 0] if pixels == "gray" else frames[3].image
    assert np.abs(given - wanted.astype(float)).mean() < 16


def test_the_size_may_change_in_the_middle(tmp_path: Path) -> None:
    one, two = clip(tmp_path / "a.ts"), tmp_path / "b.ts"
    write_video(two, [picture(k, 96, 80) for k in range(50)], fps=CLIP_FPS)
    one.write_bytes(one.read_bytes() + two.read_bytes())
    with VideoSource(one) as source:
        frames = read_all(source)
    assert len(frames) > 90
    assert [f.image.shape for f in frames] == sorted(f.image.shape for f in frames)
    assert frames[-1].image.shape == (80, 96, 3)


# ---- sound


@pytest.mark.parametrize("name", ["a.mp3", "a.opus", "a.mka", "a.aac", "a.flac"])
def test_sounds_joined_by_cat_are_heard_to_the_end(tmp_path: Path, name: str) -> None:
    codec = {"mp3": "libmp3lame", "aac": "aac", "flac": "flac"}.get(name[2:], "libopus")
    path = write_sound(tmp_path / name, codec)
    tag = b"ID3\x04\0\0\0\0\0\x0a" + bytes(10) if name == "a.mp3" else b""
    path.write_bytes(path.read_bytes() + tag + path.read_bytes())
    sound, notices = heard(path)
    assert len(sound) == pytest.approx(4 * RATE_HZ, abs=0.1 * RATE_HZ)
    assert np.abs(sound[-RATE_HZ:]).max() > 0.1
    assert notices == ()


@pytest.mark.parametrize("name", ["a.wav", "a.aiff", "a.caf", "a.m4a"])
def test_sounds_that_cannot_be_joined_by_cat_say_so(tmp_path: Path, name: str) -> None:
    codec = {"a.aiff": "pcm_s16be", "a.m4a": "aac"}.get(name, "pcm_s16le")
    path = write_sound(tmp_path / name, codec)
    assert heard(path)[1] == ()
    path.write_bytes(2 * path.read_bytes())
    _, notices = heard(path)
    assert len(notices) == 1
    assert "holds a second recording behind the first" in notices[0]


def test_a_wav_that_was_cut_off_says_so_and_one_of_unknown_length_is_whole(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.wav", "pcm_s16le")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert heard(path)[1] == ("a.wav was cut off: 50 % of it are missing",)
    path.write_bytes(data[:4] + b"\xff\xff\xff\xff" + data[8:])  # through a pipe
    assert length_notice(path, "wav") is None
    path.write_bytes(b"RI")
    assert length_notice(path, "wav") is None


def test_a_damaged_sound_goes_on_behind_the_place_in_time(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tone = sine(4.0)
    tone[:, : 3 * 48_000] = 0.01 * rng.normal(size=(1, 3 * 48_000))
    path = write_sound(tmp_path / "a.m4a", "aac", tone)
    data = bytearray(path.read_bytes())
    middle = len(data) // 4
    data[middle : middle + 3000] = rng.integers(0, 255, 3000, dtype=np.uint8).tobytes()
    path.write_bytes(data)
    sound, notices = heard(path)
    assert len(sound) == pytest.approx(4 * RATE_HZ, abs=0.1 * RATE_HZ)
    assert np.argmax(np.abs(sound[2 * RATE_HZ :]) > 0.15) == pytest.approx(RATE_HZ, abs=0.05 * RATE_HZ)
    assert len(notices) == 1
    assert notices[0].startswith("a.m4a is damaged at ")


@pytest.mark.parametrize(
    ("codec", "rate_hz"),
    [("aac", 48_000), ("aac", 32_000), ("libmp3lame", 48_000), ("libmp3lame", 44_100), ("ac3", 44_100)],
)
def test_channels_and_rate_may_change_in_the_middle(tmp_path: Path, codec: str, rate_hz: int) -> None:
    ending = {"aac": ".aac", "libmp3lame": ".mp3", "ac3": ".ac3"}[codec]
    first = write_sound(tmp_path / f"a{ending}", codec, np.repeat(sine(2.0), 2, 0))
    second = write_sound(tmp_path / f"b{ending}", codec, rate_hz=rate_hz)
    first.write_bytes(first.read_bytes() + second.read_bytes())
    sound, notices = heard(first)
    assert len(sound) == pytest.approx(4 * RATE_HZ, abs=0.1 * RATE_HZ)
    assert notices == ()
    output = tmp_path / "out.mp4"
    with (
        FileSink(output, audio_from=first) as sink,
        VideoSource(clip(tmp_path / "v.mp4", count=100)) as source,
    ):
        sink.open(SinkInfo(64, 48, CLIP_FPS))
        for frame in read_all(source):
            sink.write(frame)
    given = sound_of(output)
    assert len(given) == pytest.approx(4 * 48_000, abs=0.1 * 48_000)
    assert np.abs(given[-48_000:]).max() > 0.1


@pytest.mark.parametrize(("channels", "bytes_each"), [(1, 1), (3, 2), (5, 2), (8, 3), (24, 2), (64, 2)])
def test_any_number_of_channels_is_heard(tmp_path: Path, channels: int, bytes_each: int) -> None:
    """Of eight planes and more PyAV reads behind the last one: that ended the program."""
    path = tmp_path / "a.wav"
    tone = sine(0.5)[0]
    whole = np.round(tone * 127 + 128) if bytes_each == 1 else np.round(tone * 32767)
    kind = {1: "u1", 2: "<i2", 3: "<i2"}[bytes_each]
    data = np.repeat(whole.astype(kind), channels)
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, bytes_each, 48_000, 0, "NONE", ""))
        low = np.zeros((len(data), 1), np.uint8)
        each = data.view(np.uint8).reshape(len(data), -1)
        file.writeframes((np.concatenate([low, each], 1) if bytes_each == 3 else each).tobytes())
    sound, notices = heard(path)
    assert notices == ()
    assert len(sound) == pytest.approx(0.5 * RATE_HZ, abs=50)
    assert np.abs(sound).max() == pytest.approx(np.abs(tone).max(), abs=0.05)
    with FileSink(tmp_path / "out.mp4", audio_from=path) as sink:
        sink.open(SinkInfo(64, 48, CLIP_FPS))
        for k in range(12):
            sink.write(Frame(k / CLIP_FPS, 0, image=picture(k)))
    assert np.abs(sound_of(tmp_path / "out.mp4")).max() > 0.2


def test_a_sound_that_begins_late_stays_with_its_face(tmp_path: Path) -> None:
    """What is heard first is shown first: the empty time before it is cut off from both."""
    path = tmp_path / "late.mka"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=48_000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray((20_000 * sine(1.0, start_s=0.5)).astype(np.int16), "s16", "mono")
        frame.sample_rate, frame.pts = 48_000, 5 * 48_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    sound, _ = heard(path)
    assert np.argmax(np.abs(sound) > 0.1) == pytest.approx(0.5 * RATE_HZ, abs=0.02 * RATE_HZ)
    track = audio_of(path)
    assert track is not None
    with track:
        assert track.start_s == pytest.approx(5.0, abs=0.01)


def down(*blocks: F32, rate_hz: float = RATE_HZ) -> tuple[F32, Downmix]:
    state = Downmix()
    given: list[F32] = []
    for block in blocks:
        mono, state = state.after(block, rate_hz)
        given.append(mono)
    return np.concatenate(given), state


def blocks_of(samples: F32, length: int = 320) -> list[F32]:
    return [samples[:, at : at + length] for at in range(0, samples.shape[1], length)]


def test_opposite_channels_do_not_take_each_other_away() -> None:
    rng = np.random.default_rng(0)
    voice = rng.normal(0, 0.1, 2 * RATE_HZ).astype(np.float32)
    noise = rng.normal(0, 0.1, 2 * RATE_HZ).astype(np.float32)
    mono, state = down(*blocks_of(np.stack([voice, -voice])))
    assert np.array_equal(mono, voice), "from the first block on"
    assert "opposite" in (state.notice("a.wav") or "")
    quieter, state = down(*blocks_of(np.stack([voice, (0.05 * noise - 0.8 * voice).astype(np.float32)])))
    assert np.abs(quieter).mean() > 0.9 * np.abs(voice).mean()
    assert state.opposite
    for other in (voice, noise, np.zeros_like(voice), voice / np.float32(5)):
        mono, state = down(*blocks_of(np.stack([voice, other.astype(np.float32)])))
        assert np.allclose(mono, (voice + other) / 2, atol=1e-6), "else the mean"
        assert state.notice("a.wav") is None
    assert down(np.zeros((2, RATE_HZ), np.float32))[1].notice("a.wav") is None
    six = np.zeros((6, len(voice)), np.float32)
    six[2] = voice  # the voice in the middle
    assert np.allclose(down(*blocks_of(six))[0], voice / 6, atol=1e-6)


def test_channels_are_followed_when_a_cable_is_changed() -> None:
    voice = np.random.default_rng(0).normal(0, 0.1, 4 * RATE_HZ).astype(np.float32)
    pair = np.stack([voice, voice])
    pair[1, : 2 * RATE_HZ] *= -1
    mono, state = down(*blocks_of(pair))
    loudness = np.abs(mono).reshape(4, -1).mean(1)
    assert loudness.min() > 0.9 * np.abs(voice).mean()
    assert not state.opposite
    assert state.opposite_s == pytest.approx(2, abs=1)


def test_an_opposite_file_moves_the_mouth_as_one_channel_does(tmp_path: Path) -> None:
    voice = np.random.default_rng(0).normal(0, 0.1, (1, 96_000)).astype(np.float32)
    both = write_sound(tmp_path / "both.flac", "flac", np.concatenate([voice, -voice]))
    one = write_sound(tmp_path / "one.flac", "flac", voice)
    sound, notices = heard(both)
    assert np.allclose(sound, heard(one)[0], atol=2e-3)
    assert len(notices) == 1


class Blocks(RingSource):
    """A microphone that gives what it is told."""

    def __init__(self, samples: F32) -> None:
        super().__init__(Voice(EchoSpeech()), FakeClock())
        for at in range(0, len(samples), 480):
            self._ring.put(Block(samples[at : at + 480], 48_000, at, 1))

    @property
    def capture_ms(self) -> float:
        return 0.0

    @property
    def _mute_notice(self) -> str:
        return ""

    @property
    def _clipped_notice(self) -> str:
        return ""

    @property
    def info(self) -> SourceInfo:
        return heard_info("mic", is_live=True)

    @property
    def state(self) -> SourceState:
        return SourceState.READY

    def close(self) -> None:
        self._ring.close()

    def given(self) -> F32:
        return np.concatenate([p.samples for p in self._pieces(0)])


def test_live_sound_of_opposite_channels_is_heard() -> None:
    voice = np.random.default_rng(0).normal(0, 0.1, 48_000).astype(np.float32)
    one, both = Blocks(voice[:, None]).given(), Blocks(np.stack([voice, -voice], 1)).given()
    assert np.allclose(one, both, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda t: np.zeros_like(t), "a.wav is silent"),
        (lambda t: 1e-5 * np.sign(t), "a.wav is silent"),
        (lambda t: np.clip(8 * t, -1, 1), "a.wav is clipped"),
    ],
)
def test_an_animation_says_what_is_wrong_with_its_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[F32], F32], words: str
) -> None:
    monkeypatch.setattr("streamer.recordings.SpeechToMotion", EchoSpeech)
    path = write_wav(tmp_path / "a.wav", make(sine(1.0, RATE_HZ)[0]))
    recording = recording_of(path, "mediapipe", FakeClock())
    with ExitStack() as stack:
        steps = list(recording.steps(Driver(NoTracker()), stack).steps)
        assert len(steps) == pytest.approx(25, abs=3)
        assert len(recording.notices) == 1
        assert words in recording.notices[0]


# ---- the very files that were found


@pytest.mark.skipif(not FAULTS.is_dir(), reason="the collection of faulty files is not beside this checkout")
def test_the_files_that_were_found() -> None:
    for name in ("apac_first/d_apac_first.mov", "apac_first/d_apac_both.mov", "avi_bframes/d_bframes.avi"):
        got, notices = seen(FAULTS / name)
        assert got == pytest.approx([k / 25 for k in range(100)], abs=1e-3)
        assert bool(notices) == ("both" in name)
    with VideoSource(FAULTS / "preview_first/d_multi.mkv") as source:
        assert source.info.size_px == (256, 256)
    for name in (
        "mp3_joined/s_concat.mp3",
        "sound_change_aac/s_mixch.aac",
        "opposite_channels/opposite.flac",
    ):
        sound, notices = heard(FAULTS / name)
        assert len(sound) == pytest.approx(7.5 * RATE_HZ, abs=0.05 * RATE_HZ)
        assert bool(notices) == ("opposite" in name)
    for path in (FAULTS / "sound_only_containers").glob("s_audio.*"):
        assert is_sound_alone(path)
