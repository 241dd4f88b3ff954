"""All emotions of an avatar in one request: a sheet or a picture each, by any generator that is there."""

from __future__ import annotations

import io
import re
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from calls import Painter
from fastapi import FastAPI
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from PIL import Image
from test_server import URL, error_of

from calibration.photo_apart import Cancelled
from engines.enrollment import Enrollment
from engines.generators import weights_file
from engines.motion import Motion
from engines.presets import PRESET_NAMES
from engines.templates import Templates, load_templates, nearest, template_motion
from streamer.emotions import LABEL_PX, SHEET_CELL_PX, emotion_motions
from streamer.options import AvatarOptions
from streamer.serve import emotions
from streamer.serve.app import create_app
from streamer.serve.config import ServeSettings
from streamer.serve.emotions import Wanted, drawn
from streamer.serve.service import Service
from streamer.serve.store import AvatarStore

ADDRESS = "/api/avatars/ada/emotions"
SMALL: dict[str, object] = {"size": 64, "generator": "geometric"}


@pytest.fixture
def client(astronaut: Enrollment) -> Iterator[TestClient]:
    store = AvatarStore()
    store.add_public(replace(astronaut, name="ada"))
    app = create_app(ServeSettings(), store, make_avatar=Painter)  # type: ignore[arg-type]
    with TestClient(app, base_url=URL, raise_server_exceptions=False) as client:
        yield client


def service_of(client: TestClient) -> Service:
    return cast(FastAPI, client.app).state.service


def picture(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def faces_of(client: TestClient, **body: object) -> dict[str, NDArray[np.uint8]]:
    answer = client.post(ADDRESS, json={**SMALL, "give": "pictures", **body})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["cache-control"] == "no-store"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        return {Path(name).stem: picture(archive.read(name)) for name in archive.namelist()}


@pytest.mark.slow
def test_a_picture_of_each_emotion(client: TestClient, astronaut: Enrollment) -> None:
    faces = faces_of(client)
    assert tuple(faces) == PRESET_NAMES
    options = AvatarOptions(generator="geometric", size_px=64)
    motions = emotion_motions(astronaut)
    for name in ("neutral", "angry", "awed"):  # whatever was drawn before it
        assert np.array_equal(faces[name], options.renderer_for(astronaut).render(motions[name])), name


@pytest.mark.slow
def test_templates_are_those_of_the_nearest_heads(client: TestClient, astronaut: Enrollment) -> None:
    templates = load_templates()
    faces = faces_of(client, faces="templates", strength=0.8)
    assert list(faces) == list(templates.by_emotion)
    renderer = AvatarOptions(generator="geometric", size_px=64).renderer_for(astronaut)
    happy = nearest(templates.by_emotion["happy"], astronaut.identity)
    assert np.array_equal(faces["happy"], renderer.render(template_motion(astronaut.motion, happy, 0.8)))
    assert not np.array_equal(faces["happy"], faces_of(client, strength=0.8)["happy"])


@pytest.mark.slow
def test_one_sheet_of_all(client: TestClient) -> None:
    answer = client.post(ADDRESS, json=SMALL)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert picture(answer.content).shape == (4 * (SHEET_CELL_PX + LABEL_PX), 6 * SHEET_CELL_PX, 3)


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"generator": "x"}, 400, "there is no generator 'x'; choose one of: .*geometric.*pncc"),
        ({"faces": "bored"}, 422, "faces: .*'presets' or 'templates'"),
        ({"strength": 2.5}, 422, "strength: .*less than or equal to 2"),
        ({"strength": -0.1}, 422, "strength: .*greater than or equal to 0"),
        ({"size": 513}, 422, "size: .*less than or equal to 512"),
        ({"size": 63}, 422, "size: .*greater than or equal to 64"),
        ({"give": "video"}, 422, "give: .*'sheet' or 'pictures'"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    client: TestClient, body: dict[str, object], status: int, says: str
) -> None:
    answer = client.post(ADDRESS, json=body)
    assert answer.status_code == status
    assert re.search(says, error_of(answer)), error_of(answer)


def test_an_avatar_that_is_not_there_is_named(client: TestClient) -> None:
    answer = client.post("/api/avatars/bob/emotions", json=SMALL)
    assert (answer.status_code, answer.json()["what"]) == (404, "avatar")


def test_another_generator_does_not_draw_instead(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights_file, "DATA", tmp_path)
    answer = client.post(ADDRESS, json={**SMALL, "generator": "pncc"})
    assert answer.status_code == 409
    sentence = error_of(answer)
    assert "pncc has no weights here that load; choose one of: " in sentence
    assert "geometric" in sentence
    assert str(tmp_path) not in sentence, "a place on the server's disk"


def test_templates_of_another_head_are_refused(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Templates(load_templates().by_emotion, "f1a3e")
    monkeypatch.setattr(emotions, "load_templates", lambda: other)
    answer = client.post(ADDRESS, json={**SMALL, "faces": "templates"})
    assert answer.status_code == 400
    assert "use the presets" in error_of(answer)


def test_nothing_is_drawn_for_who_has_gone(
    client: TestClient, astronaut: Enrollment, monkeypatch: pytest.MonkeyPatch
) -> None:
    unwanted, count = threading.Event(), 0

    class Renderer:
        generator_name = "geometric"

        def render(self, motion: Motion) -> Any:
            nonlocal count
            count += 1
            if count == 3:
                unwanted.set()
            return np.zeros((64, 64, 3), np.uint8)

    monkeypatch.setattr(AvatarOptions, "renderer_for", lambda *_: Renderer())
    options = AvatarOptions(generator="geometric", size_px=64)
    with pytest.raises(Cancelled):
        drawn(astronaut, options, Wanted.model_validate({}), service_of(client), unwanted)
    assert count == 3


def test_a_generator_is_opened_once(
    client: TestClient, astronaut: Enrollment, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[object] = []

    class Renderer:
        generator_name = "geometric"

        def render(self, motion: Motion) -> Any:
            return np.zeros((64, 64, 3), np.uint8)

    def renderer_for(options: AvatarOptions, enrollment: Enrollment, generators: object = None) -> Renderer:
        given.append(generators)
        return Renderer()

    monkeypatch.setattr(AvatarOptions, "renderer_for", renderer_for)
    for _ in range(2):
        assert client.post(ADDRESS, json=SMALL).status_code == 200
    assert given == [service_of(client).still_generators] * 2
