"""How templates are made: which frames are looked at, how far a face is from an emotion, who is picked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engines.geometry import F64, Similarity, rotation_from_degrees, rotation_matrix
from engines.head.fit import ExpressionFit
from engines.head.model import load_head_model
from engines.motion import ARKIT_INDEX, EXPRESSION_COUNT
from engines.presets import PRESET_NAMES, preset_motion
from engines.templates import Template
from scripts.build_templates import (
    MOST_TURN_DEG,
    PRESETS,
    Picked,
    Seen,
    admitted,
    distances,
    frames_to_fit,
    permitted,
    pick,
    read_licences,
    rest_of,
    seen_in,
    table,
    tell,
)
from scripts.people.tracks import Tracked

MODEL = load_head_model()
HAPPY, SAD = PRESET_NAMES.index("happy"), PRESET_NAMES.index("sad")
SIDE_PX = 512
UPPER_LIP, LOWER_LIP = [82, 13, 312], [87, 14, 317]


def clip(name: str, scores: F64, yaw_deg: float = 0.0, identity: F64 | None = None) -> Tracked:
    """The mean head, or that of `identity`, showing exactly `scores` (F, 52) in the middle of the picture."""
    shape = MODEL.shape(np.zeros(1, np.float32) if identity is None else identity.astype(np.float32))
    turn = rotation_matrix(rotation_from_degrees(yaw_deg, 0, 0))
    pose = Similarity(60.0, turn, np.array([SIDE_PX / 2, SIDE_PX / 2, 0]))
    points = [pose.apply(MODEL.landmarks(MODEL.decode(shape, s.astype(np.float32)))) for s in scores]
    return Tracked(
        name,
        name,
        Path(name),
        np.array(points),
        scores,
        np.arange(len(scores), dtype=float),
        (SIDE_PX, SIDE_PX),
    )


def seen(subject: str, expression: F64 | None = None, *, calmest: bool = False) -> Seen:
    beta = np.zeros(EXPRESSION_COUNT) if expression is None else expression
    return Seen(subject, Template(np.zeros(1, np.float32), beta.astype(np.float32), 0.0), calmest)


def one(name: str, value: float) -> F64:
    out = np.zeros(EXPRESSION_COUNT)
    out[ARKIT_INDEX[name]] = value
    return out


def test_a_preset_itself_is_no_distance_and_no_expression_is_one() -> None:
    far = distances(MODEL, np.concatenate([PRESETS, np.zeros((1, EXPRESSION_COUNT))]))
    assert np.diag(far) == pytest.approx(np.zeros(len(PRESET_NAMES)), abs=1e-9)
    assert far[-1] == pytest.approx([0, *[1] * (len(PRESET_NAMES) - 1)])


def test_the_farther_of_coefficients_and_landmarks_counts() -> None:
    surprised = PRESET_NAMES.index("surprised")
    preset = PRESETS[surprised]
    basis = ExpressionFit(MODEL).basis.reshape(EXPRESSION_COUNT, -1)

    def parts(apart: F64) -> tuple[float, float]:
        moved, whole = apart @ basis, preset @ basis
        return float(apart @ apart / (preset @ preset)), float(moved @ moved / (whole @ whole))

    # brows are many coefficients and little movement, an open jaw one coefficient and much of it
    without_jaw, without_brow = one("jawOpen", -preset[ARKIT_INDEX["jawOpen"]]), one("browInnerUp", -0.8)
    told_jaw, told_brow = parts(without_jaw), parts(without_brow)
    assert told_jaw[0] < told_jaw[1]
    assert told_brow[0] > told_brow[1]
    far = distances(MODEL, np.stack([preset + without_jaw, preset + without_brow]))[:, surprised]
    assert far == pytest.approx([told_jaw[1], told_brow[0]])


def test_of_a_clip_the_calmest_frame_and_the_nearest_to_each_preset_are_fitted() -> None:
    scores = np.stack([one("tongueOut", 1.0), PRESETS[SAD], np.zeros(EXPRESSION_COUNT), PRESETS[HAPPY]])
    # a tongue is near to no emotion
    assert frames_to_fit(scores) == [2, 1, 3]
    assert frames_to_fit(scores[:1]) == [0]


def test_where_somebody_looks_makes_nobody_restless() -> None:
    scores = np.stack([one("eyeLookUpLeft", 0.9), 0.2 * PRESETS[HAPPY]])
    assert frames_to_fit(scores)[0] == 0


def test_a_face_is_fitted_with_its_shape() -> None:
    alpha = np.zeros(len(MODEL.identity_hu))
    alpha[:2] = 1.5, -1.0
    scores = np.stack([np.zeros(EXPRESSION_COUNT), PRESETS[HAPPY]])
    tracked = clip("ada", scores, identity=alpha)
    tracked.points_px[0, LOWER_LIP] = tracked.points_px[0, UPPER_LIP]
    calm, happy = seen_in(MODEL, tracked)
    assert (calm.subject, calm.calmest, happy.calmest) == ("ada", True, False)
    assert calm.template.lips == 1
    assert happy.template.lips == 0
    assert happy.template.expression == pytest.approx(preset_motion("happy"), abs=0.15)
    for face in (calm, happy):
        assert face.template.identity[:2] == pytest.approx([1.5, -1.0], abs=0.5)


def test_turned_heads_are_left_out() -> None:
    rest = np.zeros((1, EXPRESSION_COUNT))
    assert len([*seen_in(MODEL, clip("ada", rest, yaw_deg=MOST_TURN_DEG - 4))]) == 1
    assert not [*seen_in(MODEL, clip("ada", rest, yaw_deg=MOST_TURN_DEG + 4))]


def test_rest_is_what_calm_faces_have_in_common() -> None:
    squint = "eyeSquintLeft"
    faces = [seen(f"p{k}", one(squint, 0.1 * k), calmest=True) for k in range(6)]
    smiles = [seen("q", one("mouthSmileLeft", 1.0))] * 20
    assert rest_of([*smiles, *faces[::-1]]) == pytest.approx(one(squint, 0.1))
    assert not rest_of(smiles).any()


def test_lips_are_parted_as_the_emotion_parts_them_and_eyes_are_open() -> None:
    faces = [
        replace(seen("a"), template=replace(seen("a").template, lips=lips)) for lips in (1.0, 0.0, 0.0, 0.0)
    ]
    beyond = np.stack([PRESETS[SAD], PRESETS[HAPPY], one("eyeBlinkLeft", 0.5), one("eyeBlinkLeft", 0.3)])
    got = admitted(faces, beyond)
    assert got[:, HAPPY].tolist() == [False, True, False, True]
    assert got[:, SAD].tolist() == [True, False, False, False]
    assert got[:, PRESET_NAMES.index("neutral")].tolist() == [True, False, False, False]


def test_each_person_once_nearest_first_where_there_are_enough() -> None:
    people = [seen(name) for name in ("ada", "bea", "ada", "cid", "dan")]
    far = np.full((5, len(PRESET_NAMES)), 0.9)
    far[:, HAPPY] = 0.5, 0.3, 0.2, 0.4, 0.71
    far[:, SAD] = 0.1, 0.9, 0.1, 0.1, 0.9
    picked = pick(people, far, most=8, farthest=0.7, least=3)
    assert list(picked) == ["happy"]
    assert [(p.seen.subject, p.distance) for p in picked["happy"]] == [
        ("ada", 0.2),
        ("bea", 0.3),
        ("cid", 0.4),
    ]
    assert [p.seen.subject for p in pick(people, far, 2, 0.7, 3)["happy"]] == ["ada", "bea"]
    assert list(pick(people, far, 8, 0.7, 2)) == ["happy", "sad"]


def test_the_like_heads_expression_is_told_against_all_others() -> None:
    def face(subject: str, alpha: float, jaw: float, *, calmest: bool = False) -> Seen:
        beta = one("jawOpen", jaw).astype(np.float32)
        return Seen(subject, Template(np.array([alpha], np.float32), beta, 0.0), calmest)

    calm = [face(n, a, 0, calmest=True) for n, a in (("ada", 0), ("bea", 1), ("cid", 9))]
    # the heads of the faces themselves are not what is compared: they are fitted with the expression
    happy = [face("ada", 5, 0.2), face("bea", 0.4, 0.3), face("cid", 8, 0.7)]
    calmer = face("ada", 5, 0.01)  # a calm face of hers is no emotion
    far = np.full((7, len(PRESET_NAMES)), 0.9)
    far[[0, 1, 2, 6], PRESET_NAMES.index("neutral")] = 0.1, 0.1, 0.1, 0.05
    far[3:6, HAPPY] = 0.5
    told = tell(MODEL, [*calm, *happy, calmer], far)
    step_mm = 100 * np.sqrt((ExpressionFit(MODEL).basis[ARKIT_INDEX["jawOpen"]] ** 2).sum(1).mean())
    assert told.subjects == ["ada", "bea", "cid"]
    assert told.by_nearest == pytest.approx(step_mm * np.array([0.1, 0.1, 0.5]), rel=1e-4)
    assert told.by_any == pytest.approx(step_mm * np.array([0.3, 0.25, 0.45]), rel=1e-4)
    alone = [face("dan", 0, 0.2, calmest=True), *happy]  # his only photo is his calm one
    assert "dan" not in tell(MODEL, alone, np.full((4, len(PRESET_NAMES)), 0.5)).subjects


def test_only_what_is_permitted_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("id,licence_class\nada_1,clean\nbea_1,restricted\nadam_1,clean\n")
    items = [clip(n, np.zeros((1, EXPRESSION_COUNT))) for n in ("ada_1", "bea_1", "adam_1", "cid_1")]
    licences = read_licences(tmp_path)
    assert [i.name for i in permitted(items, licences, ["clean"], ["adam"])] == ["ada_1"]
    assert [i.name for i in permitted(items, licences, ["clean"], [])] == ["ada_1", "adam_1"]
    assert permitted(items, {}, [], []) == items
    assert read_licences(tmp_path / "none") == {}


def test_the_table_tells_of_every_emotion() -> None:
    lines = table({"happy": [Picked(seen("a"), 0.254), Picked(seen("b"), 0.5)]}).splitlines()
    assert len(lines) == 2 + len(PRESET_NAMES)
    assert "| happy | 2 | 0.25 | 0.50 |" in lines
    assert "| sad | 0 | – | – |" in lines
