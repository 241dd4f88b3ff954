"""STUN, TURN and ports: how they are written, who gets in and for how long, and what browsers are told."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest

from engines.errors import VisavisError
from streamer.serve.config import read_settings
from streamer.webrtc.ice import (
    IceError,
    IceServer,
    IceSettings,
    UdpPorts,
    read_ice,
    read_ports,
    read_urls,
    timed_credential,
)
from streamer.webrtc.offer_sdp import OfferError
from streamer.webrtc.peer import UnreachableError, configuration_of, reachable

TURN = ("turn", "turns")


def test_addresses_are_told_with_port_and_transport() -> None:
    assert read_urls("stun:stun.example.org", ("stun",)) == ("stun:stun.example.org:3478",)
    told = read_urls("turn:a.example, turns:[2001:db8::1]:443,turn:b.example:80?transport=tcp", TURN)
    assert told == (
        "turn:a.example:3478?transport=udp", "turns:[2001:db8::1]:443?transport=tcp", "turn:b.example:80?transport=tcp",
    )  # fmt: skip
    assert read_urls("", TURN) == ()


@pytest.mark.parametrize(
    "text",
    [
        "example.org", "http://example.org", "stun:", "stun:a b", "stun:a:0", "stun:a:65536", "stun:a?transport=udp",
        "stun:a:x", "turn:a", "stun:a\r\nX: y",
    ],
)  # fmt: skip
def test_what_is_no_stun_address_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(IceError, match=r"stun:stun\.example\.org:3478"):
        read_urls(text, ("stun",))


@pytest.mark.parametrize("text", ["stun:a", "turns:a?transport=udp", "turn:a?transport=sctp", "turn:a?x=y"])
def test_what_is_no_turn_address_is_refused(text: str) -> None:
    with pytest.raises(IceError):
        read_urls(text, TURN)


def test_ports_go_round_from_any_of_them_on() -> None:
    ports = read_ports(" 50000 - 50003 ")
    assert ports == UdpPorts(50000, 50003)
    assert len(ports) == 4
    assert ports.beginning_at(0) == [50000, 50001, 50002, 50003]
    assert ports.beginning_at(6) == [50002, 50003, 50000, 50001]
    assert len(read_ports("5000-5000")) == 1


@pytest.mark.parametrize(
    "text", ["", "50000", "50003-50000", "80-90", "50000-70000", "a-b", "-1-5", "50000–50010"]
)
def test_what_is_no_range_of_ports_is_refused(text: str) -> None:
    with pytest.raises(IceError, match="50000-50100"):
        read_ports(text)


def test_a_shared_secret_signs_a_name_that_ends() -> None:
    """draft-uberti-behave-turn-rest-00 § 2.2, as coturn checks it."""
    name, word = timed_credential("shared", 1_700_000_000.9, "page")
    assert name == "1700000000:page"
    assert base64.b64decode(word) == hmac.new(b"shared", b"1700000000:page", hashlib.sha1).digest()
    settings = read_ice("", "turn:a", None, None, "shared", None, lifetime_s=60)
    first, later = (settings.servers(now_s, "page")[0] for now_s in (1000.0, 2000.0))
    assert (first.username, later.username) == ("1060:page", "2060:page")
    assert first.credential != later.credential


def test_one_name_for_everybody_is_told_as_it_is() -> None:
    settings = read_ice("stun:s", "turn:a,turns:b", "ada", 'pass"word', None, None)
    stun, turn = settings.servers(0, "page")
    assert stun.to_dict() == {"urls": ["stun:s:3478"]}
    assert turn.to_dict() == {
        "urls": ["turn:a:3478?transport=udp", "turns:b:5349?transport=tcp"], "username": "ada",
        "credential": 'pass"word',
    }  # fmt: skip
    assert stun.links() == ['<stun:s:3478>; rel="ice-server"']
    assert turn.links()[0] == (
        '<turn:a:3478?transport=udp>; rel="ice-server"; username="ada"; credential="pass\\"word"; '
        'credential-type="password"'
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("", "turn:a", None, None, None), "VISAVIS_TURN_SECRET"),
        (("", "turn:a", "ada", None, None), "go together"),
        (("", "turn:a", "ada", "word", "secret"), "either"),
        (("", "", None, None, "secret"), "--turn"),
        (("", "", "ada", "word", None), "--turn"),
    ],
)
def test_what_does_not_go_together_says_what_is_missing(given: tuple[str, ...], said: str) -> None:
    with pytest.raises(IceError, match=said):
        read_ice(*given, None)  # pyright: ignore[reportArgumentType, reportCallIssue]


def test_the_server_reads_them_from_its_settings_and_never_shows_a_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VISAVIS_TURN_SECRET", "very secret")
    settings = read_settings(turn="turn:a", udp_ports="50000-50001", stun="stun:s")
    assert settings.ice == IceSettings(
        ("stun:s:3478",), ("turn:a:3478?transport=udp",), secret="very secret", ports=UdpPorts(50000, 50001)
    )
    assert "very secret" not in repr(settings)
    with pytest.raises(VisavisError, match="no range of UDP ports") as error:
        read_settings(turn="turn:a", udp_ports="1-2")
    assert "very secret" not in str(error.value)
    assert "VISAVIS_ (" not in str(error.value)


def test_nothing_is_asked_of_the_network_where_nothing_is_told() -> None:
    assert read_settings().ice == IceSettings()
    assert IceSettings().servers(0, "page") == []
    assert configuration_of([]).iceServers == []
    told = configuration_of([IceServer(("turn:a",), "u", "p")]).iceServers
    assert told is not None
    assert (told[0].urls, told[0].username, told[0].credential) == (["turn:a"], "u", "p")


def test_an_answer_without_an_address_says_why() -> None:
    assert reachable("v=0\r\na=candidate:1 …", None).startswith("v=0")
    with pytest.raises(UnreachableError, match="50000-50001"):
        reachable("v=0", UdpPorts(50000, 50001))
    with pytest.raises(UnreachableError, match="network address"):
        reachable("v=0", None, list)
    with pytest.raises(OfferError, match="reload the page"):
        reachable("v=0", None, lambda: ["192.0.2.1"])
