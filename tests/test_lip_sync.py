"""Sound waits for its picture, and a picture a little for its sound: whole calls on a virtual clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from streamer.frame import LatencyTrace
from streamer.webrtc.call_options import CallOptions
from streamer.webrtc.lip_sync import FRESH_NS, MOST_HOLD_MS, LipSync
from streamer.webrtc.media import OPUS_MS, STEADY_MS, Outgoing
from streamer.webrtc.messages import SetSound

MS = 1e6
PACKET_MS, FRAME_MS = 20.0, 1000 / 30
SENDING_MS = 2.0


def outgoing(moved_by_ns: float | None, sent_ns: float, held_ms: float = 0.0, **more: Any) -> Outgoing:
    came_ns = (moved_by_ns or sent_ns) + 1 * MS
    trace = LatencyTrace({"captured": round(came_ns), "received": round(came_ns), "sent": round(sent_ns)})
    frame: Any = None  # nobody looks at it
    return Outgoing(frame, 0, None, trace, moved_by_ns=moved_by_ns, held_ms=held_ms, **more)


@dataclass
class Call:
    """A call and its receiver: who plays at once, or holds sound `waits_ms` longer than pictures."""

    sync: LipSync
    waits_ms: float = 0.0
    sound_net_ms: float = 3.0
    skews_ms: list[float] = field(default_factory=list[float])
    told_ms: list[float] = field(default_factory=list[float])
    holds_ms: list[float] = field(default_factory=list[float])
    delays_ms: list[float] = field(default_factory=list[float])
    at_ms: float = 0.0
    delay_ms: float = 0.0
    sound_age_ms: float | None = None

    def run(self, seconds: float, work_ms: float, *, has_sound: bool = True) -> Call:
        """Pictures take `work_ms` from capture to departure. What was measured before is forgotten."""
        for found in (self.skews_ms, self.told_ms, self.holds_ms, self.delays_ms):
            found.clear()
        end_ms, next_ms = self.at_ms + 1000 * seconds, self.at_ms
        while self.at_ms < end_ms:
            if has_sound:
                self._packet()
            while next_ms <= self.at_ms:
                self._picture(next_ms, work_ms)
                next_ms += FRAME_MS
            self.at_ms += PACKET_MS
        return self

    def _packet(self) -> None:
        """The first sample was captured now; the packet comes when its last one was, and the encoder held it back."""
        captured_ms = self.at_ms - OPUS_MS
        came_ms = self.at_ms + PACKET_MS + self.sound_net_ms
        self.sync.came(captured_ms * MS, round(came_ms * MS))
        self.delay_ms = self.sync.delay_ms(self.delay_ms)
        self.delays_ms.append(self.delay_ms)
        left_ms = came_ms + SENDING_MS
        self.sync.left((captured_ms - self.delay_ms) * MS, round(came_ms * MS), round(left_ms * MS))
        # heard: what leaves now was captured that much earlier than the packet's first sample
        self.sound_age_ms = left_ms + OPUS_MS + self.waits_ms - (captured_ms - self.delay_ms)

    def _picture(self, captured_ms: float, work_ms: float) -> None:
        hold_ms = self.sync.hold_ms(round((captured_ms + work_ms) * MS))
        self.holds_ms.append(hold_ms)
        sent_ms = captured_ms + work_ms + hold_ms
        picture = outgoing(captured_ms * MS, sent_ms * MS, hold_ms)
        told = self.sync.skew_ms(picture)
        if told is not None and self.sound_age_ms is not None:
            self.told_ms.append(told)
            self.skews_ms.append(sent_ms - captured_ms - self.sound_age_ms)
        self.sync.sent(picture)


def call(waits_ms: float = 0.0, **options: Any) -> Call:
    made = Call(LipSync(CallOptions(**options)), waits_ms)
    if waits_ms:
        made.sync.set(SetSound(None, waits_ms))
    return made


@pytest.mark.parametrize("drive", ["webcam", "voice"])
@pytest.mark.parametrize("work_ms", [8.0, 35.0, 60.0, 130.0, 400.0])
def test_sound_and_picture_meet_whatever_drawing_takes(drive: str, work_ms: float) -> None:
    run = call(drive=drive)
    run.run(20, work_ms)
    run.run(10, work_ms)
    assert np.abs(run.skews_ms).max() <= STEADY_MS + 1
    assert run.told_ms == pytest.approx(run.skews_ms, abs=1e-3), "and it knows how well"


def test_receivers_that_hold_sound_longer_get_it_sooner() -> None:
    run = call(waits_ms=50.0)
    run.run(20, 120)
    run.run(10, 120)
    assert np.abs(run.skews_ms).max() <= STEADY_MS + 1


def test_a_picture_waits_for_sound_that_cannot_be_sooner_but_not_for_long() -> None:
    run = call(waits_ms=60.0)
    run.run(20, 10)
    run.run(10, 10)
    assert set(run.holds_ms) == {MOST_HOLD_MS}
    assert set(run.delays_ms) == {0.0}
    late_ms = PACKET_MS + 2 * OPUS_MS + run.sound_net_ms + SENDING_MS + 60 - 10
    assert np.mean(run.skews_ms) == pytest.approx(MOST_HOLD_MS - late_ms, abs=1), "the rest is said"
    assert run.told_ms == pytest.approx(run.skews_ms, abs=1e-3)


def test_no_picture_waits_for_sound_that_nobody_hears() -> None:
    run = call(waits_ms=60.0)
    run.sync.set(SetSound(None, None, heard=False))
    run.run(10, 10)
    assert set(run.holds_ms) == {0.0}
    assert run.sync.hold_ms(round(run.at_ms * MS), is_watched=True) > 0, "somebody else may"
    run.sync.set(SetSound(None, None, heard=True))
    assert run.sync.hold_ms(round(run.at_ms * MS)) > 0


def test_pictures_without_sound_and_sound_without_pictures_lose_nothing() -> None:
    mute = call().run(5, 10, has_sound=False)
    assert (set(mute.holds_ms), mute.told_ms) == ({0.0}, [])
    sync = LipSync(CallOptions())
    assert sync.delay_ms(0.0) == 0.0
    run = call(waits_ms=60.0).run(10, 10)
    assert run.sync.hold_ms(round(run.at_ms * MS) + 2 * FRESH_NS) == 0.0, "the sound has ended"


def test_an_echo_is_left_alone() -> None:
    run = call(waits_ms=60.0, mode="echo").run(10, 10)
    assert (set(run.holds_ms), set(run.delays_ms)) == ({0.0}, {0.0})


@pytest.mark.parametrize("trim_ms", [-100.0, 80.0])
def test_a_trim_moves_the_sound_and_is_no_skew(trim_ms: float) -> None:
    run = call(trim_ms=trim_ms)
    run.run(20, 200)
    run.run(10, 200)
    assert np.mean(run.skews_ms) == pytest.approx(-trim_ms, abs=STEADY_MS + 1)
    assert np.abs(run.told_ms).max() <= STEADY_MS + 1


def test_while_the_voice_helps_sound_waits_for_what_it_moves() -> None:
    """A mouth that follows the sound of 150 ms ago instead of a camera's picture, and back: seconds, not minutes."""
    run = call()
    run.run(15, 60)
    before = run.delays_ms[-1]
    run.run(2, 150)
    assert np.abs(run.skews_ms[-20:]).max() <= STEADY_MS + 2
    assert len(set(run.delays_ms)) <= 4, "it moved at once and not in many cuts"
    run.run(2, 60)
    assert run.delays_ms[-1] == pytest.approx(before, abs=STEADY_MS)


def test_what_the_page_measures_beyond_what_it_tells_is_made_up_for() -> None:
    """Its screen takes 40 ms that no buffer tells."""
    run = call()
    for _ in range(30):
        run.run(1, 100)
        run.sync.set(SetSound(None, None, skew_ms=float(np.mean(run.skews_ms)) + 40))
    seen = np.array(run.skews_ms) + 40
    assert np.abs(seen).max() <= STEADY_MS + 2
    assert run.told_ms == pytest.approx(list(seen), abs=3)


def test_a_page_that_tells_nonsense_moves_little() -> None:
    run = call()
    for _ in range(60):
        run.run(1, 400)
        run.sync.set(SetSound(None, None, skew_ms=1000.0))
    assert abs(np.mean(run.skews_ms)) <= 150 + STEADY_MS + 1


def test_a_repeated_picture_and_one_of_no_moment_say_nothing() -> None:
    run = call().run(5, 60)
    now_ns = run.at_ms * MS
    assert run.sync.skew_ms(outgoing(now_ns - 60 * MS, now_ns)) is not None
    assert run.sync.skew_ms(outgoing(now_ns - 60 * MS, now_ns, fresh=False)) is None
    assert run.sync.skew_ms(outgoing(None, now_ns)) is None
