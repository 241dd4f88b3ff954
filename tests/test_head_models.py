"""Users' own head models: tiny synthetic ICT, FLAME and BFM files, read, refused, and put in our place."""

from __future__ import annotations

import os
import pickle
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.io import savemat
from scipy.sparse import csc_matrix

from engines.errors import ModelError
from engines.geometry import rotation_matrix
from engines.head import open as opening
from engines.head.landmark_names import IRIS_LEFT, IRIS_RIGHT, LANDMARK_COUNT, LIPS_INNER, MEETING
from engines.head.model import HeadModel, Joints, Part
from engines.head.open import open_head_model
from engines.head.others import adapt, bfm, flame, ict, mesh
from engines.motion import ARKIT_INDEX, ARKIT_NAMES, EXPRESSION_COUNT

F64 = NDArray[np.float64]
JAW_OPEN = ARKIT_INDEX["jawOpen"]
TO_YUP = np.array([1.0, -1.0, -1.0])  # our axes → y up, z to the viewer
UPPER, LOWER = 0.40, 0.45  # rows of the lips
LID_UPPER, LID_LOWER = -0.15, -0.10
EYE_TURN, EYE_DOWN, EYE_RADIUS = 0.35, -0.125, 0.12


# ---- a head with a nose, a mouth, two eyes: a surface over (turn, down) in radians ---------------------------


def at(turn: F64, down: F64) -> F64:
    """Points (…, 3) of the head in head units, our axes."""
    nose = 0.25 * np.exp(-((turn / 0.12) ** 2) - ((down - 0.1) / 0.15) ** 2)
    x = 0.75 * np.sin(turn) * np.cos(down)
    return np.stack([x, 1.1 * np.sin(down), -0.95 * np.cos(turn) * np.cos(down) - nose], -1)


def expression_at(turn: F64, down: F64) -> F64:
    """What the 52 expressions do there: (52, …, 3) head units."""
    rng = np.random.default_rng(3)
    out = np.zeros((EXPRESSION_COUNT, *turn.shape, 3))
    for k in range(EXPRESSION_COUNT - 1):
        where, way = rng.uniform((-0.5, -0.4), (0.5, 0.6)), rng.normal(size=3)
        bump = np.exp(-((turn - where[0]) ** 2 + (down - where[1]) ** 2) / 0.3**2)
        out[k] = 0.05 * bump[..., None] * way
    # upper lip still, lower lip down, in between at the corners
    low = np.clip((down - UPPER) / (LOWER - UPPER), 0, 1) * np.exp(-((turn / 0.5) ** 2)) * (down < 1.2)
    out[JAW_OPEN] = 0.3 * low[..., None] * np.array([0.0, 1.0, 0.3])
    return out


@dataclass(frozen=True)
class Head:
    """A mesh in our axes and head units with what each loader's file needs."""

    vertices: F64
    triangles: NDArray[np.int64]
    turn: F64
    down: F64
    eye_side: NDArray[np.int64]
    expression: F64
    identity: F64


@cache
def head(is_mask: bool = False) -> Head:
    """The whole head with eyeballs, or a face without."""
    turns = np.concatenate([np.arange(-3.0, -0.61, 0.3), np.arange(-13, 14) * 0.05, np.arange(0.9, 3.1, 0.3)])
    downs = np.concatenate([[-1.5, -1.2, -0.9, -0.65], np.arange(-10, 16) * 0.05, [0.9, 1.1, 1.3, 1.5]])
    turn, down = (g.ravel() for g in np.meshgrid(turns, downs))
    columns = len(turns)
    faces: list[list[int]] = []
    for r in range(len(downs) - 1):
        for c in range(columns):
            c2 = (c + 1) % columns
            t, d = (turns[c] + turns[c2]) / 2, (downs[r] + downs[r + 1]) / 2
            is_mouth = abs(t) < 0.25 and UPPER < d < LOWER
            is_eye = 0.2 < abs(t) < 0.5 and LID_UPPER < d < LID_LOWER and c2
            if is_mouth or is_eye or (is_mask and (c2 == 0 or abs(t) > 1.3 or not -1.0 < d < 0.8)):
                continue
            a, b, e, f = r * columns + c, r * columns + c2, (r + 1) * columns + c, (r + 1) * columns + c2
            faces += [[a, b, f], [a, f, e]]
    vertices, triangles = at(turn, down), np.array(faces)
    side = np.zeros(len(vertices), int)
    expression = expression_at(turn, down)
    if not is_mask:
        for number, sign in ((1, -1), (2, 1)):
            ball, ball_faces = sphere(at(np.array(sign * EYE_TURN), np.array(EYE_DOWN)) * (1, 1, 0.9))
            triangles = np.concatenate([triangles, ball_faces + len(vertices)])
            vertices = np.concatenate([vertices, ball])
            side = np.concatenate([side, np.full(len(ball), number)])
        expression = np.concatenate([expression, np.zeros((52, (side > 0).sum(), 3))], 1)
    used = np.unique(triangles)
    number_of = np.full(len(vertices), -1)
    number_of[used] = np.arange(len(used))
    vertices, triangles, side = vertices[used], number_of[triangles], side[used]
    rng = np.random.default_rng(5)
    identity = np.stack([0.03 * vertices[:, [i % 3]] * rng.normal(size=3) for i in range(6)])
    extra = (0, max(0, len(used) - len(turn)))
    return Head(vertices, triangles, np.pad(turn, extra)[: len(used)], np.pad(down, extra)[: len(used)], side,
                expression[:, used], identity)  # fmt: skip


def sphere(centre: F64) -> tuple[F64, NDArray[np.int64]]:
    """A ball of the eye's size, wound outwards in our axes."""
    a, b = (g.ravel() for g in np.meshgrid(np.arange(10) * 0.2 * np.pi, np.linspace(-1.57, 1.57, 7)))
    points = centre + EYE_RADIUS * np.stack([np.sin(a) * np.cos(b), np.sin(b), -np.cos(a) * np.cos(b)], 1)
    faces = [
        f
        for r in range(6)
        for c in range(10)
        for f in (
            [r * 10 + c, r * 10 + (c + 1) % 10, (r + 1) * 10 + (c + 1) % 10],
            [r * 10 + c, (r + 1) * 10 + (c + 1) % 10, (r + 1) * 10 + c],
        )
    ]
    return points, np.array(faces)


@cache
def landmark_places() -> tuple[F64, F64]:
    """(turn, down) of the 478 landmarks: lips and lids on their rows, the others anywhere on the face."""
    rng = np.random.default_rng(1)
    turn, down = rng.uniform(-0.6, 0.6, LANDMARK_COUNT), rng.uniform(-0.5, 0.7, LANDMARK_COUNT)
    in_a_hole = ((np.abs(turn) < 0.3) & (down > 0.35) & (down < 0.5)) | ((down > -0.2) & (down < -0.05))
    down[in_a_hole] = -0.3
    for k, (up, low) in enumerate(MEETING):
        is_lip = k >= 14
        turn[[up, low]] = (k - 18) * 0.05 if is_lip else (-0.5 + 0.05 * k if k < 7 else 0.5 - 0.05 * (k - 7))
        down[[up, low]] = (UPPER, LOWER) if is_lip else (LID_UPPER, LID_LOWER)
    turn[[78, 308]], down[[78, 308]] = (-0.25, 0.25), (UPPER + LOWER) / 2
    turn[[10, 152, 4]], down[[10, 152, 4]] = 0, (-0.5, 0.7, 0.1)
    return turn, down


@cache
def reference() -> HeadModel:
    """What the heads are brought to: a model that is no more than its 478 landmarks."""
    turn, down = landmark_places()
    points, fields = at(turn, down), expression_at(turn, down)
    for iris, sign in ((IRIS_RIGHT, -1), (IRIS_LEFT, 1)):
        own = slice(iris, iris + 5)
        centre = at(np.array(sign * EYE_TURN), np.array(EYE_DOWN)) * (1, 1, 0.9)
        points[own], fields[:, own] = centre - (0, 0, EYE_RADIUS), 0
    n = LANDMARK_COUNT
    index = np.arange(n, dtype=np.int32)
    return HeadModel(
        name="reference",
        mean_hu=points.astype(np.float32),
        identity_hu=np.zeros((1, n, 3), np.float32),
        expression_hu=fields.astype(np.float32),
        triangles=np.zeros((1, 3), np.int32),
        part=np.ones(1, np.uint8),
        uv=np.zeros((n, 2), np.float32),
        weld=index,
        landmark_vertices=np.repeat(index[:, None], 3, 1),
        landmark_weights=np.tile(np.array([1, 0, 0], np.float32), (n, 1)),
        fit_weight=np.ones(n, np.float32),
        rigidity=np.ones(n, np.float32),
        eye_side=np.zeros(n, np.uint8),
        closing_vertices=np.zeros(0, np.int32),
        closing_weights=np.zeros((2 * len(MEETING), 0), np.float32),
        joints=Joints(
            np.array([[-0.3, -0.1, -0.7], [0.3, -0.1, -0.7]], np.float32),
            np.array([0, 0.1, 0.1], np.float32),
            np.array([0, 1, 0.2], np.float32),
        ),
    )


def mixed(fields: F64, count: int) -> F64:
    """A native basis (count, n, 3) that is not ARKit's: random mixtures."""
    mixture = np.random.default_rng(9).normal(size=(count, len(fields)))
    return np.tensordot(mixture, fields, 1) * 0.2


# ---- the files ----------------------------------------------------------------------------------------------


def flame_fields() -> dict[str, Any]:
    h = head()
    n = len(h.vertices)
    metres = TO_YUP * 0.1
    shapedirs = np.zeros((n, 3, 300 + 60), np.float32)
    shapedirs[:, :, :6] = np.moveaxis(h.identity * metres, 0, 2)
    shapedirs[:, :, 300:] = np.moveaxis(mixed(np.delete(h.expression, JAW_OPEN, 0) * metres, 60), 0, 2)
    weights = np.zeros((n, 5))
    weights[:, flame.JAW] = np.linalg.norm(h.expression[JAW_OPEN], axis=1) / 0.32
    weights[h.eye_side == 1, flame.EYE_RIGHT] = 1
    weights[h.eye_side == 2, flame.EYE_LEFT] = 1
    weights[:, 0] = 1 - weights.sum(1)
    regressor = np.full((5, n), 1 / n)
    for joint, side in ((flame.EYE_RIGHT, 1), (flame.EYE_LEFT, 2)):
        regressor[joint] = (h.eye_side == side) / (h.eye_side == side).sum()
    # where a turn moves the lower lip down and back as `expression_at` does
    jaw = np.linalg.pinv(np.concatenate([h.vertices.T, np.ones((1, n))])) @ (0, 0.2, -0.07, 1)
    regressor[flame.JAW] = jaw
    turned = h.vertices @ rotation_matrix(np.array([0.05, 0.03, 0.02])).T + (0.05, -0.1, 0.2)
    return {
        "v_template": turned * metres,
        "shapedirs": shapedirs,
        "f": h.triangles.astype(np.uint32),
        "J_regressor": regressor,
        "weights": weights,
        "kintree_table": np.zeros((2, 5), np.int64),
    }


def bfm_fields(units_per_hu: float = 1.0) -> dict[str, Any]:
    h = head(is_mask=True)

    def basis(modes: F64) -> F64:
        return (modes * TO_YUP * units_per_hu).reshape(len(modes), -1).T

    return {
        "meanshape": (h.vertices * TO_YUP * units_per_hu).reshape(1, -1),
        "idBase": basis(h.identity),
        "exBase": basis(mixed(h.expression, 64)),
        "tri": h.triangles + 1,
        "meantex": np.full((1, h.vertices.size), 128.0),
    }


def ict_fields() -> dict[str, Any]:
    h = head()
    cm = TO_YUP * 10
    names: list[str] = []
    modes: list[F64] = []
    for k, name in enumerate(ARKIT_NAMES):
        if name in ("browInnerUp", "cheekPuff"):
            names += [f"{name}_L", f"{name}_R"]
            modes += [h.expression[k] * cm / 2] * 2
        elif name != "tongueOut":
            names.append(name.removesuffix("Left") + "_L" if name.endswith("Left") and len(name) > 9
                         else name.removesuffix("Right") + "_R" if name.endswith("Right") and len(name) > 10
                         else name)  # fmt: skip
            modes.append(h.expression[k] * cm)
    expression, identity = np.stack(modes), h.identity * cm
    e_scale = np.maximum(np.abs(expression).max((1, 2)), 1e-9) / 32767
    i_scale = np.abs(identity).max((1, 2)) / 32767
    part = np.array([0, ict.EYE_RIGHT, ict.EYE_LEFT])[h.eye_side]
    uv = np.stack([h.turn / 7 + 0.5, 0.5 - h.down / 4], 1)
    return {
        "neutral": (h.vertices * cm).astype(np.float32),
        "identity_q": np.rint(identity / i_scale[:, None, None]).astype(np.int16),
        "identity_scale": i_scale.astype(np.float32),
        "expression_q": np.rint(expression / e_scale[:, None, None]).astype(np.int16),
        "expression_scale": e_scale.astype(np.float32),
        "expression_names": np.array(names),
        "faces": h.triangles.astype(np.uint16),
        "uv": uv.astype(np.float32),
        "uv_faces": h.triangles.astype(np.uint16),
        "vertex_part": part.astype(np.uint8),
        "face_part": part[h.triangles[:, 0]].astype(np.uint8),
    }


FIELDS: dict[str, Callable[[], dict[str, Any]]] = {
    "ict": ict_fields,
    "flame": flame_fields,
    "bfm": bfm_fields,
}
READERS: dict[str, Callable[[Path, HeadModel], HeadModel]] = {
    "ict": ict.load,
    "flame": flame.load,
    "bfm": bfm.load,
}
FILES = {"ict": "ict.npz", "flame": "flame.npz", "flame-pickle": "generic_model.pkl", "bfm": "bfm.npz",
         "bfm-mat": "BFM_model_front.mat"}  # fmt: skip


def write(folder: Path, file: str, fields: dict[str, Any]) -> Path:
    path = folder / FILES[file]
    if path.suffix == ".npz":
        np.savez(path, **fields)
    elif path.suffix == ".mat":
        savemat(path, fields)
    else:
        path.write_bytes(pickle.dumps(fields, 2))
    return path


@cache
def _loaded(file: str, folder: Path) -> HeadModel:
    kind = file.split("-")[0]
    return READERS[kind](write(folder, file, FIELDS[kind]()), reference())


@pytest.fixture(scope="module", params=list(FILES))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> HeadModel:
    """Each format, loaded."""
    return _loaded(request.param, tmp_path_factory.mktemp("head"))


# ---- what every loaded model is -----------------------------------------------------------------------------


def test_a_head_is_in_head_units_and_where_the_reference_is(model: HeadModel) -> None:
    mine = head(is_mask=model.name == "bfm").vertices
    # what lies below the neck's base is cut off
    np.testing.assert_allclose(
        np.ptp(model.mean_hu, axis=0), np.ptp(mine, axis=0), rtol=0.03 if model.name == "bfm" else 0.06
    )
    off = model.landmarks(model.mean_hu) - reference().mean_hu
    assert np.linalg.norm(off, axis=1).mean() < 0.02


def test_jaw_open_moves_the_lower_lip_and_not_the_upper(model: HeadModel) -> None:
    beta = np.zeros(EXPRESSION_COUNT, np.float32)
    beta[JAW_OPEN] = 1
    moved = model.landmarks(model.decode(model.mean_hu, beta)) - model.landmarks(model.mean_hu)
    assert moved[14, 1] > 0.2
    assert np.linalg.norm(moved[13]) < 0.05


def test_expressions_move_the_landmarks_as_the_reference_does(model: HeadModel) -> None:
    mine = np.stack([model.landmarks(e) for e in model.expression_hu])[:51, :468]
    wanted = adapt.reference_fields(reference())[:51, :468]
    left = np.linalg.norm(mine - wanted, axis=(1, 2)) / np.linalg.norm(wanted, axis=(1, 2))
    assert np.median(left) < 0.12, left.round(2)
    assert left[JAW_OPEN] < 0.25


def test_triangles_face_outwards_and_texture_islands_do_not_cross_the_seam(model: HeadModel) -> None:
    nose = model.landmark_vertices[4, int(model.landmark_weights[4].argmax())]
    assert model.normals(model.mean_hu)[nose, 2] < -0.5
    assert model.uv.min() >= 0
    assert model.uv.max() <= 1
    if model.name != "ict":  # the file's own uv
        is_cap = (np.abs(model.mean_hu[model.triangles, 1]) > 0.9).any(1)  # around the poles all turns meet
        assert np.ptp(model.uv[model.triangles[~is_cap]], axis=1).max() < 0.3
    np.testing.assert_array_equal(model.mean_hu[model.weld], model.mean_hu)


def test_closing_fields_move_their_own_landmark_only(model: HeadModel) -> None:
    fields = np.zeros((2 * len(MEETING), model.vertex_count))
    fields[:, model.closing_vertices] = model.closing_weights
    meeting = [u for u, _ in MEETING] + [low for _, low in MEETING]
    at_landmarks = (fields[:, model.landmark_vertices] * model.landmark_weights).sum(2)[:, meeting]
    np.testing.assert_allclose(at_landmarks, np.eye(len(meeting)), atol=1e-3)
    assert fields.min() > -0.35
    assert fields.max() < 1.35
    top = model.mean_hu[:, 1] < -0.8
    assert not fields[:, top].any()


def test_gaze_turns_the_eyeballs_alone(model: HeadModel) -> None:
    still = np.zeros(EXPRESSION_COUNT, np.float32)
    looking = model.decode(model.mean_hu, still, np.full((2, 2), 0.3, np.float32))
    moved = np.linalg.norm(looking - model.mean_hu, axis=1) > 1e-6
    if model.name == "bfm":
        assert not moved.any()
        return
    assert moved[model.eye_side > 0].mean() > 0.9
    assert not moved[model.eye_side == 0].any()
    assert model.mean_hu[model.eye_side == 1, 0].mean() < 0 < model.mean_hu[model.eye_side == 2, 0].mean()
    assert set(np.unique(model.part)) == {Part.SKIN, Part.EYE}
    assert np.abs(model.expression_hu[:, model.eye_side > 0]).max() == 0


def test_the_neck_stays_while_the_head_turns(model: HeadModel) -> None:
    lowest = model.mean_hu[:, 1].argmax()
    face = model.landmarks(model.rigidity[:, None])[:468, 0]
    assert face.min() > 0.95
    assert model.rigidity[lowest] == pytest.approx(1 if model.name == "bfm" else 0, abs=0.01)


def test_identity_modes_are_in_head_units_too(model: HeadModel) -> None:
    h = head(is_mask=model.name == "bfm")
    np.testing.assert_allclose(
        np.abs(model.identity_hu[:6]).max((1, 2)), np.abs(h.identity).max((1, 2)), rtol=0.15
    )
    person = model.shape(np.ones(1, np.float32))
    np.testing.assert_allclose(person - model.mean_hu, model.identity_hu[0], atol=1e-6)


# ---- ICT ----------------------------------------------------------------------------------------------------


def test_ict_takes_measured_landmarks_from_the_file_next_to_it(tmp_path: Path) -> None:
    path = write(tmp_path, "ict", ict_fields())
    corners = np.random.default_rng(0).permutation(head().triangles)[:LANDMARK_COUNT]
    h = head()
    own = [i for i in range(LANDMARK_COUNT) if i not in LIPS_INNER]
    turn, down = landmark_places()
    on = mesh.Surface(h.vertices, h.triangles[(h.eye_side[h.triangles] == 0).all(1)])
    triangle, weights = on.nearest(at(turn, down))
    corners = on.triangles[triangle]
    np.savez(tmp_path / ict.EMBEDDING_FILE, verts=corners, bary=weights, dispersion=np.full(478, 0.5))
    loaded = ict.load(path, reference())
    at_home = loaded.landmarks(loaded.mean_hu)[own]
    # measured landmarks are kept as they are: the very corners
    expected = (h.vertices[corners] * weights[..., None]).sum(1)[own]
    np.testing.assert_allclose(at_home - at_home.mean(0), expected - expected.mean(0), atol=0.01)
    np.testing.assert_allclose(loaded.fit_weight, 0.5, rtol=1e-5)

    np.savez(tmp_path / ict.EMBEDDING_FILE, verts=corners + 100_000, bary=weights, dispersion=np.ones(478))
    with pytest.raises(ModelError, match=r"ict_mediapipe478\.npz: verts"):
        ict.load(path, reference())


def test_ict_without_an_expression_is_refused_by_its_name(tmp_path: Path) -> None:
    fields = ict_fields()
    fields["expression_names"] = np.array(
        ["grin" if n == "jawOpen" else n for n in fields["expression_names"]]
    )
    with pytest.raises(ModelError, match="lacks jawOpen"):
        ict.load(write(tmp_path, "ict", fields), reference())


@pytest.mark.slow
def test_ict_facekit_folder_is_packed_into_the_same_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields, h = ict_fields(), head()
    order = np.argsort(fields["vertex_part"], kind="stable")
    faces = np.argsort(order)[h.triangles]
    ends = np.searchsorted(fields["vertex_part"][order], np.arange(len(ict.PARTS)), side="right")
    monkeypatch.setattr(ict, "PART_ENDS", tuple(int(e) for e in ends))

    def obj(name: str, vertices: F64) -> None:
        lines = ["v {:.5f} {:.5f} {:.5f}".format(*v) for v in vertices[order]]
        lines += ["vt {:.5f} {:.5f}".format(*v) for v in fields["uv"][order]]
        lines += ["f " + " ".join(f"{i + 1}/{i + 1}" for i in f) for f in faces]
        (tmp_path / f"{name}.obj").write_text("\n".join(lines))

    with pytest.raises(ModelError, match=r"generic_neutral_mesh\.obj"):
        ict.pack(tmp_path, tmp_path / "ict.npz")
    obj("generic_neutral_mesh", fields["neutral"])
    obj("identity000", fields["neutral"] + h.identity[0] * TO_YUP * 10)
    for k, name in enumerate(fields["expression_names"]):
        obj(str(name), fields["neutral"] + fields["expression_q"][k] * fields["expression_scale"][k])
    ict.pack(tmp_path, tmp_path / "ict.npz")
    packed = ict.load(tmp_path / "ict.npz", reference())
    direct = ict.load(write(tmp_path, "ict", fields), reference())
    assert packed.identity_hu.shape[0] == 1
    np.testing.assert_array_equal(np.bincount(packed.eye_side), np.bincount(direct.eye_side))
    np.testing.assert_allclose(
        packed.landmarks(packed.expression_hu[JAW_OPEN]),
        direct.landmarks(direct.expression_hu[JAW_OPEN]),
        atol=5e-3,
    )


SHARED = Path(__file__).parents[2] / "shared" / "models"  # beside the checkout on the developers' machines
ICT_FILE = Path(os.environ.get("VISAVIS_ICT_FILE") or SHARED / "ict_lite_i16.npz")
NEEDS_ICT = pytest.mark.skipif(
    not ICT_FILE.is_file(), reason=f"{ICT_FILE} is not there: set VISAVIS_ICT_FILE to an ICT-FaceKit .npz"
)


@pytest.mark.slow
@NEEDS_ICT
def test_the_real_ict_model_loads(tmp_path: Path) -> None:
    loaded = open_head_model(f"ict:{ICT_FILE}")
    assert loaded.expression_hu.shape[0] == EXPRESSION_COUNT
    assert set(np.unique(loaded.part)) == set(range(1, 7))
    moved = loaded.landmarks(loaded.expression_hu[JAW_OPEN])
    assert moved[14, 1] > 0.2
    assert abs(moved[13, 1]) < 0.06
    assert np.ptp(loaded.mean_hu[:, 0]) == pytest.approx(1.84, abs=0.1)  # from ear to ear, without shoulders
    # the landmarks measured on the mesh and those found without them agree to half a centimetre
    alone = tmp_path / "alone.npz"
    alone.write_bytes(ICT_FILE.read_bytes())
    estimated = open_head_model(f"ict:{alone}")
    off = estimated.landmarks(estimated.mean_hu) - loaded.landmarks(loaded.mean_hu)
    assert np.median(np.linalg.norm(off, axis=1)) < 0.05


# ---- FLAME --------------------------------------------------------------------------------------------------


class _Ch:
    """Stands for chumpy's array while a test pickles one: the same name, the same attributes."""

    def __init__(self, x: NDArray[Any]) -> None:
        self._dirty_vars, self._itr, self._depends_on_deps = {"x"}, None, {}
        self.x = x


_Ch.__module__, _Ch.__qualname__, _Ch.__name__ = "chumpy.ch", "Ch", "Ch"


@pytest.mark.slow
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_flame_pickles_with_chumpy_and_sparse_matrices_are_read_without_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int
) -> None:
    fields = flame_fields()
    expected = {k: np.asarray(v) for k, v in fields.items()}
    fields["shapedirs"], fields["J_regressor"] = _Ch(fields["shapedirs"]), csc_matrix(fields["J_regressor"])
    fields["bs_type"], fields["f"] = "lrotmin", np.asfortranarray(fields["f"])
    package, module = types.ModuleType("chumpy"), types.ModuleType("chumpy.ch")
    module.Ch = _Ch  # type: ignore[attr-defined]
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "chumpy", package)
        patched.setitem(sys.modules, "chumpy.ch", module)
        path = tmp_path / "generic_model.pkl"
        path.write_bytes(pickle.dumps(fields, protocol))
    found = flame.read_pickle(path, tuple(flame.FIELDS))
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)
    assert flame.load(path, reference()).name == "flame"


def test_arrays_as_python_2_pickled_them_are_read(tmp_path: Path) -> None:
    # Python 2's str holds the bytes, which no Python 3 writes
    data = np.array([1.5, -2.0, 300.25])
    opcodes = (
        b"\x80\x02}U\x01f"
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x03\x85cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R"
        b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"U\x18" + data.tobytes() + b"tbs."
    )
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(opcodes)
    np.testing.assert_array_equal(flame.read_pickle(path, ("f",))["f"], data)


class _Runs:
    def __init__(self, call: Callable[..., object], *args: object) -> None:
        self.call, self.args = call, args

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call, self.args


@pytest.mark.slow
@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("place", ["alone", "in a field", "in an array", "as a key's neighbour"])
def test_a_malicious_pickle_does_not_run(tmp_path: Path, protocol: int, place: str) -> None:
    trace = tmp_path / "ran"
    for evil in (
        _Runs(os.system, f"touch {trace}"),  # pyright: ignore[reportDeprecated]
        _Runs(eval, f"open({str(trace)!r}, 'w')"),
        _Runs(getattr, trace, "touch"),
        _Runs(np.save, str(trace), 0),
    ):
        fields = flame_fields()
        what: object = evil
        if place == "in a field":
            what = {**fields, "v_template": evil}
        elif place == "in an array":
            what = {**fields, "v_template": np.array([[evil, 1, 2]], object)}
        elif place == "as a key's neighbour":
            what = {**fields, "extra": [evil]}
        path = tmp_path / "generic_model.pkl"
        path.write_bytes(pickle.dumps(what, protocol))
        with pytest.raises(ModelError, match="which no FLAME model needs"):
            flame.load(path, reference())
    assert list(tmp_path.iterdir()) == [path]


def test_flame_takes_landmarks_uv_and_eyelids_from_the_files_next_to_it(tmp_path: Path) -> None:
    fields = flame_fields()
    path = write(tmp_path, "flame", fields)
    h = head()
    skin = (h.eye_side[h.triangles] == 0).all(1)
    turn, down = landmark_places()
    ids = np.arange(0, 468, 4)
    surface = mesh.Surface(h.vertices, h.triangles[skin])
    triangle, weights = surface.nearest(at(turn[ids], down[ids]))
    np.savez(
        tmp_path / flame.EMBEDDING_FILE,
        landmark_indices=ids,
        lmk_face_idx=np.flatnonzero(skin)[triangle],
        lmk_b_coords=weights,
    )
    n = len(h.vertices)
    np.savez(tmp_path / flame.TEXTURE_FILE, vt=np.full((n, 2), 0.5) + h.turn[:, None] / 20, ft=fields["f"])
    for file in flame.EYELID_FILES:
        np.save(tmp_path / file, np.zeros((n, 3)))
    loaded = flame.load(path, reference())
    off = loaded.landmarks(loaded.mean_hu) - reference().mean_hu
    assert np.linalg.norm(off[ids], axis=1).max() < 0.02
    assert np.ptp(loaded.uv[loaded.eye_side == 0, 0]) < 0.5  # the file's uv, not the cylinder's

    np.save(tmp_path / flame.EYELID_FILES[0], np.zeros((7, 3)))
    with pytest.raises(ModelError, match=r"l_eyelid\.npy.*\(7, 3\)"):
        flame.load(path, reference())


def test_flame_of_another_kind_is_refused(tmp_path: Path) -> None:
    body = flame_fields()
    body["J_regressor"] = np.zeros((24, len(body["v_template"])))
    with pytest.raises(ModelError, match=r"J_regressor is \(24, \d+\), expected \(5, n\)"):
        flame.load(write(tmp_path, "flame-pickle", body), reference())
    few = flame_fields()
    few["shapedirs"] = few["shapedirs"][:, :, :100]
    with pytest.raises(ModelError, match="shapedirs has 100 modes, expected 300"):
        flame.load(write(tmp_path, "flame", few), reference())


# ---- BFM ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("units_per_hu", [0.1, 1.0, 100.0, 1e5])
def test_bfm_is_the_same_in_metres_decimetres_millimetres_and_micrometres(
    tmp_path: Path, units_per_hu: float
) -> None:
    loaded = bfm.load(write(tmp_path, "bfm-mat", bfm_fields(units_per_hu)), reference())
    mine = head(is_mask=True).vertices
    np.testing.assert_allclose(np.ptp(loaded.mean_hu, axis=0), np.ptp(mine, axis=0), rtol=0.02)
    assert np.abs(loaded.identity_hu).max() == pytest.approx(
        np.abs(head(is_mask=True).identity).max(), rel=0.1
    )


def test_bfm_with_keypoints_has_those_landmarks_at_their_vertices(tmp_path: Path) -> None:
    h = head(is_mask=True)
    turn, down = landmark_places()
    ids = np.array(adapt.IBUG_TO_MEDIAPIPE)
    own = np.array([np.linalg.norm(h.vertices - p, axis=1).argmin() for p in at(turn[ids], down[ids])])
    points = np.concatenate([np.zeros(adapt.IBUG_FROM, int), own]) + 1
    loaded = bfm.load(write(tmp_path, "bfm-mat", bfm_fields() | {"keypoints": points[None]}), reference())
    exact = loaded.landmarks(loaded.mean_hu)[ids]
    np.testing.assert_allclose(exact - exact.mean(0), h.vertices[own] - h.vertices[own].mean(0), atol=0.03)


def test_bfm_triangles_count_from_one_and_may_be_wound_either_way(tmp_path: Path) -> None:
    fields = bfm_fields()
    with pytest.raises(ModelError, match=r"tri holds 0 … \d+, expected 1"):
        bfm.load(write(tmp_path, "bfm", fields | {"tri": fields["tri"] - 1}), reference())
    other = bfm.load(write(tmp_path, "bfm", fields | {"tri": fields["tri"][:, ::-1]}), reference())
    nose = other.landmark_vertices[4, int(other.landmark_weights[4].argmax())]
    assert other.normals(other.mean_hu)[nose, 2] < -0.5
    assert other.vertex_count == len(head(is_mask=True).vertices)


def basel_2017() -> dict[str, Any]:
    fields = bfm_fields(100.0)
    half = fields["meanshape"][0] / 2
    return {
        "shape/model/mean": half,
        "shape/model/pcaBasis": fields["idBase"] / 3,
        "shape/model/pcaVariance": np.full(fields["idBase"].shape[1], 9.0),
        "expression/model/mean": half,
        "expression/model/pcaBasis": fields["exBase"] / 2,
        "expression/model/pcaVariance": np.full(fields["exBase"].shape[1], 4.0),
        "shape/representer/cells": fields["tri"].T - 1,
    }


def test_bfm_2017_means_add_up_and_modes_are_standard_deviations() -> None:
    same = bfm.from_basel_2017(Path("model2017.h5"), basel_2017())
    for name, value in bfm_fields(100.0).items():
        if name in bfm.FIELDS:
            np.testing.assert_allclose(np.asarray(same[name], np.float64), value, rtol=1e-5, atol=1e-5)
    broken = basel_2017()
    del broken["expression/model/mean"]
    with pytest.raises(ModelError, match=r"model2017\.h5.*lacks expression/model/mean"):
        bfm.from_basel_2017(Path("model2017.h5"), broken)


def test_bfm_2017_without_h5py_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "model2017.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(ModelError, match="pip install h5py"):
        bfm.load(tmp_path / "model2017.h5", reference())


def test_bfm_2017_is_read_with_h5py(tmp_path: Path) -> None:
    h5py: Any = pytest.importorskip("h5py", reason="h5py reads .h5 files: pip install h5py")
    path = tmp_path / "model2017.h5"
    with h5py.File(path, "w") as file:
        for name, value in basel_2017().items():
            file[name] = value
    loaded = bfm.load(path, reference())
    assert np.ptp(loaded.mean_hu[:, 1]) == pytest.approx(np.ptp(head(is_mask=True).vertices[:, 1]), rel=0.02)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ModelError, match=r"model2017\.h5"):
        bfm.load(path, reference())


# ---- files that are wrong -----------------------------------------------------------------------------------


@pytest.mark.parametrize("file", list(FILES))
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.98])
def test_a_truncated_file_is_named(tmp_path: Path, file: str, share: float) -> None:
    kind = file.split("-")[0]
    path = write(tmp_path, file, FIELDS[kind]())
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ModelError, match=path.name.replace(".", r"\.")):
        READERS[kind](path, reference())


@pytest.mark.parametrize(
    ("file", "field"),
    [
        ("ict", "expression_q"),
        ("flame", "weights"),
        ("flame-pickle", "f"),
        ("bfm", "exBase"),
        ("bfm-mat", "tri"),
    ],
)
def test_a_missing_field_is_named_with_what_was_found_and_expected(
    tmp_path: Path, file: str, field: str
) -> None:
    kind = file.split("-")[0]
    fields = FIELDS[kind]()
    del fields[field]
    with pytest.raises(ModelError, match=rf"lacks {field}; found: .*; expected: .*{field} \("):
        READERS[kind](write(tmp_path, file, fields), reference())


def _cut(a: NDArray[Any]) -> NDArray[Any]:
    return a[:-1]


def _not_a_number(a: NDArray[Any]) -> NDArray[Any]:
    out = np.array(a, np.float32)
    out.flat[3] = np.nan
    return out


def _words(a: NDArray[Any]) -> NDArray[Any]:
    return np.full(a.shape, "x")


@pytest.mark.parametrize(
    ("kind", "field", "spoil", "said"),
    [
        ("ict", "neutral", lambda a: a[:, :2], r"neutral is \(\d+, 2\), expected \(n, 3\)"),
        ("ict", "expression_scale", _cut, r"expression_scale is \(52,\)"),
        ("ict", "faces", lambda a: a.astype(np.int64) + 60_000, "faces holds"),
        ("ict", "neutral", _not_a_number, "not finite"),
        ("ict", "uv", _words, "uv holds <U1, expected numbers"),
        ("ict", "uv", lambda a: a + 7, "sheets"),
        ("flame", "weights", _cut, r"weights is .* with n = "),
        ("flame", "f", lambda a: a.astype(np.int64) * -1, "f holds"),
        ("flame", "v_template", _not_a_number, "not finite"),
        ("bfm", "idBase", _cut, r"idBase is .*, expected \(3n, k\)"),
        ("bfm", "meanshape", lambda a: a * 1e9, "units large"),
        ("bfm", "meanshape", lambda a: a * 0, "one place"),
    ],
)
def test_a_field_that_does_not_fit_is_named(
    tmp_path: Path, kind: str, field: str, spoil: Callable[[NDArray[Any]], NDArray[Any]], said: str
) -> None:
    fields = FIELDS[kind]()
    fields[field] = spoil(fields[field])
    with pytest.raises(ModelError, match=said):
        READERS[kind](write(tmp_path, kind, fields), reference())


@pytest.mark.parametrize("kind", list(READERS))
@pytest.mark.parametrize("suffix", [".npz", ".pkl", ".mat", ".bin"])
@pytest.mark.parametrize(
    "content", [b"", b"hello, this is a text\n" * 30, pickle.dumps([1, 2]), b"\x80\x02}"]
)
def test_a_foreign_file_is_refused(tmp_path: Path, kind: str, suffix: str, content: bytes) -> None:
    path = tmp_path / f"foreign{suffix}"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="foreign"):
        READERS[kind](path, reference())


def test_an_object_array_in_an_npz_is_refused(tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    path = tmp_path / "flame.npz"
    evil = _Runs(os.system, f"touch {trace}")  # pyright: ignore[reportDeprecated]
    np.savez(path, v_template=np.array([evil], object))
    with pytest.raises(ModelError, match=r"flame\.npz"):
        flame.load(path, reference())
    assert not trace.exists()


def test_a_mesh_that_is_no_face_is_refused(tmp_path: Path) -> None:
    fields = bfm_fields()
    rod = np.random.default_rng(0).uniform(-1, 1, (fields["meanshape"].size // 3, 3)) * (0.05, 1, 0.05)
    with pytest.raises(ModelError, match="does not look like a face"):
        bfm.load(write(tmp_path, "bfm", fields | {"meanshape": rod.reshape(1, -1)}), reference())


# ---- choosing one -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_each_kind_is_opened_by_its_name_and_our_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "load_head_model", reference)
    for own in (None, "", "visavis"):
        assert open_head_model(own) is reference()
    for file in FILES:
        kind = file.split("-")[0]
        path = write(tmp_path, file, FIELDS[kind]())
        assert open_head_model(f"{kind}:{path}").name == kind


@pytest.mark.parametrize("spec", ["smpl:/a/b.npz", "ict", "ict:", ":/a", "/a/b.npz", "ICT:/a/b.npz"])
def test_an_unknown_model_names_the_choices(spec: str) -> None:
    with pytest.raises(ModelError, match=r"ict:FILE\.npz, flame:FILE\.pkl or \.npz, bfm:FILE\.h5"):
        open_head_model(spec)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere\.npz.*not there"):
        open_head_model(f"ict:{tmp_path / 'nowhere.npz'}")


def test_without_scipy_the_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "bfm", bfm_fields())
    monkeypatch.setattr(opening, "load_head_model", reference)
    for name in [n for n in sys.modules if n.startswith("engines.head.others.")]:
        monkeypatch.delitem(sys.modules, name)
        monkeypatch.delattr(sys.modules["engines.head.others"], name.rpartition(".")[2])
    monkeypatch.setitem(sys.modules, "scipy.spatial", None)
    with pytest.raises(ModelError, match="pip install scipy"):
        open_head_model(f"bfm:{path}")


# ---- the parts ----------------------------------------------------------------------------------------------


def test_the_nearest_surface_point_is_the_nearest_of_all_triangles() -> None:
    h = head()
    points = np.random.default_rng(2).normal(size=(40, 3))
    surface = mesh.Surface(h.vertices, h.triangles)
    triangle, weights = surface.nearest(points)
    found = np.linalg.norm(surface.at(triangle, weights) - points, axis=1)
    for i, point in enumerate(points):
        every = np.repeat(point[None], len(h.triangles), 0)
        _, squared = mesh._closest(every, h.vertices[h.triangles])  # pyright: ignore[reportPrivateUsage]
        assert found[i] <= np.sqrt(squared.min()) + 0.02
    assert weights.min() >= -1e-12
    np.testing.assert_allclose(weights.sum(1), 1)


def test_mixing_recovers_known_mixtures_and_ridge_keeps_weak_modes_small() -> None:
    rng = np.random.default_rng(4)
    modes = rng.normal(size=(10, LANDMARK_COUNT, 3))
    mix = rng.normal(size=(52, 10))
    np.testing.assert_allclose(adapt.mix_modes(modes, np.tensordot(mix, modes, 1), 1e-9), mix, atol=1e-5)
    modes[9] = modes[8] + 1e-4 * modes[9]  # hardly a mode of its own
    found = adapt.mix_modes(modes, rng.normal(size=(52, LANDMARK_COUNT, 3)))
    assert np.abs(found).max() < 1


def test_split_vertices_share_their_weld_and_unused_ones_go() -> None:
    triangles = np.array([[0, 1, 2], [2, 1, 4]])
    uv = np.array([[[0, 0], [1, 0], [0, 1]], [[0, 0.5], [1, 0], [1, 1]]], float)
    source, split, new_uv, weld = mesh.split_at_seams(triangles, uv)
    np.testing.assert_array_equal(source, [0, 1, 2, 2, 4])
    np.testing.assert_array_equal(weld, [0, 1, 2, 2, 4])
    np.testing.assert_array_equal(source[split], triangles)
    np.testing.assert_allclose(new_uv[split], uv)
