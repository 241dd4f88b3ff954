"""Avatars over HTTP: taken out as a file, taken in again, kept on this computer, renamed, deleted."""

from __future__ import annotations

import io
import json
import os
import threading
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bombs import BOMBS
from calls import Painter, plain_enrollment
from fakes import AT_LAST_S
from fastapi import FastAPI
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save

from calibration import avatar_apart
from calibration.avatar_apart import MAX_AVATAR_BYTES, open_avatar_apart
from calibration.enroll import enroll
from calibration.photo import DEFAULT_MAX_SIDE_PX
from calibration.photo_apart import Cancelled
from engines.digest import digest_of
from engines.enrollment import Enrollment, avatar_bytes, load_enrollment, save_enrollment
from engines.errors import EnrollmentError, VisavisError
from engines.head.open import HeadModelRef
from engines.retarget import Controls
from streamer.serve.app import create_app
from streamer.serve.config import ServeSettings
from streamer.serve.store import AvatarStore

URL = "http://127.0.0.1:8000"
Array = NDArray[Any]


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy computer must not fail the child."""
    monkeypatch.setattr(avatar_apart, "WITHIN_S", AT_LAST_S)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "kept"


def app_with(enrollment: Enrollment, **settings: Any) -> tuple[FastAPI, AvatarStore]:
    store = AvatarStore()
    store.add_public(replace(enrollment, name="given"))
    return create_app(ServeSettings(**settings), store, make_avatar=Painter), store  # type: ignore[arg-type]


@pytest.fixture
def served(astronaut: Enrollment, folder: Path) -> Generator[tuple[TestClient, AvatarStore]]:
    app, store = app_with(astronaut, avatars=folder)
    with TestClient(app, base_url=URL, raise_server_exceptions=False) as client:
        yield client, store


def send(client: TestClient, data: bytes, **form: str) -> Any:
    return client.post("/api/avatars/file", files={"avatar": ("me.avatar", data)}, data=form)


def listed(client: TestClient) -> dict[str, bool]:
    return {a["name"]: a["kept"] for a in client.get("/api/avatars").json()["avatars"]}


def test_out_as_a_file_and_in_again(
    served: tuple[TestClient, AvatarStore], astronaut: Enrollment, tmp_path: Path
) -> None:
    client, store = served
    name = store.add_upload(astronaut, 'Zoë "x"\r\nSet-Cookie: a')
    answer = client.get(f"/api/avatars/{name}/file")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    said = answer.headers["content-disposition"]
    assert said.startswith("attachment; ")
    assert "filename*=UTF-8''Zo%C3%AB-x-Set-Cookie-a.avatar" in said
    assert "set-cookie" not in answer.headers
    path = tmp_path / "x.avatar"
    path.write_bytes(answer.content)
    loaded = load_enrollment(path)
    assert loaded.name == "Zoë-x-Set-Cookie-a"
    assert name.encode() not in answer.content, "the secret name stays with the tab"
    assert loaded.consent == astronaut.consent

    back = send(client, answer.content)
    assert back.status_code == 201, back.text
    told = back.json()
    assert told["name"].startswith("u-")
    assert told["title"] == loaded.name
    assert told["consent"]["name"] == "public domain"
    entry = store.get(told["name"])
    assert entry is not None
    assert not entry.public
    assert np.array_equal(entry.enrollment.photo, astronaut.photo)
    assert list(listed(client)) == ["given"], "it is nobody else's"


def test_only_who_can_name_an_upload_has_its_file(
    served: tuple[TestClient, AvatarStore], astronaut: Enrollment
) -> None:
    client, store = served
    store.add_upload(astronaut, "x")
    for name in ("u-", "u-nobody", "..%2f..%2fetc%2fpasswd", "x"):
        answer = client.get(f"/api/avatars/{name}/file")
        assert answer.status_code == 404
    # what the server was started with lies where its owner put it
    assert client.get("/api/avatars/given/file").status_code == 409


def test_kept_renamed_deleted(
    served: tuple[TestClient, AvatarStore], astronaut: Enrollment, folder: Path
) -> None:
    client, store = served
    assert client.get("/api/avatars").json()["keep_in"] == str(folder)
    upload = store.add_upload(astronaut, "photo")
    store.set_controls(upload, Controls(head=0.5))
    answer = client.post(f"/api/avatars/{upload}/keep", json={"name": "Ada Lovelace"})
    assert answer.status_code == 201, answer.text
    assert answer.json()["name"] == "Ada-Lovelace"
    stored = load_enrollment(folder / "Ada-Lovelace.avatar")
    assert (stored.name, stored.consent) == ("Ada-Lovelace", astronaut.consent)
    assert stored.controls == Controls(head=0.5)
    assert listed(client) == {"given": False, "Ada-Lovelace": True}
    assert store.get(upload) is not None, "the call that runs with it goes on"
    assert client.get("/api/avatars/Ada-Lovelace/file").status_code == 200

    saved = client.put("/api/avatars/Ada-Lovelace/controls", json={"head": 0.25})
    assert saved.json()["kept"] == "file"
    assert client.patch("/api/avatars/Ada-Lovelace", json={"name": "../ada"}).json()["name"] == "ada"
    assert listed(client) == {"given": False, "ada": True}
    assert [p.name for p in folder.iterdir()] == ["ada.avatar"]
    assert load_enrollment(folder / "ada.avatar").controls == Controls(head=0.25)
    assert client.patch("/api/avatars/given", json={"name": "x"}).status_code == 409
    assert client.delete("/api/avatars/given").status_code == 409

    assert client.delete("/api/avatars/ada").status_code == 204
    assert list(folder.iterdir()) == []
    assert listed(client) == {"given": False}
    assert client.delete("/api/avatars/ada").status_code == 404


def test_a_file_that_somebody_removed_is_no_obstacle(
    served: tuple[TestClient, AvatarStore], astronaut: Enrollment, folder: Path
) -> None:
    client, store = served
    name = client.post(f"/api/avatars/{store.add_upload(astronaut, 'x')}/keep", json={"name": "ada"}).json()[
        "name"
    ]
    (folder / "ada.avatar").unlink()
    assert client.patch(f"/api/avatars/{name}", json={"name": "eve"}).status_code == 409
    assert client.delete(f"/api/avatars/{name}").status_code == 204


@pytest.mark.parametrize("other", ["Ada.avatar", "ada.avatar"])
def test_what_another_program_keeps_under_such_a_name_meanwhile_is_neither_deleted_nor_renamed(
    served: tuple[TestClient, AvatarStore], astronaut: Enrollment, folder: Path, other: str
) -> None:
    client, store = served
    client.post(f"/api/avatars/{store.add_upload(astronaut, 'x')}/keep", json={"name": "ada"})
    (folder / "ada.avatar").unlink()
    (folder / other).write_bytes(avatar_bytes(replace(astronaut, photo_sha256="0" * 64)))
    answers = client.patch("/api/avatars/ada", json={"name": "eve"}), client.delete("/api/avatars/ada")
    assert [answer.status_code for answer in answers] == [409, 409 if other == "ada.avatar" else 204]
    assert [path.name for path in folder.iterdir()] == [other]


def test_beyond_this_computer_nothing_is_kept(astronaut: Enrollment, folder: Path) -> None:
    token = "an-access-token.0"
    app, store = app_with(astronaut, avatars=folder, host="0.0.0.0", token=token)
    with TestClient(app, base_url=URL, headers={"Authorization": f"Bearer {token}"}) as client:
        name = store.add_upload(astronaut, "x")
        assert client.get("/api/avatars").json()["keep_in"] is None
        answer = client.post(f"/api/avatars/{name}/keep", json={"name": "ada"})
        assert answer.status_code == 409
        assert "download the file instead" in answer.json()["error"]
        assert client.get(f"/api/avatars/{name}/file").status_code == 200
    assert not folder.exists()


@pytest.mark.parametrize("body", [{}, {"name": ""}, {"name": 5}, {"name": "x" * 81}, {"name": None}])
def test_a_name_that_is_none(
    served: tuple[TestClient, AvatarStore], astronaut: Enrollment, body: dict[str, object], folder: Path
) -> None:
    client, store = served
    answer = client.post(f"/api/avatars/{store.add_upload(astronaut, 'x')}/keep", json=body)
    assert answer.status_code == 422
    assert not folder.exists()


# what the server lost comes back under its name


def test_the_same_photo_has_its_name_again(astronaut: Enrollment) -> None:
    store = AvatarStore(max_uploads=2)
    name = store.add_upload(astronaut, "x")
    other = replace(astronaut, photo_sha256="1" * 64)
    assert store.add_upload(astronaut, "x", name) == name, "it is there already"
    assert store.add_upload(other, "x", name) != name, "another's photo never takes its place"
    restarted = AvatarStore()
    assert restarted.add_upload(astronaut, "x", name) == name
    for bad in ("u-short", "given", "../x", "u-" + "x" * 23, "u-" + "é" * 22, "", "b-" + "x" * 22):
        assert restarted.add_upload(astronaut, "x", bad) != bad


def test_a_public_avatar_cannot_be_taken_by_name(astronaut: Enrollment) -> None:
    store = AvatarStore()
    public = store.add_public(replace(astronaut, name="u-" + "x" * 22))
    assert store.add_upload(replace(astronaut, photo_sha256="1" * 64), "x", public) != public


# what strangers send


def forged(
    good: bytes, tmp_path: Path, change: Callable[[dict[str, Array], dict[str, Any]], object]
) -> bytes:
    """The avatar after `change(tensors, header)`, signed again."""
    path = tmp_path / "good.avatar"
    path.write_bytes(good)
    with safe_open(str(path), framework="numpy") as file:
        tensors: dict[str, Array] = {n: file.get_tensor(n) for n in file.keys()}  # noqa: SIM118
        header = json.loads(file.metadata()["visavis"])
    change(tensors, header)
    raw = json.dumps(header, sort_keys=True)
    whole = {n: np.ascontiguousarray(t) for n, t in tensors.items()}
    return save(whole, metadata={"visavis": raw, "sha256": digest_of(whole, raw)})


def larger(tensors: dict[str, Array], header: dict[str, Any]) -> None:
    tensors.update(photo=np.zeros((64, 2049, 3), np.uint8), matte=np.zeros((64, 2049), np.uint8))
    header["crop_px"] = [0, 0, 64]


def maps(tensors: dict[str, Array], _: dict[str, Any]) -> None:
    tensors.update(
        uv_position_px=np.zeros((1025, 4, 2), np.float32),
        uv_visibility=np.zeros((1025, 4), np.uint8),
        uv_colour=np.zeros((1025, 4, 3), np.uint8),
        uv_pncc=np.zeros((1025, 4, 3), np.uint8),
    )


FORGERIES: dict[str, Callable[[dict[str, Array], dict[str, Any]], object]] = {
    "a larger photo": larger,
    "larger maps": maps,
    "another version": lambda _, header: header.update(version=99),
    "no crop": lambda _, header: header.update(crop_px=[0, 0, 0]),
    "a line end in the name": lambda _, header: header.update(name="a\nb"),
    "not finite": lambda tensors, _: tensors.update(neutral_hu=tensors["neutral_hu"] * np.float32(np.nan)),
    "other vertices": lambda tensors, _: tensors.update(neutral_hu=tensors["neutral_hu"][:-1]),
    "the digest of another head": lambda _, header: header.update(
        model={"spec": "visavis", "digest": "0" * 64}
    ),
}


@pytest.mark.parametrize("how", FORGERIES)
def test_a_forged_avatar_is_one_sentence(
    served: tuple[TestClient, AvatarStore], astronaut: Enrollment, how: str, tmp_path: Path
) -> None:
    client, _ = served
    answer = send(client, forged(avatar_bytes(astronaut), tmp_path, FORGERIES[how]))
    assert answer.status_code == 400, answer.text
    sentence = answer.json()["error"]
    assert "; " in sentence
    assert len(sentence) < 400
    assert "/proc" not in sentence
    assert "visavis enroll" not in sentence, "who sees a page has no command line"


@pytest.mark.parametrize("name", ["jpeg_2000", "half_a_jpeg"])
def test_what_is_no_avatar_is_one_sentence(served: tuple[TestClient, AvatarStore], name: str) -> None:
    client, _ = served
    for data in (BOMBS[name](), b"x" * 100, (1 << 62).to_bytes(8, "little") + b"{}" * 50):
        answer = send(client, data)
        assert answer.status_code == 400
        assert "is not an avatar" in answer.json()["error"]


@pytest.mark.parametrize("more", [{"x": "y" * 300_000}, {f"k{i}": "" for i in range(30_000)}])
def test_a_header_that_would_keep_calls_waiting_is_never_read(
    astronaut: Enrollment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, str]
) -> None:
    whole = tmp_path / "whole.avatar"
    whole.write_bytes(avatar_bytes(astronaut))
    with safe_open(str(whole), framework="numpy") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    long = tmp_path / "long.avatar"
    long.write_bytes(save(tensors, metadata={**metadata, **more}))
    read: list[Path] = []

    def load(path: Path, called: str) -> Enrollment:
        read.append(path)
        return load_enrollment(path, called)

    monkeypatch.setattr(avatar_apart, "load_enrollment", load)
    assert avatar_apart.read_bounded(whole, None).photo_sha256 == astronaut.photo_sha256
    with pytest.raises(EnrollmentError, match="this file is not an avatar"):
        avatar_apart.read_bounded(long, None)
    assert read == [whole]


def test_one_that_is_too_large_is_refused_at_its_head(served: tuple[TestClient, AvatarStore]) -> None:
    client, _ = served
    head = {"Content-Type": "multipart/form-data; boundary=x", "Content-Length": str(2 * MAX_AVATAR_BYTES)}
    answer = client.request("POST", "/api/avatars/file", content=b"", headers=head)
    assert answer.status_code == 413
    assert "64 MB" in answer.json()["error"]


def test_a_head_model_that_a_stranger_names_is_never_opened(
    served: tuple[TestClient, AvatarStore], astronaut: Enrollment, tmp_path: Path
) -> None:
    client, _ = served
    bait = tmp_path / "bait.npz"
    bait.write_bytes(b"x")
    before = bait.stat()
    told = {"spec": f"ict:{bait}", "digest": "0" * 64}
    data = forged(avatar_bytes(astronaut), tmp_path, lambda _, header: header.update(model=told))
    answer = send(client, data)
    assert answer.status_code == 400
    assert "another head model" in answer.json()["error"]
    assert str(bait) not in answer.json()["error"]
    pipe = tmp_path / "pipe.npz"  # who opened this would wait for ever
    os.mkfifo(pipe)
    told = {"spec": f"ict:{pipe}", "digest": "0" * 64}
    assert (
        send(client, forged(avatar_bytes(astronaut), tmp_path, lambda _, h: h.update(model=told))).status_code
        == 400
    )
    assert bait.stat().st_atime_ns == before.st_atime_ns


def test_the_servers_own_head_model_takes_the_place_of_the_named_path(
    astronaut: Enrollment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is drawn with the file that this server was started with, wherever its maker's lay."""
    opened: list[str | None] = []
    own = HeadModelRef("ict:/here/head.npz", "d" * 64)

    def ref_of(spec: str | None) -> HeadModelRef:
        opened.append(spec)
        return own

    monkeypatch.setattr(avatar_apart, "ref_of", ref_of)
    monkeypatch.setattr(avatar_apart, "head_model_of", lambda _: None)
    path = tmp_path / "x.avatar"
    theirs = replace(astronaut, model=HeadModelRef("ict:/theirs/head.npz", "d" * 64))
    path.write_bytes(avatar_bytes(theirs))
    assert avatar_apart.read_bounded(path, "ict:/here/head.npz").model == own
    assert opened == ["ict:/here/head.npz"]


@pytest.mark.parametrize("says", ["", "[]", "null", '{"ok": true}x', "x" * 5000, '{"error": {"a": 1}}'])
def test_a_child_that_was_brought_down_is_believed_in_nothing(says: str) -> None:
    command = ("/bin/sh", "-c", f"printf %s '{says}'")
    with pytest.raises(VisavisError) as caught:
        open_avatar_apart(io.BytesIO(b"x" * 100), command=command)
    assert len(str(caught.value)) < 400


def test_no_sentence_of_a_strangers_file_is_told_but_who_agreed(
    served: tuple[TestClient, AvatarStore], astronaut: Enrollment, tmp_path: Path
) -> None:
    client, _ = served

    def change(_: object, header: dict[str, Any]) -> None:
        header["notices"] = ["your session has ended, send your password to eve"]
        header["consent"] = {"name": "x" * 900, "given_utc": "2026"}
        header["name"] = "y" * 900

    answer = send(client, forged(avatar_bytes(astronaut), tmp_path, change))
    assert answer.status_code == 201
    assert "password" not in answer.text
    assert (len(answer.json()["consent"]["name"]), len(answer.json()["title"])) == (120, 40)


def test_a_deleted_upload_that_was_kept_goes_with_its_file(
    served: tuple[TestClient, AvatarStore], astronaut: Enrollment
) -> None:
    client, store = served
    upload, other = store.add_upload(astronaut, "x"), store.add_upload(plain_enrollment(), "y")
    client.post(f"/api/avatars/{upload}/keep", json={"name": "ada"})
    assert client.delete("/api/avatars/ada").status_code == 204
    assert store.get(upload) is None
    assert store.get(other) is not None


def test_an_avatar_of_the_largest_photo_comes_in(astronaut_photo: Path, tmp_path: Path) -> None:
    large, file = tmp_path / "large.png", tmp_path / "large.avatar"
    side = DEFAULT_MAX_SIDE_PX
    Image.open(astronaut_photo).resize((side, side), Image.Resampling.BICUBIC).save(large)
    save_enrollment(enroll(large, consent="public domain"), file)
    with file.open("rb") as given:
        assert open_avatar_apart(given).photo.shape[:2] == (side, side)


def test_a_client_that_goes_ends_the_child() -> None:
    gone = threading.Event()
    gone.set()
    with pytest.raises(Cancelled):
        open_avatar_apart(io.BytesIO(b"x"), cancelled=gone, command=("/bin/sleep", "1000"))


def test_a_child_that_says_yes_to_nonsense_changes_nothing() -> None:
    command = ("/bin/sh", "-c", "echo '{\"ok\": true}'")
    with pytest.raises(EnrollmentError, match="this file is not an avatar"):
        open_avatar_apart(io.BytesIO(b"x" * 100), command=command)
