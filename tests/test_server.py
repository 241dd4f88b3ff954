"""The server's HTTP: what it answers, and what it refuses in one clear sentence."""

from __future__ import annotations

import asyncio
import io
import os
import re
import socket
import threading
import zipfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import cv2
import httpx
import numpy as np
import pytest
from aiortc.sdp import SessionDescription
from calls import GREEN, RED, Client, Painter, plain_enrollment
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image
from pydantic import ValidationError
from starlette.datastructures import URL as StarletteURL
from starlette.requests import HTTPConnection

from calibration.photo import Photo
from engines.enrollment import Enrollment, load_enrollment, save_enrollment
from engines.generators.names import generator_for_calls, generators_for_calls
from engines.generators.registry import GENERATORS
from engines.generators.weights_file import weights_file
from engines.motion import Motion, read_motion
from engines.picture.background import Background
from engines.presets import preset_names
from engines.retarget import Controls
from streamer import __version__
from streamer.clock import SystemClock
from streamer.drive.driver import Drive
from streamer.drive.trackers.names import TRACKER_NAMES
from streamer.frame import LatencyTrace
from streamer.kept import kept_folder
from streamer.latency.trace import read_trace
from streamer.look import Look
from streamer.serve import start, uploads
from streamer.serve.app import create_app
from streamer.serve.calls import MOST_WAITING
from streamer.serve.config import ServeSettings
from streamer.serve.numbers import call_numbers
from streamer.serve.service import Service
from streamer.serve.store import AvatarStore, BackgroundStore, picture_of
from streamer.webrtc.build_avatar import build_avatar
from streamer.webrtc.call_options import CallOptions
from streamer.webrtc.sound_filler import SoundCounts

URL = "http://127.0.0.1:8000"


@contextmanager
def serving(
    store: AvatarStore | None = None, *, base_url: str = URL, **settings: Any
) -> Generator[TestClient]:
    if store is None:
        store = AvatarStore()
        store.add_public(plain_enrollment(RED, "red"))
        store.add_public(plain_enrollment(GREEN, "green"))
    app = create_app(ServeSettings(**settings), store, make_avatar=Painter)  # type: ignore[arg-type]
    with TestClient(app, base_url=base_url, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def client() -> Iterator[TestClient]:
    with serving() as client:
        yield client


@pytest.fixture(scope="module")
def offers() -> dict[str, str]:
    """SDP offers of a client that is not there any more."""

    async def make(*, audio: bool = False, video: bool = True) -> str:
        client = Client(audio=audio, video=video)
        try:
            return await client.offer()
        finally:
            await client.close()

    return {"video": asyncio.run(make()), "audio": asyncio.run(make(audio=True, video=False))}


def offer(client: httpx.Client, sdp: str, **more: object) -> httpx.Response:
    return client.post("/api/offer", json={"sdp": sdp, "type": "offer", **more})


def error_of(response: httpx.Response) -> str:
    """The one sentence of a refusal."""
    body = response.json()
    assert set(body) - {"what"} == {"error"}
    sentence = body["error"]
    assert sentence
    assert "\n" not in sentence
    assert "Traceback" not in sentence
    return sentence


def sessions_of(client: TestClient) -> int:
    return client.get("/api/health").json()["sessions"]


def hang_up(client: TestClient) -> None:
    """End every call, as the server does when it stops."""
    app, portal = cast(FastAPI, client.app), client.portal
    assert portal is not None
    portal.call(app.state.service.calls.close_all)


def workers() -> int:
    return sum(t.name == "avatar" for t in threading.enumerate())


def jpeg(image: np.ndarray, quality: int = 90) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "JPEG", quality=quality)
    return out.getvalue()


def upload(
    client: httpx.Client, data: bytes, consent: str = "Test Person", name: str = "me.jpg"
) -> httpx.Response:
    return client.post("/api/avatars", files={"photo": (name, data)}, data={"consent": consent})


def test_health(client: TestClient) -> None:
    assert client.get("/api/health").json() == {"status": "ok", "version": __version__, "sessions": 0}


def test_the_page_and_its_files_come_with_a_strict_policy(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert "text/html" in page.headers["content-type"]
    for path in ("/", "/static/main.js", "/static/style.css", "/api/avatars"):
        answer = client.get(path)
        assert answer.status_code == 200, path
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in answer.headers
    assert "javascript" in client.get("/static/main.js").headers["content-type"]


def test_a_small_computer_calls_with_the_generator_that_is_fluent() -> None:
    assert generator_for_calls(2) == "geometric"
    assert generator_for_calls(4) == "visavis"
    drawing = [n for n, e in GENERATORS.items() if e.blueprint is None or weights_file(n).is_file()]
    assert sorted(generators_for_calls(2)) == sorted(drawing)
    assert {"geometric", "visavis"} <= set(drawing)
    assert generators_for_calls(2)[0] == generator_for_calls(2)


def test_avatars_are_listed_in_order(client: TestClient) -> None:
    assert client.get("/api/avatars").json() == {
        "avatars": [{"name": n, "title": n, "kept": False} for n in ("red", "green")],
        "keep_in": str(kept_folder()),
        "generators": generators_for_calls(len(os.sched_getaffinity(0))),
        "trackers": list(TRACKER_NAMES),
        "emotions": list(preset_names()),
        "default": "red",
        "look": {"background": "keep", "aspect": "1:1"},
    }
    assert "geometric" in GENERATORS


def test_controls_are_saved_with_an_avatar(client: TestClient, offers: dict[str, str]) -> None:
    body = offer(client, offers["video"], avatar="green", drive="demo").json()
    assert body["controls"] is None
    answer = client.put("/api/avatars/green/controls", json={"head": 0.5, "preset": "happy"})
    wanted = Controls(head=0.5, preset="happy").to_dict()
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"controls": wanted, "kept": "memory"}
    assert offer(client, offers["video"], avatar="green", drive="demo").json()["controls"] == wanted
    assert offer(client, offers["video"], avatar="red", drive="demo").json()["controls"] is None
    # the whole of it is replaced: what is not given is the default
    answer = client.put("/api/avatars/green/controls", json={"lips": 0})
    assert answer.json()["controls"] == Controls(lips=0).to_dict()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "named"),
    [
        ('{"head":3}', "head"), ('{"head":NaN}', "head"), ('{"head":"1"}', "head"), ('{"nose":1}', "nose"),
        ('{"motion":"sideways"}', "relative, absolute"), ('{"preset":"furious"}', "awed"),
        ('{"keep_lips":null}', "keep_lips"), ('{"lips":0,"brows":-1}', "brows"), ("[]", ""), ("7", ""), ("{", ""),
        ("", ""), ("[" * 100_000, ""),
    ],
)  # fmt: skip
def test_controls_that_make_no_sense_change_nothing(
    client: TestClient, offers: dict[str, str], body: str, named: str
) -> None:
    good = {"head": 0.5}
    assert client.put("/api/avatars/green/controls", json=good).status_code == 200
    headers = {"content-type": "application/json"}
    answer = client.put("/api/avatars/green/controls", content=body, headers=headers)
    assert 400 <= answer.status_code < 500
    assert named in error_of(answer)
    saved = offer(client, offers["video"], avatar="green", drive="demo").json()["controls"]
    assert saved == Controls(head=0.5).to_dict()


def test_controls_need_an_avatar_and_a_body_that_is_not_too_large(client: TestClient) -> None:
    answer = client.put("/api/avatars/nobody/controls", json={})
    assert answer.status_code == 404
    assert "not on the server; choose another" in error_of(answer)
    answer = client.put("/api/avatars/red/controls", content=iter([b"{}"]))
    assert answer.status_code == 411
    answer = client.put("/api/avatars/red/controls", content=b"x", headers={"content-length": "999999999999"})
    assert answer.status_code == 413


def test_controls_go_into_the_file_that_the_avatar_came_from(astronaut: Enrollment, tmp_path: Path) -> None:
    file, link = tmp_path / "face.avatar", tmp_path / "link.avatar"
    save_enrollment(replace(astronaut, name="face"), file)
    link.symlink_to(file)
    store = AvatarStore()
    store.add_public(load_enrollment(file), file)
    second = store.add_public(load_enrollment(link), link)
    assert second == "face-2"
    with serving(store) as client:
        answer = client.put("/api/avatars/face/controls", json={"head": 0.5})
        assert answer.json() == {"controls": Controls(head=0.5).to_dict(), "kept": "file"}
        stored = load_enrollment(file)
        assert stored.controls == Controls(head=0.5)
        assert stored.name == "face"
        np.testing.assert_array_equal(stored.uv_colour, astronaut.uv_colour)
        assert file.stat().st_mode & 0o777 == 0o600
        assert client.put("/api/avatars/face-2/controls", json={"gaze": 0}).status_code == 200
        assert link.is_symlink()
        assert load_enrollment(file).controls == Controls(gaze=0)
        assert load_enrollment(file).name == "face", "its own name, not the one that the list made unique"


def test_a_file_that_cannot_be_written_is_told_without_its_place(
    astronaut: Enrollment, tmp_path: Path, offers: dict[str, str]
) -> None:
    file = tmp_path / "face.avatar"
    save_enrollment(replace(astronaut, name="face"), file)
    store = AvatarStore()
    store.add_public(load_enrollment(file), file)
    with serving(store) as client:
        save_enrollment(replace(astronaut, photo_sha256="1" * 64), file)
        answer = client.put("/api/avatars/face/controls", json={"head": 0.5})
        assert answer.status_code == 409
        assert "another photo" in error_of(answer)
        file.unlink()
        answer = client.put("/api/avatars/face/controls", json={"head": 0.5})
        assert answer.status_code == 409
        assert "face" in error_of(answer)
        assert str(tmp_path) not in answer.text
        assert list(tmp_path.iterdir()) == []
        saved = offer(client, offers["video"], avatar="face", drive="demo").json()["controls"]
        assert saved is None, "nothing was saved, so nothing is remembered either"


def test_a_server_without_avatars_says_what_to_do(offers: dict[str, str]) -> None:
    with serving(AvatarStore()) as client:
        assert client.get("/api/avatars").json()["default"] is None
        answer = offer(client, offers["video"])
        assert answer.status_code == 404
        assert "add its photo" in error_of(answer)


def test_the_picture_of_an_avatar(client: TestClient) -> None:
    answer = client.get("/api/avatars/green/picture")
    assert answer.headers["content-type"] == "image/jpeg"
    image = np.asarray(Image.open(io.BytesIO(answer.content)))
    assert image.shape == (256, 256, 3)
    assert np.abs(image.reshape(-1, 3).mean(0) - GREEN).max() < 6
    answer = client.get("/api/avatars/nobody/picture")
    assert answer.status_code == 404
    assert "not on the server; choose another" in error_of(answer)


@pytest.mark.slow
def test_upload_call_and_delete(
    client: TestClient,
    astronaut_photo: Path,
    offers: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = upload(client, astronaut_photo.read_bytes(), name="../../etc/Ada Lovelace.png")
    assert answer.status_code == 201, answer.text
    body = answer.json()
    assert body["title"] == "Ada Lovelace"
    assert isinstance(body["notices"], list)
    name = body["name"]
    assert len(name) > 16, "nobody guesses it"
    assert name not in client.get("/api/avatars").text, "only its uploader knows it"
    picture = Image.open(io.BytesIO(client.get(f"/api/avatars/{name}/picture").content))
    assert picture.size == (256, 256)
    assert offer(client, offers["video"], avatar=name, drive="demo").status_code == 200
    assert client.delete(f"/api/avatars/{name}").status_code == 204
    assert client.get(f"/api/avatars/{name}/picture").status_code == 404
    assert client.delete(f"/api/avatars/{name}").status_code == 404
    assert list(tmp_path.iterdir()) == [], "an upload stays in memory"


def test_consent_is_kept_with_the_upload(
    client: TestClient, astronaut: Enrollment, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []

    def fake_enroll(photo: Photo, *, name: str, consent: str, head_model: str | None) -> Enrollment:
        heard.append(consent)
        return astronaut

    monkeypatch.setattr(uploads, "enroll_photo", fake_enroll)
    data = io.BytesIO()
    Image.fromarray(NOISE).save(data, "PNG")
    assert upload(client, data.getvalue(), consent="  Ada Lovelace ").status_code == 201
    assert heard == ["Ada Lovelace"]
    for consent in ("", "   ", "\n"):
        answer = upload(client, b"x", consent=consent)
        assert answer.status_code == 422
        assert "consent" in error_of(answer)
    answer = client.post("/api/avatars", files={"photo": ("me.jpg", b"x")})
    assert answer.status_code == 422
    assert "consent" in error_of(answer)
    answer = client.post("/api/avatars", files={"consent": (None, "Ada")})
    assert answer.status_code == 422
    assert "photo" in error_of(answer)
    assert upload(client, b"x", consent="A" * 201).status_code == 422
    assert len(heard) == 1


def bomb() -> bytes:
    """A small PNG of half a billion pixels."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30_000, 20_000, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(3751 * 2000)))
        + chunk(b"IEND", b"")
    )


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("me.jpg", b"x")
    return out.getvalue()


NOISE = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"dear server, this is no photo", id="text"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", id="svg"),
        pytest.param(zipped(), id="zip"),
        pytest.param(bomb(), id="bomb"),
        pytest.param(jpeg(NOISE)[:800], id="truncated"),
        pytest.param(os.urandom(5000), id="garbage"),
        pytest.param(jpeg(NOISE), id="no face"),
    ],
)
def test_what_is_no_photo_of_a_face_is_refused(client: TestClient, data: bytes) -> None:
    answer = upload(client, data)
    assert 400 <= answer.status_code < 500
    assert len(error_of(answer)) > 15
    assert "/" not in error_of(answer).replace("http://", ""), "no path of the server's"
    assert client.get("/api/health").status_code == 200


def test_a_photo_that_is_too_large_is_refused_before_it_is_read() -> None:
    with serving(max_photo_mb=0.5) as client:
        answer = upload(client, bytes(600_000))
        assert answer.status_code == 413
        assert "0.5 MB" in error_of(answer)
        answer = client.post("/api/avatars", content=b"x", headers={"content-length": "999999999999"})
        assert answer.status_code == 413
        answer = client.post("/api/avatars", content=iter([b"x" * 10]))
        assert answer.status_code == 411
        assert error_of(answer)


def test_uploads_beyond_the_limit_push_out_the_oldest() -> None:
    store = AvatarStore(max_uploads=2)
    public = store.add_public(plain_enrollment(RED, "red"))
    first, second, third = (store.add_upload(plain_enrollment(GREEN), "me") for _ in range(3))
    assert store.get(first) is None
    assert store.get(second)
    assert store.get(third)
    assert store.get(public)
    assert not store.remove_upload(public), "public avatars stay"
    assert store.add_public(plain_enrollment(GREEN, "red")) == "red-2"


def test_public_avatars_cannot_be_deleted(client: TestClient) -> None:
    assert client.delete("/api/avatars/red").status_code == 409
    assert client.get("/api/avatars/red/picture").status_code == 200


def test_an_offer_is_answered_and_hung_up_at_the_end(offers: dict[str, str]) -> None:
    before = workers()
    with serving() as client:
        body = offer(client, offers["video"], avatar="green", size=256, drive="demo").json()
        assert body["type"] == "answer"
        assert "m=video" in body["sdp"]
        assert "a=sendonly" in body["sdp"]
        assert "127.0.0.1" in body["sdp"], "works with no network at all"
        assert "x-google-start-bitrate" in body["sdp"]
        assert body["session"]
        assert sessions_of(client) == 1
    assert workers() == before


@pytest.mark.parametrize(
    "sdp", ["", "nonsense", "v=0\r\n", "m=video 9 UDP/TLS/RTP/SAVPF 96\r\n", "\x00\x01", "v=0\r\nm=video"]
)
def test_a_malformed_sdp_is_one_sentence_and_leaks_nothing(client: TestClient, sdp: str) -> None:
    before = workers()
    answer = offer(client, sdp)
    assert answer.status_code == 400
    assert "offer" in error_of(answer)
    assert sessions_of(client) == 0
    assert workers() == before


def test_a_damaged_sdp_never_breaks_the_server(client: TestClient, offers: dict[str, str]) -> None:
    lines = offers["video"].splitlines(keepends=True)
    before = workers()
    for k in range(0, len(lines), 3):
        for damaged in (
            lines[:k],
            lines[:k] + lines[k + 1 :],
            [*lines[:k], lines[k][:5] + "\r\n", *lines[k + 1 :]],
        ):
            answer = offer(client, "".join(damaged), drive="demo")
            assert answer.status_code in (200, 400), answer.text
            if answer.status_code == 400:
                error_of(answer)
    assert sessions_of(client) <= MOST_WAITING + 1, "one may be about to close"
    assert workers() == before


def test_offers_whose_sections_are_in_no_bundle_give_their_place_back(offers: dict[str, str]) -> None:
    with serving(max_sessions=2) as client:
        for _ in range(5):
            answer = offer(client, offers["video"].replace("a=mid:0", "a=mid:z"), drive="demo")
            assert answer.status_code == 400
            assert "cannot be answered" in error_of(answer)
            assert sessions_of(client) == 0, "a place is lost"
        assert offer(client, offers["video"], drive="demo").status_code == 200


@pytest.mark.parametrize("name", ["fingerprint", "ice-ufrag", "ice-pwd"])
def test_an_offer_that_lacks_what_a_call_needs_is_refused_and_logged_as_nothing(
    client: TestClient, offers: dict[str, str], caplog: pytest.LogCaptureFixture, name: str
) -> None:
    sdp = re.sub(rf"a={name}[^\r]*\r\n", "", offers["video"])
    answer = offer(client, sdp, drive="demo")
    assert answer.status_code == 400
    assert f"a={name}" in error_of(answer)
    assert sessions_of(client) == 0
    assert [r for r in caplog.records if r.exc_info or "Traceback" in r.getMessage()] == []


def test_an_offer_of_thousands_of_candidates_is_refused_before_it_is_read(
    client: TestClient, offers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    monkeypatch.setattr(SessionDescription, "parse", read.append)
    candidate = "a=candidate:1 1 udp 1 192.0.2.1 {} typ host\r\n"
    many = "".join(candidate.format(port) for port in range(1, 900))
    answer = offer(client, offers["video"].replace("a=mid:0", f"{many}a=mid:0", 1), drive="demo")
    assert answer.status_code == 400
    assert "candidates" in error_of(answer)
    assert read == []
    assert sessions_of(client) == 0


def mutations(sdp: str) -> Iterator[str]:
    """`sdp` with each line changed in its value, doubled, and swapped with the next."""
    lines = sdp.splitlines(keepends=True)
    for k, line in enumerate(lines):
        for value in ("z", "", "-1", "9" * 12, "é"):
            head, colon, _ = line.rstrip("\r\n").partition(":")
            changed = f"{head}:{value}\r\n" if colon else f"{line[:2]}{value}\r\n"
            yield "".join([*lines[:k], changed, *lines[k + 1 :]])
        yield "".join([*lines[:k], line, *lines[k:]])
        yield "".join([*lines[:k], *lines[k + 1 : k + 2], line, *lines[k + 2 :]])


@pytest.mark.slow
def test_after_every_mutation_of_an_offer_an_honest_call_is_answered(offers: dict[str, str]) -> None:
    before, places = workers(), 3
    with serving(max_sessions=places) as client:
        for sdp in mutations(offers["video"]):
            answer = offer(client, sdp, mode="echo")
            assert answer.status_code in (200, 400), (sdp, answer.text)
            if answer.status_code == 400:
                error_of(answer)
            elif sessions_of(client) == places:  # those that made sense wait for their browser: hang up
                hang_up(client)
                assert sessions_of(client) == 0
        hang_up(client)
        assert offer(client, offers["video"], mode="echo").status_code == 200
    assert workers() == before


def test_an_offer_without_video_is_refused(client: TestClient, offers: dict[str, str]) -> None:
    answer = offer(client, offers["audio"])
    assert answer.status_code == 400
    assert "video" in error_of(answer)
    assert sessions_of(client) == 0


def test_unknown_names_are_refused_by_name(client: TestClient, offers: dict[str, str]) -> None:
    answer = offer(client, offers["video"], avatar="nobody")
    assert answer.status_code == 404
    assert "not on the server; choose another" in error_of(answer)
    answer = offer(client, offers["video"], generator="magic")
    assert answer.status_code == 400
    assert "magic" in error_of(answer)
    assert "geometric" in error_of(answer)
    assert sessions_of(client) == 0


@pytest.mark.parametrize(
    "change",
    [
        {"size": 63}, {"size": 1025}, {"size": "big"}, {"mode": "mirror"}, {"drive": "thought"}, {"type": "answer"},
        {"sdp": None}, {"sdp": "v" * 65_537}, {"avatar": 7},
    ],
)  # fmt: skip
def test_a_wrong_field_is_named(
    client: TestClient, offers: dict[str, str], change: dict[str, object]
) -> None:
    answer = client.post("/api/offer", json={"sdp": offers["video"], "type": "offer", **change})
    assert answer.status_code == 422
    assert next(iter(change)) in error_of(answer)
    assert sessions_of(client) == 0


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b"null", b"[" * 100_000])
def test_a_body_that_is_no_offer_is_refused(client: TestClient, body: bytes) -> None:
    answer = client.post("/api/offer", content=body, headers={"content-type": "application/json"})
    assert 400 <= answer.status_code < 500
    error_of(answer)


def test_a_token_is_wanted_where_one_is_set(offers: dict[str, str]) -> None:
    with serving(token="s3cret-s3cret") as client:
        assert client.get("/api/health").status_code == 200
        assert client.get("/").status_code == 200
        wrong = [
            {},
            {"authorization": "Bearer s3cret-s3cre"},
            {"authorization": "Bearer "},
            {"authorization": "s3cret-s3cret"},
        ]
        for headers in [*wrong, {"authorization": "Bearer \xfc"}]:
            for path in ("/api/avatars", "/metrics", "/api/avatars/red/picture", "/api/none"):
                answer = client.get(path, headers={k: v.encode("latin-1") for k, v in headers.items()})
                assert answer.status_code == 401, (path, headers)
                assert "token" in error_of(answer)
                assert "s3cret-s3cret" not in answer.text
        assert offer(client, offers["video"]).status_code == 401
        assert upload(client, b"x").status_code == 401
        assert client.delete("/api/avatars/red").status_code == 401
        assert client.put("/api/avatars/red/controls", json={}).status_code == 401
        right = {"authorization": "Bearer s3cret-s3cret"}
        assert client.get("/api/avatars", headers=right).status_code == 200
        assert client.get("/metrics", headers=right).status_code == 200


def test_the_token_is_asked_for_by_the_path_that_is_routed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starlette up to 0.48 builds `request.url` from the Host header, and `a/x?` in it hid the path."""

    def built_from_host(self: HTTPConnection) -> StarletteURL:
        return StarletteURL(f"http://{self.headers.get('host', '')}{self.scope['path']}")

    monkeypatch.setattr(HTTPConnection, "url", property(built_from_host))
    with serving(token="s3cret-s3cret", host="0.0.0.0") as client:
        for path in ("/api/avatars", "/metrics", "/openapi.json"):
            for host in ("a/x?", "a#", "a/api/health?"):
                answer = client.get(path, headers={"host": host})
                assert answer.status_code == 401, (path, host)


def test_refusals_come_with_the_policy_too(client: TestClient) -> None:
    refusals = [
        client.get("/api/avatars", headers={"host": "evil.example"}),
        client.post("/api/offer", json={}, headers={"origin": "https://evil.example"}),
        client.get("/api/none"),
        client.post("/api/offer", json={}),
    ]
    with serving(token="s3cret-s3cret") as other:
        refusals.append(other.get("/api/avatars"))
    assert [answer.status_code for answer in refusals] == [400, 403, 404, 422, 401]
    for answer in refusals:
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"


def test_a_foreign_host_name_is_refused_on_loopback(client: TestClient) -> None:
    """A page elsewhere that points its own name at 127.0.0.1 must not get in."""
    for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "testserver"):
        assert client.get("/api/avatars", headers={"host": host}).status_code == 400, host
    for host in ("127.0.0.1:8000", "localhost:8000", "LOCALHOST", "[::1]:8000"):
        assert client.get("/api/avatars", headers={"host": host}).status_code == 200, host


def test_another_sites_page_is_refused(client: TestClient, offers: dict[str, str]) -> None:
    body = {"sdp": offers["video"], "type": "offer", "drive": "demo"}
    for origin in (
        "https://evil.example",
        "http://127.0.0.1:9999",
        "http://localhost:8000",
        "null",
        "file://",
    ):
        answer = client.post("/api/offer", json=body, headers={"origin": origin})
        assert answer.status_code == 403, origin
        error_of(answer)
        assert client.delete("/api/avatars/red", headers={"origin": origin}).status_code == 403
        answer = client.put("/api/avatars/red/controls", json={}, headers={"origin": origin})
        assert answer.status_code == 403
    assert sessions_of(client) == 0
    assert client.post("/api/offer", json=body, headers={"origin": URL}).status_code == 200


def test_metrics_have_the_counters(client: TestClient, offers: dict[str, str]) -> None:
    assert offer(client, offers["video"], drive="demo").status_code == 200
    answer = client.get("/metrics")
    assert "text/plain" in answer.headers["content-type"]
    text = answer.text
    for name in (
        "visavis_frames_total", "visavis_late_frames_total", "visavis_stage_seconds", "visavis_latency_seconds_bucket",
        "visavis_dropped_frames_total", "visavis_faults_total",
    ):  # fmt: skip
        assert name in text
    assert "visavis_sessions 1.0" in text


def test_metrics_come_as_json_too_and_name_no_call(client: TestClient, offers: dict[str, str]) -> None:
    empty = client.get("/metrics.json").json()
    assert empty == {
        "frames": 0, "late_frames": 0, "latency_ms": None, "stage_ms": {}, "dropped_frames": {}, "faults": {},
        "calls": [],
    }  # fmt: skip
    session = offer(client, offers["video"], drive="demo").json()["session"]
    service: Service = cast(Any, client.app).state.service
    (call,) = service.calls.sessions
    call.ledger.frame(LatencyTrace({"captured": 0, "sent": 8_000_000}), sequence=0, pts_s=0, fresh=True)
    call.ledger.frame(LatencyTrace({"captured": 0, "sent": 8_000_000}), sequence=0, pts_s=0, fresh=False)
    call.ledger.dropped(2, stage="tracked")
    call.ledger.sound_s = SoundCounts(heard_s=1.0, recovered_s=0.02).told
    told = client.get("/metrics.json")
    assert session not in told.text, "who knows it holds the call"
    numbers = told.json()
    assert (numbers["frames"], numbers["late_frames"], numbers["dropped_frames"]) == (2, 1, {"tracked": 2})
    assert numbers["latency_ms"]["count"] == 1
    assert numbers["stage_ms"]["sent"]["p95"] == pytest.approx(8, rel=0.01)
    assert numbers["calls"] == [], "its browser has not come"
    one = call_numbers(call.ledger.snapshot())
    assert (one["frames"], one["late_frames"], one["dropped_frames"], one["faults"]) == (
        2,
        1,
        {"tracked": 2},
        {},
    )
    assert one["sound_s"] == {"heard": 1, "recovered": 0.02, "concealed": 0, "left_out": 0}
    assert one["latency_ms"] == {"p50": 8, "p95": 8, "p99": 8, "count": 1}


def test_a_call_is_recorded_for_who_knows_its_name(
    client: TestClient, offers: dict[str, str], tmp_path: Path
) -> None:
    name = offer(client, offers["video"], drive="demo").json()["session"]
    address = f"/api/calls/{name}/recording"
    (call,) = cast(Any, client.app).state.service.calls.sessions
    for path in (address, f"{address}/trace"):
        answer = client.get(path)
        assert answer.status_code == 409
        assert "begin a recording" in error_of(answer)
    assert client.post(address).json() == {"most_s": 600}
    for index in range(25):
        call.recorder.driven(Drive(Motion(), Motion(), "tracking", face=True), index / 30)
        call.ledger.frame(LatencyTrace({"captured": 0, "sent": 9}), sequence=index, pts_s=0, fresh=True)
    motion = client.get(address)
    assert motion.headers["content-disposition"] == 'attachment; filename="motion.jsonl"'
    assert motion.headers["cache-control"] == "no-store"
    (tmp_path / "m.jsonl").write_bytes(motion.content)
    assert len(read_motion(tmp_path / "m.jsonl").motions) == 25
    assert not call.recorder.recording
    (tmp_path / "t.jsonl").write_bytes(client.get(f"{address}/trace").content)
    assert len(read_trace(tmp_path / "t.jsonl").frames) == 25
    assert client.delete(address).status_code == 204
    assert client.get(address).status_code == 409
    for wrong in (name[:-1], f"{name}x", "none"):
        for method, path in (("POST", ""), ("GET", ""), ("GET", "/trace"), ("DELETE", "")):
            answer = client.request(method, f"/api/calls/{wrong}/recording{path}")
            assert answer.status_code == 404
            assert "this call is over" in error_of(answer)
    client.post(address)
    cast(Any, client).portal.call(call.close)
    assert client.get(address).status_code == 404
    assert call.recorder.frames == 0


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e%2fpyproject.toml", "/etc/passwd", "a\x00b"]
)
def test_no_name_from_a_request_reaches_the_disk(
    client: TestClient, offers: dict[str, str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    opened: list[str] = []
    real = io.open

    def watching(file: Any, *args: Any, **kwargs: Any) -> Any:
        opened.append(str(file))
        return real(file, *args, **kwargs)

    monkeypatch.setattr("builtins.open", watching)
    quoted = httpx.URL(URL).copy_with(raw_path=f"/api/avatars/{name}/picture".replace("\x00", "%00").encode())
    assert client.get(quoted).status_code == 404
    static = httpx.URL(URL).copy_with(raw_path=f"/static/{name}".replace("\x00", "%00").encode())
    assert client.get(static).status_code in (400, 404)
    answer = offer(client, offers["video"], avatar=name)
    assert answer.status_code == 404
    assert offer(client, offers["video"], generator=name).status_code == 400
    assert not [f for f in opened if "passwd" in f or "pyproject" in f]


def test_every_refusal_speaks_the_same_way(client: TestClient) -> None:
    answer = client.get("/api/nothing")
    assert answer.status_code == 404
    error_of(answer)
    answer = client.get("/api/offer")
    assert answer.status_code == 405
    error_of(answer)


def test_settings_come_from_the_environment_and_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISAVIS_MAX_SESSIONS", "7")
    assert ServeSettings().max_sessions == 7
    monkeypatch.setenv("VISAVIS_MAX_SESSIONS", "0")
    with pytest.raises(ValidationError):
        ServeSettings()
    monkeypatch.delenv("VISAVIS_MAX_SESSIONS")
    for host, loopback in (
        ("127.0.0.1", True), ("localhost", True), ("::1", True), ("127.8.8.8", True),
        ("0.0.0.0", False), ("::", False), ("192.168.1.2", False), ("example.org", False),
    ):  # fmt: skip
        assert ServeSettings(host=host).loopback is loopback, host


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "http://localhost:8312"), ("localhost", "http://localhost:8312"),
        ("127.8.8.8", "http://127.8.8.8:8312"), ("0.0.0.0", "http://localhost:8312"),
        ("::1", "http://[::1]:8312"), ("[::1]", "http://[::1]:8312"), ("::", "http://[::1]:8312"),
        ("2001:db8::7", "http://[2001:db8::7]:8312"),
    ],
)  # fmt: skip
def test_the_address_that_is_printed_opens(host: str, address: str) -> None:
    settings = ServeSettings(host=host)
    assert settings.loopback == (host.strip("[]") in ("127.0.0.1", "localhost", "127.8.8.8", "::1"))
    listener = cast(socket.socket, SimpleNamespace(getsockname=lambda: (host, 8312)))
    assert start._url(settings, listener) == address


def test_a_picture_of_an_avatar_is_its_head_crop(astronaut: Enrollment) -> None:
    data = np.frombuffer(picture_of(astronaut), np.uint8)
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None
    image = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
    left, top, side = astronaut.crop_px
    centre = image[96:160, 96:160].reshape(-1, 3).mean(0)
    y, x, half = round(top + side / 2), round(left + side / 2), round(side / 8)
    wanted = astronaut.photo[y - half : y + half, x - half : x + half].reshape(-1, 3).mean(0)
    assert np.abs(centre - wanted).max() < 12


# --- the look of the picture


def send_background(client: httpx.Client, data: bytes) -> httpx.Response:
    return client.post("/api/backgrounds", files={"picture": ("wall.png", data)})


def look_in(client: TestClient) -> Look:
    """The look of the one call that is up."""
    app = client.app
    (session,) = app.state.service.calls.sessions  # type: ignore[attr-defined]
    return session.options.look


def test_calls_start_with_the_servers_look(offers: dict[str, str]) -> None:
    store = AvatarStore()
    store.add_public(plain_enrollment(RED, "red"))
    usual = Look(Background("colour", colour=(0, 255, 0)), "16:9")
    app = create_app(ServeSettings(), store, make_avatar=Painter, look=usual)  # type: ignore[arg-type]
    with TestClient(app, base_url=URL) as client:
        assert client.get("/api/avatars").json()["look"] == {"background": "colour", "aspect": "16:9"}
        assert offer(client, offers["video"], drive="demo").status_code == 200
        assert look_in(client) == usual


def test_a_page_chooses_its_own_look(client: TestClient, offers: dict[str, str]) -> None:
    answer = offer(client, offers["video"], drive="demo", background="#0000ff", aspect="16:9")
    assert answer.status_code == 200
    look = look_in(client)
    assert look.background.mode == "colour"
    assert look.background.colour == (0, 0, 255)
    assert look.aspect == "16:9"


def test_a_picture_is_sent_once_and_then_named(client: TestClient, offers: dict[str, str]) -> None:
    sent = send_background(client, jpeg(np.full((90, 160, 3), 40, np.uint8)))
    assert sent.status_code == 201
    name = sent.json()["name"]
    assert name.startswith("b-")
    assert offer(client, offers["video"], drive="demo", background=name).status_code == 200
    picture = look_in(client).background.picture
    assert picture is not None
    assert picture.shape == (90, 160, 3)
    assert np.abs(picture.astype(int) - 40).max() <= 2


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"hello", "background picture is not a picture"),
        (jpeg(np.zeros((20, 90, 3), np.uint8)), "at least 64"),
        (jpeg(np.zeros((70, 600, 3), np.uint8)), "strip"),
    ],
)
def test_what_is_no_background_is_refused(client: TestClient, data: bytes, says: str) -> None:
    answer = send_background(client, data)
    assert answer.status_code == 400
    assert says in error_of(answer)


def test_a_background_that_is_too_large_is_refused() -> None:
    with serving(max_photo_mb=0.01) as client:
        noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3)).astype(np.uint8)
        answer = send_background(client, jpeg(noise, 95))
        assert answer.status_code == 413
        assert "0.01 MB" in error_of(answer)


@pytest.mark.parametrize(
    ("background", "code", "says"),
    [
        ("transparent", 400, "cannot be transparent.*#00ff00"),
        ("/etc/passwd", 400, "no background '/etc/passwd'"),
        ("streamer/data/demo.jpg", 400, "choose keep, soft, blur"),
        ("#12", 400, "#rrggbb"),
        ("b-gone", 410, "choose it again"),
        ("x" * 65, 422, "background"),
    ],
)
def test_a_background_that_cannot_be_is_refused(
    client: TestClient, offers: dict[str, str], background: str, code: int, says: str
) -> None:
    answer = offer(client, offers["video"], drive="demo", background=background)
    assert answer.status_code == code
    assert re.search(says, error_of(answer))
    assert sessions_of(client) == 0


def test_a_shape_that_is_none_is_refused(client: TestClient, offers: dict[str, str]) -> None:
    assert offer(client, offers["video"], aspect="4:3").status_code == 422


def test_the_oldest_background_goes() -> None:
    pictures = BackgroundStore(max_pictures=2)
    first, second, third = (pictures.add(Background("colour", colour=(k, 0, 0))) for k in range(3))
    assert pictures.get(first) is None
    kept = pictures.get(second)
    assert kept is not None
    assert kept.colour == (1, 0, 0)
    assert pictures.get(third) is not None
    assert len({first, second, third}) == 3


def test_a_call_draws_with_its_look(astronaut: Enrollment) -> None:
    look = Look(Background("colour", colour=(9, 200, 9)), "16:9")
    options = CallOptions(generator="geometric", size_px=128, drive="demo", look=look)
    stand_in = SimpleNamespace(
        enrollment=astronaut,
        options=options,
        clock=SystemClock(),
        ledger=SimpleNamespace(fault=print),
        hearing=SimpleNamespace(said=lambda _: None),
    )
    avatar = build_avatar(stand_in)  # type: ignore[arg-type]
    try:
        assert avatar.size_px == (228, 128)
        driven = avatar.track_idle(0.0, 0)
        picture = avatar.show_drive(driven.drive, driven.moment).frame.image
        assert picture.shape == (128, 228, 3)
        assert (picture[:30, :20] == (9, 200, 9)).all()
    finally:
        avatar.close()
