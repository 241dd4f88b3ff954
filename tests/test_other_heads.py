"""Avatars on a user's own head model: enrolled, remembered, drawn, and refused when the model is not to be had."""

from __future__ import annotations

import io
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from PIL import Image
from test_head_models import FIELDS, FILES, ICT_FILE, NEEDS_ICT, bfm_fields, write

from calibration.enroll import enroll
from engines.edit import Edit, apply_edit
from engines.enrollment import (
    Enrollment,
    head_model_of,
    load_enrollment,
    save_enrollment,
    with_head_model_found,
)
from engines.errors import ModelError, WeightsError
from engines.generators.visavis.generator import VisavisGenerator
from engines.head.model import load_head_model
from engines.head.names import HEAD_MODEL_KINDS, HEAD_MODEL_SETTING
from engines.head.open import open_again, open_head_model, ref_of
from engines.raster.resample import resample
from engines.renderer import Renderer
from streamer.check.doctor import head_model_checks
from streamer.cli import main as cli
from streamer.serve.app import create_app
from streamer.serve.config import ServeSettings, read_settings
from streamer.serve.listener import listen
from streamer.serve.start import serve_forever
from streamer.serve.store import AvatarStore

pytestmark = pytest.mark.slow  # every one draws or enrolls

MOTION = Path(__file__).parents[1] / "streamer" / "data" / "demo_motion.jsonl"
SIZE_PX = 160


@pytest.fixture(autouse=True)
def no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(HEAD_MODEL_SETTING, raising=False)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A synthetic file of each kind."""
    folder = tmp_path_factory.mktemp("heads")
    return {kind: write(folder, kind, FIELDS[kind]()) for kind in HEAD_MODEL_KINDS}


Enrolled = Callable[[str], Enrollment]


@pytest.fixture(scope="module")
def enrolled(files: dict[str, Path], astronaut_photo: Path) -> Enrolled:
    """The astronaut on the synthetic head of a kind."""

    @cache
    def make(kind: str) -> Enrollment:
        return enroll(astronaut_photo, consent="public domain", head_model=f"{kind}:{files[kind]}")

    return make


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """The entry point in this process: exit code, output and errors."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["visavis", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        output, errors = capfd.readouterr()
        return int(ended.value.code or 0), output, errors

    return run


def off_from_photo(renderer: Renderer, enrollment: Enrollment) -> NDArray[np.float64]:
    """(S, S) how far the rest picture is from the photo."""
    photo = resample(enrollment.photo, renderer.viewport, 0, (SIZE_PX, SIZE_PX))
    return np.abs(photo.astype(float) - renderer.render(enrollment.motion)).mean(2)


# ---- the reference and what it refuses ------------------------------------------------------------------------


def test_a_model_is_known_again_by_what_its_file_holds(tmp_path: Path) -> None:
    first = {file: write(tmp_path, file, FIELDS[file.split("-")[0]]()) for file in FILES}
    digest = {file: open_head_model(f"{file.split('-')[0]}:{path}").digest for file, path in first.items()}
    assert len(set(digest.values())) == 3  # the same arrays in another format are the same model
    assert digest["flame"] == digest["flame-pickle"]
    assert digest["bfm"] == digest["bfm-mat"]
    again = shutil.copy(first["bfm"], tmp_path / "elsewhere.npz")
    assert open_head_model(f"bfm:{again}").digest == digest["bfm"]
    other = bfm_fields()
    other["idBase"] = other["idBase"] * 1.01
    np.savez(tmp_path / "other.npz", **other)
    assert open_head_model(f"bfm:{tmp_path / 'other.npz'}").digest != digest["bfm"]
    assert load_head_model().digest not in ("", *digest.values())


def test_a_reference_holds_an_absolute_path(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files["bfm"].parent)
    assert ref_of(f"bfm:{files['bfm'].name}").spec == f"bfm:{files['bfm']}"
    assert ref_of(None).spec == ref_of("visavis").spec == "visavis"


def test_a_model_that_has_moved_is_found_where_the_setting_says(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new, other = (tmp_path / name for name in ("old.npz", "new.npz", "other.npz"))
    shutil.copy(files["bfm"], old)
    ref = ref_of(f"bfm:{old}")
    old.rename(new)
    with pytest.raises(
        ModelError, match=r"old\.npz.* is gone; put it back, .*VISAVIS_HEAD_MODEL=bfm:FILE.*enroll"
    ):
        open_again(ref)
    monkeypatch.setenv(HEAD_MODEL_SETTING, f"bfm:{new}")
    assert open_again(ref).digest == ref.digest
    fields = bfm_fields()
    np.savez(other, **(fields | {"exBase": fields["exBase"] * 1.1}))
    monkeypatch.setenv(HEAD_MODEL_SETTING, f"bfm:{other}")
    with pytest.raises(
        ModelError, match=r"old\.npz.* is gone, and bfm:.*other\.npz is another one; put it back"
    ):
        open_again(ref)
    assert open_again(ref, f"bfm:{new}").digest == ref.digest  # what is told comes before the setting
    shutil.copy(other, old)
    with pytest.raises(
        ModelError, match=r"old\.npz is no longer the bfm head model .*enroll the photo again"
    ):
        open_again(ref, "")
    shutil.copy(new, old)
    os.utime(old, ns=(1, 1))
    assert open_again(ref, "").digest == ref.digest


# ---- drawn on it ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", HEAD_MODEL_KINDS)
def test_a_photo_is_enrolled_and_drawn_on_the_head_it_was_given(
    kind: str, files: dict[str, Path], enrolled: Enrolled, tmp_path: Path
) -> None:
    save_enrollment(enrolled(kind), tmp_path / "a.avatar")
    kept = load_enrollment(tmp_path / "a.avatar")
    model = head_model_of(kept)
    assert kept.model.spec == f"{kind}:{files[kind]}"
    assert model.name == kind
    assert len(kept.neutral_hu) == model.vertex_count != load_head_model().vertex_count
    assert not kept.features  # nothing of networks that never saw this head
    renderer = Renderer(kept, generator="visavis", size_px=SIZE_PX)
    assert renderer.generator_name == "geometric"
    assert "drawing with geometric: the weights of visavis were trained on its own head model" in str(
        renderer.notice
    )
    off = off_from_photo(renderer, kept)
    if kind != "ict":  # the made-up file's texture layout crosses itself at the back of the head
        assert off.mean() < 3
    rest, open_ = (
        renderer.render(apply_edit(kept.motion, Edit({"jawOpen": jaw}, neutral=True))) for jaw in (0.0, 1.0)
    )
    changed = np.abs(rest.astype(float) - open_).mean(2)
    mouth, brows = changed[96:136], changed[:64]  # rows of the head crop
    assert mouth.mean() > 5 * brows.mean()
    assert changed.max() > 30


def test_networks_of_our_own_head_refuse_another(enrolled: Enrolled) -> None:
    with pytest.raises(
        WeightsError, match="trained on its own head model, not on flame; enroll the photo with"
    ):
        VisavisGenerator(head_model_of(enrolled("flame")))


@NEEDS_ICT
def test_a_photo_on_the_real_ict_head_stays_the_photo_and_moves(astronaut_photo: Path) -> None:
    on_ict = enroll(astronaut_photo, head_model=f"ict:{ICT_FILE}")
    renderer = Renderer(on_ict, size_px=SIZE_PX)
    assert off_from_photo(renderer, on_ict).mean() < 1.5

    def landmarks(edit: Edit) -> NDArray[np.floating]:
        model = head_model_of(on_ict)
        return model.landmarks(model.decode(on_ict.neutral_hu, apply_edit(on_ict.motion, edit).expression))

    still, jaw = landmarks(Edit(neutral=True)), landmarks(Edit({"jawOpen": 1.0}, neutral=True))
    assert jaw[14, 1] - still[14, 1] > 0.2
    assert abs(jaw[13, 1] - still[13, 1]) < 0.06
    rest = renderer.render(on_ict.motion).astype(float)
    for edit in (Edit(yaw_deg=15), Edit(yaw_deg=-15), Edit({"jawOpen": 0.7}), Edit({"eyeBlinkLeft": 1.0})):
        changed = np.abs(renderer.render(apply_edit(on_ict.motion, edit)) - rest).mean(2)
        assert changed.max() > 30
        # what is at the picture's corners does not move along with the head
        assert changed[:8, :8].mean() < 1
        assert changed[-8:, -8:].mean() < 1


# ---- through the command line ---------------------------------------------------------------------------------


def test_the_command_line_enrolls_animates_and_edits_on_a_flame_head(
    call: Call, astronaut_photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, avatar, motion = (
        write(tmp_path, "flame-pickle", FIELDS["flame"]()),
        tmp_path / "a.avatar",
        tmp_path / "m.jsonl",
    )
    code, out, err = call(
        "enroll", astronaut_photo, "-o", avatar, "--head-model", f"flame:{file}", "--consent", "NASA"
    )
    assert (code, out.strip()) == (0, str(avatar)), err
    motion.write_text("".join(MOTION.read_text().splitlines(keepends=True)[:6]))
    code, out, err = call("animate", avatar, "--driver", motion, "-o", tmp_path / "a.mp4", "--size", SIZE_PX)
    assert code == 0, err
    assert "drawing with geometric" in " ".join(err.split())
    assert (tmp_path / "a.mp4").stat().st_size > 1000

    picture = tmp_path / "a.png"
    code, _, err = call("edit", avatar, "-o", picture, "--yaw", 15, "--shape", "5=2", "--size", SIZE_PX)
    assert code == 0, err
    assert Image.open(picture).size == (SIZE_PX, SIZE_PX)
    code, _, err = call("edit", avatar, "-o", picture, "--shape", "100=1")
    assert code == 1
    assert "there is no shape 100; this head model has 0 to 99" in err  # ours has another number of them
    code, _, err = call("emotions", avatar, "-o", tmp_path / "faces", "--size", 64)
    assert code == 0, err
    assert "drawing with geometric" in " ".join(err.split())
    assert len(list((tmp_path / "faces").glob("*.png"))) == 22

    moved = file.rename(tmp_path / "moved.pkl")
    code, _, err = call("edit", avatar, "-o", picture, "--yaw", 5)
    assert code == 1
    assert (
        f"visavis: {file}, the flame head model that the avatar was fitted with, is gone; put it back" in err
    )
    assert len(err.strip().splitlines()) == 1
    code, _, err = call("frontalize", avatar, "-o", picture, "--size", 64, "--head-model", f"flame:{moved}")
    assert code == 0, err
    monkeypatch.setenv(HEAD_MODEL_SETTING, f"flame:{moved}")
    code, _, err = call("edit", avatar, "-o", picture, "--yaw", 5, "--size", 64)
    assert code == 0, err


def test_the_setting_is_what_photos_are_enrolled_on(
    call: Call, files: dict[str, Path], astronaut_photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(HEAD_MODEL_SETTING, f"bfm:{files['bfm']}")
    for name, more in (("bfm", ()), ("visavis", ("--head-model", "visavis"))):
        avatar = tmp_path / f"{name}.avatar"
        assert call("enroll", astronaut_photo, "-o", avatar, *more)[0] == 0
        assert head_model_of(load_enrollment(avatar)).name == name
    code, _, err = call("frontalize", astronaut_photo, "-o", tmp_path / "front.png", "--size", 64)
    assert code == 0
    assert "not on bfm" in " ".join(err.split())


def test_a_head_model_that_is_none_is_told_before_any_work(
    call: Call, astronaut_photo: Path, tmp_path: Path
) -> None:
    for spec, says in (
        ("smpl:x.npz", "there is no head model 'smpl:x.npz'; choose one of: visavis, ict:FILE.npz"),
        (f"ict:{tmp_path / 'no.npz'}", "no.npz, the ict head model, is not there; correct --head-model"),
    ):
        code, out, err = call("enroll", astronaut_photo, "-o", tmp_path / "x.avatar", "--head-model", spec)
        assert (code, out) == (1, "")
        assert says in err
        assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "x.avatar").exists()


# ---- the server and the doctor --------------------------------------------------------------------------------


def test_uploads_are_enrolled_on_the_server_s_head_model(
    files: dict[str, Path], astronaut_photo: Path
) -> None:
    spec, store = f"bfm:{files['bfm']}", AvatarStore()
    app = create_app(ServeSettings(head_model=spec), store)
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        photo = {"photo": ("a.png", io.BytesIO(astronaut_photo.read_bytes()), "image/png")}
        answer = client.post("/api/avatars", files=photo, data={"consent": "NASA"})
        assert answer.status_code == 201, answer.text
        entry = store.get(answer.json()["name"])
        assert entry is not None
        assert entry.enrollment.model.spec == spec


def test_the_server_s_head_model_comes_from_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_settings().head_model is None
    monkeypatch.setenv(HEAD_MODEL_SETTING, "bfm:/a.npz")
    assert read_settings().head_model == "bfm:/a.npz"
    assert read_settings(head_model="ict:/b.npz").head_model == "ict:/b.npz"


def test_a_server_does_not_start_with_a_head_model_it_cannot_open(
    files: dict[str, Path], astronaut: Enrollment, tmp_path: Path
) -> None:
    gone = replace(ref_of(f"bfm:{files['bfm']}"), spec=f"bfm:{tmp_path / 'gone.npz'}")
    save_enrollment(replace(astronaut, model=gone), tmp_path / "a.avatar")
    with listen("127.0.0.1", 0) as listener:
        for settings, says in (
            (ServeSettings(), "the bfm head model that the avatar was fitted with, is gone"),
            (ServeSettings(head_model="smpl:x"), "there is no head model 'smpl:x'"),
        ):
            with pytest.raises(ModelError, match=says):
                serve_forever(settings, [tmp_path / "a.avatar"], listener, lambda _: None)


def test_an_avatar_whose_model_has_moved_remembers_the_new_place(
    files: dict[str, Path], enrolled: Enrolled, tmp_path: Path
) -> None:
    elsewhere = shutil.copy(files["bfm"], tmp_path / "elsewhere.npz")
    lost = replace(enrolled("bfm"), model=replace(enrolled("bfm").model, spec=f"bfm:{tmp_path / 'gone.npz'}"))
    assert with_head_model_found(lost, f"bfm:{elsewhere}").model.spec == f"bfm:{elsewhere}"
    assert with_head_model_found(enrolled("bfm"), f"bfm:{elsewhere}").model == enrolled("bfm").model


def test_the_doctor_says_which_head_model_is_set(files: dict[str, Path]) -> None:
    (own,), (other,) = head_model_checks(""), head_model_checks(f"flame:{files['flame']}")
    assert (own.status, own.detail) == ("ok", f"visavis, {load_head_model().vertex_count} vertices")
    assert other.status == "ok"
    assert other.detail.startswith(f"flame:{files['flame']}, ")
    (bad,) = head_model_checks("flame:/nowhere.pkl")
    assert bad.status == "warn"
    assert "/nowhere.pkl, the flame head model, is not there" in bad.detail
    assert bad.fix == "correct or unset VISAVIS_HEAD_MODEL"
