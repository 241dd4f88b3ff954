"""Phones and programs that tell motion, played: each format written from its published description.

Synthetic: no phone was at hand. Nothing of the readers under test is used here. A performance is told in words of
the person (left is the person's left), and each writer turns that into the axes of its protocol by itself: VMC's
messages are packed by python-osc, OpenSeeFace's pose comes out of OpenCV's solvePnP on projected points, as there.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray
from pythonosc.osc_bundle_builder import IMMEDIATELY, OscBundleBuilder
from pythonosc.osc_message_builder import OscMessageBuilder

from engines.geometry import rotation_from_degrees, rotation_matrix
from engines.motion import ARKIT_NAMES

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Pose:
    """A face in words of its person: degrees to their left, down, tilted to their left; places in metres.

    `right_m` is to the picture's right, which is the person's left.
    """

    left_deg: float = 0.0
    down_deg: float = 0.0
    tilt_left_deg: float = 0.0
    eyes_left_deg: float = 0.0
    eyes_down_deg: float = 0.0
    right_m: float = 0.0
    up_m: float = 0.0
    away_m: float = 0.6
    shapes: dict[str, float] = field(default_factory=dict[str, float])


def vts(pose: Pose | None, time_s: float = 0.0, /, **changes: object) -> bytes:
    """VTube Studio's JSON; None: no face."""
    p = pose or Pose()
    unit_m = 0.04
    place = {"x": p.right_m / unit_m, "y": p.up_m / unit_m, "z": (p.away_m - 0.6) / unit_m}
    eye = {"x": p.eyes_down_deg, "y": p.eyes_left_deg, "z": 0.0}
    packet: dict[str, object] = {
        "Timestamp": 1_790_000_000_000 + round(time_s * 1000),
        "Hotkey": -1,
        "FaceFound": pose is not None,
        "Rotation": {"x": -p.left_deg, "y": p.down_deg, "z": p.tilt_left_deg},
        "Position": place,
        "BlendShapes": [{"k": n[0].upper() + n[1:], "v": p.shapes.get(n, 0.0)} for n in ARKIT_NAMES],
        "EyeLeft": eye,
        "EyeRight": eye,
    }
    return json.dumps(packet | changes).encode()


def ifacialmocap(pose: Pose | None, time_s: float = 0.0, *, version: int = 2) -> bytes:
    """iFacialMocap's text; None: no face, as newer versions say it."""
    p = pose or Pose()
    mark = "&" if version == 2 else "-"
    shapes = "|".join(
        f"{n.replace('Left', '_L').replace('Right', '_R') if n.endswith(('Left', 'Right')) else n}{mark}"
        f"{round(100 * p.shapes.get(n, 0.0))}"
        for n in ARKIT_NAMES
        if n not in ("jawLeft", "jawRight", "mouthLeft", "mouthRight")
    )
    whole = "|".join(
        f"{n}{mark}{round(100 * p.shapes.get(n, 0.0))}" for n in ("jawLeft", "jawRight", "mouthLeft")
    )
    head = f"{p.down_deg},{p.left_deg},{-p.tilt_left_deg},{p.right_m},{p.up_m},{-p.away_m}"
    eye = f"{p.eyes_down_deg},{p.eyes_left_deg},0"
    state = "" if pose is not None else f"|trackingStatus{mark}0"
    return f"{shapes}|{whole}|hapihapi{mark}0{state}|=head#{head}|rightEye#{eye}|leftEye#{eye}|".encode()


def _unity(right_deg: float, down_deg: float, tilt_left_deg: float) -> tuple[float, float, float, float]:
    """Unity's quaternion of its Euler angles: first z, then x, then y, about axes of a figure that faces z."""

    def about(axis: int, degrees: float) -> F64:
        q = np.zeros(4)
        q[axis], q[3] = np.sin(np.radians(degrees) / 2), np.cos(np.radians(degrees) / 2)
        return q

    def times(a: F64, b: F64) -> F64:
        v = a[3] * b[:3] + b[3] * a[:3] + np.cross(a[:3], b[:3])
        return np.array([*v, a[3] * b[3] - a[:3] @ b[:3]])

    x, y, z, w = times(times(about(1, right_deg), about(0, down_deg)), about(2, tilt_left_deg))
    return float(x), float(y), float(z), float(w)


def osc(address: str, *arguments: object) -> OscMessageBuilder:
    """A message in the hands of python-osc."""
    message = OscMessageBuilder(address)
    for argument in arguments:
        message.add_arg(argument)  # type: ignore[arg-type]
    return message


def bundled(*messages: OscMessageBuilder) -> bytes:
    """A bundle, packed by python-osc."""
    bundle = OscBundleBuilder(IMMEDIATELY)
    for message in messages:
        bundle.add_content(message.build())
    return bundle.build().dgram


def vmc(pose: Pose | None, time_s: float = 0.0) -> bytes:
    """A performer's bundle of VMC: half of the turn in the neck, half in the head; None: tracking does not work."""
    p = pose or Pose()
    half = _unity(-p.left_deg / 2, p.down_deg / 2, p.tilt_left_deg / 2)
    eye = _unity(-p.eyes_left_deg, p.eyes_down_deg, 0)
    bones = {"Hips": _unity(20, 0, 0), "Neck": half, "Head": half, "LeftEye": eye, "RightEye": eye}
    return bundled(
        osc("/VMC/Ext/OK", 1, 3, 0, int(pose is not None)),
        osc("/VMC/Ext/T", time_s),
        osc("/VMC/Ext/Root/Pos", "root", 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0),
        *(osc("/VMC/Ext/Bone/Pos", name, 0.0, 0.1, 0.0, *q) for name, q in bones.items()),
        *(osc("/VMC/Ext/Blend/Val", n, float(p.shapes.get(n, 0.0))) for n in ARKIT_NAMES),
        osc("/VMC/Ext/Blend/Apply"),
    )


# some places of a face (the person's right, up, forward), about 0.9 wide: ears, chin, eyes, nose, mouth
_FACE = np.array(
    [
        [0.45, 0.3, -0.76], [-0.45, 0.3, -0.76], [0.39, -0.23, -0.7], [-0.39, -0.23, -0.7], [0, -0.62, -0.29],
        [0.32, 0.3, -0.28], [-0.32, 0.3, -0.28], [0.13, 0.28, -0.23], [-0.13, 0.28, -0.23], [0, 0.29, -0.14],
        [0, 0.1, -0.01], [0, 0, 0], [0.08, -0.04, -0.13], [-0.08, -0.04, -0.13],
    ]
)  # fmt: skip
SIDE_PX = 640  # square: its camera has the middles of width and height exchanged


def _solved(pose: Pose) -> tuple[F64, F64]:
    """(R, t) as facetracker's solvePnP finds them: image points as (row, column), the face as above."""
    turn = rotation_matrix(rotation_from_degrees(pose.left_deg, pose.down_deg, pose.tilt_left_deg))
    unit_m = 0.137
    there = np.array([pose.right_m, -pose.up_m, pose.away_m * 2 / 3]) / unit_m
    # right, down and away in the picture of a face that is turned: frontal ones have their right at the left
    seen = (_FACE * [-1, -1, -1]) @ turn.T + there
    pixels = SIDE_PX * seen[:, :2] / seen[:, 2:] + SIDE_PX / 2
    camera = np.array([[SIDE_PX, 0, SIDE_PX / 2], [0, SIDE_PX, SIDE_PX / 2], [0, 0, 1]], np.float64)
    # flags as there; the start is anywhere near, for it has the frame before
    start = np.array([[2.2], [-2.2], [0.0]]), np.array([[0.0], [0.0], [4.0]])
    ok, rvec, tvec = cv2.solvePnP(
        _FACE,
        np.ascontiguousarray(pixels[:, ::-1]),
        camera,
        np.zeros(4),
        *start,
        True,
        cv2.SOLVEPNP_ITERATIVE,
    )
    assert ok
    return np.asarray(cv2.Rodrigues(rvec)[0], np.float64), np.asarray(tvec, np.float64).ravel()


def open_see_face(
    pose: Pose,
    time_s: float = 0.0,
    *,
    face_id: int = 0,
    has_3d: bool = True,
    features: dict[int, float] | None = None,
) -> bytes:
    """One face of OpenSeeFace; `features` by their number, else from the shapes."""
    m, t = _solved(pose)
    scale = 2 * np.sqrt(1 + np.trace(m)) if np.trace(m) > -0.99 else 0.0
    if scale:
        q = [(m[1, 2] - m[2, 1]) / scale, (m[2, 0] - m[0, 2]) / scale, (m[0, 1] - m[1, 0]) / scale, scale / 4]
    else:  # a half turn, as a frontal face is
        x = np.sqrt(max(1 + m[0, 0] - m[1, 1] - m[2, 2], 1e-12)) * 2
        q = [x / 4, (m[0, 1] + m[1, 0]) / x, (m[2, 0] + m[0, 2]) / x, (m[1, 2] - m[2, 1]) / x]
    left, down = np.radians(pose.eyes_left_deg), np.radians(pose.eyes_down_deg)
    look = 0.1 * np.array([-np.sin(left) * np.cos(down), -np.sin(down), np.cos(left) * np.cos(down)])
    middles = np.array([[0.26, 0.28, -0.32], [-0.26, 0.28, -0.32]])
    points = np.zeros((70, 3))
    points[68:] = middles
    points[66:68] = middles + look
    told = {0: 0.0, 12: pose.shapes.get("jawOpen", 0.0) / 0.6} if features is None else features
    right_open, left_open = (1 - pose.shapes.get(f"eyeBlink{side}", 0.0) for side in ("Right", "Left"))
    return (
        struct.pack("<di4f", 1.79e9 + time_s, face_id, SIDE_PX, SIDE_PX, right_open, left_open)
        + struct.pack("<Bf", int(has_3d), 0.5)
        + struct.pack("<10f", *q, 0, 0, 0, *t)
        + struct.pack("<68f", *np.ones(68))
        + struct.pack("<136f", *np.zeros(136))
        + struct.pack("<210f", *(points * [1, -1, -1]).ravel())
        + struct.pack("<14f", *(told.get(k, 0.0) for k in range(14)))
    )


WRITERS: dict[str, Callable[[Pose, float], bytes]] = {
    "vts": vts,
    "ifacialmocap": ifacialmocap,
    "vmc": vmc,
    "openseeface": open_see_face,
}

FPS = 30.0


def performance(seconds: float = 4.0) -> Iterator[tuple[float, Pose]]:
    """Two calm seconds, then a turn to the left with an open mouth, then eyes shut."""
    for k in range(round(seconds * FPS)):
        time_s = k / FPS
        pose = Pose()
        if 2.0 <= time_s < 3.0:
            share = np.sin(np.pi * (time_s - 2.0))
            pose = replace(pose, left_deg=20 * share, shapes={"jawOpen": 0.4 * share})
        elif time_s >= 3.0:
            pose = replace(pose, shapes={"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0})
        yield time_s, pose
