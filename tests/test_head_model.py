"""The head model: a whole, shut, outward head; expressions, gaze and closing do what they say; bad files are named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from engines.errors import ModelError
from engines.geometry import rotation_from_degrees, rotation_matrix
from engines.head.landmark_names import (
    EYE_LEFT,
    EYE_RIGHT,
    LANDMARK_COUNT,
    LIDS_LEFT,
    LIDS_RIGHT,
    LIPS_INNER,
    LIPS_OUTER,
    LOWER_LIP,
    MEETING,
    UPPER_LIP,
)
from engines.head.model import (
    EYEBALL_RADIUS_HU,
    MEETING_LOWER,
    MEETING_UPPER,
    MODEL_PATH,
    Part,
    close_gaps,
    eye_centre,
    load_head_model,
    turn_eyes,
)
from engines.motion import ARKIT_INDEX, ARKIT_NAMES, EXPRESSION_COUNT

F32 = NDArray[np.float32]
MODEL = load_head_model()
MEAN = MODEL.landmarks(MODEL.mean_hu)
SHUT, OPEN = np.ones(3, np.float32), np.zeros(3, np.float32)
seeds = st.integers(0, 2**32 - 1)


def beta(**values: float) -> F32:
    out = np.zeros(EXPRESSION_COUNT, np.float32)
    for name, value in values.items():
        out[ARKIT_INDEX[name]] = value
    return out


def somebody(seed: int) -> F32:
    rng = np.random.default_rng(seed)
    return MODEL.shape(rng.normal(size=len(MODEL.identity_hu)).astype(np.float32))


def some_expression(seed: int) -> F32:
    rng = np.random.default_rng(seed)
    return (rng.uniform(0, 1, EXPRESSION_COUNT) * (rng.random(EXPRESSION_COUNT) < 0.3)).astype(np.float32)


def pieces(*parts: Part) -> list[NDArray[np.intp]]:
    """Triangles of each connected piece of some parts."""
    chosen = np.flatnonzero(np.isin(MODEL.part, parts))
    corners = MODEL.weld[MODEL.triangles[chosen]]
    a, b = corners[:, [0, 1]].ravel(), corners[:, [1, 2]].ravel()
    graph = sp.coo_matrix((np.ones(len(a)), (a, b)), (MODEL.vertex_count,) * 2)
    _, label = connected_components(graph, directed=False)
    own = label[corners[:, 0]]
    return [chosen[own == k] for k in np.unique(own)]


def volume(triangles: NDArray[np.intp], vertices: F32 = MODEL.mean_hu) -> float:
    """Signed volume within some triangles: positive when they are wound outwards."""
    v = vertices[MODEL.triangles[triangles]].astype(np.float64)
    v -= v.mean((0, 1))
    return float(np.einsum("ij,ij->i", v[:, 0], np.cross(v[:, 1], v[:, 2])).sum() / 6)


# --- the mesh


def test_the_committed_file_is_small_and_is_a_whole_head() -> None:
    assert MODEL_PATH.stat().st_size <= 6_000_000
    n, t = MODEL.vertex_count, len(MODEL.triangles)
    assert 4000 < n < 8000
    assert 8000 < t < 16000
    assert MODEL.expression_hu.shape == (EXPRESSION_COUNT, n, 3)
    assert MODEL.identity_hu.shape[1:] == (n, 3)
    assert len(MODEL.identity_hu) >= 20
    assert set(np.unique(MODEL.part)) == {
        Part.SKIN, Part.EYE, Part.MOUTH, Part.TEETH, Part.TONGUE, Part.SOCKET,
    }  # fmt: skip
    assert MODEL.uv.min() >= 0
    assert MODEL.uv.max() <= 1
    assert MODEL.rigidity.min() >= 0
    assert MODEL.rigidity.max() == 1
    assert load_head_model() is MODEL  # read once
    # a head as large as heads are, in tenths of a metre
    skin = MODEL.mean_hu[np.unique(MODEL.triangles[MODEL.part == Part.SKIN])]
    assert 1.4 < np.ptp(skin[:, 0]) < 2.2
    assert 2.3 < np.ptp(skin[:, 1]) < 3.4


def test_every_basis_moves_something() -> None:
    moved = np.abs(MODEL.expression_hu).max((1, 2))
    look = {n for n in ARKIT_NAMES if n.startswith("eyeLook")}
    still = {n for n, m in zip(ARKIT_NAMES, moved, strict=True) if m < 1e-3}
    assert still <= look  # the gaze turns the eyes
    assert (np.abs(MODEL.identity_hu).max((1, 2)) > 1e-4).all()
    size = np.linalg.norm(MODEL.identity_hu, axis=(1, 2))
    assert size[0] == size.max()  # the mode that people differ most in comes first


def test_seams_are_welded_in_every_shape() -> None:
    weld = MODEL.weld
    assert (weld[weld] == weld).all()
    assert (weld <= np.arange(len(weld))).all()
    assert 0 < (weld != np.arange(len(weld))).sum() < 0.3 * len(weld)  # UV seams there are
    for shape in (MODEL.mean_hu, somebody(1), MODEL.decode(somebody(2), some_expression(2))):
        assert np.abs(shape - shape[weld]).max() < 1e-6


def test_triangles_are_wound_outwards_and_one_way() -> None:
    corners = MODEL.weld[MODEL.triangles]
    edges = np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]])
    assert (edges[:, 0] != edges[:, 1]).all()
    assert len(np.unique(edges, axis=0)) == len(edges)  # neighbours agree
    head = pieces(Part.SKIN, Part.MOUTH, Part.SOCKET)
    assert len(head) == 1  # lips lead into the mouth, lids into the sockets
    assert volume(head[0]) > 2
    counts = {Part.EYE: 2, Part.TEETH: 2, Part.TONGUE: 1}
    for part, count in counts.items():
        found = pieces(part)
        assert len(found) == count
        assert all(volume(p) > 0 for p in found)
    # walls of the cavity look into it
    inward = [volume(p) for part in (Part.MOUTH, Part.SOCKET) for p in pieces(part)]
    assert max(inward) < 0


def rim() -> NDArray[np.intp]:
    """Vertices along the skin's open edge: the neck's base."""
    corners = MODEL.weld[MODEL.triangles[np.isin(MODEL.part, (Part.SKIN, Part.MOUTH, Part.SOCKET))]]
    edges = np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]])
    there = {tuple(e) for e in edges.tolist()}
    return np.unique([e for e in there if e[::-1] not in there])


def test_the_skin_is_open_only_at_the_neck() -> None:
    assert len(rim()) > 10
    assert MODEL.mean_hu[rim(), 1].min() > MEAN[152, 1]  # below the chin


def test_rigidity_falls_from_the_head_to_nothing_at_the_necks_base() -> None:
    assert (MODEL.rigidity[MODEL.mean_hu[:, 1] < 0] == 1).all()
    assert (MODEL.rigidity[MODEL.landmark_vertices] == 1).all()
    assert MODEL.rigidity[rim()].max() < 0.1


def test_rigidity_tears_no_seam() -> None:
    assert np.abs(MODEL.rigidity - MODEL.rigidity[MODEL.weld]).max() < 1e-3


def test_normals_are_unit_and_point_outwards() -> None:
    normal = MODEL.normals(MODEL.mean_hu)
    used = np.unique(MODEL.triangles)
    assert np.allclose(np.linalg.norm(normal[used], axis=1), 1, atol=1e-4)
    assert (normal == normal[MODEL.weld]).all()
    at = MODEL.landmarks(normal)
    assert at[4, 2] < -0.8  # the nose to the camera
    assert at[10, 1] < at[152, 1]  # forehead up, chin down
    assert at[234, 0] < -0.5  # cheeks aside
    assert at[454, 0] > 0.5
    # and turn with the head
    turn = rotation_matrix(rotation_from_degrees(30, 10, -5)).astype(np.float32)
    assert np.allclose(MODEL.normals(MODEL.mean_hu @ turn.T), normal @ turn.T, atol=1e-4)


def test_the_head_is_symmetric() -> None:
    mirrored = MEAN[:468] * (-1, 1, 1)
    distance, other = map(np.asarray, KDTree(MEAN[:468]).query(mirrored))
    assert distance.max() < 1e-3
    assert (other[other] == np.arange(468)).all()
    for right, left in ((33, 263), (61, 291), (234, 454), (159, 386)):
        assert other[right] == left
        assert MEAN[right, 0] < 0 < MEAN[left, 0]  # the subject's right is at the picture's left
    off, _ = KDTree(MODEL.mean_hu).query(MODEL.mean_hu * np.array([-1, 1, 1], np.float32))
    assert np.percentile(off, 99) < 0.01


def test_landmarks_lie_on_the_skin() -> None:
    assert MODEL.landmark_vertices.shape == (LANDMARK_COUNT, 3)
    assert MODEL.landmark_weights.min() >= 0
    assert np.allclose(MODEL.landmark_weights.sum(1), 1, atol=1e-5)
    # in a triangle or on its edge
    triangles = [set(t) for t in MODEL.weld[MODEL.triangles].tolist()]
    of: dict[int, list[set[int]]] = {}
    for triangle in triangles:
        for vertex in triangle:
            of.setdefault(vertex, []).append(triangle)
    places = MODEL.weld[MODEL.landmark_vertices].tolist()
    assert all(any(set(place) <= t for t in of[place[0]]) for place in places)
    eyes = MODEL.eye_side[MODEL.landmark_vertices]
    assert (eyes[:468] == 0).all()
    assert (eyes[468:473] == 1).all()
    assert (eyes[473:478] == 2).all()
    # lips and lids go round their openings in order
    for ring in (LIPS_INNER, LIPS_OUTER, EYE_RIGHT, EYE_LEFT):
        p = MEAN[list(ring), :2] - MEAN[list(ring), :2].mean(0)
        turn = np.diff(np.unwrap(np.arctan2(p[:, 1], p[:, 0])))
        assert (np.sign(turn) == np.sign(turn.sum())).all()


def test_pncc_is_the_heads_own_place() -> None:
    code = MODEL.pncc()
    assert code.shape == (MODEL.vertex_count, 3)
    assert code.min() == 0
    assert code.max() == 1
    assert np.corrcoef(code[:, 0], MODEL.mean_hu[:, 0])[0, 1] > 0.999


# --- decoding


def test_decoding_nothing_is_the_neutral() -> None:
    person = somebody(3)
    assert (MODEL.decode(person, beta()) == person).all()
    assert (MODEL.decode(person, beta(), np.zeros((2, 2), np.float32)) == person).all()
    assert (MODEL.shape(np.zeros(5, np.float32)) == MODEL.mean_hu).all()
    delta = np.full_like(person, 0.25)
    assert np.allclose(MODEL.shape(np.zeros(5, np.float32), delta), MODEL.mean_hu + 0.25)


def test_decoding_changes_no_input() -> None:
    person, expression = somebody(3), beta(jawOpen=1)
    before = person.copy()
    MODEL.decode(person, expression, np.full((2, 2), 0.2, np.float32))
    assert (person == before).all()


@given(seeds)
@settings(max_examples=20)
def test_expressions_add_up(seed: int) -> None:
    a, b = some_expression(seed), some_expression(seed + 1)
    person = somebody(seed)
    both = MODEL.decode(person, a + b) - person
    each = MODEL.decode(person, a) + MODEL.decode(person, b) - 2 * person
    assert np.abs(both - each).max() < 1e-5


def test_the_jaw_opens_the_lips_and_takes_the_lower_teeth() -> None:
    opened = MODEL.decode(MODEL.mean_hu, beta(jawOpen=1))
    gap = MEAN[LOWER_LIP, 1] - MEAN[UPPER_LIP, 1]
    lips = MODEL.landmarks(opened)
    assert 0 < gap < 0.06
    assert lips[LOWER_LIP, 1] - lips[UPPER_LIP, 1] > gap + 0.2
    upper_hu, lower_hu = (abs(lips[k, 1] - MEAN[k, 1]) for k in (UPPER_LIP, LOWER_LIP))
    assert upper_hu < 0.2 * lower_hu
    rows = sorted(
        (np.unique(MODEL.triangles[p]) for p in pieces(Part.TEETH)), key=lambda v: MODEL.mean_hu[v, 1].mean()
    )
    upper, lower = (opened[v] - MODEL.mean_hu[v] for v in rows)
    assert np.abs(upper).max() < 1e-4
    assert lower[:, 1].mean() > 0.1
    tongue = np.unique(MODEL.triangles[MODEL.part == Part.TONGUE])
    assert (opened - MODEL.mean_hu)[tongue, 1].mean() > 0.05
    # rows of teeth do not run through each other
    assert opened[rows[1], 1].min() > opened[rows[0], 1].min()


@pytest.mark.parametrize(
    ("name", "landmark", "axis", "sign"),
    [
        ("mouthSmileLeft", 291, 0, 1),
        ("mouthSmileRight", 61, 0, -1),
        ("mouthFrownLeft", 291, 1, 1),
        ("mouthLeft", 13, 0, 1),
        ("mouthRight", 13, 0, -1),
        ("jawLeft", 152, 0, 1),
        ("jawForward", 152, 2, -1),
        ("browInnerUp", 55, 1, -1),
        ("browDownRight", 52, 1, 1),
        ("browOuterUpLeft", 300, 1, -1),
        ("eyeBlinkRight", 159, 1, 1),
        ("eyeWideLeft", 386, 1, -1),
        ("cheekPuff", 205, 0, -1),
        ("mouthUpperUpLeft", 270, 1, -1),
        ("mouthLowerDownRight", 91, 1, 1),
        ("noseSneerRight", 49, 1, -1),
    ],
)
def test_expressions_move_what_they_name(name: str, landmark: int, axis: int, sign: int) -> None:
    moved = MODEL.landmarks(MODEL.decode(MODEL.mean_hu, beta(**{name: 1})))[landmark] - MEAN[landmark]
    assert moved[axis] * sign > 0.004


@pytest.mark.parametrize(
    "name", [n for n in ARKIT_NAMES if n.endswith("Left") and n + "x" not in ARKIT_NAMES]
)
def test_left_and_right_are_mirror_images(name: str) -> None:
    _, other = KDTree(MEAN[:468]).query(MEAN[:468] * (-1, 1, 1))
    left, right = (
        MODEL.landmarks(MODEL.expression_hu[ARKIT_INDEX[n]])[:468]
        for n in (name, name.removesuffix("Left") + "Right")
    )
    scale = max(float(np.abs(left).max()), 0.01)
    assert np.abs(left[other] * (-1, 1, 1) - right).max() < 0.25 * scale


def test_eyeballs_are_round_and_no_expression_moves_them() -> None:
    for shape in (MODEL.mean_hu, somebody(4), MODEL.decode(somebody(5), np.ones(52, np.float32))):
        centres = MODEL.joints_of(shape).eyes
        for side in (1, 2):
            ball = shape[MODEL.eye_side == side] - centres[side - 1]
            assert np.allclose(np.linalg.norm(ball, axis=1), EYEBALL_RADIUS_HU, atol=1e-4)
    assert np.abs(MODEL.expression_hu[:, MODEL.eye_side > 0]).max() < 1e-6


@given(st.floats(-0.6, 0.6), st.floats(-0.5, 0.5), st.floats(-0.6, 0.6), st.floats(-0.5, 0.5), seeds)
@settings(max_examples=30)
def test_gaze_turns_each_eyeball_about_its_centre(a: float, b: float, c: float, d: float, seed: int) -> None:
    person = somebody(seed)
    centres = MODEL.joints_of(person).eyes
    gaze = np.array([[a, b], [c, d]], np.float32)
    got = MODEL.decode(person, beta(), gaze)
    assert (got[MODEL.eye_side == 0] == person[MODEL.eye_side == 0]).all()
    for side, (yaw, pitch) in enumerate(((a, b), (c, d))):
        own = MODEL.eye_side == side + 1
        ball = got[own] - centres[side]
        assert np.allclose(np.linalg.norm(ball, axis=1), EYEBALL_RADIUS_HU, atol=1e-4)
        iris = MODEL.landmarks(got)[468 + 5 * side] - centres[side]
        before = MODEL.landmarks(person)[468 + 5 * side] - centres[side]
        # yaw > 0 looks to the picture's right, pitch > 0 down
        turned = np.arctan2(iris[0], -iris[2]) - np.arctan2(before[0], -before[2])
        assert float(turned) == pytest.approx(yaw, abs=0.02 + 0.3 * abs(pitch * yaw))
        sunk = np.arcsin(iris[1] / np.linalg.norm(iris)) - np.arcsin(before[1] / np.linalg.norm(before))
        assert float(sunk) == pytest.approx(pitch, abs=0.02 + 0.3 * abs(pitch * yaw))


def test_turning_eyes_back_brings_them_back() -> None:
    shape = somebody(6)
    before = shape.copy()
    turn_eyes(MODEL, shape, np.array([[0.3, 0], [0, -0.2]], np.float32))
    assert np.abs(shape - before).max() > 0.02
    centres = MODEL.joints_of(before).eyes
    for side in (1, 2):  # an eyeball's vertices are not spread evenly: the mean moves, the centre does not
        ball = shape[MODEL.eye_side == side] - centres[side - 1]
        assert np.allclose(np.linalg.norm(ball, axis=1), EYEBALL_RADIUS_HU, atol=1e-4)


def test_joints_follow_the_person() -> None:
    shift = np.array([0.03, -0.02, 0.05], np.float32)
    got = MODEL.joints_of(MODEL.mean_hu + shift)
    assert np.allclose(got.eyes, MODEL.joints.eyes + shift, atol=1e-5)
    assert np.allclose(got.jaw, MODEL.joints.jaw + shift, atol=1e-5)
    assert MODEL.joints.eyes[0, 0] < 0 < MODEL.joints.eyes[1, 0]


def test_an_eyeball_touches_its_lids() -> None:
    for side, (contour, lids) in enumerate(((EYE_RIGHT, LIDS_RIGHT), (EYE_LEFT, LIDS_LEFT))):
        centre = eye_centre(MEAN[list(contour)], MEAN[list(lids)])
        assert np.allclose(centre, MODEL.joints.eyes[side], atol=0.03)
        distance = np.linalg.norm(MEAN[list(lids)] - centre, axis=1)
        assert distance == pytest.approx(EYEBALL_RADIUS_HU, abs=0.03)


# --- closing


def gaps(shape: F32) -> NDArray[np.floating]:
    points = MODEL.landmarks(shape)
    return points[MEETING_LOWER] - points[MEETING_UPPER]


@given(seeds)
@settings(max_examples=40)
def test_closed_lips_and_lids_meet_whatever_the_face(seed: int) -> None:
    shape = MODEL.decode(somebody(seed), some_expression(seed))
    close_gaps(MODEL, shape, SHUT)
    assert np.linalg.norm(gaps(shape), axis=1).max() < 1e-3


@given(seeds, st.tuples(*[st.floats(0, 1)] * 3))
@settings(max_examples=40)
def test_nothing_ever_crosses(seed: int, closure: tuple[float, float, float]) -> None:
    shape = MODEL.decode(somebody(seed), some_expression(seed))
    before = gaps(shape)
    close_gaps(MODEL, shape, np.array(closure, np.float32))
    after = gaps(shape)
    assert after[:, 1].min() > -1e-3
    # half-way is half-way, and what had crossed meets
    share = 1 - np.array([closure[1]] * 7 + [closure[2]] * 7 + [closure[0]] * 9)
    expected = np.where(before[:, 1] < 0, 0, np.linalg.norm(before, axis=1) * share)
    assert np.abs(np.linalg.norm(after, axis=1) - expected).max() < 1e-3


def test_open_stays_as_it_is() -> None:
    shape = MODEL.mean_hu.copy()
    close_gaps(MODEL, shape, OPEN)
    assert (shape == MODEL.mean_hu).all()


@pytest.mark.parametrize(("which", "own"), [(0, slice(14, 23)), (1, slice(0, 7)), (2, slice(7, 14))])
def test_each_closure_closes_its_own(which: int, own: slice) -> None:
    shape = MODEL.decode(MODEL.mean_hu, beta(jawOpen=0.5))
    closure = OPEN.copy()
    closure[which] = 1
    before = gaps(shape)
    close_gaps(MODEL, shape, closure)
    others = np.ones(len(MEETING), bool)
    others[own] = False
    assert np.linalg.norm(gaps(shape)[own], axis=1).max() < 1e-3
    assert np.abs(gaps(shape) - before)[others].max() < 1e-3


def test_closing_moves_neighbours_along_and_nothing_else() -> None:
    shape = MODEL.decode(MODEL.mean_hu, beta(jawOpen=0.8))
    before = shape.copy()
    close_gaps(MODEL, shape, SHUT)
    moved = np.linalg.norm(shape - before, axis=1)
    assert (moved[MODEL.eye_side > 0] == 0).all()
    assert moved[np.linalg.norm(MODEL.mean_hu - MEAN[10], axis=1) < 0.2].max() < 0.01  # the forehead
    assert np.abs(shape - shape[MODEL.weld]).max() < 1e-6
    # no fold: neighbours move alike
    edges = np.concatenate([MODEL.triangles[MODEL.part == Part.SKIN][:, k] for k in ([0, 1], [1, 2])])
    assert np.linalg.norm((shape - before)[edges[:, 0]] - (shape - before)[edges[:, 1]], axis=1).max() < 0.3


# --- files


@pytest.fixture(scope="module")
def tensors() -> dict[str, NDArray[np.generic]]:
    with safe_open(str(MODEL_PATH), framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


HEADER = json.dumps({"format": "visavis-head-model", "version": 1, "name": "test"})
Write = Callable[..., Path]


@pytest.fixture
def write(tensors: dict[str, NDArray[np.generic]], tmp_path: Path) -> Write:
    """`write(header, field=tensor or None to leave it out)`: a model file, otherwise as the committed one."""

    def make(header: str = HEADER, **change: NDArray[np.generic] | None) -> Path:
        path = tmp_path / "head.safetensors"
        kept = {n: np.ascontiguousarray(t) for n, t in (tensors | change).items() if t is not None}
        save_file(kept, path, metadata={"visavis": header})
        return path

    return make


def refused(path: Path, says: str) -> None:
    with pytest.raises(ModelError, match=says) as caught:
        load_head_model.__wrapped__(path)
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message
    assert "rebuild" in message  # the fix is named


def test_a_copy_is_the_same_model(write: Write) -> None:
    copy = load_head_model.__wrapped__(write())
    assert copy.name == "test"
    assert (copy.mean_hu == MODEL.mean_hu).all()
    assert (copy.expression_hu == MODEL.expression_hu).all()
    assert (copy.closing_weights == MODEL.closing_weights).all()


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.01, 0.5, 0.9999])
def test_a_truncated_file_is_refused(tmp_path: Path, share: float) -> None:
    data = MODEL_PATH.read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(data[: int(len(data) * share)])
    refused(path, "truncated")


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none.safetensors", "no head model")
    refused(tmp_path, "no head model")


@pytest.mark.parametrize(
    "header",
    [
        "{}",
        "[]",
        "null",
        '"visavis-head-model"',
        '{"format": "visavis-avatar", "version": 1}',
        '{"format": "visavis-head-model", "version": 99}',
    ],
)
def test_a_foreign_file_is_refused(write: Write, header: str) -> None:
    refused(write(header), "is not a visavis-head-model of version 1")


@pytest.mark.parametrize("header", ["", "{", "[" * 100_000])
def test_a_header_that_is_no_json_is_refused(write: Write, header: str) -> None:
    refused(write(header), "no head model")


FIELDS = (
    "mean_hu", "identity_hu", "expression_hu", "triangles", "part", "uv", "weld", "landmark_vertices",
    "landmark_weights", "fit_weight", "rigidity", "eye_side", "closing_vertices", "closing_weights", "joints_hu",
)  # fmt: skip


@pytest.mark.parametrize("field", FIELDS)
def test_a_missing_field_is_named(write: Write, field: str) -> None:
    refused(write(**{field: None}), f"lacks {field} ")


def test_all_missing_fields_are_named_at_once(write: Write) -> None:
    refused(write(uv=None, rigidity=None), "lacks rigidity, uv ")


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_of_another_shape_is_named(
    write: Write, tensors: dict[str, NDArray[np.generic]], field: str
) -> None:
    refused(write(**{field: tensors[field][..., None]}), field)
    if field not in ("mean_hu", "triangles", "identity_hu", "closing_vertices"):  # those set the counts
        refused(write(**{field: tensors[field][:-1], f"{field}_scale": None}), field)


def test_a_scale_that_does_not_fit_is_named(write: Write) -> None:
    refused(write(identity_hu_scale=np.ones(3, np.float32)), "identity_hu")


@pytest.mark.parametrize("field", ["triangles", "weld", "landmark_vertices", "closing_vertices"])
@pytest.mark.parametrize("bad", [-1, 10**6])
def test_an_index_that_points_nowhere_is_named(
    write: Write, tensors: dict[str, NDArray[np.generic]], field: str, bad: int
) -> None:
    broken = tensors[field].astype(np.int32)
    broken.reshape(-1)[7] = bad
    refused(write(**{field: broken}), f"{field} points at a vertex that is not there")


@pytest.mark.parametrize("field", ["mean_hu", "uv", "joints_hu", "fit_weight"])
def test_a_number_that_is_not_finite_is_named(
    write: Write, tensors: dict[str, NDArray[np.generic]], field: str
) -> None:
    broken = tensors[field].astype(np.float32)
    broken.reshape(-1)[5] = np.nan
    refused(write(**{field: broken}), f"{field} holds a number that is not finite")
