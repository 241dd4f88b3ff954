"""Pictures and sound between the wire and the avatar."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np
import pytest
from aiortc.codecs.h264 import H264Encoder
from aiortc.codecs.opus import OpusEncoder
from aiortc.codecs.vpx import Vp8Decoder, Vp8Encoder
from aiortc.jitterbuffer import JitterFrame
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from calls import until
from fakes import AT_LAST_S
from hypothesis import given
from hypothesis import strategies as st

from streamer.frame import LatencyTrace
from streamer.pyav import ColorRange
from streamer.slot import Slot
from streamer.webrtc import aiortc_fixes, media
from streamer.webrtc.media import (
    MOST_DELAY_MS,
    REPEAT_AFTER_S,
    STEADY_MS,
    TIME_BASE,
    DelayedAudioTrack,
    EchoTrack,
    Outgoing,
    SlotTrack,
    next_pts,
    rgb_of,
    soft_at_both_ends,
    video_frame_of,
    wanted_delay_ms,
)


def smooth_picture(width: int, height: int) -> np.ndarray:
    """Colour gradients: chroma at half resolution loses next to nothing."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    return np.stack([255 * x / width, 255 * y / height, 255 * (1 - x / width)], -1).astype(np.uint8)


@pytest.mark.parametrize(("width", "height"), [(64, 48), (512, 512), (640, 480), (322, 242)])
def test_rgb_and_yuv_are_each_others_inverse(width: int, height: int) -> None:
    image = smooth_picture(width, height)
    frame = video_frame_of(image, 12345)
    assert (frame.width, frame.height, frame.format.name) == (width, height, "yuv420p")
    assert (frame.pts, frame.time_base) == (12345, TIME_BASE)
    error = np.abs(rgb_of(frame).astype(int) - image)
    # two columns share a colour sample: what that costs is the gradient's own step
    assert error.mean() < 1.5 + 64 / width
    assert error.max() <= 6 + 2 * 255 / min(width, height)


@pytest.mark.parametrize("height", [480, 482])
def test_a_frame_owns_what_it_shows(height: int) -> None:
    """The encoder has it while the next picture is drawn, whoever else lets go."""
    image = smooth_picture(640, height)
    frames = [video_frame_of(np.full_like(image, k), k) for k in range(40)]
    frame = video_frame_of(image, 0)
    image[:] = 0
    gc.collect()
    levels = [int(f.to_ndarray()[0, 0]) for f in frames]
    assert levels == sorted(levels)
    assert len(set(levels)) > 30, "one picture lies where another was"
    assert np.abs(rgb_of(frame).astype(int) - smooth_picture(640, height)).mean() < 3


@pytest.mark.parametrize(("width", "height"), [(512, 512), (854, 480), (258, 258)])
@pytest.mark.parametrize("encoder", [Vp8Encoder, H264Encoder])
def test_what_is_encoded_does_not_depend_on_who_owns_it(encoder: type[Any], width: int, height: int) -> None:
    image = smooth_picture(width, height)
    planes = cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420)
    copied = av.VideoFrame.from_ndarray(np.asarray(planes, np.uint8), format="yuv420p")
    copied.pts, copied.time_base = 3000, TIME_BASE
    sizes = [sum(map(len, encoder().encode(f)[0])) for f in (copied, video_frame_of(image, 3000))]
    assert sizes[0] == sizes[1] > 100


@pytest.mark.parametrize(
    "colour", [(0, 0, 0), (255, 255, 255), (200, 30, 30), (30, 200, 30), (128, 128, 128)]
)
def test_colours_are_those_that_a_browser_shows(colour: tuple[int, int, int]) -> None:
    """libswscale reads our planes as BT.601, limited range, as WebRTC does."""
    image = np.empty((32, 32, 3), np.uint8)
    image[:] = colour
    seen = video_frame_of(image, 0).to_ndarray(format="rgb24")[8:24, 8:24].reshape(-1, 3).mean(0)
    assert np.abs(seen - colour).max() < 4


@pytest.mark.parametrize("name", ["yuvj420p", "yuv420p"])
def test_full_range_keeps_its_contrast(name: str) -> None:
    """A camera's own H264 may use all 256 steps, and says so by the format or beside it."""
    image = smooth_picture(64, 48)
    frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format=name, dst_color_range=ColorRange.JPEG)
    frame.color_range = ColorRange.JPEG
    assert np.abs(rgb_of(frame).astype(int) - image).mean() < 4


def test_odd_sizes_lose_a_row_or_a_column() -> None:
    image = smooth_picture(65, 49)
    frame = video_frame_of(image, 0)
    assert (frame.width, frame.height) == (64, 48)
    assert np.abs(rgb_of(frame).astype(int) - image[:48, :64]).mean() < 3
    odd = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format="yuv420p")
    assert rgb_of(odd).shape == (49, 65, 3)
    assert np.abs(rgb_of(odd).astype(int) - image).mean() < 4


def test_a_view_that_is_not_contiguous_is_taken() -> None:
    image = smooth_picture(64, 48)
    assert np.abs(rgb_of(video_frame_of(image[:, ::-1], 0)).astype(int) - image[:, ::-1]).mean() < 3


def test_a_picture_survives_the_codec() -> None:
    encoder, decoder = Vp8Encoder(), Vp8Decoder()
    image = smooth_picture(256, 256)
    payloads, time = encoder.encode(video_frame_of(image, 3000))
    from aiortc.codecs.vpx import vp8_depayload

    frames = decoder.decode(JitterFrame(b"".join(vp8_depayload(p) for p in payloads), time))
    decoded = frames[0]
    assert isinstance(decoded, av.VideoFrame)
    assert np.abs(rgb_of(decoded).astype(int) - image).mean() < 6


@given(st.lists(st.integers(-(2**33), 2**33), max_size=60))
def test_time_only_rises(wanted: list[int]) -> None:
    last: int | None = None
    for pts in wanted:
        given_ = next_pts(pts, last)
        assert given_ >= pts
        assert last is None or given_ > last
        assert given_ == pts or (last is not None and given_ == last + 1)
        last = given_


def outgoing(pts: int, value: int = 100) -> Outgoing:
    image = np.full((16, 16, 3), value, np.uint8)
    return Outgoing(video_frame_of(image, pts), pts, 5.0, LatencyTrace({"captured": 1}), sequence=pts)


async def test_the_newest_picture_goes_out_and_is_told_of_once_sent() -> None:
    slot: Slot[Outgoing] = Slot()
    sent: list[Outgoing] = []
    track = SlotTrack(slot, sent.append)
    slot.put(outgoing(0))
    slot.put(outgoing(3000))
    frame = await asyncio.wait_for(track.recv(), AT_LAST_S)
    assert (frame.pts, frame.time_base) == (3000, TIME_BASE)
    assert sent == [], "it has not left yet"
    slot.put(outgoing(6000))
    assert (await asyncio.wait_for(track.recv(), AT_LAST_S)).pts == 6000
    assert [(s.pts, s.fresh, s.capture_ms) for s in sent] == [(3000, True, 5.0)]
    assert set(sent[0].trace.stamps_ns) == {"captured", "sent"}


async def test_nothing_new_repeats_the_picture_in_time() -> None:
    aiortc_fixes.apply()
    slot: Slot[Outgoing] = Slot()
    sent: list[Outgoing] = []
    track = SlotTrack(slot, sent.append)
    encoder = Vp8Encoder()
    slot.put(outgoing(90_000))
    stamps: list[int] = []
    asked_s: list[float] = []
    got_s: list[float] = []
    for _ in range(4):
        asked_s.append(time.monotonic())
        frame = await asyncio.wait_for(track.recv(), AT_LAST_S)
        got_s.append(time.monotonic())
        stamps.append(encoder.encode(frame)[1])
    assert got_s[-1] - asked_s[0] > 2.9 * REPEAT_AFTER_S
    assert stamps == sorted(set(stamps))
    assert stamps[0] == 90_000
    # media time is real time: each picture was made between asking for it and getting it
    made_s = (stamps[-1] - stamps[0]) / 90_000
    assert asked_s[-1] - got_s[0] - 1e-3 < made_s < got_s[-1] - asked_s[0] + 1e-3
    assert [s.fresh for s in sent] == [True, False, False]
    assert [s.capture_ms for s in sent] == [5.0, None, None], "a repeated picture has no capture time"
    # the held picture comes at last: too late for its own time, but time goes on
    slot.put(outgoing(93_000))
    late = await asyncio.wait_for(track.recv(), AT_LAST_S)
    assert late.pts == stamps[-1] + 1


async def test_a_repeat_is_right_even_without_the_fixes() -> None:
    """An encoder leaves a frame in its own time base; the same frame goes out again."""
    slot: Slot[Outgoing] = Slot()
    track = SlotTrack(slot, lambda _: None)
    slot.put(outgoing(90_000))
    begin_s = time.monotonic()
    first = await asyncio.wait_for(track.recv(), AT_LAST_S)
    first.pts, first.time_base = 1_000_000, Fraction(1, 1_000_000)
    again = await asyncio.wait_for(track.recv(), AT_LAST_S)
    assert again.time_base == TIME_BASE
    assert 0 < (again.pts or 0) - 90_000 <= 90_000 * (time.monotonic() - begin_s) + 1


class CountingSlot(Slot[Outgoing]):
    """Counts how often it was asked in vain."""

    in_vain = 0

    async def get(self, timeout_s: float | None = None) -> Outgoing | None:
        value = await super().get(timeout_s)
        self.in_vain += value is None
        return value


async def test_waiting_for_a_picture_blocks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    slot = CountingSlot()
    track = SlotTrack(slot, lambda _: None)
    monkeypatch.setattr(media, "REPEAT_AFTER_S", AT_LAST_S)
    waiting = asyncio.create_task(track.recv())
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert slot.in_vain == 0, "the loop stood still until the time was up"
    slot.put(outgoing(0))
    assert (await asyncio.wait_for(waiting, AT_LAST_S)).pts == 0


async def test_before_the_first_picture_there_is_none_to_repeat() -> None:
    slot = CountingSlot()
    track = SlotTrack(slot, lambda _: None)
    waiting = asyncio.create_task(track.recv())
    while slot.in_vain < 2:
        await asyncio.sleep(0.005)
    assert not waiting.done()
    slot.put(outgoing(0))
    assert (await asyncio.wait_for(waiting, AT_LAST_S)).pts == 0


async def test_a_closed_slot_ends_the_track() -> None:
    slot: Slot[Outgoing] = Slot()
    track = SlotTrack(slot, lambda _: None)
    slot.put(outgoing(0))
    await asyncio.wait_for(track.recv(), AT_LAST_S)
    waiting = asyncio.create_task(track.recv())
    await asyncio.sleep(0.02)
    slot.close()
    await until(lambda: track.readyState == "ended", "the end of the track")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


class Tape(MediaStreamTrack):
    """Frames made by `make(k)`, as fast as they are asked for."""

    def __init__(
        self, kind: str, make: Callable[[int], av.AudioFrame | av.VideoFrame], count: int = 1000
    ) -> None:
        super().__init__()
        self.kind = kind
        self._make = make
        self._left = count
        self._k = 0

    async def recv(self) -> av.AudioFrame | av.VideoFrame:
        if self._k >= self._left:
            raise MediaStreamError
        self._k += 1
        return self._make(self._k)


def packet(k: int) -> av.AudioFrame:
    """20 ms of stereo at 48 kHz that holds the number `k` in every sample."""
    frame = av.AudioFrame.from_ndarray(np.full((1, 1920), k, np.int16), "s16", "stereo")
    frame.sample_rate, frame.pts, frame.time_base = 48_000, k * 960 + 77, Fraction(1, 48_000)
    return frame


async def heard(track: DelayedAudioTrack, count: int) -> list[int]:
    """What each packet begins with."""
    frames = [await asyncio.wait_for(track.recv(), AT_LAST_S) for _ in range(count)]
    assert all((f.samples, f.sample_rate, f.layout.name) == (960, 48_000, "stereo") for f in frames)
    pts = [int(f.pts or 0) for f in frames]
    assert pts == list(range(pts[0], pts[0] + 960 * count, 960)), "sound has no gaps in time"
    return [int(f.to_ndarray()[0, 0]) for f in frames]


@pytest.mark.parametrize("packets", [0, 1, 3, 7])
async def test_sound_is_delayed_by_whole_packets(packets: int) -> None:
    track = DelayedAudioTrack(Tape("audio", packet), lambda _: 20.0 * packets)
    assert await heard(track, 20) == [0] * packets + list(range(1, 21 - packets))


async def test_sound_is_delayed_to_the_sample() -> None:
    track = DelayedAudioTrack(Tape("audio", packet), lambda _: 30.5)
    samples = np.concatenate([(await track.recv()).to_ndarray().reshape(-1, 2) for _ in range(5)])
    late = round(30.5 * 48)
    assert not samples[:late].any()
    assert (samples[late : late + 960] == 1).all()
    assert (samples[late + 960 : late + 1920] == 2).all()


async def test_the_delay_grows_and_goes_back_without_repeating_anything() -> None:
    wanted = 60.0
    track = DelayedAudioTrack(Tape("audio", packet), lambda _: wanted)
    assert await heard(track, 6) == [0, 0, 0, 1, 2, 3]
    wanted = 0.0
    assert await heard(track, 3) == [7, 8, 9], "what waited is left out, then sound is immediate"
    wanted = 20.0
    assert await heard(track, 3) == [0, 10, 11]


async def test_every_packet_is_heard_as_it_comes() -> None:
    heard_now: list[int] = []
    track = DelayedAudioTrack(
        Tape("audio", packet), lambda _: 100.0, lambda f: heard_now.append(int(f.to_ndarray()[0, 0]))
    )
    await heard(track, 4)
    assert heard_now == [1, 2, 3, 4]


async def test_planar_float_mono_is_delayed_too() -> None:
    def planar(k: int) -> av.AudioFrame:
        frame = av.AudioFrame.from_ndarray(np.full((1, 480), k, np.float32), "fltp", "mono")
        frame.sample_rate = 48_000
        return frame

    track = DelayedAudioTrack(Tape("audio", planar), lambda _: 5.0)
    first, second = await track.recv(), await track.recv()
    assert first.format.name == "fltp"
    assert first.to_ndarray()[0, :240].max() == 0
    assert (first.to_ndarray()[0, 240:] == 1).all()
    assert (second.to_ndarray()[0] == np.repeat([1.0, 2.0], 240)).all()


def gone(k: int) -> av.AudioFrame:
    """Packets 1, 2, 3, then 44 samples and 5 packets that never came."""
    frame = packet(k)
    frame.pts = (frame.pts or 0) + (5 * 960 + 44) * (k > 3)
    return frame


async def test_time_goes_on_where_sound_is_missing() -> None:
    track = DelayedAudioTrack(Tape("audio", gone))
    frames = [await track.recv() for _ in range(5)]
    assert [f.pts for f in frames] == [0, 960, 1920, 8 * 960 + 44, 9 * 960 + 44]
    assert [int(f.to_ndarray()[0, 0]) for f in frames] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("delay", [1, 7])
async def test_what_was_to_be_sent_while_sound_was_missing_is_left_out(delay: int) -> None:
    track = DelayedAudioTrack(Tape("audio", gone), lambda _: 20.0 * delay)
    sent: dict[int, int] = {}
    for _ in range(20):
        frame = await track.recv()
        for k, level in enumerate(frame.to_ndarray()[0, ::2]):
            sent[(frame.pts or 0) + k] = int(level)
    for k in (1, 2, 3, 4, 5, 6):
        at = (k - 1 + delay) * 960 + (5 * 960 + 44) * (k > 3)
        # but for the fades of 5 ms before and after what is left out
        assert {sent.get(at + 300), sent.get(at + 700)} <= {k, None}, "nowhere but in its place"
    assert {4, 5, 6} <= set(sent.values())


async def test_sound_of_another_codec_leaves_in_the_form_of_the_first() -> None:
    """An encoder takes one form: another would end the sound for good."""

    def changing(k: int) -> av.AudioFrame:
        if k % 10 < 5:
            return packet(k)
        frame = av.AudioFrame.from_ndarray(np.full((1, 160), 7, np.int16), "s16", "mono")
        frame.sample_rate, frame.pts, frame.time_base = 8000, 160 * k, Fraction(1, 8000)
        return frame

    track = DelayedAudioTrack(Tape("audio", changing))
    encoder = OpusEncoder()
    total = 0
    for _ in range(60):
        frame = await track.recv()
        assert (frame.sample_rate, frame.layout.name, frame.format.name) == (48_000, "stereo", "s16")
        encoder.encode(frame)
        total += frame.samples
    assert total >= 55 * 960


async def test_the_end_of_the_sound_is_passed_on() -> None:
    track = DelayedAudioTrack(Tape("audio", packet, count=2), lambda _: 20.0)
    assert await heard(track, 2) == [0, 1]
    with pytest.raises(MediaStreamError):
        await track.recv()


def test_the_wanted_delay_is_the_difference_and_the_trim() -> None:
    assert wanted_delay_ms(0, 40, 0) == 0
    assert wanted_delay_ms(30, 40, 0) == 0
    assert wanted_delay_ms(100, 40, 0) == 60
    assert wanted_delay_ms(40, 40, 100) == 0
    assert wanted_delay_ms(100, 40, 0, 25) == 85
    assert wanted_delay_ms(100, 40, 60, -200) == 0
    assert wanted_delay_ms(1e9, 40, 0) == MOST_DELAY_MS


def test_jitter_does_not_cut_the_sound() -> None:
    for off_ms in (-STEADY_MS, -3, 0, 3, STEADY_MS):
        assert wanted_delay_ms(140 + off_ms, 40, 100) == 100
    assert wanted_delay_ms(140 + STEADY_MS + 1, 40, 100) == 100 + STEADY_MS + 1


@given(st.floats(0, 2000), st.floats(0, 1000))
def test_one_decision_is_final(video_ms: float, current_ms: float) -> None:
    decided = wanted_delay_ms(video_ms, 40, current_ms)
    assert decided >= 0
    assert wanted_delay_ms(video_ms, 40, decided) == decided


async def test_echo_gives_back_the_very_frames() -> None:
    frames = {k: video_frame_of(np.full((16, 16, 3), k, np.uint8), k * 3000) for k in range(1, 4)}
    sent: list[Outgoing] = []
    track = EchoTrack(Tape("video", frames.__getitem__, 3), object(), sent.append, lambda _: None)
    for k in (1, 2, 3):
        assert await track.recv() is frames[k]
        assert frames[k].pts == k * 3000
    assert [s.pts for s in sent] == [3000, 6000]
    assert [s.sequence for s in sent] == [0, 1]
    with pytest.raises(MediaStreamError):
        await track.recv()


def test_what_is_cut_off_on_both_sides_begins_and_ends_softly() -> None:
    loud = np.full((2000, 2), 8000, np.int16)
    soft = soft_at_both_ends(loud)
    assert np.abs(np.diff(np.vstack([[[0, 0]], soft, [[0, 0]]]).astype(int), axis=0)).max() <= 8000 / 240 + 1
    assert (soft[240:-240] == loud[240:-240]).all()
    assert soft_at_both_ends(loud[:0]).shape == (0, 2)
    assert soft_at_both_ends(loud[:1]).tolist() == [[0, 0]]


async def test_a_gap_in_delayed_sound_does_not_click() -> None:
    """As loud as it can be: where what waits is cut off on both sides, neither side is a step."""

    def loud_and_gone(k: int) -> av.AudioFrame:
        frame = av.AudioFrame.from_ndarray(np.full((1, 1920), 8000, np.int16), "s16", "stereo")
        frame.sample_rate, frame.time_base = 48_000, Fraction(1, 48_000)
        frame.pts = k * 960 + (7 * 960) * (k > 12)
        return frame

    track = DelayedAudioTrack(Tape("audio", loud_and_gone), lambda _: 200.0)
    pieces = [await track.recv() for _ in range(21)]  # those before the second packet came are silence
    sent = np.concatenate([p.to_ndarray()[0, ::2] for p in pieces]).astype(int)
    jump = next(k for k in range(1, 21) if (pieces[k].pts or 0) != (pieces[k - 1].pts or 0) + 960) * 960
    assert (sent[jump - 1], sent[jump]) == (8000, 0), "time jumps here"
    assert np.abs(np.diff(sent[jump:])).max() < 100, "and after it nothing does, to the silence and on"
    assert sent[jump:].max() == 8000


async def test_of_all_sound_that_leaves_is_known_when_it_was_captured() -> None:
    """The first sample of packet k was captured at k seconds: what leaves later is as much older."""
    wanted_ms = 0.0
    left: list[float | None] = []
    gone: list[float] = []
    track = DelayedAudioTrack(
        Tape("audio", packet),
        lambda _: wanted_ms,
        heard=lambda frame: 1e9 * int(frame.to_ndarray()[0, 0]),
        left=lambda _, captured_ns: left.append(captured_ns),
        gone=lambda captured_ns, _: gone.append(captured_ns),
    )
    for wanted_ms in (0.0, 0.0, 30.5, 30.5, 10.0):  # noqa: B007
        await track.recv()
    assert left == [1e9, 2e9, 3e9 - 30.5e6, 4e9 - 30.5e6, 5e9 - 10e6]
    assert gone == left[:-1], "the last one has not left yet"
    assert track.newest == media.MediaTime(4 * 960, 48_000, 5e9 - 10e6)


async def test_sound_of_unknown_capture_leaves_all_the_same() -> None:
    track = DelayedAudioTrack(Tape("audio", packet))
    await track.recv()
    await track.recv()
    assert track.newest is None


def test_media_time_goes_on_at_any_rate() -> None:
    at = media.MediaTime(480, 48_000, 1e9)
    assert at.ticks_at(1e9, 48_000) == 480
    assert at.ticks_at(2e9, 48_000) == 48_480
    assert at.ticks_at(0.5e9, 90_000) == 900 - 45_000
