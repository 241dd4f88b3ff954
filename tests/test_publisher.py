"""Pushing calls to a WHIP server: whose picture, how soon again, what is told to whom, and which settings there are."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from aiortc import RTCPeerConnection, RTCSessionDescription
from calls import only_loopback
from hypothesis import given
from hypothesis import strategies as st
from test_broadcast import picture, piece

from engines.errors import VisavisError
from streamer.clock import SystemClock
from streamer.serve.config import ServeSettings
from streamer.serve.publish_target import address_of, target_of
from streamer.serve.publisher import MOST_WAIT_S, Publisher, chosen, wait_s
from streamer.webrtc import aiortc_fixes
from streamer.webrtc.broadcast import Broadcast
from streamer.webrtc.publication import Publication, PublicationError, WhipTarget, retry_after_s

URL = "https://whip.example/live/secret-key"


class StopError(Exception):
    """The test has seen enough."""


def call(mode: str = "avatar", *, failed: bool = False, ending: bool = False) -> Any:
    broadcast = Broadcast(lambda _: None)
    broadcast.has_pictures = True
    return SimpleNamespace(
        options=SimpleNamespace(mode=mode), failed=failed, ending=ending, broadcast=broadcast
    )


def test_the_oldest_avatar_is_pushed() -> None:
    first, second = call(), call()
    assert chosen([first, second]) is first
    assert chosen([call("echo"), call(failed=True), call(ending=True), second]) is second
    assert chosen([]) is None
    assert chosen([call("echo")]) is None


@given(st.integers(1, 10_000), st.floats(0, 300), st.floats(0, 1))
def test_waits_grow_and_end_somewhere(failures: int, asked_s: float, chance: float) -> None:
    waits = wait_s(failures, asked_s, chance)
    assert waits >= asked_s
    assert waits <= max(asked_s, 1.25 * MOST_WAIT_S)
    assert wait_s(failures + 1, 0, 0.5) >= wait_s(failures, 0, 0.5)
    assert wait_s(1, 0, 0.5) == 1


@pytest.mark.parametrize(
    ("said", "seconds"),
    [(None, 0), ("", 0), ("7", 7), ("-3", 0), ("1e9", 0), ("9" * 9, 300), ("Wed, 21 Oct", 0)],
)
def test_what_a_server_asks_for_is_bounded(said: str | None, seconds: float) -> None:
    assert retry_after_s(said) == seconds


def test_the_token_is_for_its_own_server_alone() -> None:
    target = WhipTarget(URL, "a-token")
    assert target.headers_for("https://whip.example/other") == {"Authorization": "Bearer a-token"}
    for elsewhere in (
        "http://whip.example/other",
        "https://whip.example:8443/",
        "https://evil.example/",
        "nonsense",
    ):
        assert target.headers_for(elsewhere) == {}
    assert WhipTarget(URL).headers_for(URL) == {}
    assert "a-token" not in repr(target)


# --- one publication, and a server that the test plays --------------------------------------------------


class Server:
    """Answers as `post` does; remembers what it was asked."""

    def __init__(self, post: Callable[[httpx.Request], Any]) -> None:
        self.asked: list[httpx.Request] = []
        self._post = post
        self.pc: RTCPeerConnection | None = None

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        if request.method == "DELETE":
            return httpx.Response(200)
        answer = self._post(request)
        return await answer if not isinstance(answer, httpx.Response) else answer

    @property
    def methods(self) -> list[str]:
        return [request.method for request in self.asked]


async def published(
    server: Server, broadcast: Broadcast, *, is_over: Callable[[], bool] = lambda: False
) -> None:
    async with httpx.AsyncClient(transport=httpx.MockTransport(server)) as http:
        target = WhipTarget(URL, "a-token")
        await Publication(target, broadcast, http, SystemClock(), is_over=is_over).run()


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    aiortc_fixes.apply()
    only_loopback(monkeypatch)


@pytest.fixture
def broadcast() -> Broadcast:
    made = Broadcast(lambda _: None)
    made.put(picture(0))
    return made


async def test_a_publication_is_a_whip_session_from_offer_to_delete(broadcast: Broadcast) -> None:
    broadcast.hear(piece(0))
    pc = RTCPeerConnection()

    async def post(request: httpx.Request) -> httpx.Response:
        assert request.headers["content-type"] == "application/sdp"
        assert request.headers["authorization"] == "Bearer a-token"
        sdp = request.content.decode()
        assert sdp.count("a=sendonly") == 2
        assert "a=candidate:" in sdp, "no candidates are trickled"
        await pc.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
        await pc.setLocalDescription(await pc.createAnswer())
        return httpx.Response(201, headers={"Location": "../session/7"}, text=pc.localDescription.sdp)

    server = Server(post)
    try:
        await published(server, broadcast, is_over=lambda: pc.connectionState == "connected")
    finally:
        await pc.close()
    assert server.methods == ["POST", "DELETE"]
    assert str(server.asked[1].url) == "https://whip.example/session/7"
    assert server.asked[1].headers["authorization"] == "Bearer a-token"
    assert not broadcast.watched


async def test_sound_is_offered_where_there_is_some(broadcast: Broadcast) -> None:
    server = Server(lambda _: httpx.Response(503, headers={"Retry-After": "20"}))
    with pytest.raises(PublicationError) as caught:
        await published(server, broadcast)
    assert caught.value.retry_after_s == 20
    assert "503" in str(caught.value)
    assert "secret-key" not in str(caught.value), "an address may be a key"
    assert b"m=video" in server.asked[0].content
    assert b"m=audio" not in server.asked[0].content
    assert server.methods == ["POST"]


@pytest.mark.parametrize("text", ["", "v=0\r\n", "nonsense", "v=0\r\nm=video 9 X 96\r\n"])
async def test_an_answer_that_is_none_ends_with_delete(broadcast: Broadcast, text: str) -> None:
    server = Server(lambda _: httpx.Response(201, headers={"Location": "/s/1"}, text=text))
    with pytest.raises(PublicationError):
        await published(server, broadcast)
    assert server.methods == ["POST", "DELETE"]
    assert not broadcast.watched


async def test_an_endless_answer_is_not_read_to_its_end(broadcast: Broadcast) -> None:
    server = Server(lambda _: httpx.Response(201, headers={"Location": "/s/1"}, content=b"x" * (1 << 20)))
    with pytest.raises(PublicationError, match="too long"):
        await published(server, broadcast)
    assert server.methods == ["POST", "DELETE"]


async def test_a_session_elsewhere_is_ended_without_the_token(broadcast: Broadcast) -> None:
    elsewhere = "https://other.example/s/1"
    server = Server(lambda _: httpx.Response(201, headers={"Location": elsewhere}, text="nonsense"))
    with pytest.raises(PublicationError):
        await published(server, broadcast)
    assert str(server.asked[-1].url) == elsewhere
    assert "authorization" not in server.asked[-1].headers


async def test_nothing_is_published_before_there_is_a_picture() -> None:
    looked: list[int] = []

    def is_over() -> bool:
        looked.append(1)
        return len(looked) > 2

    server = Server(lambda _: httpx.Response(500))
    await published(server, Broadcast(lambda _: None), is_over=is_over)
    assert server.asked == []


async def test_a_publisher_comes_again_later_and_later(caplog: pytest.LogCaptureFixture) -> None:
    """It says once why, and waits longer after each failure."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 6:
            raise StopError

    calls = SimpleNamespace(connected=[call("echo"), call()])

    def refuse(_: httpx.Request) -> httpx.Response:
        return httpx.Response(401)

    publisher = Publisher(
        WhipTarget(URL),
        cast(Any, calls),
        sleep=sleep,
        chance=lambda: 0.5,
        transport=httpx.MockTransport(Server(refuse)),
    )
    with caplog.at_level(logging.WARNING), pytest.raises(StopError):
        await publisher.run()
    assert slept == [1, 2, 4, 8, 16, 32]
    assert caplog.text.count("401") == 1


# --- settings -------------------------------------------------------------------------------------------


def settings_of(**given: Any) -> ServeSettings:
    return ServeSettings(**given)


def test_a_target_comes_from_settings(tmp_path: Path) -> None:
    assert target_of(settings_of()) is None
    assert target_of(settings_of(publish=URL)) == WhipTarget(URL)
    assert target_of(settings_of(publish=URL, publish_token="abc")) == WhipTarget(URL, "abc")
    file = tmp_path / "token"
    file.write_text("from-a-file\n")
    assert target_of(settings_of(publish=URL, publish_token_file=file)) == WhipTarget(URL, "from-a-file")
    assert "abc" not in repr(settings_of(publish=URL, publish_token="abc"))


def test_a_token_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISAVIS_PUBLISH", URL)
    monkeypatch.setenv("VISAVIS_PUBLISH_TOKEN", "from-outside")
    assert target_of(ServeSettings()) == WhipTarget(URL, "from-outside")


@pytest.mark.parametrize(
    "text", ["", "nonsense", "ftp://a", "https://", "https://a b", "http://[", "https://a:x/"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(VisavisError, match="https://host/whip/name"):
        address_of(text)


def test_a_password_in_an_address_is_refused() -> None:
    with pytest.raises(VisavisError, match="VISAVIS_PUBLISH_TOKEN") as caught:
        address_of("https://me:hunter2@host/whip")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff", b"x" * 9000])
def test_a_file_without_a_token_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(VisavisError, match="--publish-token-file"):
        target_of(settings_of(publish=URL, publish_token_file=file))


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VisavisError, match="--publish URL"):
        target_of(settings_of(publish_token_file=tmp_path / "token"))
    with pytest.raises(VisavisError, match="cannot be read"):
        target_of(settings_of(publish=URL, publish_token_file=tmp_path / "token"))
    with pytest.raises(VisavisError, match="characters"):
        target_of(settings_of(publish=URL, publish_token="a b"))


def test_a_token_in_clear_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    target_of(settings_of(publish="http://127.0.0.1/whip", publish_token="abc"))
    assert not caplog.records
    target_of(settings_of(publish="http://192.0.2.1/whip", publish_token="abc"))
    assert "https" in caplog.text
    assert "abc" not in caplog.text
