"""How one names a phone or program that tells motion, and who may be listened to."""

from __future__ import annotations

import pytest

from engines.errors import DriverError, SinkError
from streamer.sinks.names import MotionTarget, motion_target
from streamer.sources.names import source_named
from streamer.sources.told.address import ToldAddress, told_address


def test_a_phone_is_asked_at_its_usual_port_and_alone_listened_to() -> None:
    assert told_address("vts://192.168.1.7") == ToldAddress("vts", "192.168.1.7", 21412, "192.168.1.7")
    assert told_address("ifacialmocap://192.168.1.7:5000") == ToldAddress(
        "ifacialmocap", "192.168.1.7", 5000, "192.168.1.7"
    )
    assert told_address("VTS://[fe80::1]").host == "fe80::1"
    assert told_address("vts://192.168.1.7").is_phone


def test_programs_are_heard_on_this_computer_alone_unless_told_otherwise() -> None:
    assert told_address("vmc://") == ToldAddress("vmc", "127.0.0.1", 39539)
    assert told_address("vmc://:39540").port == 39540
    assert told_address("openseeface://:11573") == ToldAddress("openseeface", "127.0.0.1", 11573)
    assert told_address("vmc://127.0.0.2:1").sender is None
    named = told_address("vmc://192.168.1.5?from=192.168.1.7")
    assert (named.host, named.sender) == ("192.168.1.5", "192.168.1.7")
    assert not named.is_phone


@pytest.mark.parametrize("text", ["vmc://0.0.0.0", "vmc://[::]:39539", "openseeface://192.168.1.5"])
def test_nobody_opens_a_port_to_all_the_world(text: str) -> None:
    with pytest.raises(DriverError, match=r"all of the network move the face.*\?from=ADDRESS"):
        told_address(text)


def test_turns_can_be_taken_the_other_way_round() -> None:
    address = told_address("vts://10.0.0.2?flip=yaw,roll&mirror")
    assert address.flips == {"yaw", "roll"}
    assert address.mirror


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("vts:192.168.1.7", "no slashes; write vts://"),
        ("vts://", "names no phone; write vts://"),
        ("vts://my-phone.local", "no address of numbers"),
        ("vts://192.168.1.7?from=1.2.3.4", "only the phone itself"),
        ("vts://192.168.1.7:0", "more than an address"),
        ("vts://192.168.1.7:99999", "no address"),
        ("vts://me@192.168.1.7", "more than an address"),
        ("vmc://:39539/x", "more than an address"),
        ("vmc://:39539?flip=nod", "there is no setting flip"),
        ("vmc://:39539?mirror=yes", "there is no setting mirror"),
        ("vmc://:39539?from=pc.local", "no address of numbers"),
        ("vmc://[x", "no address"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_write(text: str, says: str) -> None:
    with pytest.raises(DriverError, match=says):
        source_named(text)


def test_they_are_sources_like_the_others() -> None:
    assert source_named("vts://192.168.1.7") == "vts://192.168.1.7"
    with pytest.raises(DriverError, match="no network sources of pictures"):
        source_named("rtsp://192.168.1.7")
    with pytest.raises(DriverError, match=r"choose .*vts://PHONE, ifacialmocap://PHONE, vmc://:PORT"):
        source_named("")


def test_motion_is_sent_to_an_address() -> None:
    assert motion_target("vmc://") == MotionTarget("127.0.0.1", 39539)
    assert motion_target("vmc://192.168.1.5:39540") == MotionTarget("192.168.1.5", 39540)


@pytest.mark.parametrize(
    "text", ["", "vmc", "vmc:", "osc://1.2.3.4", "vmc://pc.local", "vmc://1.2.3.4/x", "vmc://:0"]
)
def test_what_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(SinkError, match=r"write vmc://127\.0\.0\.1:39539"):
        motion_target(text)
