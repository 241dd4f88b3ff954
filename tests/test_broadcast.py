"""One call's pictures and sound for all who watch: each has the newest, and none holds up another."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
from aiortc.mediastreams import MediaStreamError
from calls import numbered

from streamer.frame import LatencyTrace
from streamer.webrtc.broadcast import MOST_PIECES, Broadcast, copy_of, twins_of
from streamer.webrtc.media import MediaTime, Outgoing, rgb_of, video_frame_of


def picture(number: int) -> Outgoing:
    return Outgoing(
        video_frame_of(numbered(number, (10, 20, 30)), 3000 * number), 3000 * number, None, LatencyTrace({})
    )


def piece(number: int) -> av.AudioFrame:
    made = av.AudioFrame.from_ndarray(np.full((1, 1920), number, np.int16), format="s16", layout="stereo")
    made.sample_rate, made.pts, made.time_base = 48_000, 960 * number, Fraction(1, 48_000)
    return made


async def test_each_has_the_newest_picture_whatever_the_others_do() -> None:
    broadcast = Broadcast(lambda _: None)
    quick, slow = broadcast.join(), broadcast.join()
    for number in range(5):
        broadcast.put(picture(number))
        assert (await quick.pictures.recv()).pts == 3000 * number
    assert (await slow.pictures.recv()).pts == 3000 * 4
    assert slow.slot.dropped == 4


async def test_frames_of_several_show_the_same_and_are_not_the_same() -> None:
    """Encoders write their own times into them, each in a thread of its own."""
    broadcast = Broadcast(lambda _: None)
    watching = [broadcast.join() for _ in range(3)]
    original = picture(7)
    broadcast.put(original)
    frames = [await one.pictures.recv() for one in watching]
    assert frames[0] is original.frame
    assert len({id(frame) for frame in frames}) == 3
    wanted = rgb_of(original.frame)
    assert all(np.array_equal(rgb_of(frame), wanted) for frame in frames)
    frames[0].pts = 1
    assert [frame.pts for frame in frames[1:]] == [21_000, 21_000]


def test_pixels_are_copied_once_and_outlive_the_frame_they_were_of() -> None:
    frame = picture(9).frame
    wanted = rgb_of(frame)
    one, other = twins_of(frame, 2)
    del frame
    assert np.array_equal(rgb_of(one), wanted)
    assert one.planes[0].buffer_ptr == other.planes[0].buffer_ptr
    assert twins_of(one, 0) == []


async def test_who_joined_first_and_is_there_is_who_latency_is_measured_by() -> None:
    sent: list[int] = []
    broadcast = Broadcast(lambda outgoing: sent.append(outgoing.pts // 3000))
    first, second = broadcast.join(), broadcast.join()

    async def both(number: int) -> None:
        broadcast.put(picture(number))
        await first.pictures.recv()
        await second.pictures.recv()

    await both(0)
    await both(1)
    assert sent == [0], "a picture is sent once the next is asked for"
    broadcast.leave(first)
    for number in (2, 3):
        broadcast.put(picture(number))
        await second.pictures.recv()
    assert sent == [0, 1, 2]


async def test_sound_is_everybodys_and_the_oldest_goes() -> None:
    broadcast = Broadcast(lambda _: None)
    assert not broadcast.has_sound
    one, deaf, late = broadcast.join(), broadcast.join(), broadcast.join()
    deaf.sound.stop()
    for number in range(MOST_PIECES + 5):
        broadcast.hear(piece(number))
        assert (await one.sound.recv()).pts == 960 * number
    assert (await late.sound.recv()).pts == 960 * 5
    assert broadcast.has_sound
    with pytest.raises(MediaStreamError):
        await deaf.sound.recv()


def test_a_copy_of_sound_is_the_same_sound() -> None:
    original = piece(3)
    copied = copy_of(original)
    assert copied is not original
    assert np.array_equal(copied.to_ndarray(), original.to_ndarray())
    assert (copied.pts, copied.time_base, copied.sample_rate, copied.layout.name) == (
        2880, Fraction(1, 48_000), 48_000, "stereo",
    )  # fmt: skip


async def test_the_end_ends_all_who_wait() -> None:
    broadcast = Broadcast(lambda _: None)
    watching = broadcast.join()
    waiting = asyncio.ensure_future(watching.sound.recv())
    await asyncio.sleep(0)
    broadcast.close()
    with pytest.raises(MediaStreamError):
        await waiting
    assert watching.slot.closed
    assert not broadcast.watched
    assert broadcast.join().slot.closed, "who comes afterwards is told at once"
    broadcast.put(picture(0))
    broadcast.hear(piece(0))


async def test_pictures_come_from_a_thread_while_watchers_come_and_go() -> None:
    broadcast, stop = Broadcast(lambda _: None), threading.Event()
    errors: list[BaseException] = []

    def draw() -> None:
        number = 0
        try:
            while not stop.is_set():
                broadcast.put(picture(number % 200))
                number += 1
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        for _ in range(50):
            watching = [broadcast.join() for _ in range(3)]
            assert all([(await one.pictures.recv()).width == 128 for one in watching])
            for one in watching:
                broadcast.leave(one)
    finally:
        stop.set()
        thread.join()
    assert not errors
    assert not broadcast.watched


async def test_watchers_know_when_what_leaves_was_captured_and_who_leads_tells() -> None:
    told: list[tuple[float, int]] = []
    broadcast = Broadcast(lambda _: None)
    broadcast.on_sound_gone = lambda captured_ns, given_ns: told.append((captured_ns, given_ns))
    first, second = broadcast.join(), broadcast.join()
    for number in range(2):
        broadcast.hear(piece(number), 1e9 * number)
        for watching in (first, second):
            await watching.sound.recv()
            assert watching.sound.newest == MediaTime(960 * number, 48_000, 1e9 * number)
    assert [captured_ns for captured_ns, _ in told] == [0.0], "once: the first piece of who leads has left"
    broadcast.hear(piece(2))
    await first.sound.recv()
    assert first.sound.newest == MediaTime(960, 48_000, 1e9), "of a piece that nobody knows nothing is told"


async def test_a_picture_waits_for_its_sound_while_newer_ones_come() -> None:
    sent: list[Outgoing] = []
    holds_ms = [0.0, 60.0, 0.0]
    broadcast = Broadcast(sent.append, lambda: holds_ms.pop(0))
    watching = broadcast.join()
    broadcast.put(replace(picture(1), moved_by_ns=5.0))
    assert (await watching.pictures.recv()).pts == 3000
    assert watching.pictures.newest == MediaTime(3000, 90_000, 5.0)
    broadcast.put(picture(2))
    waiting = asyncio.create_task(watching.pictures.recv())
    await asyncio.sleep(0.001)
    assert not waiting.done()
    broadcast.put(picture(3))
    assert (await waiting).pts == 6000, "the newer one does not take its place"
    assert (await watching.pictures.recv()).pts == 9000
    assert [s.held_ms > 0 for s in sent] == [False, True]
    assert sent[1].held_ms >= 59
