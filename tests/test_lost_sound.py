"""Sound over a network that loses, swaps, doubles and holds up packets: it comes back in time, to the sample."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace

import av
import numpy as np
import pytest
from aiortc.codecs.opus import OpusEncoder
from aiortc.jitterbuffer import JitterBuffer
from aiortc.rtp import RtpPacket
from hearing import EchoSpeech
from receiving import OPUS, PACKET, RATE_HZ, Arrival, Played, play, sound_packet

from streamer.drive.voice import Voice
from streamer.webrtc.call_sound import CallSound
from streamer.webrtc.sound_buffer import WAIT_MS

COUNT = 200
LAG_S = 0.05  # 20 ms of a packet and 30 ms of network
WITHIN_S = 0.020
EPSILON_S = 1e-6


def sound(count: int = COUNT, lost: Iterable[int] = ()) -> list[Arrival]:
    gone = set(lost)
    return [sound_packet(k) for k in range(count) if k not in gone]


def check(
    played: Played, lost: set[int], count: int = COUNT, delay_ms: float = 0.0, stale: Iterable[int] = ()
) -> None:
    """All that was not lost came back, once, in order, at its own time to the sample, and in time.

    What the delay still holds at the end has not come back.
    """
    found = played.numbers()
    numbers = [k for k, _, _ in found]
    assert numbers == sorted(set(numbers)), "in order, once"
    # what follows a gap is faded in, so it is no packet's alone
    faded = {k + 1 for k in lost}
    assert set(numbers) == set(range(count - round(delay_ms / 20))) - lost - faded - set(stale)
    assert {shift for _, _, shift in found} == {round(delay_ms / 1000 * RATE_HZ)}, (
        "time is kept to the sample"
    )
    allowed_s = LAG_S + delay_ms / 1000
    for number, lag_s, _ in found:
        # what is delayed leaves with a later packet, and with none while none comes
        later = number + round(delay_ms / 20)
        late_s = 0.0 if later not in lost | faded else WITHIN_S if not delay_ms else 10.0
        assert allowed_s - EPSILON_S <= lag_s <= allowed_s + late_s + EPSILON_S


def test_without_loss_every_packet_comes_back_as_it_comes() -> None:
    check(play(sound()), set())


@pytest.mark.parametrize("tens", range(0, COUNT, 20))
def test_one_lost_packet_at_every_position(tens: int) -> None:
    for lost in range(max(1, tens), tens + 20):
        count = min(COUNT, lost + 8)
        check(play(sound(count, {lost})), {lost}, count)


@pytest.mark.parametrize("length", [2, 5, 20])
@pytest.mark.parametrize("at", [1, 30, 77])
@pytest.mark.parametrize("delay_ms", [0.0, 60.0])
def test_a_burst_of_lost_packets(length: int, at: int, delay_ms: float) -> None:
    lost = set(range(at, at + length))
    played = play(sound(COUNT, lost), delay_ms=delay_ms)
    # in a long gap, what was to be sent while nothing came is left out
    stale = set(range(at - round(delay_ms / 20), at)) if length == 20 else set[int]()
    check(played, lost, delay_ms=delay_ms, stale=stale)


def test_the_last_second_of_a_call_with_five_percent_loss_is_in_time() -> None:
    for seed in range(3):
        chance = random.Random(seed)
        lost = {k for k in range(1, 1000) if chance.random() < 0.05}
        check(play(sound(1000, lost)), lost, 1000)


def test_two_seconds_of_blackout() -> None:
    lost = set(range(60, 160))
    played = play(sound(300, lost))
    check(played, lost, 300)
    # time on the way out jumped: no sound of the past is sent after it
    after_s = (160 * PACKET) / RATE_HZ
    burst = [pts for at_s, pts, _ in played.pieces if after_s < at_s < after_s + 0.1]
    assert len(burst) <= 6
    assert min(burst) >= 160 * PACKET


def test_packets_that_swap_places() -> None:
    arrivals = sound()
    for k in range(10, 190, 7):  # one comes 25 ms later: behind the next
        arrivals[k] = replace(arrivals[k], at_s=arrivals[k].at_s + 0.025)
    found = play(arrivals).numbers()
    assert [k for k, _, _ in found] == list(range(COUNT)), "nothing is lost"
    assert all(LAG_S - EPSILON_S <= lag <= LAG_S + 0.025 + EPSILON_S for _, lag, _ in found)
    assert {shift for _, _, shift in found} == {0}


def test_packets_that_come_twice_or_far_too_late() -> None:
    arrivals = sound()
    again = [replace(a, at_s=a.at_s + d) for a in arrivals[::3] for d in (0.0, 0.021, 0.5)]
    played = play([*arrivals, *again])
    check(played, set())
    very_late = [*sound(COUNT, {50}), replace(sound_packet(50), at_s=sound_packet(50).at_s + 0.3)]
    check(play(very_late), {50})


def test_packets_held_up_and_let_go_at_once_do_not_stay_behind() -> None:
    arrivals = [replace(a, at_s=max(a.at_s, 2.0) if a.at_s > 1.4 else a.at_s) for a in sound()]
    found = play(arrivals).numbers()
    assert {shift for _, _, shift in found} == {0}
    assert all(lag <= LAG_S + EPSILON_S for k, lag, _ in found if (k + 1) / 50 + 0.03 > 2.0)
    assert found[-1][0] == COUNT - 1


def test_a_gap_before_a_pause_waits_for_its_time_only() -> None:
    """The packet before a pause comes, the one before it does not: what came is not kept until the pause is over."""
    arrivals = [sound_packet(k) for k in (0, 1, 2, 4)] + [
        replace(sound_packet(5 + k), at_s=sound_packet(55 + k).at_s) for k in range(5)
    ]
    played = play(arrivals)
    came_s = sound_packet(4).at_s
    left = [at_s for at_s, _, _ in played.pieces]
    assert sum(came_s < at_s <= came_s + WAIT_MS / 1000 + EPSILON_S for at_s in left) == 2, (
        "3 was made up, 4 is 4"
    )


def test_a_pause_of_the_sender_is_a_pause() -> None:
    """With DTX numbers go on and time jumps; silence takes as long as it took, and nothing waits."""
    arrivals = sound(60) + [
        replace(a, sequence=(a.sequence - 20) & 0xFFFF) for a in sound(COUNT)[80:]
    ]  # 60 … 79 were never sent
    check(play(arrivals), set(range(60, 80)))


@pytest.mark.parametrize("ahead", [5000, 40_000, -5000, -50, -30_000])
def test_a_sequence_that_starts_anew(ahead: int) -> None:
    arrivals = sound(80) + [replace(a, sequence=(a.sequence + ahead) & 0xFFFF) for a in sound(COUNT)[80:]]
    found = play(arrivals).numbers()
    assert found[-1][0] == COUNT - 1
    assert {k for k, _, _ in found} >= set(range(COUNT)) - {80, 81}
    assert {shift for _, _, shift in found} == {0}
    assert all(lag <= LAG_S + EPSILON_S for _, lag, _ in found)


@pytest.mark.parametrize("ahead", [2**31 - 1, 2**30, 10 * RATE_HZ, -RATE_HZ, -170, -(2**30)])
def test_a_time_that_jumps(ahead: int) -> None:
    arrivals = sound(80) + [replace(a, rtp_time=(a.rtp_time + ahead) & 0xFFFFFFFF) for a in sound(COUNT)[80:]]
    check(play(arrivals), set())


def test_another_source_goes_on_where_the_first_stopped() -> None:
    arrivals = sound(80) + [
        replace(a, source=2, sequence=(a.sequence * 7) & 0xFFFF, rtp_time=a.rtp_time ^ 0x5A5A0000)
        for a in sound(81)[80:]
    ]
    arrivals += [
        replace(
            a, source=2, sequence=(arrivals[-1].sequence + k + 1) & 0xFFFF, rtp_time=a.rtp_time ^ 0x5A5A0000
        )
        for k, a in enumerate(sound(COUNT)[81:])
    ]
    check(play(arrivals), set())


def test_a_packet_without_sound_in_it_ends_nothing() -> None:
    """libavcodec takes an empty packet for the end of the stream, and decodes no more."""
    arrivals = [replace(a, payload=b"") if a.number == 90 else a for a in sound()]
    check(play(arrivals), {90})


def test_packets_longer_than_ours_leave_in_pieces_with_their_own_times() -> None:
    """aiortc's encoder gives all that one frame becomes the same time."""
    whole = [
        replace(sound_packet(k * 3 + 2), sequence=k, rtp_time=480 * k, payload=b"".join(
            sound_packet(k * 3 + i).payload for i in range(3)
        ))
        for k in range(60)
    ]  # fmt: skip
    played = play(a for a in whole if a.sequence != 20)
    assert {len(samples) for _, _, samples in played.pieces} == {PACKET}
    assert [pts for _, pts, _ in played.pieces] == list(range(0, 180 * PACKET, PACKET))


def test_the_voice_keeps_time_with_what_is_sent_back() -> None:
    chance = random.Random(5)
    lost = {k for k in range(1, 390) if chance.random() < 0.05} | set(range(150, 250))
    voice = Voice(EchoSpeech())
    driver = CallSound(voice)

    def heard(frame: av.AudioFrame) -> None:
        driver.put(frame)
        driver.read(0.0)

    played = play(sound(400, lost), heard=heard)
    _, pts, samples = played.pieces[-1]
    assert pts + len(samples) == 400 * PACKET
    assert voice.heard_s == pytest.approx(400 * 0.02, abs=0.002), "but for what the resampler holds"


def opus_arrivals(count: int) -> list[Arrival]:
    """Half a second of silence, half a second of 400 Hz, and so on."""
    encoder = OpusEncoder()
    arrivals: list[Arrival] = []
    for k in range(count):
        t = (np.arange(960) + 960 * k) / 48_000
        wave = (8000 * np.sin(2 * np.pi * 400 * t) * (t % 1.0 >= 0.5)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(np.repeat(wave, 2)[None], "s16", "stereo")
        frame.sample_rate, frame.pts = 48_000, 960 * k
        payloads, time = encoder.encode(frame)
        arrivals.append(replace(sound_packet(k), rtp_time=time & 0xFFFFFFFF, payload=payloads[0]))
    return arrivals


def test_opus_with_losses_beeps_when_it_should() -> None:
    """The same with the codec of every call: the marker in the sound is where it was, whatever was lost before."""
    arrivals = opus_arrivals(250)

    def onsets(lost: set[int]) -> list[int]:
        pieces = play((a for a in arrivals if a.number not in lost), codec=OPUS).pieces
        assert [pts for _, pts, _ in pieces] == list(range(0, 250 * 960, 960)), (
            "no gap is long enough to stay"
        )
        line = np.zeros(250 * 960, np.int16)
        for _, pts, samples in pieces:
            line[pts : pts + len(samples)] = samples
        loud = np.abs(line.astype(int)) > 3000
        quiet_before = ~np.array([loud[max(0, k - 4800) : k].any() for k in np.flatnonzero(loud)])
        return [int(k) for k in np.flatnonzero(loud)[quiet_before]]

    exact = onsets(set())
    assert len(exact) == 5
    chance = random.Random(1)
    # not where a beep begins
    lost = {k for k in range(1, 240) if chance.random() < 0.05 and not 23 <= k % 50 <= 28} | set(
        range(105, 111)
    )
    assert np.abs(np.subtract(onsets(lost), exact)).max() <= 48


def test_aiortcs_own_buffer_stays_late_for_good() -> None:
    """Why ours is there; when this fails, aiortc does it by itself."""
    theirs = JitterBuffer(capacity=16, prefetch=4)
    behind: list[int] = []
    for k in range(COUNT):
        if k != 50:
            one = RtpPacket(sequence_number=k, timestamp=960 * k)
            one._data = b"x"  # type: ignore[attr-defined]
            frame = theirs.add(one)[1]
            if frame is not None:
                behind.append(k - frame.timestamp // 960)
    assert set(behind[:40]) == {4}
    assert set(behind[-100:]) == {14}, "200 ms later than before"
