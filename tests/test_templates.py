"""Templates: the nearest shape's expression is taken, put on the photo's own head, and read from one small file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.enrollment import Enrollment, head_model_of
from engines.head.model import load_head_model
from engines.motion import ARKIT_INDEX, EXPRESSION_COUNT, Motion
from engines.presets import PRESET_NAMES
from engines.retarget import ControlsError
from engines.templates import (
    SHIPPED,
    Template,
    Templates,
    TemplatesError,
    load_templates,
    nearest,
    require_head_model,
    save_templates,
    shape_distances,
    template_motion,
)
from streamer.emotions import emotion_motions

F32 = NDArray[np.float32]

PHOTO = Motion(
    expression=np.full(EXPRESSION_COUNT, 0.3, np.float32),
    rotation_rad=np.array([0.1, 0.2, 0], np.float32),
    translation_hu=np.array([0.2, 0, 7], np.float32),
    gaze_rad=np.full((2, 2), 0.1, np.float32),
    closure=np.array([0.2, 0.6, 0], np.float32),
)


def expression(**named: float) -> F32:
    out = np.zeros(EXPRESSION_COUNT, np.float32)
    for name, value in named.items():
        out[ARKIT_INDEX[name]] = value
    return out


def template(*identity: float, lips: float = 0.0, **named: float) -> Template:
    return Template(np.array(identity, np.float32), expression(**named), lips)


HERE, NEAR, FAR = template(1, 0), template(0, 1.1), template(3, 4, jawOpen=0.5)


def test_distance_is_of_whole_shapes_in_standard_deviations() -> None:
    assert shape_distances([HERE, NEAR, FAR], np.array([0, 0], np.float32)) == pytest.approx([1, 1.1, 5])


def test_the_nearest_shape_is_taken_not_the_first() -> None:
    assert nearest([FAR, NEAR, HERE], np.zeros(2, np.float32)) is HERE
    assert nearest([FAR, NEAR, HERE], np.array([0, 2], np.float32)) is NEAR
    assert nearest([HERE, NEAR, FAR], np.array([3, 3], np.float32)) is FAR
    assert nearest([NEAR, replace(NEAR)], np.zeros(2, np.float32)) is NEAR


def test_modes_that_one_does_not_have_are_zero() -> None:
    assert shape_distances([FAR], np.array([3], np.float32)) == pytest.approx([4])
    assert shape_distances([FAR], np.array([3, 4, 2], np.float32)) == pytest.approx([2])
    assert shape_distances([template(0), FAR], np.zeros(0, np.float32)) == pytest.approx([0, 5])


def test_a_template_replaces_the_photos_own_expression_and_keeps_pose_and_gaze() -> None:
    got = template_motion(PHOTO, template(9, lips=0.25, jawOpen=0.5, mouthSmileLeft=0.7))
    assert got.expression == pytest.approx(expression(jawOpen=0.5, mouthSmileLeft=0.7), abs=1e-6)
    assert got.closure == pytest.approx([0.25, 0, 0])
    assert got.rotation_rad == pytest.approx(PHOTO.rotation_rad, abs=1e-6)
    assert (got.translation_hu == PHOTO.translation_hu).all()
    assert (got.gaze_rad == PHOTO.gaze_rad).all()


def test_where_the_template_looked_does_not_come_along() -> None:
    got = template_motion(PHOTO, template(0, eyeLookUpLeft=0.8, eyeLookInRight=0.5, browInnerUp=0.4))
    assert got.expression == pytest.approx(expression(browInnerUp=0.4), abs=1e-6)


def test_strength_scales_a_template() -> None:
    one = template(0, lips=1.0, mouthSmileLeft=0.4)
    smile = ARKIT_INDEX["mouthSmileLeft"]
    grown = [template_motion(PHOTO, one, s) for s in (0, 0.5, 1, 2)]
    assert [float(m.expression[smile]) for m in grown] == pytest.approx([0.3, 0.35, 0.4, 0.8], abs=1e-6)
    assert [float(m.closure[0]) for m in grown] == [1, 1, 1, 1]
    # as of a preset, the driver at rest closes the lips of a photo of which something is left
    parted = [template_motion(PHOTO, replace(one, lips=0.0), s) for s in (0, 0.5, 1, 2)]
    assert [float(m.closure[0]) for m in parted] == pytest.approx([1, 0.5, 0, 0])
    with pytest.raises(ControlsError, match="preset_strength"):
        template_motion(PHOTO, one, 2.1)


def some() -> Templates:
    big = template(0.26, -1.24, *[0.0] * 58, lips=0.333, jawOpen=0.126)
    return Templates({"happy": (big, HERE), "sad": (NEAR,)}, load_head_model().digest)


def test_a_file_holds_what_was_saved_rounded(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    save_templates(path, some(), "ours")
    got = load_templates(path)
    assert list(got.by_emotion) == ["happy", "sad"]
    assert got.head_model == load_head_model().digest
    first, second = got.by_emotion["happy"]
    assert first.identity[:2] == pytest.approx([0.3, -1.2])
    assert first.expression == pytest.approx(expression(jawOpen=0.13))
    assert first.lips == 0.33
    assert second.identity == pytest.approx(HERE.identity)
    assert json.loads(path.read_text())["licence"] == "ours"


def test_emotions_come_in_the_order_of_the_presets(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    save_templates(path, Templates({"sad": (NEAR,), "neutral": (HERE,)}, "m"), "ours")
    assert list(load_templates(path).by_emotion) == ["neutral", "sad"]


def changed(**change: Any) -> dict[str, Any]:
    one = {"identity": [0.5], "expression": [0.0] * EXPRESSION_COUNT, "lips": 1.0}
    return {
        "format": "visavis-templates",
        "version": 1,
        "head_model": "m",
        "emotions": {"happy": [one | change]},
    }


@pytest.mark.parametrize(
    ("told", "says"),
    [
        (b"\xff\xfe", "is no templates file"),
        ("[]", "is no templates file"),
        ("{}", "'format'"),
        ({**changed(), "format": "visavis-motion"}, "another format"),
        ({**changed(), "version": 2}, "version 2, this visavis reads 1"),
        ({**changed(), "emotions": {}}, "has no template"),
        ({**changed(), "emotions": {"happy": []}}, "has no template"),
        ({**changed(), "emotions": {"bored": changed()["emotions"]["happy"]}}, "no emotion 'bored'"),
        (changed(expression=[0.0] * 51), r"\(51,\) numbers"),
        (changed(expression=[0.0] * 51 + [float("nan")]), "out of range"),
        (changed(identity=[11.0]), "out of range"),
        (changed(identity=[[0.5]]), r"\(1, 1\)"),
        (changed(identity=[0.0] * 5000), r"\(5000,\)"),
        (changed(lips=1.5), "out of range"),
        (changed(lips=float("nan")), "out of range"),
        (changed(lips=None), "is no templates file"),
        ("[" * 100_000, "is no templates file"),
        (" " * 4_000_001, "larger than"),
    ],
)
def test_what_is_no_templates_file_is_refused(
    told: dict[str, Any] | str | bytes, says: str, tmp_path: Path
) -> None:
    path = tmp_path / "t.json"
    path.write_bytes(
        told if isinstance(told, bytes) else (told if isinstance(told, str) else json.dumps(told)).encode()
    )
    with pytest.raises(TemplatesError, match=says) as caught:
        load_templates(path)
    assert "scripts.build_templates" in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TemplatesError, match=r"none\.json \(No such file"):
        load_templates(tmp_path / "none.json")


def test_shapes_of_another_head_model_are_not_compared() -> None:
    require_head_model(some(), load_head_model().digest, "visavis")
    with pytest.raises(TemplatesError, match="another head model than flame"):
        require_head_model(some(), "f1a3e", "flame")


def test_the_shipped_ones_are_heads_of_the_shipped_model_several_for_each_emotion() -> None:
    templates = load_templates()
    model = load_head_model()
    require_head_model(templates, model.digest, model.name)
    assert set(templates.by_emotion) <= set(PRESET_NAMES)
    assert {"neutral", "happy"} <= set(templates.by_emotion)
    assert min(len(several) for several in templates.by_emotion.values()) >= 3
    assert {len(t.identity) for several in templates.by_emotion.values() for t in several} == {
        len(model.identity_hu)
    }
    assert set(json.loads(SHIPPED.read_text())) == {"format", "version", "licence", "head_model", "emotions"}


def test_an_avatar_is_given_the_nearest_heads_expressions(astronaut: Enrollment) -> None:
    own = Template(astronaut.identity, expression(mouthSmileLeft=0.8), 0.0)
    other = Template(astronaut.identity + 1, expression(mouthSmileLeft=0.1), 0.0)
    templates = Templates({"happy": (other, own), "sad": (other,)}, head_model_of(astronaut).digest)
    got = emotion_motions(astronaut, 1.0, templates)
    assert list(got) == ["happy", "sad"]
    assert got["happy"].expression == pytest.approx(own.expression, abs=1e-6)
    assert got["sad"].expression == pytest.approx(other.expression, abs=1e-6)
    with pytest.raises(TemplatesError, match="another head model than visavis"):
        emotion_motions(astronaut, 1.0, replace(templates, head_model="x"))


def test_presets_draw_all_22() -> None:
    class Avatar:
        motion = PHOTO

    assert tuple(emotion_motions(Avatar())) == PRESET_NAMES  # pyright: ignore[reportArgumentType]
