"""`AvatarStore`: public avatars are listed, uploads are known to nobody but their uploader."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from engines.enrollment import Enrollment
from streamer.serve.store import PICTURE_PX, AvatarStore, picture_of


def test_public_avatars_are_listed_in_order_under_unique_names(astronaut: Enrollment) -> None:
    store = AvatarStore()
    named = [store.add_public(replace(astronaut, name=n)) for n in ("b", "a", "b", "b")]
    assert named == ["b", "a", "b-2", "b-3"]
    assert [n for n, _ in store.public()] == named
    entry = store.get("b-2")
    assert entry is not None
    assert entry.public
    assert entry.title == entry.enrollment.name == "b-2"


def test_uploads_are_unlisted_and_unguessable(astronaut: Enrollment) -> None:
    store = AvatarStore()
    names = {store.add_upload(astronaut, "me") for _ in range(20)}
    assert len(names) == 20
    assert all(len(n) >= 22 and "astronaut" not in n for n in names)
    assert store.public() == []
    entry = store.get(names.pop())
    assert entry is not None
    assert entry.title == "me"
    assert not entry.public


def test_an_upload_cannot_take_a_public_ones_place(astronaut: Enrollment) -> None:
    store = AvatarStore(max_uploads=2)
    store.add_public(astronaut)
    for _ in range(5):
        store.add_upload(astronaut, "x")
    assert store.get("astronaut") is not None


def test_the_oldest_upload_goes_when_there_are_too_many(astronaut: Enrollment) -> None:
    store = AvatarStore(max_uploads=3)
    names = [store.add_upload(astronaut, str(k)) for k in range(5)]
    assert [store.get(n) is not None for n in names] == [False, False, True, True, True]


def test_only_uploads_can_be_removed(astronaut: Enrollment) -> None:
    store = AvatarStore()
    public, upload = store.add_public(astronaut), store.add_upload(astronaut, "x")
    assert not store.remove_upload(public)
    assert not store.remove_upload("nobody")
    assert store.remove_upload(upload)
    assert not store.remove_upload(upload)
    assert store.get(upload) is None
    assert store.get(public) is not None


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "u-", "astronaut\0"])
def test_other_names_are_nobody(astronaut: Enrollment, name: str) -> None:
    store = AvatarStore()
    store.add_public(astronaut)
    assert store.get(name) is None


def test_the_picture_is_the_head_crop(astronaut: Enrollment) -> None:
    with Image.open(io.BytesIO(picture_of(astronaut))) as image:
        assert image.format == "JPEG"
        assert image.size == (PICTURE_PX, PICTURE_PX)
        assert not image.getexif()
        shown = np.asarray(image).astype(int)
    left, top, side = (int(v) for v in astronaut.crop_px)
    crop = Image.fromarray(astronaut.photo[top : top + side, left : left + side]).resize(
        (PICTURE_PX, PICTURE_PX)
    )
    assert np.abs(shown - np.asarray(crop).astype(int)).mean() < 6  # colours in order, nothing shifted
