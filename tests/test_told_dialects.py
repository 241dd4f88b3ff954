"""What phones and programs tell becomes motion: each axis by itself, published packets, and packets that are none."""

from __future__ import annotations

import json
import math
import struct
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from telling import SIDE_PX, WRITERS, Pose, bundled, ifacialmocap, open_see_face, osc, vmc, vts

from engines.geometry import yaw_pitch_roll_deg
from engines.motion import ARKIT_INDEX, ARKIT_NAMES, Motion
from streamer.osc import MOST_MESSAGES
from streamer.sources.told.axes import (
    flipped,
    gaze_of_looks,
    looks_of_gaze,
    matrix_of,
    mirrored,
    quaternion_of,
    turned,
    vector_of,
)
from streamer.sources.told.ifacialmocap import GREETING
from streamer.sources.told.open_see_face import FACE_BYTES
from streamer.sources.told.reading import BadDatagram, Dialect, shape_of
from streamer.sources.told.udp_source import DIALECTS
from streamer.sources.told.vmc import PRESETS, Vmc

KINDS = list(WRITERS)


def told(kind: str, *datagrams: bytes) -> Motion:
    """The motion that the last datagram completes."""
    dialect = DIALECTS[kind]()
    readings = [dialect.take(datagram) for datagram in datagrams]
    assert readings[-1] is not None
    assert readings[-1].motion is not None
    return readings[-1].motion


def shown(kind: str, pose: Pose) -> Motion:
    return told(kind, WRITERS[kind](pose, 0.0))


def angles(motion: Motion) -> tuple[float, float, float]:
    return yaw_pitch_roll_deg(motion.rotation_rad)


# ---- each axis by itself


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("degrees", [-25.0, 0.0, 25.0])
@pytest.mark.parametrize(
    ("axis", "expected"),
    [("left_deg", (1, 0, 0)), ("down_deg", (0, 1, 0)), ("tilt_left_deg", (0, 0, 1))],
)
def test_each_turn_of_the_head_has_its_sign(
    kind: str, axis: str, expected: tuple[int, int, int], degrees: float
) -> None:
    """The person's left is the picture's right; down is down; a tilt to the person's left is clockwise there."""
    motion = shown(kind, Pose(**{axis: degrees}))  # type: ignore[arg-type]
    assert angles(motion) == pytest.approx([degrees * e for e in expected], abs=0.15)


@pytest.mark.parametrize("kind", ["vts", "ifacialmocap", "openseeface"])
def test_turns_at_once_are_the_same_turn(kind: str) -> None:
    motion = shown(kind, Pose(left_deg=20, down_deg=-10, tilt_left_deg=8))
    assert angles(motion) == pytest.approx([20, -10, 8], abs=0.2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("degrees", [-15.0, 15.0])
def test_each_turn_of_the_eyes_has_its_sign(kind: str, degrees: float) -> None:
    aside = shown(kind, Pose(eyes_left_deg=degrees)).gaze_rad
    assert np.degrees(aside) == pytest.approx(np.array([[degrees, 0], [degrees, 0]]), abs=0.1)
    down = shown(kind, Pose(eyes_down_deg=degrees)).gaze_rad
    assert np.degrees(down) == pytest.approx(np.array([[0, degrees], [0, degrees]]), abs=0.1)


@pytest.mark.parametrize("kind", ["vts", "ifacialmocap", "openseeface"])
def test_places_have_their_signs(kind: str) -> None:
    still = shown(kind, Pose()).translation_hu
    assert shown(kind, Pose(right_m=0.05)).translation_hu - still == pytest.approx([0.5, 0, 0], abs=0.02)
    assert shown(kind, Pose(up_m=0.05)).translation_hu - still == pytest.approx([0, -0.5, 0], abs=0.02)
    assert shown(kind, Pose(away_m=0.7)).translation_hu - still == pytest.approx([0, 0, 1], abs=0.02)
    assert still == pytest.approx([0, 0, 6], abs=0.1)


def test_vmc_tells_no_place() -> None:
    assert shown("vmc", Pose(right_m=0.3, away_m=2)).translation_hu == pytest.approx([0, 0, 6])


@pytest.mark.parametrize("kind", ["vts", "ifacialmocap", "vmc"])
@pytest.mark.parametrize("name", [n for n in ARKIT_NAMES if n != "mouthRight"])
def test_each_shape_is_its_own_and_left_is_the_persons_left(kind: str, name: str) -> None:
    expression = shown(kind, Pose(shapes={name: 0.5})).expression
    assert expression[ARKIT_INDEX[name]] == pytest.approx(0.5, abs=0.006)
    assert np.count_nonzero(expression) == 1


def test_openseeface_tells_what_its_features_know() -> None:
    def of(features: dict[int, float]) -> dict[str, float]:
        expression = told("openseeface", open_see_face(Pose(), features=features)).expression
        return {n: round(float(v), 3) for n, v in zip(ARKIT_NAMES, expression, strict=True) if v > 0}

    assert of({}) == {}
    assert of({12: 1.0}) == {"jawOpen": 0.6}
    assert of({3: 0.5}) == {"browInnerUp": 0.25, "browOuterUpLeft": 0.5}
    assert of({6: -0.5}) == {"browDownRight": 0.5}
    assert of({8: -0.4}) == {"mouthSmileLeft": 0.4}
    assert of({10: 0.4}) == {"mouthFrownRight": 0.4}
    assert of({13: 1.0}) == {"mouthStretchLeft": 0.5, "mouthStretchRight": 0.5}
    assert of({13: -1.0}) == {"mouthPucker": 0.5}
    assert of({0: 0.7, 1: 50.0}) == {"eyeWideLeft": 0.7, "eyeWideRight": 1.0}
    assert of({2: 1, 4: 1, 5: 1, 7: 1, 9: 1, 11: 1}) == {}, "steepness, quirk, in and out: told by no shape"
    shut = told("openseeface", open_see_face(Pose(shapes={"eyeBlinkLeft": 1.0}))).expression
    assert shut[ARKIT_INDEX["eyeBlinkLeft"]] == pytest.approx(1)
    assert shut[ARKIT_INDEX["eyeBlinkRight"]] == pytest.approx(0)


# ---- what is published: numbers of real packets


# a line, how far its eyes look to the person's left and its distance in metres
PUBLISHED_LINES = [
    (  # as on ifacialmocap.com (the numbers of head and eyes): eyes down, each a little towards the nose
        "eyeLookDown_R-17|eyeLookDown_L-17|eyeLookIn_R-6|eyeLookIn_L-4|jawOpen-12|"
        "=head#-21.488958,-6.038993,-6.6019735,-0.030653415,-0.10287084,-0.6584072|"
        "rightEye#6.0297494,2.4403017,0.25649446|leftEye#6.034903,-1.6660284,-0.17520553|",
        0.4,
        0.6584,
    ),
    (  # as kept by vpuppr: eyes far to the person's left
        "eyeLookIn_R-54|eyeLookOut_L-44|eyeLookDown_L-16|eyeLookDown_R-16|hapihapi-0|"
        "=head#-1.6704091,-7.3032465,2.886358,0.084120944,0.03458406,-0.4721467|"
        "rightEye#5.3555145,19.067966,1.8478252|leftEye#5.5607924,15.616646,1.5515244|",
        17.3,
        0.4721,
    ),
]


@pytest.mark.parametrize(("line", "left_deg", "away_m"), PUBLISHED_LINES)
def test_the_eyes_of_published_lines_look_where_their_shapes_say(
    line: str, left_deg: float, away_m: float
) -> None:
    motion = told("ifacialmocap", line.encode())
    assert motion.gaze_rad == pytest.approx(gaze_of_looks(motion.expression), abs=math.radians(2))
    assert np.degrees(motion.gaze_rad[:, 0].mean()) == pytest.approx(left_deg, abs=0.1)
    assert motion.translation_hu[2] == pytest.approx(10 * away_m, abs=0.001)


def test_the_eyes_of_a_published_packet_look_where_their_shapes_say() -> None:
    """As kept by vpuppr for VTube Studio: eyes to the person's left, and so the head."""
    looks = {
        "EyeLookOutLeft": 0.25916,
        "EyeLookInRight": 0.36787,
        "EyeLookDownLeft": 0.09259,
        "EyeLookDownRight": 0.09136,
    }
    packet = {
        "Timestamp": 1664817520079, "Hotkey": -1, "FaceFound": True,
        "Rotation": {"x": -11.091268539428711, "y": 9.422998428344727, "z": 3.1646311283111574},
        "Position": {"x": 0.4682624340057373, "y": 1.3167941570281983, "z": 4.734524726867676},
        "EyeLeft": {"x": 3.5520474910736086, "y": 9.085052490234375, "z": 0.5114284753799439},
        "EyeRight": {"x": 3.459942579269409, "y": 12.89495849609375, "z": 0.7132274508476257},
        "BlendShapes": [{"k": name, "v": value} for name, value in looks.items()],
    }  # fmt: skip
    motion = told("vts", json.dumps(packet).encode())
    assert motion.gaze_rad == pytest.approx(gaze_of_looks(motion.expression), abs=math.radians(1))
    assert angles(motion) == pytest.approx([11.09, 9.42, 3.16], abs=0.01)


# ---- the phone's two versions, requests, faces that are away


def test_both_versions_of_lines_are_read_and_less_than_nothing_is_nothing() -> None:
    pose = Pose(left_deg=10, shapes={"jawOpen": 0.5})
    one, two = (told("ifacialmocap", ifacialmocap(pose, version=v)) for v in (1, 2))
    assert one.to_json() == two.to_json()
    below = told("ifacialmocap", b"jawOpen&-7|mouthFunnel&250|=head#0,0,0,0,0,-0.5|").expression
    assert (below[ARKIT_INDEX["jawOpen"]], below[ARKIT_INDEX["mouthFunnel"]]) == (0, 1)
    glued = told("ifacialmocap", b"jaw_L-20=head#0,5,0,0,0,0|")
    assert glued.expression[ARKIT_INDEX["jawLeft"]] == pytest.approx(0.2)
    assert glued.translation_hu[2] == 6, "a place that is none"


def test_phones_are_asked_as_they_want_it() -> None:
    request = DIALECTS["vts"]().request(4711)
    assert request is not None
    wish = json.loads(request)
    assert wish["messageType"] == "iOSTrackingDataRequest"
    assert wish["ports"] == [4711]
    assert 0.5 <= wish["time"] <= 10
    assert 1 <= len(wish["sentBy"]) <= 32
    assert DIALECTS["ifacialmocap"]().request(1) == GREETING + b"|sendDataVersion=v2"
    assert GREETING == b"iFacialMocap_sahuasouryya9218sauhuiayeta91555dy3719"
    assert DIALECTS["vmc"]().request(1) is DIALECTS["openseeface"]().request(1) is None


def test_a_face_that_is_away_is_said() -> None:
    for kind, datagram in (
        ("vts", vts(None)),
        ("ifacialmocap", ifacialmocap(None)),
        ("vmc", vmc(None)),
        ("openseeface", open_see_face(Pose(), has_3d=False)),
    ):
        reading = DIALECTS[kind]().take(datagram)
        assert reading is not None, kind
        assert reading.motion is None, kind


def test_times_are_told_where_there_are_any() -> None:
    for kind in ("vts", "openseeface"):
        dialect = DIALECTS[kind]()
        first, second = (dialect.take(WRITERS[kind](Pose(), t)) for t in (0.0, 0.25))
        assert first is not None
        assert second is not None
        assert (second.sent_s or 0) - (first.sent_s or 0) == pytest.approx(0.25)
    reading = DIALECTS["ifacialmocap"]().take(ifacialmocap(Pose()))
    assert reading is not None
    assert reading.sent_s is None


# ---- VMC keeps what it was told


def test_vmc_reads_a_reading_when_shapes_are_applied() -> None:
    dialect = Vmc()
    assert dialect.take(osc("/VMC/Ext/Blend/Val", "JawOpen", 0.5).build().dgram) is None
    assert dialect.take(osc("/VMC/Ext/Cam", "Camera", 1.0).build().dgram) is None
    assert dialect.take(osc("/VMC/Ext/T", 1.0).build().dgram) is None
    reading = dialect.take(osc("/VMC/Ext/Blend/Apply").build().dgram)
    assert reading is not None
    assert reading.motion is not None
    assert reading.motion.jaw == pytest.approx(0.5)
    head = osc("/VMC/Ext/Bone/Pos", "Head", 0.0, 0.0, 0.0, 0.0, 0.2, 0.0, 0.98).build().dgram
    assert dialect.take(head) is None, "it waits for the shapes"
    again = dialect.take(osc("/VMC/Ext/Blend/Apply").build().dgram)
    assert again is not None
    assert again.motion is not None
    assert again.motion.jaw == pytest.approx(0.5), "what was told stays"
    assert angles(again.motion)[0] == pytest.approx(-23.1, abs=0.1)


def test_vmc_without_shapes_reads_each_head() -> None:
    dialect = Vmc()
    head = osc("/VMC/Ext/Bone/Pos", "Head", 0.0, 0.0, 0.0, 0.2, 0.0, 0.0, 0.98).build().dgram
    for _ in range(3):
        reading = dialect.take(head)
        assert reading is not None
        assert reading.motion is not None
        assert angles(reading.motion)[1] == pytest.approx(23.1, abs=0.1)


def test_vmc_of_an_avatar_without_arkit_shapes_moves_by_its_presets() -> None:
    values = bundled(
        osc("/VMC/Ext/Blend/Val", "Blink_L", 1.0),
        osc("/VMC/Ext/Blend/Val", "A", 1.0),
        osc("/VMC/Ext/Blend/Val", "Nothing", 1.0),
        osc("/VMC/Ext/Blend/Apply"),
    )
    expression = told("vmc", values).expression
    told_names = {n for n, v in zip(ARKIT_NAMES, expression, strict=True) if v > 0}
    assert told_names == {"eyeBlinkLeft", "jawOpen"}
    both = bundled(
        osc("/VMC/Ext/Blend/Val", "A", 1.0),
        osc("/VMC/Ext/Blend/Val", "jawOpen", 0.2),
        osc("/VMC/Ext/Blend/Apply"),
    )
    assert told("vmc", both).jaw == pytest.approx(0.2), "its shapes say more than its presets"
    assert {name for shapes in PRESETS.values() for name in shapes} <= set(ARKIT_NAMES)


# ---- bad packets


def changed(**changes: object) -> bytes:
    return vts(Pose(), **changes)


BAD: dict[str, list[bytes]] = {
    "vts": [
        b"", b"\xff\xfe", b"null", b"[]", b"{}", b'{"FaceFound":"yes"}', b"[" * 9000, b'{"a":' * 5000,
        changed(FaceFound=1), changed(Timestamp="now"), changed(Timestamp=math.inf), changed(Timestamp=10**400),
        changed(BlendShapes=None), changed(BlendShapes={}), changed(BlendShapes=[]), changed(BlendShapes=[1]),
        changed(BlendShapes=[{"k": "JawOpen", "v": "0.5"}]), changed(BlendShapes=[{"k": "JawOpen", "v": math.nan}]),
        changed(BlendShapes=[{"k": "JawOpen", "v": True}]), changed(BlendShapes=[{"k": "Other", "v": 0.5}]),
        changed(BlendShapes=[{"k": "JawOpen", "v": 0.5}] * 201),
        changed(Rotation=None), changed(Rotation={"x": 0, "y": 0}), changed(Rotation={"x": 1e5, "y": 0, "z": 0}),
        changed(Rotation=[0, 0, 0]), changed(Position={"x": "1", "y": 0, "z": 0}), changed(EyeLeft=3),
        vts(Pose())[:-1], b'{"FaceFound":true,"Timestamp":' + b"9" * 5000 + b"}",
    ],
    "ifacialmocap": [
        b"", b"\xff\xfe", b"|" * 300, b"hello", b"jawOpen-12", b"jawOpen-x|=head#0,0,0,0,0,0",
        b"jawOpen-|=head#0,0,0,0,0,0",
        b"jawOpen-nan|=head#0,0,0,0,0,0", b"jawOpen-1|=head#0,0,0", b"jawOpen-1|=head#0,0,0,0,0,0,0",
        b"jawOpen-1|=head#inf,0,0,0,0,0", b"jawOpen-1|=head#1e9,0,0,0,0,0", b"jawOpen-1|=head#0,0,0,0,0,0|leftEye#1,2",
        b"jawOpen-1|=head#,,,,,", b"=head#0,0,0,0,0,0|", b"jawOpen-" + b"1" * 50 + b"|=head#0,0,0,0,0,0",
        b"FACEMOTION3D_OtherStreaming",
    ],
    "vmc": [
        b"", b"/a\0\0,\0\0\0", b"#bundle\0" + b"\0" * 8 + struct.pack(">i", -4),
        osc("/VMC/Ext/Blend/Val", 3, 0.5).build().dgram, osc("/VMC/Ext/Blend/Val", "JawOpen").build().dgram,
        osc("/VMC/Ext/Blend/Val", "JawOpen", "0.5").build().dgram,
        osc("/VMC/Ext/Blend/Val", "JawOpen", math.nan).build().dgram,
        osc("/VMC/Ext/Bone/Pos", "Head", 0.0, 0.0, 0.0, 0.0, 0.0, 0.0).build().dgram,
        osc("/VMC/Ext/Bone/Pos", "Head", 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0).build().dgram,
        osc("/VMC/Ext/Bone/Pos", "Head", 0.0, 0.0, 0.0, math.inf, 0.0, 0.0, 1.0).build().dgram,
        osc("/VMC/Ext/OK").build().dgram, osc("/VMC/Ext/OK", "1").build().dgram,
    ],
    "openseeface": [
        b"", b"\0" * FACE_BYTES, b"\0" * (FACE_BYTES - 1), open_see_face(Pose())[:-4], open_see_face(Pose()) + b"\0",
        struct.pack("<d", math.nan) + open_see_face(Pose())[8:],
        open_see_face(Pose(), features={12: math.nan}),
    ],
}  # fmt: skip


@pytest.mark.parametrize(("kind", "datagram"), [(k, d) for k, bad in BAD.items() for d in bad])
def test_what_is_no_packet_is_refused_and_the_next_is_read(kind: str, datagram: bytes) -> None:
    dialect = DIALECTS[kind]()
    if kind == "openseeface" and datagram == b"\0" * FACE_BYTES:
        datagram = datagram[:28] + b"\1" + datagram[29:]  # it says that it has a pose, and has none
    with pytest.raises(BadDatagram) as refused:
        dialect.take(datagram)
    assert len(str(refused.value)) < 80
    reading = dialect.take(WRITERS[kind](Pose(left_deg=10), 0.0))
    assert reading is not None
    assert reading.motion is not None
    assert angles(reading.motion)[0] == pytest.approx(10, abs=0.2)


NUMBERS = st.floats() | st.integers(-(10**400), 10**400) | st.text(max_size=5) | st.booleans() | st.none()
JSONS = st.recursive(
    NUMBERS,
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(max_size=5), inside, max_size=4),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    ["FaceFound", "Timestamp", "Rotation", "Position", "BlendShapes", "EyeLeft", "EyeRight"]
)


def mutated(good: bytes) -> st.SearchStrategy[bytes]:
    """A good packet with some bytes changed, left out or repeated."""

    def change(at: int, new: bytes, left_out: int) -> bytes:
        at %= len(good)
        return good[:at] + new + good[at + left_out :]

    return st.builds(change, st.integers(0, 10_000), st.binary(max_size=8), st.integers(0, 40))


ANY: dict[str, st.SearchStrategy[bytes]] = {
    "vts": st.dictionaries(FIELDS, JSONS, max_size=3).map(lambda changes: vts(Pose(), **changes))
    | mutated(vts(Pose())),
    "ifacialmocap": st.text("jawOpen|-&=#,.0123456789enaif_LR", max_size=120).map(str.encode)
    | mutated(ifacialmocap(Pose())),
    "vmc": mutated(vmc(Pose())) | mutated(osc("/VMC/Ext/Bone/Pos", "Head", *[0.0] * 6, 1.0).build().dgram),
    "openseeface": mutated(open_see_face(Pose())) | st.binary(min_size=FACE_BYTES, max_size=FACE_BYTES),
}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=250, deadline=None)
@given(data=st.data())
def test_any_bytes_give_a_sane_motion_or_none(kind: str, data: st.DataObject) -> None:
    dialect: Dialect = DIALECTS[kind]()
    for _ in range(2):
        datagram = data.draw(ANY[kind] | st.binary(max_size=300))
        with suppress(BadDatagram):
            reading = dialect.take(datagram)
            if reading is None or reading.motion is None:
                continue
            motion = reading.motion
            assert motion.is_finite()
            assert reading.sent_s is None or math.isfinite(reading.sent_s)
            assert 0 <= motion.expression.min() <= motion.expression.max() <= 1
            assert np.linalg.norm(motion.rotation_rad) <= math.pi + 1e-3
            assert 1.5 <= motion.translation_hu[2] <= 60
            assert np.abs(motion.translation_hu[:2]).max() <= 30


def test_what_vmc_keeps_is_bounded() -> None:
    dialect = Vmc()
    for k in range(40):
        many = [osc("/VMC/Ext/Blend/Val", f"shape {k} {j}", 1.0) for j in range(60)]
        many += [osc("/VMC/Ext/Bone/Pos", f"Bone {k} {j}", *[0.0] * 6, 1.0) for j in range(60)]
        dialect.take(bundled(*many))
    assert len(dialect._presets) + len(dialect._bones) == 0
    assert MOST_MESSAGES > 120


def test_openseeface_follows_one_face() -> None:
    dialect = DIALECTS["openseeface"]()

    def yaw(datagram: bytes) -> float:
        reading = dialect.take(datagram)
        assert reading is not None
        assert reading.motion is not None
        return angles(reading.motion)[0]

    mine, other = (open_see_face(Pose(left_deg=d), face_id=k) for k, d in ((4, 10.0), (1, -20.0)))
    assert yaw(mine) == pytest.approx(10, abs=0.2)
    assert yaw(other + mine) == pytest.approx(10, abs=0.2)
    assert yaw(other) == pytest.approx(-20, abs=0.2), "who is left"
    assert yaw(mine + other) == pytest.approx(-20, abs=0.2)
    assert SIDE_PX == 640


# ---- names, mirrors


@pytest.mark.parametrize(
    "name", ["eyeBlinkLeft", "EyeBlinkLeft", "eyeBlink_L", "EYEBLINKLEFT", "eye_blink_left"]
)
def test_a_shape_is_known_by_any_of_its_names(name: str) -> None:
    assert shape_of(name) == ARKIT_INDEX["eyeBlinkLeft"]
    assert shape_of("jaw_R") == ARKIT_INDEX["jawRight"]
    assert shape_of("eyeBlink") is None
    assert shape_of("") is None


def test_a_mirror_exchanges_left_and_right_and_twice_is_nothing() -> None:
    motion = shown(
        "vts",
        Pose(
            left_deg=20, down_deg=5, tilt_left_deg=8, eyes_left_deg=6, right_m=0.1, shapes={"mouthLeft": 0.5}
        ),
    )
    motion = replace(motion, closure=np.array([0.1, 0.2, 0.3], np.float32))
    other = mirrored(motion)
    assert angles(other) == pytest.approx([-20, 5, -8], abs=0.01)
    assert other.translation_hu[0] == -motion.translation_hu[0]
    assert other.gaze_rad[:, 0] == pytest.approx(-motion.gaze_rad[:, 0])
    assert other.expression[ARKIT_INDEX["mouthRight"]] == pytest.approx(0.5)
    assert other.closure.tolist() == pytest.approx([0.1, 0.3, 0.2])
    assert mirrored(other).to_json() == motion.to_json()


def test_a_turn_can_be_taken_the_other_way_round() -> None:
    motion = shown("vts", Pose(left_deg=20, down_deg=5, tilt_left_deg=8))
    assert angles(flipped(motion, {"yaw"})) == pytest.approx([-20, 5, 8], abs=0.01)
    assert angles(flipped(motion, {"pitch", "roll"})) == pytest.approx([20, -5, -8], abs=0.01)
    assert flipped(motion, set()) is motion


def test_quaternions_and_looks_go_both_ways() -> None:
    rotation = turned(yaw_deg=20, pitch_deg=-10, roll_deg=5)
    assert vector_of(matrix_of(*quaternion_of(rotation))) == pytest.approx(rotation, abs=1e-6)
    assert quaternion_of(np.zeros(3)) == (0, 0, 0, 1)
    gaze = np.array([[0.2, -0.1], [0.25, -0.12]], np.float32)
    looks = looks_of_gaze(gaze)
    expression = np.zeros(52, np.float32)
    for name, value in looks.items():
        expression[ARKIT_INDEX[name]] = value
    assert gaze_of_looks(expression) == pytest.approx(gaze, abs=1e-6)
