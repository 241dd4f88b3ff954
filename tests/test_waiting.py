"""What waits for a decoder: never more than can be decoded in time, and after a rush all is as before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from receiving import vp8_delta, vp8_key

from streamer.webrtc.picture_buffer import EncodedPicture
from streamer.webrtc.sound_buffer import EncodedSound
from streamer.webrtc.waiting import (
    KEY_EVERY_MS,
    MOST_FPS,
    MOST_PICTURES,
    MOST_PICTURES_MS,
    MOST_PIXELS,
    MOST_SOUND_MS,
    WITHOUT_KEY_S,
    Allowance,
    PicturesWaiting,
    Refused,
    SoundWaiting,
)

FPS = 30.0
PERIOD_MS = 1000 / FPS
TICKS_PER_MS = 90


def picture(
    at_ms: float, *, key: bool = False, size: tuple[int, int] = (640, 480), follows: bool = True
) -> EncodedPicture:
    number = round(at_ms)
    data = vp8_key(*size) if key else vp8_delta(number)
    return EncodedPicture(round(at_ms * TICKS_PER_MS), data, at_ms, follows)


@dataclass
class Call:
    """A camera, the way here, what waits, and a decoder that takes `decode_ms(now)` a picture, on virtual time."""

    decode_ms: Callable[[float], float]
    fps: float = FPS
    size: tuple[int, int] = (640, 480)
    answers_after_ms: float = 100.0  # from asking for a key frame to its arrival
    network_ms: float = 30.0
    waiting: PicturesWaiting = field(default_factory=lambda: PicturesWaiting("VP8", 90_000, Allowance()))
    dropped: int = 0
    decoded: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])  # (done, lag)
    asked_ms: list[float] = field(default_factory=list[float])
    most: int = 0
    gone: Callable[[int], bool] = lambda _: False

    def run(self, seconds: float) -> Call:
        key_at_ms, free_at_ms = 0.0, 0.0
        follows = True
        for k in range(round(seconds * self.fps)):
            captured_ms = 1000 * k / self.fps
            now_ms = captured_ms + self.network_ms
            free_at_ms = self._decode(free_at_ms, now_ms)
            if self.gone(k):
                follows = False
                continue
            is_key = captured_ms >= key_at_ms
            key_at_ms = 1e12 if is_key else key_at_ms
            time = round(captured_ms * TICKS_PER_MS)
            data = vp8_key(*self.size) if is_key else vp8_delta(k)
            self.dropped += self.waiting.put(EncodedPicture(time, data, now_ms, follows))
            follows = True
            if self.waiting.wants_key(now_ms):
                self.asked_ms.append(now_ms)
                key_at_ms = now_ms + self.answers_after_ms - self.network_ms
            self.most = max(self.most, len(self.waiting))
            free_at_ms = self._decode(free_at_ms, now_ms)
        self._decode(free_at_ms, 1e12)
        return self

    def _decode(self, free_at_ms: float, now_ms: float) -> float:
        """Let the decoder work until `now_ms`: when it is free again."""
        while free_at_ms <= now_ms:
            taken = self.waiting.take()
            if taken is None:
                return free_at_ms
            done_ms = max(free_at_ms, taken.arrived_ms) + self.decode_ms(max(free_at_ms, taken.arrived_ms))
            self.decoded.append((done_ms, done_ms - taken.time / TICKS_PER_MS))
            free_at_ms = done_ms
        return free_at_ms

    def lags_ms(self, since_s: float, until_s: float) -> list[float]:
        return [lag for done, lag in self.decoded if 1000 * since_s <= done < 1000 * until_s]


def test_a_decoder_that_keeps_up_gets_everything() -> None:
    call = Call(lambda _: 5.0).run(10)
    assert len(call.decoded) == 300
    assert (call.dropped, call.asked_ms) == (0, [])
    assert {round(lag) for _, lag in call.decoded} == {35}


@pytest.mark.parametrize("times", [1.2, 2.0, 4.0, 10.0, 60.0])
def test_after_a_rush_the_lag_is_back(times: float) -> None:
    """A decoder that takes so many times the frame period, for 10 s, then is itself again."""
    slow_ms = times * 1000 / FPS
    call = Call(lambda now_ms: slow_ms if 10_000 <= now_ms < 20_000 else 5.0).run(40)
    before_ms = max(call.lags_ms(0, 10))
    # what waits, the picture in work, and the one that begins to be late
    assert max(lag for _, lag in call.decoded) <= before_ms + MOST_PICTURES_MS + 2 * slow_ms
    recovered_s = max(
        20.0, max((done for done, lag in call.decoded if lag > before_ms + 20), default=0) / 1000
    )
    assert recovered_s <= 20.0 + slow_ms / 1000 + 2.0
    assert max(call.lags_ms(22.0 + slow_ms / 1000, 40)) <= before_ms + 20
    assert len(call.lags_ms(23 + slow_ms / 1000, 39)) >= 29 * (16 - slow_ms / 1000) - 1, (
        "and nothing is left out"
    )
    assert call.dropped + len(call.decoded) == 1200, "what was dropped was counted"
    assert call.most <= MOST_PICTURES_MS * FPS / 1000 + 2


def test_while_it_cannot_keep_up_pictures_still_come() -> None:
    call = Call(lambda _: 100.0).run(20)  # a third of what it would need
    assert len(call.decoded) >= 20 * 4
    assert 20 <= len(call.asked_ms) <= 20_000 / KEY_EVERY_MS + 1
    assert min(b - a for a, b in zip(call.asked_ms, call.asked_ms[1:], strict=False)) >= KEY_EVERY_MS


def test_a_loss_waits_for_a_key_frame_and_asks_for_it() -> None:
    call = Call(lambda _: 5.0, gone=lambda k: 60 <= k < 65).run(10)
    shown = [round(FPS * (done - 35) / 1000) for done, _ in call.decoded]
    first = next(k for k in shown if k >= 60)
    assert first <= 65 + 4
    assert set(range(first, 300)) <= set(shown)
    assert len(call.asked_ms) == 1


def test_a_lost_key_frame_is_asked_for_again() -> None:
    """The answers to the first three requests are lost on the way."""
    answers = iter([1e6, 1e6, 1e6])
    call = Call(lambda _: 5.0, gone=lambda k: k == 60)
    put = call.waiting.put
    keys = 0

    def lossy(one: EncodedPicture) -> int:
        nonlocal keys
        if one.data[3:6] == b"\x9d\x01\x2a" and one.time > 0 and next(answers, None):
            keys += 1
            one = EncodedPicture(one.time, vp8_delta(1), one.arrived_ms, False)
        return put(one)

    call.waiting.put = lossy  # type: ignore[method-assign]
    call.run(10)
    assert keys == 3
    assert len(call.asked_ms) == 4
    assert len([1 for done, _ in call.decoded if done > 5000]) >= 149


def test_a_sender_that_gives_no_key_frame_is_decoded_as_it_comes() -> None:
    call = Call(lambda _: 5.0, answers_after_ms=1e9, gone=lambda k: k == 60).run(20)
    resumed = next(done for done, _ in call.decoded if done > 2100)
    assert resumed <= 2000 + 1000 * WITHOUT_KEY_S + 100
    assert len(call.decoded) >= 600 - 30 * WITHOUT_KEY_S - 3


def test_nothing_is_decoded_before_the_first_key_frame() -> None:
    waiting = PicturesWaiting("VP8", 90_000, Allowance())
    assert [waiting.put(picture(33.3 * k)) for k in range(200)] == [1] * 200
    assert waiting.take() is None
    assert waiting.wants_key(0.0)
    assert not waiting.wants_key(KEY_EVERY_MS - 1)
    assert waiting.wants_key(KEY_EVERY_MS)
    assert waiting.put(picture(7000, key=True)) == 0
    assert waiting.take() is not None
    assert not waiting.wants_key(10_000)


def test_a_key_frame_that_waits_is_where_it_goes_on() -> None:
    waiting = PicturesWaiting("VP8", 90_000, Allowance())
    for k in range(6):
        waiting.put(picture(30 * k, key=k in (0, 4)))
    assert waiting.put(picture(180)) == 4, "the four before the key frame"
    taken = waiting.take()
    assert taken is not None
    assert taken.time == 120 * TICKS_PER_MS
    assert not waiting.wants_key(0.0)


def test_pictures_that_come_all_at_once_are_no_lag() -> None:
    """An event loop that was busy for most of a second: decoding is quicker than a key frame."""
    waiting = PicturesWaiting("VP8", 90_000, Allowance())
    waiting.put(picture(0, key=True))
    late = [EncodedPicture(3000 * k, vp8_delta(k), 900.0) for k in range(1, 27)]
    assert waiting.take() is not None
    assert sum(waiting.put(one) for one in late) == 0
    assert not waiting.wants_key(900)


def test_a_rush_of_pictures_of_one_moment_is_bounded_too() -> None:
    waiting = PicturesWaiting("VP8", 90_000, Allowance())
    waiting.put(picture(0, key=True))
    assert sum(waiting.put(picture(0.01 * k)) for k in range(1, MOST_PICTURES + 1)) == MOST_PICTURES + 1


def test_what_the_decoder_refuses_asks_for_a_key_frame() -> None:
    waiting = PicturesWaiting("VP8", 90_000, Allowance())
    waiting.put(picture(0, key=True))
    assert not waiting.wants_key(0)
    waiting.has_failed = True
    assert waiting.wants_key(100)
    assert not waiting.wants_key(5000), "once, unless it fails again"


@pytest.mark.parametrize("size", [(1920, 1080), (1920, 1088), (1920, 1200), (1200, 1920), (640, 480)])
def test_what_usual_cameras_give_is_decoded(size: tuple[int, int]) -> None:
    waiting = PicturesWaiting("VP8", 90_000, Allowance())
    assert waiting.put(picture(0, key=True, size=size)) == 0
    assert waiting.refused is None


@pytest.mark.parametrize(
    "size", [(1920, 1201), (2048, 1152), (2560, 1440), (3840, 2160), (8192, 8192), (16383, 16383)]
)
def test_larger_pictures_are_refused_until_a_smaller_one_comes(size: tuple[int, int]) -> None:
    assert size[0] * size[1] > MOST_PIXELS
    waiting = PicturesWaiting("VP8", 90_000, Allowance())
    assert waiting.put(picture(0, key=True)) == 0
    assert waiting.put(picture(33)) == 0
    assert waiting.put(picture(66, key=True, size=size)) == 3, "with those before, which are old"
    assert waiting.refused == Refused(*size)
    assert [waiting.put(picture(100 + 33 * k)) for k in range(300)] == [1] * 300
    assert waiting.take() is None
    assert not waiting.wants_key(11_000), "it would be as large"
    assert waiting.put(picture(11_000, key=True)) == 0
    assert waiting.refused is None
    assert waiting.take() is not None


@pytest.mark.parametrize(("fps", "size", "most_fps"), [
    (30, (1920, 1080), 30), (30, (1920, 1200), 30), (60, (1280, 720), 60), (60, (640, 480), 60),
    (240, (320, 240), MOST_FPS), (1000, (64, 48), MOST_FPS), (60, (1920, 1200), 30), (120, (1920, 1200), 30),
])  # fmt: skip
def test_the_rate_is_bounded(fps: int, size: tuple[int, int], most_fps: float) -> None:
    call = Call(lambda _: 0.5, fps=fps, size=size).run(20)
    assert len(call.decoded) <= 20 * most_fps * 1.1 + most_fps + 1
    if fps == most_fps:
        assert len(call.decoded) == 20 * fps, "an honest camera loses nothing"
    else:
        assert len(call.decoded) >= 20 * most_fps * 0.5
    assert call.dropped + len(call.decoded) == 20 * fps


@pytest.mark.parametrize("back_ms", [0.0, 5.0, 60.0, 200.0])
def test_pictures_whose_ends_came_out_of_order_earn_nothing(back_ms: float) -> None:
    """500 a second, every second of which ends earlier than the one before."""
    waiting = PicturesWaiting("VP8", 90_000, Allowance())
    taken = 0
    for k in range(2000):
        at_ms = 1000 + 2 * k - back_ms * (k % 2)
        waiting.put(EncodedPicture(180 * k, vp8_key(1920, 1200), at_ms))
        taken += waiting.take() is not None
    assert 4 * 30 <= taken <= 30 * (1 + 4.2 * 1.1) + 1


def test_a_clock_that_is_set_holds_nothing_up() -> None:
    waiting = PicturesWaiting("VP8", 90_000, Allowance())
    for k in range(200):
        at_ms = 1e9 + PERIOD_MS * k - (3_600_000 if k >= 100 else 0)
        assert waiting.put(EncodedPicture(3000 * k, vp8_key(1920, 1200), at_ms)) == 0
        assert waiting.take() is not None


def test_sound_that_waits_is_new() -> None:
    waiting = SoundWaiting(48_000, Allowance())
    dropped = sum(waiting.put(EncodedSound(960 * k, b"x", 20.0 * k)) for k in range(1000))
    left = 0
    while (one := waiting.take()) is not None:
        assert (999 * 960 - one.time) / 48 <= MOST_SOUND_MS
        left += 1
    assert left == MOST_SOUND_MS / 20 + 1
    assert dropped == 1000 - left


def test_sound_of_a_decoder_that_was_held_up_is_back_at_once() -> None:
    """Ten seconds in which nothing was decoded: then what is newest, and no lag after it."""
    waiting = SoundWaiting(48_000, Allowance())
    lags_ms: list[float] = []
    for k in range(1500):
        now_ms = 20.0 * k
        waiting.put(EncodedSound(960 * k, b"x", 20.0 * k))
        while not 5000 <= now_ms < 15_000 and (one := waiting.take()) is not None:
            lags_ms.append(now_ms - one.time / 48)
    assert max(lags_ms) <= MOST_SOUND_MS
    assert sum(lag > 0 for lag in lags_ms) == MOST_SOUND_MS / 20
    assert lags_ms[-740:] == [0.0] * 740


def seconds_of_sound(step_ms: float, every_ms: float, seconds: float = 10.0) -> tuple[int, int]:
    """Packets whose times are `step_ms` apart come `every_ms`, and are taken at once: how many were, and all."""
    waiting = SoundWaiting(48_000, Allowance())
    taken, count = 0, round(1000 * seconds / every_ms)
    for k in range(count):
        dropped = waiting.put(EncodedSound(round(48 * step_ms * k), b"x", every_ms * k))
        got = waiting.take()
        assert dropped == (got is None), "counted"
        taken += got is not None
    return taken, count


@pytest.mark.parametrize("step_ms", [2.5, 5, 10, 20, 40, 60, 120, 400])
@pytest.mark.parametrize("clock", [0.95, 1.0, 1.05])
def test_honest_sound_of_any_length_is_decoded(step_ms: float, clock: float) -> None:
    """The longest are of a sender that leaves out silence."""
    taken, count = seconds_of_sound(step_ms, clock * step_ms)
    assert taken == count


@pytest.mark.parametrize("step_ms", [0, 0.02, 2.5, 20, 120, 2000])
@pytest.mark.parametrize("every_ms", [2.0, 0.5])
def test_more_sound_than_time_passes_is_not_decoded(step_ms: float, every_ms: float) -> None:
    taken, _ = seconds_of_sound(step_ms, every_ms)
    assert taken <= (1.1 * 10 + 1) / max(0.0025, min(step_ms / 1000, 0.120)) + 1
    assert taken >= 10 / 0.120, "and some is"
