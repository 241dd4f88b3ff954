"""`.avatar` files: whole or refused with one sentence, private, and never half written."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import stat
import struct
import zipfile
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engines import enrollment as module
from engines.enrollment import (
    Consent,
    Enrollment,
    head_model_of,
    load_enrollment,
    renamed,
    save_enrollment,
    write_private,
)
from engines.errors import EnrollmentError, ModelError
from engines.head.model import load_head_model
from engines.head.open import OWN, HeadModelRef, ref_of
from engines.motion import Motion
from engines.raster.pose import head_viewport, pose_head
from engines.renderer import Renderer
from engines.retarget import Controls


def tiny() -> Enrollment:
    """An enrollment of nobody, a few kilobytes."""
    rng = np.random.default_rng(0)

    def bytes_(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        return rng.integers(0, 256, shape).astype(np.uint8)

    return Enrollment(
        name="nobody",
        created_utc="2026-01-01T00:00:00+00:00",
        photo_sha256="0" * 64,
        photo=bytes_(16, 12, 3),
        crop_px=(1.0, -2.0, 9.5),
        landmarks_px=rng.random((478, 3)).astype(np.float32),
        identity=rng.normal(size=7).astype(np.float32),
        neutral_hu=rng.random((622, 3)).astype(np.float32),
        motion=Motion(expression=rng.random(52).round(3).astype(np.float32)),
        uv_position_px=rng.random((4, 4, 2)).astype(np.float32),
        uv_visibility=bytes_(4, 4),
        uv_colour=bytes_(4, 4, 3),
        uv_pncc=bytes_(4, 4, 3),
        matte=bytes_(16, 12),
        plate=bytes_(4, 3, 3),
        consent=Consent("Ann Ø", "2026-01-01T00:00:00+00:00"),
        notices=("scaled from 8x8",),
        controls=Controls(lips=0.5, region="eyes"),
        model=HeadModelRef("ict:/models/ict.npz", "1" * 64),
        features={"net/level0": rng.random((2, 3)).astype(np.float16)},
    )


def assert_equal(a: Enrollment, b: Enrollment) -> None:
    for f in fields(Enrollment):
        x, y = getattr(a, f.name), getattr(b, f.name)
        if f.name == "motion":
            assert np.abs(x.expression - y.expression).max() < 1e-5
            assert np.abs(x.translation_hu - y.translation_hu).max() < 1e-5
        elif f.name == "features":
            assert x.keys() == y.keys()
            assert all((x[k] == y[k]).all() and x[k].dtype == y[k].dtype for k in x)
        elif isinstance(x, np.ndarray):
            assert x.dtype == y.dtype
            assert np.array_equal(x, y)
        else:
            assert x == y


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "nobody.avatar"
    save_enrollment(tiny(), path)
    return path


@pytest.fixture(scope="module")
def whole(astronaut: Enrollment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("avatar") / "astronaut.avatar"
    save_enrollment(astronaut, path)
    return path


def names(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir()]


def refused(path: Path, says: str) -> None:
    with pytest.raises(EnrollmentError, match=says) as caught:
        load_enrollment(path)
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message
    assert "enroll" in message or "update" in message  # the fix is named


def test_round_trip(saved: Path) -> None:
    assert_equal(tiny(), load_enrollment(saved))


def test_round_trip_of_a_person(whole: Path, astronaut: Enrollment) -> None:
    assert_equal(astronaut, load_enrollment(whole))
    assert load_enrollment(whole).consent == astronaut.consent


def test_round_trip_without_consent(tmp_path: Path) -> None:
    path = tmp_path / "x.avatar"
    save_enrollment(replace(tiny(), consent=None, notices=(), features={}), path)
    assert load_enrollment(path).consent is None


def test_files_are_private_and_leave_nothing_beside_them(saved: Path) -> None:
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    assert names(saved.parent) == [saved.name]


def test_an_old_open_file_becomes_private(saved: Path) -> None:
    saved.chmod(0o644)
    save_enrollment(tiny(), saved)
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600


@pytest.mark.parametrize("share", [0.0, 0.0005, 0.01, 0.3, 0.9, 0.9999])
def test_truncated_files_are_refused(whole: Path, tmp_path: Path, share: float) -> None:
    data = whole.read_bytes()
    path = tmp_path / "cut.avatar"
    path.write_bytes(data[: int(len(data) * share)])
    refused(path, "truncated")


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_one_flipped_bit_anywhere_is_refused(saved: Path, position: float, bit: int) -> None:
    data = bytearray(saved.read_bytes())
    data[int(position * len(data))] ^= 1 << bit
    path = saved.parent / "flipped.avatar"
    path.write_bytes(data)
    refused(path, "avatar")


def test_every_bit_of_the_header_counts(saved: Path) -> None:
    data = saved.read_bytes()
    length = 8 + struct.unpack("<Q", data[:8])[0]
    path = saved.parent / "flipped.avatar"
    for at in range(0, length, 7):
        broken = bytearray(data)
        broken[at] ^= 1 << (at % 8)
        path.write_bytes(broken)
        refused(path, "avatar")


@pytest.mark.parametrize(
    "name",
    ["photo", "landmarks_px", "identity", "neutral_hu", "uv_pncc", "matte", "plate", "features/net/level0"],
)
def test_a_flipped_byte_in_any_tensor_is_refused(saved: Path, name: str) -> None:
    data = bytearray(saved.read_bytes())
    length = struct.unpack("<Q", data[:8])[0]
    begin, end = json.loads(data[8 : 8 + length])[name]["data_offsets"]
    data[8 + length + (begin + end) // 2] ^= 0x10
    saved.write_bytes(data)
    refused(saved, "was changed after it was enrolled")


@pytest.mark.parametrize(
    ("old", "new"), [(b"Ann", b"Bob"), (b"nobody", b"nobodi"), (b"2026-01-01", b"2025-01-01")]
)
def test_an_edited_consent_name_or_date_is_refused(saved: Path, old: bytes, new: bytes) -> None:
    data = saved.read_bytes()
    assert old in data
    saved.write_bytes(data.replace(old, new))
    refused(saved, "was changed after it was enrolled")


def test_a_newer_version_says_update(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new.avatar"
    monkeypatch.setattr(module, "VERSION", 7)
    save_enrollment(tiny(), path)
    monkeypatch.undo()
    refused(path, "version 7, this visavis reads 3; update visavis")


def test_a_well_signed_file_that_lacks_something_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "less.avatar"
    monkeypatch.setattr(module, "_TENSORS", {k: v for k, v in module._TENSORS.items() if k != "matte"})
    save_enrollment(tiny(), path)
    monkeypatch.undo()
    refused(path, "lacks something an avatar must have")
    save_enrollment(replace(tiny(), matte=np.zeros((3, 3, 3), np.uint8)), path)
    refused(path, "matte has the wrong type or shape")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"landmarks_px": np.zeros((5, 3), np.float32)}, "landmarks_px"),
        ({"matte": np.zeros((3, 3), np.uint8)}, "matte"),
        ({"neutral_hu": np.zeros((5, 3), np.float32)}, "vertices"),
        ({"landmarks_px": np.full((478, 3), np.nan, np.float32)}, "not finite"),
        ({"identity": np.full(7, np.inf, np.float32)}, "not finite"),
        ({"uv_position_px": np.zeros((4, 4, 3), np.float32)}, "uv_position_px"),
        ({"uv_colour": np.zeros((5, 4, 3), np.uint8)}, "uv_colour"),
        ({"uv_pncc": np.zeros((4, 4, 1), np.uint8)}, "uv_pncc"),
        ({"plate": np.zeros((4, 3, 4), np.uint8)}, "plate"),
    ],
)
def test_a_well_signed_file_that_cannot_be_drawn_is_refused(
    tmp_path: Path, change: dict[str, np.ndarray], says: str
) -> None:
    path = tmp_path / "forged.avatar"
    save_enrollment(replace(tiny(), **change), path)
    refused(path, says)


def test_an_older_version_says_enroll_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "old.avatar"
    monkeypatch.setattr(module, "VERSION", 1)
    save_enrollment(tiny(), path)
    monkeypatch.undo()
    refused(path, "older visavis .version 1 of 3.; enroll the photo again")


def test_without_saved_controls_there_are_none(tmp_path: Path) -> None:
    path = tmp_path / "x.avatar"
    save_enrollment(replace(tiny(), controls=None), path)
    assert load_enrollment(path).controls is None


def test_controls_that_are_none_of_ours_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "forged.avatar"
    monkeypatch.setattr(Controls, "to_dict", lambda _: {"region": "nowhere"})
    save_enrollment(tiny(), path)
    monkeypatch.undo()
    refused(path, "lacks something an avatar must have")


def test_an_avatar_of_version_2_is_on_our_own_head(
    astronaut: Enrollment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "two.avatar"
    ours = {"spec": astronaut.model.spec, "digest": astronaut.model.digest}
    monkeypatch.setattr(module, "VERSION", 2)
    monkeypatch.setattr(module, "_told", lambda _: "visavis")
    save_enrollment(astronaut, path)
    monkeypatch.undo()
    old = load_enrollment(path)
    assert old.model == OWN
    assert head_model_of(old) is load_head_model()
    save_enrollment(old, path)  # as `visavis settings` does
    assert load_enrollment(path).model == OWN
    assert ours == {"spec": "visavis", "digest": load_head_model().digest}


@pytest.mark.parametrize("told", ["ict", "ict:/models/ict.npz", 3, None, {"spec": "visavis"}])
def test_a_head_model_that_could_not_be_known_again_is_refused(
    told: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "forged.avatar"
    monkeypatch.setattr(module, "_told", lambda _: told)
    save_enrollment(tiny(), path)
    monkeypatch.undo()
    refused(path, "lacks something an avatar must have")


def test_a_shape_that_does_not_fit_its_head_model_is_refused(astronaut: Enrollment) -> None:
    short = replace(astronaut, neutral_hu=astronaut.neutral_hu[:-1])
    with pytest.raises(EnrollmentError, match=r"does not fit its head model visavis: \d+ vertices .* enroll"):
        head_model_of(short)
    with pytest.raises(EnrollmentError, match="does not fit its head model"):
        Renderer(short, generator="geometric", size_px=64)
    with pytest.raises(EnrollmentError, match="500 shapes"):
        head_model_of(replace(astronaut, identity=np.zeros(500, np.float32)))


def test_our_own_head_of_another_version_says_enroll_again(astronaut: Enrollment) -> None:
    with pytest.raises(ModelError, match="another version of visavis; enroll the photo again"):
        head_model_of(replace(astronaut, model=HeadModelRef(digest="0" * 64)))
    assert ref_of("") == astronaut.model


def test_a_head_of_another_model_is_refused_before_it_is_drawn() -> None:
    model = load_head_model()
    with pytest.raises(
        EnrollmentError, match=r"another head model \(622 vertices, not \d+\); enroll the photo"
    ):
        pose_head(model, tiny(), Motion(), head_viewport(tiny(), 64))


def a_zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("photo", "x" * 100)
    return out.getvalue()


class Bomb:
    """Would run when unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch /tmp/visavis-was-unpickled",)  # pyright: ignore[reportDeprecated]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 1000,
        b"hello",
        pickle.dumps(Bomb()),
        a_zip(),
        os.urandom(5000),
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 4) + b"null",
        b"\x89PNG\r\n\x1a\n" + b"\0" * 200,
    ],
    ids=["empty", "zeros", "text", "pickle", "zip", "noise", "huge header", "no tensors", "null", "png"],
)
def test_anything_else_is_no_avatar(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.avatar"
    path.write_bytes(content)
    refused(path, "is not an avatar")
    assert not Path("/tmp/visavis-was-unpickled").exists()


@pytest.mark.parametrize(
    "header",
    [
        "",
        "[]",
        "null",
        "{}",
        "[" * 100_000,
        '{"format":"visavis-avatar"}',
        '{"format":"visavis-avatar","version":"x"}',
        '{"format":"visavis-avatar","version":1e999}',
        '{"format":"other","version":1}',
    ],
)
def test_other_safetensors_are_no_avatar(tmp_path: Path, header: str) -> None:
    from safetensors.numpy import save_file

    path = tmp_path / "model.avatar"
    save_file({"w": np.zeros(3, np.float32)}, path, metadata={"visavis": header})
    refused(path, "is not an avatar")


def test_a_missing_file_and_a_folder_name_the_command(tmp_path: Path) -> None:
    for path in (tmp_path / "none.avatar", tmp_path):
        with pytest.raises(EnrollmentError, match="make one with `visavis enroll PHOTO -o "):
            load_enrollment(path)


def fail_with(error: BaseException) -> Callable[[int], None]:
    def fsync(_: int) -> None:
        raise error

    return fsync


def test_a_full_disk_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engines.files.os.fsync", fail_with(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))
    with pytest.raises(EnrollmentError, match="No space left on device; free some space"):
        save_enrollment(tiny(), tmp_path / "x.avatar")
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device"), MemoryError()]
)
def test_an_interrupted_write_leaves_the_old_file(
    saved: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    old = saved.read_bytes()
    monkeypatch.setattr("engines.files.os.fsync", fail_with(error))
    with pytest.raises((type(error), EnrollmentError)):
        save_enrollment(replace(tiny(), name="somebody else"), saved)
    assert saved.read_bytes() == old
    assert names(saved.parent) == [saved.name]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(EnrollmentError, match=r"cannot write in .*nowhere.*; choose another place with -o"):
        save_enrollment(tiny(), tmp_path / "nowhere" / "x.avatar")


def test_a_folder_in_the_place_of_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.avatar").mkdir()
    with pytest.raises(EnrollmentError, match="cannot write"):
        write_private(tmp_path / "x.avatar", b"data")
    assert names(tmp_path) == ["x.avatar"]


def test_renaming_changes_only_the_name() -> None:
    assert_equal(replace(tiny(), name="other"), renamed(tiny(), "other"))
