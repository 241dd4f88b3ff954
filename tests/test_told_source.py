"""Told motion as a live source: whom it believes, what it asks, what silence does; sockets on loopback alone."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from fakes import AT_LAST_S, FakeClock
from telling import FPS, WRITERS, Pose, ifacialmocap, open_see_face, performance, vmc, vts

from engines.errors import DriverError
from engines.geometry import yaw_pitch_roll_deg
from streamer.drive.driver import Drive
from streamer.drive.open import open_driver
from streamer.drive.told import Told
from streamer.drive.trackers.names import TOLD
from streamer.sources.open import open_source
from streamer.sources.source import SourceState
from streamer.sources.told import receiver as receiver_module
from streamer.sources.told import udp_source
from streamer.sources.told.address import ToldAddress, told_address
from streamer.sources.told.ifacialmocap import GREETING
from streamer.sources.told.receiver import Counts, Receiver
from streamer.sources.told.udp_source import DIALECTS, ToldSource

KINDS = list(WRITERS)
S = 1_000_000_000


def receiver(kind: str, query: str = "") -> Receiver:
    host = "192.168.1.7" if kind in ("vts", "ifacialmocap") else ""
    return Receiver(told_address(f"{kind}://{host}{query}"), DIALECTS[kind]())


def sender_of(kind: str) -> str:
    return "192.168.1.7" if kind in ("vts", "ifacialmocap") else "127.0.0.1"


# ---- without sockets: recordings, order, trust


def recorded(kind: str) -> list[tuple[float, bytes]]:
    """A synthetic recording: when each datagram arrives, with 5 … 30 ms on the way."""
    delays = np.random.default_rng(1).uniform(0.005, 0.03, 1000)
    return [
        (time_s + float(delays[k]), WRITERS[kind](pose, time_s))
        for k, (time_s, pose) in enumerate(performance())
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_recorded_stream_drives_as_it_was_performed(kind: str) -> None:
    """Calm, a turn to the left with an open mouth, eyes shut; the neutral is taken on the way."""
    takes = receiver(kind)
    driver = open_driver(TOLD, lambda error: pytest.fail(str(error)))
    drives: list[tuple[float, Drive]] = []
    for arrived_s, datagram in recorded(kind):
        told = takes.take(datagram, sender_of(kind), round((100 + arrived_s) * S))
        assert told is not None
        drives.append((told.pts_s, driver.drive(told)))
    times = [t for t, _ in drives]
    assert times[0] == 0
    assert (np.diff(times) > 0).all()
    assert times[-1] == pytest.approx(119 / FPS, abs=0.03)
    assert driver.neutral_report.state == "taken"
    assert {d.state for _, d in drives} == {"calibrating", "tracking"}
    widest = max(drives, key=lambda d: d[1].motion.jaw)
    assert widest[0] == pytest.approx(2.5, abs=0.12)
    assert widest[1].motion.jaw == pytest.approx(0.4, abs=0.03)
    assert yaw_pitch_roll_deg(widest[1].motion.rotation_rad)[0] == pytest.approx(20, abs=2)
    assert yaw_pitch_roll_deg(widest[1].neutral.rotation_rad) == pytest.approx([0, 0, 0], abs=0.3)
    calm, last = drives[45][1].motion, drives[-1][1].motion
    assert calm.closure == pytest.approx([1, 0, 0], abs=0.05), "lips closed, eyes open"
    assert widest[1].motion.closure[0] == pytest.approx(0, abs=0.05)
    assert last.closure[1:] == pytest.approx([1, 1], abs=0.05)
    assert takes.counts == Counts(taken=len(drives))


@pytest.mark.parametrize("kind", ["vts", "openseeface"])
def test_what_comes_out_of_order_or_twice_is_left_out(kind: str) -> None:
    takes = receiver(kind)
    order = [0.0, 0.1, 0.05, 0.1, 0.2]
    told = [
        takes.take(WRITERS[kind](Pose(), t), sender_of(kind), round((9 + k / 10) * S))
        for k, t in enumerate(order)
    ]
    assert [t is None for t in told] == [False, False, True, True, False]
    assert (takes.counts.taken, takes.counts.late) == (3, 2)


def test_the_time_of_capture_is_the_phones_where_it_tells_one() -> None:
    takes = receiver("vts")
    for k in range(30):
        takes.take(vts(Pose(), k / 60), "192.168.1.7", round((5 + k / 60 + 0.01) * S))
    late = takes.take(vts(Pose(), 30 / 60), "192.168.1.7", round((5 + 30 / 60 + 0.2) * S))
    assert late is not None
    assert late.capture_time_ns == pytest.approx((5 + 30 / 60 + 0.01) * S, abs=2_000_000)
    stamps = late.trace.stamps_ns
    assert stamps["received"] - stamps["captured"] == pytest.approx(0.19 * S, abs=2_000_000)
    plain = receiver("ifacialmocap").take(ifacialmocap(Pose()), "192.168.1.7", 7 * S)
    assert plain is not None
    assert plain.capture_time_ns == 7 * S, "its arrival, where no time is told"


def test_a_phone_whose_clock_is_set_back_does_not_turn_time_back() -> None:
    takes = receiver("vts")
    times: list[float] = []
    for k in range(40):
        sent_s = k / 60 - (3600 if k >= 20 else 0)
        told = takes.take(vts(Pose(), sent_s), "192.168.1.7", round((5 + k / 60) * S))
        assert told is not None
        times.append(told.pts_s)
    assert np.diff(times) == pytest.approx(np.full(39, 1 / 60), abs=0.002)


def test_media_time_never_stands_or_turns_back() -> None:
    """A way that gets quicker by more than a frame shows that all that came before was earlier than it seemed."""
    takes = receiver("vts")
    times: list[float] = []
    for k in range(40):
        on_its_way_s = 0.2 if k < 20 else 0.01
        told = takes.take(vts(Pose(), k / 60), "192.168.1.7", round((5 + k / 60 + on_its_way_s) * S))
        assert told is not None
        times.append(told.pts_s)
    assert min(np.diff(times)) > 0
    assert times[-1] == pytest.approx(39 / 60 - 0.19, abs=0.01)


def test_nobody_but_the_named_sender_is_believed() -> None:
    for kind in ("vts", "ifacialmocap"):
        takes = receiver(kind)
        assert takes.take(WRITERS[kind](Pose(), 0.0), "192.168.1.8", S) is None
        assert takes.take(WRITERS[kind](Pose(), 0.0), "192.168.1.7", S) is not None
        assert takes.counts == Counts(taken=1, foreign=1)
    named = Receiver(told_address("vmc://192.168.1.5?from=192.168.1.9"), DIALECTS["vmc"]())
    assert named.take(vmc(Pose()), "192.168.1.7", S) is None
    assert named.take(vmc(Pose()), "192.168.1.9", S) is not None


def test_bad_datagrams_are_counted_and_nothing_of_them_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    secret = b'{"FaceFound":true,"name":"somebody"'
    with caplog.at_level(logging.DEBUG):
        for kind in KINDS:
            takes = receiver(kind)
            huge = WRITERS[kind](Pose(), 0.0) + b" " * 70_000
            for datagram in (secret, huge, b"[" * 9000, b""):
                assert takes.take(datagram, sender_of(kind), S) is None
            assert takes.counts.bad == 4
            assert takes.heard_ns is None
            assert takes.take(WRITERS[kind](Pose(), 0.0), sender_of(kind), 2 * S) is not None
    assert not caplog.records


def test_a_fault_of_our_own_costs_one_datagram(monkeypatch: pytest.MonkeyPatch) -> None:
    takes = receiver("vts")
    with monkeypatch.context() as broken:
        broken.setattr("streamer.sources.told.vtube_studio.turned", lambda **_: 1 / 0)
        assert takes.take(vts(Pose()), "192.168.1.7", S) is None
    assert takes.take(vts(Pose(), 0.1), "192.168.1.7", 2 * S) is not None
    assert takes.counts == Counts(taken=1, bad=1)


def test_a_flood_is_read_so_far_and_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver_module, "MOST_PER_S", 10)
    takes = receiver("ifacialmocap")
    for k in range(25):
        takes.take(ifacialmocap(Pose()), "192.168.1.7", 5 * S + k)
    assert takes.counts == Counts(taken=10, flooded=15)
    assert takes.take(ifacialmocap(Pose()), "192.168.1.7", 6 * S + 1) is not None


def test_a_mirror_and_flips_are_the_users_to_ask() -> None:
    pose = Pose(left_deg=10, down_deg=4)
    plain, flipped, mirrored = (
        receiver("vts", query).take(vts(pose), "192.168.1.7", S) for query in ("", "?flip=yaw", "?mirror")
    )
    turns = [
        yaw_pitch_roll_deg(t.motion.rotation_rad)[:2] for t in (plain, flipped, mirrored) if t and t.motion
    ]
    assert turns == [pytest.approx(a, abs=0.01) for a in ((10, 4), (-10, 4), (-10, 4))]


def test_smoothing_is_for_what_is_measured() -> None:
    raw = {kind: DIALECTS[kind]().is_raw for kind in KINDS}
    assert raw == {"vts": True, "ifacialmocap": True, "vmc": False, "openseeface": True}


# ---- with sockets


class Phone:
    """What answers on loopback: a socket, and what it was asked."""

    def __init__(self) -> None:
        self.wire = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.wire.bind(("127.0.0.1", 0))
        self.wire.settimeout(AT_LAST_S)

    @property
    def port(self) -> int:
        return int(self.wire.getsockname()[1])

    def asked(self) -> tuple[bytes, tuple[str, int]]:
        return self.wire.recvfrom(65_535)

    def tell(self, datagram: bytes, port: int, host: str = "127.0.0.1") -> None:
        self.wire.sendto(datagram, (host, port))


@pytest.fixture
def phone() -> Iterator[Phone]:
    phone = Phone()
    yield phone
    phone.wire.close()


def wait(what: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + AT_LAST_S
    while not what():
        assert time.monotonic() < deadline_s, "it never happened"
        time.sleep(0.005)


def taken(source: ToldSource) -> Told:
    told = source.read(timeout_s=AT_LAST_S)
    assert told is not None
    return told


def test_vtube_studio_is_asked_and_answers_where_it_was_asked_to(phone: Phone) -> None:
    with ToldSource(told_address(f"vts://127.0.0.1:{phone.port}")) as source:
        request, _ = phone.asked()
        port = int(json.loads(request)["ports"][0])
        assert port == source.port
        phone.tell(vts(Pose(left_deg=10)), port)
        told = taken(source)
        assert told.motion is not None
        assert yaw_pitch_roll_deg(told.motion.rotation_rad)[0] == pytest.approx(10, abs=0.01)
        assert set(told.trace.stamps_ns) == {"captured", "received", "decoded"}
        assert source.state is SourceState.READY
        assert source.notices == ()
        phone.asked()  # again, while it answers
    assert source.state is SourceState.ENDED
    assert source.read() is None
    assert not [t for t in threading.enumerate() if t.name == "told"]


def test_ifacialmocap_is_greeted(phone: Phone) -> None:
    with ToldSource(told_address(f"ifacialmocap://127.0.0.1:{phone.port}"), listen_port=0) as source:
        greeting, _ = phone.asked()
        assert greeting.startswith(GREETING)
        phone.tell(ifacialmocap(Pose(down_deg=7)), source.port)
        assert taken(source).motion is not None


@pytest.mark.parametrize(("kind", "datagram"), [("vmc", vmc(Pose())), ("openseeface", open_see_face(Pose()))])
def test_programs_of_this_computer_are_heard_on_loopback(kind: str, datagram: bytes, phone: Phone) -> None:
    with ToldSource(told_address(f"{kind}://"), listen_port=0) as source:
        assert source._socket.getsockname()[0] == "127.0.0.1"
        phone.tell(datagram, source.port)
        assert taken(source).motion is not None


def test_a_phone_is_heard_on_the_one_interface_that_leads_to_it(phone: Phone) -> None:
    with ToldSource(told_address(f"vts://127.0.0.1:{phone.port}")) as source:
        assert source._socket.getsockname()[0] == "127.0.0.1"


def test_strangers_and_rubbish_do_not_stop_a_stream(phone: Phone) -> None:
    stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    stranger.bind(("127.0.0.2", 0))
    with ToldSource(told_address(f"vts://127.0.0.1:{phone.port}")) as source, stranger:
        stranger.sendto(vts(Pose(left_deg=-30)), ("127.0.0.1", source.port))
        for rubbish in (b"", b"\xff" * 60_000, b"[" * 10_000, b"{}"):
            phone.tell(rubbish, source.port)
        phone.tell(vts(Pose(left_deg=10)), source.port)
        told = taken(source)
        assert told.motion is not None
        assert yaw_pitch_roll_deg(told.motion.rotation_rad)[0] > 0
        assert source.counts == Counts(taken=1, bad=4, foreign=1)


def test_the_newest_wins(phone: Phone) -> None:
    with ToldSource(told_address(f"vts://127.0.0.1:{phone.port}")) as source:
        for k in range(20):
            phone.tell(vts(Pose(left_deg=k), k / 60), source.port)
        wait(lambda: source.counts.taken == 20)
        told = taken(source)
        assert told.sequence == 19
        assert source.dropped == 19
        assert source.read(timeout_s=0) is None


def test_a_phone_that_falls_silent_is_asked_again_and_comes_back(phone: Phone) -> None:
    clock = FakeClock(start_ns=5 * S)
    with ToldSource(
        told_address(f"ifacialmocap://127.0.0.1:{phone.port}"), clock=clock, listen_port=0
    ) as source:
        phone.asked()
        phone.tell(ifacialmocap(Pose()), source.port)
        first = taken(source)
        assert source.state is SourceState.READY
        clock.advance(2.5)
        assert source.state is SourceState.LOST
        assert "no motion comes from 127.0.0.1: open iFacialMocap on it" in (source.notice or "")
        phone.asked()
        clock.advance(1.1)
        phone.asked()
        assert source.read(timeout_s=0.01) is None
        phone.tell(ifacialmocap(Pose()), source.port)
        again = taken(source)
        assert source.state is SourceState.READY
        assert source.notice is None
        assert again.pts_s - first.pts_s == pytest.approx(3.6, abs=0.01)


def test_a_phone_is_followed_to_another_interface(phone: Phone, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a sleep, when this computer has another address; and a way that is gone for a while is waited for."""
    clock = FakeClock(start_ns=5 * S)
    with ToldSource(told_address(f"vts://127.0.0.1:{phone.port}"), clock=clock) as source:
        phone.asked()

        def no_way(*_: object) -> str:
            raise OSError("no route")

        monkeypatch.setattr(udp_source, "_way_to", no_way)
        clock.advance(3)
        assert phone.asked()[1][0] == "127.0.0.1"
        monkeypatch.setattr(udp_source, "_way_to", lambda *_: "127.0.0.2")
        clock.advance(3)
        request, (host, _) = phone.asked()
        assert host == "127.0.0.2"
        port = int(json.loads(request)["ports"][0])
        assert port == source.port
        phone.tell(vts(Pose()), port, host)
        assert taken(source).motion is not None


def test_what_another_program_sends_is_said_to_be_that(phone: Phone) -> None:
    clock = FakeClock()
    with ToldSource(told_address("vmc://"), clock=clock, listen_port=0) as source:
        for _ in range(20):
            phone.tell(vts(Pose()), source.port)
        wait(lambda: source.counts.bad == 20)
        clock.advance(3)
        assert "is not what vmc sends" in (source.notice or "")


def test_a_port_that_is_taken_is_said_with_the_fix(phone: Phone) -> None:
    with pytest.raises(
        DriverError, match=rf"on 127\.0\.0\.1 port {phone.port} .*close the program that has this port"
    ):
        open_source(f"vmc://:{phone.port}")


def test_a_phone_that_no_way_leads_to_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_way(*_: object) -> str:
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(udp_source, "_way_to", no_way)
    with pytest.raises(
        DriverError, match=r"no way to the phone 192\.0\.2\.7 \(Network is unreachable\); connect"
    ):
        open_source("vts://192.0.2.7")


def test_an_address_that_is_not_this_computers_is_said() -> None:
    with pytest.raises(DriverError, match=r"vmc cannot be listened to on 192\.0\.2\.1"):
        open_source("vmc://192.0.2.1?from=192.0.2.2")


def test_close_ends_a_waiting_read() -> None:
    source = ToldSource(told_address("vmc://"), listen_port=0)
    closer = threading.Timer(0.1, source.close)
    closer.start()
    assert source.read() is None
    closer.join()
    source.close()


def test_what_it_delivers_is_told() -> None:
    with ToldSource(replace(told_address("vmc://"), port=0)) as source:
        info = source.info
        assert (info.size_px, info.is_live, info.tells_motion, info.has_audio) == (None, True, True, False)
        assert info.name == f"vmc port {source.port}"
    assert isinstance(told_address("vmc://"), ToldAddress)
