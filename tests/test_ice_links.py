"""ICE servers as Link headers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamer.webrtc.ice_links import IceServer, link_headers


def test_servers_are_told_as_the_standard_shows_them() -> None:
    """RFC 9725's own example."""
    servers = [
        IceServer("stun:stun.example.net"),
        IceServer("turn:turn.example.net?transport=udp", "user", "myPassword"),
    ]
    assert link_headers(servers) == [
        '<stun:stun.example.net>; rel="ice-server"',
        '<turn:turn.example.net?transport=udp>; rel="ice-server"; username="user"; credential="myPassword"; '
        'credential-type="password"',
    ]
    assert link_headers([]) == []


def test_a_name_without_a_password_is_not_told() -> None:
    assert link_headers([IceServer("turn:a", "user")]) == ['<turn:a>; rel="ice-server"']
    assert "secret" not in repr(IceServer("turn:a", "user", "secret"))


@given(st.text(), st.text(), st.text())
def test_no_value_ends_its_header(url: str, username: str, credential: str) -> None:
    (link,) = link_headers([IceServer(url, username, credential)])
    assert link.encode("ascii").isascii()
    assert link.isprintable()
    assert link.index(">") == link.index('>; rel="ice-server"; username=')


def test_quotes_are_escaped() -> None:
    (link,) = link_headers([IceServer("turn:a", 'a"b', "c\\d")])
    assert 'username="a\\"b"; credential="c\\\\d"' in link
