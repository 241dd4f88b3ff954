"""`visavis run` driven by another program over UDP, and driving one, from end to end on loopback."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest
from fakes import AT_LAST_S, read_all
from pythonosc.osc_packet import OscPacket
from telling import Pose, vmc

from engines.enrollment import Enrollment
from engines.errors import SinkError
from streamer.sources.video import VideoSource
from streamer.start_live import LiveOptions, run_live


def wire() -> socket.socket:
    wire = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    wire.bind(("127.0.0.1", 0))
    wire.settimeout(AT_LAST_S)
    return wire


@pytest.mark.slow
def test_an_avatar_is_driven_by_vmc_and_drives_by_vmc(astronaut: Enrollment, tmp_path: Path) -> None:
    free, other = wire(), wire()
    port = free.getsockname()[1]
    free.close()
    ended = threading.Event()

    def tell() -> None:
        with wire() as sender:
            k = 0
            while not ended.wait(1 / 60):
                k += 1
                sender.sendto(vmc(Pose(left_deg=5, shapes={"jawOpen": 0.1 * (k % 3)})), ("127.0.0.1", port))

    teller = threading.Thread(target=tell)
    teller.start()
    said: list[str] = []
    try:
        options = LiveOptions(
            source=f"vmc://:{port}",
            sink=str(tmp_path / "out.mp4"),
            generator="geometric",
            size_px=64,
            seconds=3.0,
            motion_to=f"vmc://127.0.0.1:{other.getsockname()[1]}",
        )
        outcome, snapshot = run_live(astronaut, options, said.append)
    finally:
        ended.set()
        teller.join()
    with other:
        first = [m.message.address for m in OscPacket(other.recv(65_535)).messages]
    assert first[0] == "/VMC/Ext/OK"
    assert outcome.frames
    assert outcome.notice is None
    assert snapshot.run_total_ms is not None
    with VideoSource(tmp_path / "out.mp4") as film:
        assert len(read_all(film)) == outcome.frames
    assert not [t for t in threading.enumerate() if t.name == "told"]


def test_a_wrong_target_is_said_and_nothing_left_open(astronaut: Enrollment, tmp_path: Path) -> None:
    options = LiveOptions(
        source="vmc://:39531", sink=str(tmp_path / "out.mp4"), size_px=64, motion_to="osc://x"
    )
    with pytest.raises(SinkError, match="write vmc://"):
        run_live(astronaut, options)
    assert not [t for t in threading.enumerate() if t.name == "told"]
