"""`PictureBuffer`: no picture waits longer than it must, none is mixed, and no loss stops it for good."""

from __future__ import annotations

import itertools
import random

import pytest
from aiortc.jitterbuffer import JitterBuffer
from aiortc.rtp import RtpPacket
from hypothesis import given
from hypothesis import strategies as st

from streamer.webrtc.picture_buffer import (
    ASK_AGAIN_MS,
    MOST_ASKED,
    MOST_WAITING,
    WAIT_MS,
    EncodedPicture,
    PictureBuffer,
    PicturePacket,
)
from streamer.webrtc.rtp_order import MOST_DROPOUT

PERIOD_MS = 100 / 3


def packet(
    sequence: int,
    time: int,
    *,
    last: bool = False,
    at_ms: float = 0.0,
    begins: bool | None = None,
    data: bytes | None = None,
) -> PicturePacket:
    data = b"%d." % sequence if data is None else data
    return PicturePacket(sequence & 0xFFFF, time & 0xFFFFFFFF, last, at_ms, data, begins)


def pictures(buffer: PictureBuffer, *packets: PicturePacket) -> list[EncodedPicture]:
    return [picture for one in packets for picture in buffer.add(one)]


def released(buffer: PictureBuffer, *packets: PicturePacket) -> list[tuple[bytes, int]]:
    return [(p.data, p.time) for p in pictures(buffer, *packets)]


def made() -> PictureBuffer:
    return PictureBuffer(90_000)


def test_a_picture_is_released_by_its_own_last_packet() -> None:
    buffer = made()
    assert released(buffer, packet(10, 0), packet(11, 0)) == []
    assert released(buffer, packet(12, 0, last=True)) == [(b"10.11.12.", 0)]
    assert released(buffer, packet(13, 3000, last=True, at_ms=PERIOD_MS)) == [(b"13.", 3000)]


def test_aiortcs_own_buffer_waits_for_the_next_picture() -> None:
    """Why ours is there; when this fails, aiortc does it by itself."""
    theirs = JitterBuffer(128, is_video=True)

    def add(sequence: int, time: int) -> object:
        one = RtpPacket(sequence_number=sequence, timestamp=time, marker=1)
        one._data = b"x"  # type: ignore[attr-defined]
        return theirs.add(one)[1]

    assert add(10, 0) is None
    assert add(11, 3000) is not None


def test_packets_of_a_picture_come_in_any_order() -> None:
    for seed in range(20):
        buffer = made()
        assert released(buffer, packet(0, 0, last=True)) == [(b"0.", 0)]
        rest = [packet(k, 3000, last=k == 40) for k in range(1, 41)]
        random.Random(seed).shuffle(rest)
        assert released(buffer, *rest) == [(b"".join(b"%d." % k for k in range(1, 41)), 3000)]


def test_sequence_numbers_and_times_wrap() -> None:
    buffer = made()
    frames = released(
        buffer, *(packet(65_533 + k, 2**32 - 3000 + 3000 * (k // 2), last=k % 2 == 1) for k in range(8))
    )
    assert [t for _, t in frames] == [0, 3000, 6000, 9000]


def test_a_packet_sent_again_frees_every_picture_behind_it_in_order() -> None:
    buffer = made()
    first = [packet(0, 0), packet(2, 0, last=True)]
    second = [packet(3, 3000), packet(4, 3000, last=True)]
    third = [packet(5, 6000)]
    assert released(buffer, *first, *second, *third) == []
    assert released(buffer, packet(1, 0)) == [(b"0.1.2.", 0), (b"3.4.", 3000)]
    assert released(buffer, packet(6, 6000, last=True)) == [(b"5.6.", 6000)]


def test_a_sender_without_marker_bits_still_works() -> None:
    buffer = made()
    assert released(buffer, packet(0, 0), packet(1, 0)) == []
    assert released(buffer, packet(2, 3000)) == [(b"0.1.", 0)]
    assert released(buffer, packet(3, 6000)) == [(b"2.", 3000)]


def test_a_lost_last_packet_holds_its_picture() -> None:
    buffer = made()
    assert released(buffer, packet(0, 0), packet(2, 3000, last=True)) == []
    assert released(buffer, packet(1, 0, last=True)) == [(b"0.1.", 0), (b"2.", 3000)]


def test_duplicates_and_old_packets_change_nothing() -> None:
    buffer = made()
    assert released(buffer, packet(0, 0), packet(0, 0)) == []
    assert released(buffer, packet(1, 0, last=True)) == [(b"0.1.", 0)]
    assert released(buffer, packet(0, 0), packet(1, 0, last=True)) == []
    assert released(buffer, packet(2, 3000, last=True)) == [(b"2.", 3000)]


def test_padding_is_no_picture() -> None:
    """An empty packet would end the decoder for good, and it breaks no chain of pictures."""
    buffer = made()
    assert released(buffer, packet(0, 0, last=True)) == [(b"0.", 0)]
    assert released(buffer, packet(1, 0, data=b""), packet(2, 0, data=b"")) == []
    (next_one,) = pictures(buffer, packet(3, 3000, last=True))
    assert (next_one.data, next_one.time, next_one.follows) == (b"3.", 3000, True)


def stream(count: int, size: int = 3) -> list[PicturePacket]:
    """Pictures of `size` packets, 30 a second."""
    return [
        packet(k, 3000 * (k // size), last=k % size == size - 1, at_ms=k // size * PERIOD_MS, begins=k % size == 0)
        for k in range(count * size)
    ]  # fmt: skip


@pytest.mark.parametrize("length", [1, 2, 5, 20, 100, 700, 3500])
@pytest.mark.parametrize("at", [30, 31, 32])
def test_a_gap_is_given_up_after_its_time_whatever_its_length(length: int, at: int) -> None:
    buffer = made()
    packets = [p for p in stream(2000) if not at <= p.sequence < at + length]
    seen: list[tuple[float, EncodedPicture]] = []
    for one in packets:
        seen += [(one.arrived_ms, p) for p in buffer.add(one)]
    after = next((at_ms, p) for at_ms, p in seen if p.time > 3000 * (at // 3) - 1)
    gap_ends_ms = packets[at].arrived_ms
    assert not after[1].follows, "what was lost may be needed"
    assert after[0] <= gap_ends_ms + WAIT_MS + PERIOD_MS
    later = [p for at_ms, p in seen if at_ms > after[0]]
    assert all(p.follows for p in later)
    assert all(at_ms - p.arrived_ms < 1e-6 for at_ms, p in seen[-100:]), "at once again"
    whole = {3000 * k for k in range(2000)} - {3000 * (s // 3) for s in range(at, at + length)}
    times = [p.time for _, p in seen]
    assert times == sorted(set(times))
    # numbers that leap so far are believed at the second packet
    assert len(whole - set(times)) <= (length > MOST_DROPOUT), "no whole picture is left out"


def test_without_a_sign_of_where_pictures_begin_half_a_one_is_left_out() -> None:
    buffer = made()
    packets = [packet(p.sequence, p.rtp_time, last=p.marker, at_ms=p.arrived_ms) for p in stream(40)]
    seen = pictures(buffer, *(p for p in packets if not 30 <= p.sequence < 34))
    assert [p.time // 3000 for p in seen if p.time > 25_000] == [9, *range(12, 40)]
    assert all(p.data.count(b".") == 3 for p in seen)


def test_a_stream_that_is_joined_within_a_picture_starts_with_the_next() -> None:
    assert [p.time for p in pictures(made(), *stream(4)[1:])] == [0, 3000, 6000]


def test_what_is_missing_is_asked_for_until_it_is_given_up() -> None:
    buffer = made()
    asked: list[tuple[float, list[int]]] = []
    for one in stream(60):
        if one.sequence not in (30, 31, 40):
            buffer.add(one)
            wanted = buffer.wanted(one.arrived_ms)
            if wanted:
                asked.append((one.arrived_ms, wanted))
    assert asked[0][1] == [30, 31]
    times = {n: [t for t, w in asked if n in w] for n in (30, 31, 40)}
    assert set(itertools.chain.from_iterable(w for _, w in asked)) == set(times)
    for when in times.values():
        assert 3 <= len(when) <= WAIT_MS / ASK_AGAIN_MS
        assert min(b - a for a, b in itertools.pairwise(when)) >= ASK_AGAIN_MS
        assert when[-1] - when[0] <= WAIT_MS


def test_what_comes_after_all_is_asked_for_no_more() -> None:
    buffer = made()
    packets = stream(20)
    pictures(buffer, *packets[:10], *packets[11:15])
    assert buffer.wanted(packets[14].arrived_ms) == [10]
    buffer.add(packets[10])
    assert buffer.wanted(packets[14].arrived_ms + ASK_AGAIN_MS) == []


@pytest.mark.parametrize("lost", [True, False])
def test_a_picture_without_end_does_not_fill_the_memory(lost: bool) -> None:
    buffer = made()
    for k in range(5 * MOST_WAITING):
        if not (lost and k == 3):
            assert buffer.add(packet(k, 0)) == []
        assert len(buffer._waiting) <= MOST_WAITING + 1  # pyright: ignore[reportPrivateUsage]
        assert len(buffer._missing) <= MOST_WAITING + 1  # pyright: ignore[reportPrivateUsage]
    last = 5 * MOST_WAITING
    seen = pictures(buffer, packet(last, 0, last=True), packet(last + 1, 3000, last=True, begins=True))
    assert [p.data for p in seen] == [b"%d." % (last + 1)]


def test_numbers_that_leap_do_not_fill_the_memory() -> None:
    buffer = made()
    for k in range(200):
        buffer.add(packet(2900 * k, 3000 * k, last=True, at_ms=k, begins=True))
        assert len(buffer._missing) <= MOST_WAITING  # pyright: ignore[reportPrivateUsage]
        assert len(buffer._waiting) <= MOST_WAITING + 1  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize("step", [2, 100, 512, 3000])
@pytest.mark.parametrize("marked", [True, False])
def test_numbers_that_leap_on_and_on_cost_little(step: int, marked: bool) -> None:
    """As many packets as a second lets in: what is missing is bounded in all, and so is each request."""
    buffer = made()
    for k in range(1500):
        one = packet(step * k, 60 * k, last=marked, at_ms=k / 1.5, begins=True)
        buffer.add(one)
        wanted = buffer.wanted(one.arrived_ms)
        assert len(wanted) <= MOST_ASKED
        assert len(set(wanted)) == len(wanted)
        assert len(buffer._missing) <= MOST_WAITING  # pyright: ignore[reportPrivateUsage]
        assert len(buffer._waiting) <= MOST_WAITING + 1  # pyright: ignore[reportPrivateUsage]
    assert buffer.lost + len(buffer._missing) + 1500 > 1499 * step - MOST_DROPOUT  # pyright: ignore[reportPrivateUsage]


def test_after_too_many_missing_it_begins_anew_with_a_picture_that_follows_nothing() -> None:
    buffer = made()
    assert len(pictures(buffer, packet(0, 0, last=True, begins=True))) == 1
    assert pictures(buffer, packet(400, 3000, last=True, at_ms=1, begins=True)) == [], (
        "waits for what is missing"
    )
    (anew,) = pictures(buffer, packet(800, 6000, last=True, at_ms=2, begins=True))
    assert (anew.data, anew.follows) == (b"800.", False), "at once"
    assert buffer.wanted(2) == []
    assert buffer.lost == 399 + 399
    (next_one,) = pictures(buffer, packet(801, 9000, last=True, at_ms=3, begins=True))
    assert next_one.follows


def test_a_long_gap_is_asked_for_piece_by_piece_each_number_once() -> None:
    buffer = made()
    pictures(buffer, packet(0, 0, last=True), packet(351, 3000, last=True, at_ms=1))
    asked = [buffer.wanted(1) for _ in range(6)]
    assert [len(a) for a in asked] == [100, 100, 100, 50, 0, 0]
    assert list(itertools.chain(*asked)) == list(range(1, 351))
    assert buffer.wanted(1 + ASK_AGAIN_MS) == list(range(1, 101)), "the longest ago first"


@pytest.mark.slow
@given(st.data())
def test_no_picture_is_mixed_or_out_of_order_whatever_the_network_does(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=10))
    packets: list[PicturePacket] = []
    whole: dict[int, bytes] = {}
    for k, size in enumerate(sizes):
        parts = [packet(len(packets) + i, 3000 * k, last=i == size - 1) for i in range(size)]
        whole[3000 * k] = b"".join(p.data for p in parts)
        packets += parts
    order = [packets[0], *data.draw(st.permutations(packets[1:]))]
    frames = released(made(), *order)
    assert frames == [(d, t) for t, d in whole.items()], "with nothing lost, everything comes, once, in order"
    dropped = data.draw(st.sets(st.integers(1, len(packets)), max_size=3))
    frames = released(made(), *(p for p in order if p.sequence not in dropped))
    assert all(whole[t] == d for d, t in frames)
    assert [t for _, t in frames] == sorted(t for _, t in frames)
