"""The pure pieces of the head's measurements, on small synthetic inputs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from engines.geometry import rotation_from_degrees, rotation_matrix, rotation_vector
from engines.head.landmark_names import CORNERS_LEFT, CORNERS_RIGHT
from engines.motion import ARKIT_INDEX, Motion
from scripts.measure.cross import Looked, Seen, closed_in_pictures, pooled
from scripts.measure.driver import left_percent
from scripts.measure.figures import (
    Figure,
    Section,
    code_digest,
    pearson,
    psnr_db,
    share_percent,
    spread,
    to_dict,
    to_markdown,
    worst,
)
from scripts.measure.fit import error_percent
from scripts.measure.loop import AXES, CHANNELS, REST_FRAMES, compare, make_script, moments, relative_deg
from scripts.measure.render_pairs import Pair, read_plan, write_plan
from scripts.measure.speed import timed
from scripts.measure.uv import POSES, SAME_UV, posed_motion, same_share
from scripts.measure_head import parse
from scripts.people.recognition import (
    Graph,
    RecognitionError,
    align_face,
    cosine,
    five_points,
    similarity_2d,
)
from scripts.people.tracks import Tracked
from streamer.drive.driver import Drive


def _tracked(name: str, subject: str) -> Tracked:
    none = np.zeros((1, 478, 3))
    return Tracked(name, subject, Path(name), none, np.zeros((1, 52)), np.zeros(1), (256, 256))


# --- figures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("figure", "met", "target"),
    [
        (Figure(key="a", label="a", value=0.6, at_most=0.6), True, "≤ 0.6"),
        (Figure(key="a", label="a", value=0.61, at_most=0.6), False, "≤ 0.6"),
        (Figure(key="a", label="a", value=35.0, at_least=35), True, "≥ 35"),
        (Figure(key="a", label="a", value=34.9, at_least=35), False, "≥ 35"),
        (Figure(key="a", label="a", value=float("nan"), at_least=0), False, "≥ 0"),
        (Figure(key="a", label="a", value=1.0), None, ""),
    ],
)
def test_a_target_is_met_or_not(figure: Figure, met: bool | None, target: str) -> None:
    assert figure.met is met
    assert figure.target == target


def test_table_and_json_tell_the_same() -> None:
    section = Section(
        "fit",
        [Figure(key="e", label="error", value=0.7, unit="%", at_most=0.6, note="worst: x 2"),
         Figure(key="n", label="none", value=float("nan"))],
        {"x": {"e": 2.0, "lost": float("inf")}},
    )  # fmt: skip
    table = to_markdown([section]).splitlines()
    assert table[2] == "| fit | error | 0.7 % | ≤ 0.6 | **no** | worst: x 2 |"
    data = json.loads(json.dumps(to_dict([section]), allow_nan=False))
    assert data["fit"]["figures"][0]["met"] is False
    assert data["fit"]["figures"][1]["value"] is None
    assert data["fit"]["items"]["x"] == {"e": 2.0, "lost": None}


def test_correlation_ignores_scale_and_offset_and_is_0_for_what_does_not_move() -> None:
    t = np.linspace(0, 6, 50)
    assert pearson(np.sin(t), 3 - 0.2 * np.sin(t)) == pytest.approx(-1)
    assert abs(pearson(np.sin(t), np.cos(t))) < 0.2
    assert pearson(np.sin(t), np.ones(50)) == 0


def test_psnr_counts_only_the_mask() -> None:
    a = np.zeros((4, 4, 3))
    b = a.copy()
    b[0] = 200
    b[1] = 255 / 10
    mask = np.zeros((4, 4), bool)
    mask[1] = True
    assert psnr_db(a, b, mask) == pytest.approx(20)
    assert np.isnan(psnr_db(a, b, np.zeros((4, 4), bool)))


def test_worst_names_the_highest_or_the_lowest() -> None:
    items = {"a": {"e": 1.0}, "b": {"e": 3.0}, "c": {"e": 2.0}, "d": {"e": float("nan")}, "f": {}}
    assert worst(items, "e", 2) == "b 3, c 2"
    assert worst(items, "e", 1, low=True) == "a 1"


def test_spread_takes_each_person_once() -> None:
    items = [_tracked(f"p{k}_{i}", f"p{k}") for k in range(10) for i in range(2)]
    chosen = spread(items, 4)
    assert [t.subject for t in chosen] == ["p1", "p3", "p6", "p8"]
    assert all(t.name.endswith("_0") for t in chosen)
    assert len(spread(items, 40)) == 10


def test_shares() -> None:
    assert share_percent([True, False, True, True]) == 75
    assert np.isnan(share_percent([]))


def test_the_digest_names_the_measured_code(tmp_path: Path) -> None:
    data = tmp_path / "engines" / "data"
    data.mkdir(parents=True)
    (tmp_path / "engines" / "fit.py").write_text("a = 1\n")
    (data / "model.bin").write_bytes(b"1")
    first = code_digest(tmp_path)
    assert code_digest(tmp_path) == first
    (tmp_path / "notes.md").write_text("not code")
    assert code_digest(tmp_path) == first
    (data / "model.bin").write_bytes(b"2")
    second = code_digest(tmp_path)
    (tmp_path / "engines" / "fit.py").write_text("a = 2\n")
    assert len({first, second, code_digest(tmp_path)}) == 3


# --- fit and driver ------------------------------------------------------------------------------


def test_error_is_relative_to_the_face_and_lies_in_the_picture() -> None:
    landmarks = np.zeros((478, 3))
    landmarks[152, 1] = 200
    drawn = landmarks + np.array([3, 4, 500])  # depth does not count
    drawn[468:] += 1000  # nor do irises
    assert error_percent(drawn, landmarks) == pytest.approx(2.5)


def test_residual_counts_depth_but_no_irises() -> None:
    a = np.zeros((478, 3))
    b = a + np.array([0, 0, 0.008])
    b[468:] = 9
    assert left_percent(a, b) == pytest.approx(1.0)


# --- loop ----------------------------------------------------------------------------------------


def test_the_script_moves_one_thing_at_a_time() -> None:
    script = make_script()
    rest = script.motions[:REST_FRAMES]
    assert all(not m.expression.any() and not m.rotation_rad.any() and not m.gaze_rad.any() for m in rest)
    for sweep in script.sweeps[1:-1]:
        moving = {n for n, d in script.drive.items() if np.abs(d[sweep.frames]).max() > 1e-9}
        assert moving == {sweep.name}
    assert sum(s.count for s in script.sweeps) == len(script.motions)
    for axis in AXES:
        assert script.drive[axis].max() == pytest.approx(25, abs=0.1)
        assert script.drive[axis].min() == pytest.approx(-25, abs=0.1)
    jaw = max(m.expression[ARKIT_INDEX["jawOpen"]] for m in script.motions)
    assert jaw == pytest.approx(1, abs=0.01)
    captions = [c for c, _ in moments(script)]
    assert captions[0] == "rest"
    assert len(captions) == 1 + 2 * len(AXES) + len(CHANNELS) + 2


def test_the_turn_between_two_poses() -> None:
    rest = rotation_from_degrees(10, -5, 3)
    turn = rotation_matrix(rotation_from_degrees(-20, 0, 0))
    moved = rotation_vector(turn @ rotation_matrix(rest))
    assert relative_deg(moved, rest) == pytest.approx([-20, 0, 0], abs=1e-6)


def test_a_perfect_tracker_has_no_error_and_a_lazy_one_has() -> None:
    script = make_script()
    perfect = compare(script, script.motions, Motion(), list(script.motions), Motion())
    assert max(perfect[f"{axis}_max"] for axis in AXES) < 1e-3
    assert all(perfect[channel] == pytest.approx(1) for channel in (*CHANNELS, "gaze"))
    assert perfect["yaw_gain"] == pytest.approx(1)
    lazy = compare(script, script.motions, Motion(), [Motion()] * len(script.motions), Motion())
    assert lazy["yaw_max"] == pytest.approx(25, abs=0.1)
    assert lazy["pitch_in_pitch"] > 10
    assert lazy["jaw"] == 0
    assert lazy["pitch_in_yaw"] < 1e-3


def test_lost_faces_are_counted_and_left_out() -> None:
    script = make_script()
    tracked: list[Motion | None] = list(script.motions)
    yaw = script.sweeps[1]
    half = slice(yaw.first, yaw.first + yaw.count // 2)
    tracked[half] = [None] * (half.stop - half.start)
    row = compare(script, script.motions, Motion(), tracked, Motion())
    assert row["lost"] == pytest.approx(100 * (yaw.count // 2) / len(tracked))
    assert row["yaw_max"] < 1e-3


# --- uv and speed --------------------------------------------------------------------------------


def test_agreement_wants_equal_coverage_and_near_uv() -> None:
    uv = np.zeros((10, 10, 2))
    covered = np.zeros((10, 10), bool)
    covered[:5] = True
    assert same_share(uv, covered, uv, covered) == (100, 100)
    off = uv.copy()
    off[0, 0] = 2 * SAME_UV
    off[9, 9] = 1  # not covered: whatever it holds
    assert same_share(uv, covered, off, covered) == (99, 98)
    more = covered.copy()
    more[5, :5] = True
    every, own = same_share(uv, covered, uv, more)
    assert every == 95
    assert own == pytest.approx(100 * 50 / 55)


def test_the_first_pose_is_the_photos_own() -> None:
    source = Motion(rotation_rad=np.array([0.1, -0.2, 0.05], np.float32))
    same = posed_motion(source, POSES[0])
    assert same.rotation_rad == pytest.approx(source.rotation_rad, abs=1e-6)
    assert not same.expression.any()
    turned = posed_motion(source, POSES[1])
    assert relative_deg(turned.rotation_rad, source.rotation_rad) == pytest.approx([20, 0, 0], abs=1e-3)
    assert turned.expression[ARKIT_INDEX["jawOpen"]] == pytest.approx(0.5)


def test_every_motion_is_timed() -> None:
    seen: list[float] = []
    wall_ms, thread_ms = timed(lambda m: seen.append(m.time_s), [Motion(time_s=t) for t in (1.0, 2.0, 3.0)])
    assert seen == [1, 2, 3]
    assert thread_ms >= 0
    assert wall_ms > 0


# --- cross and recognition -----------------------------------------------------------------------


def test_pairs_weigh_with_their_frames() -> None:
    items = {
        "a": {"shut": 100.0, "frames": 30.0},
        "b": {"shut": 0.0, "frames": 10.0},
        "c": {"shut": float("nan"), "frames": 0.0},
    }
    assert pooled(items, "shut", "frames") == 75
    assert np.isnan(pooled({"c": items["c"]}, "shut", "frames"))


def test_drawn_faces_are_judged_where_the_driver_is_closed() -> None:
    drive = Drive(Motion(), Motion(), "tracking", True)
    seen = [
        Seen(0, drive, 0.01, np.array([1.0, 0.2])),
        Seen(2, drive, 0.01, np.array([1.0, 1.0])),
        Seen(4, drive, 0.30, np.array([0.1, 0.1])),
    ]
    shut, half, wide = np.array([0.0, 0.3, 0.05]), np.array([0.05, 0.3, 0.3]), np.array([0.4, 0.05, 0.2])
    looked = Looked({}, {0: shut, 2: half, 4: wide}, np.array([0.3, 0.3, 0.3]), 0)
    row = closed_in_pictures(seen, looked)
    assert (row["drawn_lips_frames"], row["drawn_lips_shut"]) == (2, 50)
    assert row["drawn_eyes_frames"] == 3
    assert row["drawn_eyes_shut"] == pytest.approx(200 / 3)


def test_a_plan_survives_its_file(tmp_path: Path) -> None:
    pairs = [Pair("a+b", tmp_path / "a.mp4", tmp_path / "b.jpg", (3, 9))]
    write_plan(pairs, tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json") == pairs


def _face() -> np.ndarray:
    points = np.zeros((478, 3))
    for corners, x in ((CORNERS_RIGHT, 38.3), (CORNERS_LEFT, 73.5)):
        points[list(corners), :2] = [(x - 5, 51.6), (x + 5, 51.6)]
    points[1, :2] = 56, 71.7
    points[61, :2], points[291, :2] = (41.5, 92.4), (70.7, 92.2)
    return points


def test_alignment_undoes_turn_and_size() -> None:
    angle = 0.4
    linear = 3 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = five_points(_face())
    moved = points @ linear.T + (20, -7)
    back = similarity_2d(moved, points)
    assert moved @ back[:, :2].T + back[:, 2] == pytest.approx(points)


def test_a_face_lands_where_arcface_has_it() -> None:
    face = _face() * 2 + (100, 60, 0)
    image = np.zeros((400, 400, 3), np.uint8)
    x, y = face[1, :2].astype(int)
    image[y - 6 : y + 6, x - 6 : x + 6] = 255
    small = align_face(image, face, 112)
    rows, columns = np.nonzero(small[..., 0] > 128)
    assert (columns.mean(), rows.mean()) == pytest.approx((56, 71.5), abs=1)
    assert cosine(np.array([1.0, 0, 0]), np.array([1.0, 1, 0])) == pytest.approx(2**-0.5)


def _write_net(folder: Path) -> None:
    """A SAME convolution of stride 2, ReLU and mean, with float16 weights."""
    kernel = np.arange(2 * 2 * 3 * 1, dtype=np.float16).reshape(2, 2, 3, 1)
    (folder / "tiny.bin").write_bytes(kernel.tobytes() + np.array([1, 2], np.int32).tobytes())
    nodes = [
        {"name": "x", "op": "Placeholder"},
        {"name": "c", "op": "Conv2D", "input": ["x", "k"],
         "attr": {"strides": {"list": {"i": ["1", "2", "2", "1"]}}, "padding": {"s": "U0FNRQ=="}}},
        {"name": "r", "op": "Relu", "input": ["c"]},
        {"name": "m", "op": "Mean", "input": ["r", "axes"], "attr": {"keep_dims": {"b": False}}},
        {"name": "odd", "op": "Einsum", "input": ["m"]},
    ]  # fmt: skip
    weights = [
        {"name": "k", "shape": [2, 2, 3, 1], "dtype": "float32", "quantization": {"dtype": "float16"}},
        {"name": "axes", "shape": [2], "dtype": "int32"},
    ]
    manifest = [{"paths": ["tiny.bin"], "weights": weights}]
    data = {"modelTopology": {"node": nodes}, "weightsManifest": manifest}
    (folder / "tiny.json").write_text(json.dumps(data))


def test_the_graph_runner_pads_as_tensorflow_does(tmp_path: Path) -> None:
    _write_net(tmp_path)
    graph = Graph.load(tmp_path / "tiny.json")
    out = graph.run(torch.ones(1, 3, 3, 3), "c")
    # SAME with 2 × 2 and stride 2 on 3 × 3: one row and column of zeros, at the end only
    kernel = np.arange(12).reshape(2, 2, 3)
    assert out.reshape(2, 2).tolist() == [
        [kernel.sum(), kernel[:, 0].sum()], [kernel[0].sum(), kernel[0, 0].sum()],
    ]  # fmt: skip
    assert graph.run(torch.ones(1, 3, 3, 3), "m").tolist() == [[out.mean().item()]]
    with pytest.raises(RecognitionError, match="Einsum"):
        graph.run(torch.ones(1, 3, 3, 3), "odd")


def test_a_missing_net_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecognitionError, match=r"none\.json"):
        Graph.load(tmp_path / "none.json")


def test_sections_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(["data", "--only", "fit,uv"]).only == "fit,uv"
    with pytest.raises(SystemExit):
        parse(["data", "--only", "fit,hair"])
    assert "no section hair" in capsys.readouterr().err
