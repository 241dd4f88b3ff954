"""What is said of an offer before aiortc reads it, and that what passes breaks nothing behind the answer."""

from __future__ import annotations

import asyncio
import logging
import re
from contextlib import suppress
from typing import Any

import pytest
from calls import Camera, Client, Painter, only_loopback, plain_enrollment
from hypothesis import given
from hypothesis import strategies as st

from streamer.latency.metrics import Metrics
from streamer.serve.calls import Calls
from streamer.serve.capacity import Capacity
from streamer.webrtc import aiortc_fixes
from streamer.webrtc.call_options import CallOptions
from streamer.webrtc.offer_sdp import (
    MAX_CANDIDATES,
    MAX_FEEDBACK,
    MAX_FORMATS,
    MAX_LINE_CHARS,
    MAX_LINES,
    IceLogin,
    OfferError,
    UnfitOfferError,
    check_offer,
    login_of,
    sends,
)


async def offered() -> str:
    client = Client(Camera(), audio=True)
    try:
        return await client.offer()
    finally:
        await client.close()


@pytest.fixture(scope="module")
def honest() -> str:
    """An offer of a camera, a microphone and a data channel."""
    return asyncio.run(offered())


def refusal_of(sdp: str) -> str:
    try:
        check_offer(sdp)
    except OfferError as error:
        return str(error)
    return ""


def formats(count: int) -> str:
    return "".join(f"a=rtpmap:{k} VP8/90000\r\n" for k in range(count))


CANDIDATE = "a=candidate:1 1 udp 1 192.0.2.{} {} typ host\r\n"


def without(sdp: str, name: str) -> str:
    return re.sub(rf"a={name}[^\r]*\r\n", "", sdp)


def test_an_honest_offer_passes(honest: str) -> None:
    check_offer(honest)


@pytest.mark.parametrize(
    "sdp",
    ["v=0\r\n", "", "m=", "m=video", "\x00", "m=video 9 X 96\r\na=", "m=\nm=\n", "é", "m=video\u2028m=video"],
)
def test_nonsense_is_refused(sdp: str) -> None:
    with pytest.raises(OfferError):
        check_offer(sdp)


@pytest.mark.parametrize(
    ("old", "new", "names"),
    [
        (r"a=fingerprint[^\r]*\r\n", "", "a=fingerprint"),
        (r"a=ice-ufrag[^\r]*\r\n", "", "a=ice-ufrag"),
        (r"a=ice-pwd:[^\r]*", "a=ice-pwd:", "a=ice-pwd"),
        ("m=application", "m=text", "'text'"),
        ("m=audio", "m=video", "two sections"),
        ("m=audio", "m=application", "two sections"),
        ("m=video", "m=vid3o", "vid3o"),
        ("(?s)m=video.*?(?=m=)", "", "no video"),
        ("a=sendrecv", "a=sendonly", "does not receive"),
        ("a=sendrecv", "a=inactive", "does not receive"),
        (r"a=sctp-port:\d+\r\n", "", "SCTP"),
        (r"a=sctp-port:\d+", "a=sctp-port:70000", "SCTP"),
        (r"a=sctp-port:\d+", "a=sctp-port:-1", "SCTP"),
        (r"a=max-message-size:\d+", "a=max-message-size:-5", "max-message-size"),
        (r"a=extmap:\d+", "a=extmap:300", "a=extmap:300"),
        (r"a=extmap:\d+", "a=extmap:0", "a=extmap:0"),
        ("a=mid:0", f"a=mid:{'m' * 256}", "a=mid"),
        ("a=mid:0", "a=rtpmap:96 VP8/90000\r\n" * 2 + "a=mid:0", "two of one number"),
        ("a=mid:0", "a=rtpmap:35 VP8/90000\r\na=rtpmap:035 VP8/90000\r\na=mid:0", "two of one number"),
        ("a=mid:0", "a=rtpmap:1_1 VP8/90000\r\na=mid:0", "a=rtpmap:1_1"),
        ("a=mid:0", formats(MAX_FORMATS + 1) + "a=mid:0", "rtpmap"),
        ("a=mid:0", "a=rtcp-fb:96 nack\r\n" * (MAX_FEEDBACK + 1) + "a=mid:0", "rtcp-fb"),
        ("a=mid:0", "a=rtcp-fb:* nack\r\n" * (MAX_FEEDBACK // 2) + "a=mid:0", "rtcp-fb"),
        ("a=mid:0", CANDIDATE.format(1, 1) * (MAX_CANDIDATES + 1) + "a=mid:0", "candidates"),
        ("a=mid:0", "a=ssrc:1 x\r\n" * MAX_LINES + "a=mid:0", "lines"),
        ("a=mid:0", f"a=x:{'y' * MAX_LINE_CHARS}\r\na=mid:0", "lines"),
    ],
)  # fmt: skip
def test_what_could_not_become_a_call_is_named(honest: str, old: str, new: str, names: str) -> None:
    sdp, count = re.subn(old, new, honest)
    assert count, "the offer has nothing of the kind"
    with pytest.raises(OfferError) as caught:
        check_offer(sdp)
    assert names in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_what_a_section_lacks_may_stand_before_all_of_them(honest: str) -> None:
    """As Firefox writes it."""
    fingerprint = re.search(r"a=fingerprint[^\r]*\r\n", honest)
    assert fingerprint
    check_offer(without(honest, "fingerprint").replace("m=", f"{fingerprint[0]}m=", 1))


def test_as_many_candidates_as_may_be_pass(honest: str) -> None:
    room = MAX_CANDIDATES - honest.count("a=candidate:")
    check_offer(honest.replace("a=mid:0", CANDIDATE.format(1, 1) * room + "a=mid:0", 1))


def test_as_many_formats_and_as_much_feedback_as_may_be_pass(honest: str) -> None:
    feedback = "a=rtcp-fb:* nack\r\n" * (MAX_FEEDBACK // MAX_FORMATS)
    bare = re.sub(r"a=rtcp-fb[^\r]*\r\n|a=rtpmap[^\r]*\r\n|a=fmtp[^\r]*\r\n", "", honest)
    check_offer(bare.replace("a=mid:0", formats(MAX_FORMATS) + feedback + "a=mid:0", 1))


@given(st.text(st.sampled_from("mva=ice-ufrgptdo:\r\n 019/"), max_size=400) | st.text(max_size=200))
def test_any_text_passes_or_is_refused_in_one_sentence(text: str) -> None:
    assert "\n" not in refusal_of(text)


def changed(sdp: str) -> list[str]:
    """Each attribute of `sdp` once with values that its reader may not expect, and left out."""
    lines = sdp.splitlines(keepends=True)
    out: list[str] = []
    seen: set[str] = set()
    for k, line in enumerate(lines):
        head, colon, _ = line.rstrip("\r\n").partition(":")
        if head in seen:
            continue
        seen.add(head)
        out.append("".join([*lines[:k], *lines[k + 1 :]]))
        values = ("", "z", "-1", "0", "70000", "1 2", "a/b", "sha-256 00") if colon else ()
        out += ["".join([*lines[:k], f"{head}:{value}\r\n", *lines[k + 1 :]]) for value in values]
    return out


@pytest.mark.slow
def test_whatever_an_offer_says_nothing_breaks_behind_its_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Calls that are answered are also tried: what a task of aiortc stumbles on later is no traceback."""
    aiortc_fixes.apply()
    only_loopback(monkeypatch)
    wrong: list[Any] = []
    refusals: list[str] = []

    async def attack() -> int:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: wrong.append(context))
        calls = Calls(Metrics(), 100, Capacity(2), Painter)  # type: ignore[arg-type]
        connected = 0
        for k in range(len(changed(await offered()))):
            client = Client(Camera(), audio=True)
            sdp = changed(await client.offer())[k]
            try:
                session, answer = await calls.begin(plain_enrollment(), CallOptions(drive="demo"), sdp)
                with suppress(Exception):  # an answer to what the client did not offer
                    await client.accept(answer)
                for _ in range(20):  # long enough for most to connect; none has to
                    await asyncio.sleep(0.005)
                connected += session.connected
                await session.close()
            except OfferError as error:
                refusals.append(str(error))
            finally:
                await client.close()
            assert calls.sessions == [], sdp
        return connected

    with caplog.at_level(logging.WARNING):
        assert asyncio.run(attack()) > 10, "the changed offers were to be tried"
    assert wrong == []
    assert refusals
    assert not [text for text in refusals if "\n" in text]
    ours = [r for r in caplog.records if r.name.startswith(("aiortc", "streamer"))]
    assert [r.getMessage() for r in ours if "Traceback" in r.getMessage() or r.exc_info] == []


def turned(sdp: str, video: str, audio: str) -> str:
    """`sdp` whose sections go these ways."""
    before, *sections = re.split("(?=m=)", sdp)
    ways = {"m=video": video, "m=audio": audio}
    return before + "".join(
        re.sub("a=(sendrecv|sendonly|recvonly|inactive)\r\n", ways.get(s[:7], "\\g<0>"), s) for s in sections
    )


WAYS = ("a=sendrecv\r\n", "a=sendonly\r\n", "a=recvonly\r\n", "a=inactive\r\n", "")


@pytest.mark.parametrize("video", WAYS)
@pytest.mark.parametrize("audio", WAYS)
def test_a_sender_sends_something_and_a_player_receives_pictures(honest: str, video: str, audio: str) -> None:
    """What a section does not say is `sendrecv` (RFC 8866 § 6.7)."""
    sdp, sending, receiving = turned(honest, video, audio), ("", *WAYS[:2]), ("", WAYS[0], WAYS[2])
    assert (sends(sdp, "video"), sends(sdp, "audio")) == (video in sending, audio in sending)

    def passes(caller: Any) -> bool:
        try:
            check_offer(sdp, caller)
        except UnfitOfferError:
            return False
        return True

    assert passes("sender") == (video in sending or audio in sending)
    assert passes("player") == passes("page") == (video in receiving)


def test_a_way_that_is_said_for_all_sections_holds_where_one_says_nothing(honest: str) -> None:
    bare = turned(honest, "", "")
    assert sends(bare, "video")
    assert not sends(bare.replace("t=0 0\r\n", "t=0 0\r\na=recvonly\r\n"), "video")
    assert sends(
        bare.replace("t=0 0\r\n", "t=0 0\r\na=recvonly\r\n").replace("a=mid:0", "a=sendonly\r\na=mid:0"),
        "video",
    )


def test_a_microphone_alone_is_a_senders_offer(honest: str) -> None:
    before, *sections = re.split("(?=m=)", honest)
    voice = before + next(s for s in sections if s.startswith("m=audio"))
    check_offer(voice, "sender")
    with pytest.raises(UnfitOfferError, match="no video"):
        check_offer(voice, "player")


def test_the_login_of_an_offer_is_that_of_its_first_section(honest: str) -> None:
    ufrag, pwd = (re.findall(rf"a=ice-{name}:(.*)\r", honest)[0] for name in ("ufrag", "pwd"))
    assert login_of(honest) == IceLogin(ufrag, pwd)
    for_all = without(honest, "ice-").replace("m=", f"a=ice-ufrag:{ufrag}\r\na=ice-pwd:{pwd}\r\nm=", 1)
    assert login_of(for_all) == IceLogin(ufrag, pwd)
    assert login_of(without(honest, "ice-pwd")) is None
    assert login_of("") is None
