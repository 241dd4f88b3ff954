"""Told motion through a driver: neutral, smoothing, a face that is lost; and the same motion sent on by VMC."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from fakes import AT_LAST_S, FakeClock, FakeTracker
from pythonosc.osc_packet import OscPacket
from telling import FPS

from engines.geometry import rotation_from_degrees, yaw_pitch_roll_deg
from engines.motion import ARKIT_INDEX, ARKIT_NAMES, Motion
from streamer.drive.driver import Drive, Driver
from streamer.drive.open import open_driver
from streamer.drive.presence import EASE_S, HOLD_S, RECOVER_FRAMES
from streamer.drive.told import Told
from streamer.drive.trackers.names import TOLD, TRACKER_NAMES
from streamer.drive.trackers.told import ToldTracker
from streamer.frame import Moment
from streamer.sinks.motion_sender import MotionSender
from streamer.sinks.names import MotionTarget
from streamer.sinks.vmc import MOST_BYTES, datagrams_of
from streamer.sources.told.vmc import Vmc


def face(*, yaw_deg: float = 0.0, pitch_deg: float = 0.0, **shapes: float) -> Motion:
    expression = np.zeros(52, np.float32)
    for name, value in shapes.items():
        expression[ARKIT_INDEX[name]] = value
    rotation = rotation_from_degrees(yaw_deg, pitch_deg, 0).astype(np.float32)
    return Motion(expression=expression, rotation_rad=rotation)


def moments(motions: Sequence[Motion | None], *, is_raw: bool = True) -> list[Told]:
    return [
        Told(k / FPS, k, sequence=k, motion=m and replace(m, time_s=k / FPS), is_raw=is_raw)
        for k, m in enumerate(motions)
    ]


def drives(motions: Sequence[Motion | None], *, is_raw: bool = True) -> list[Drive]:
    driver = open_driver(TOLD, lambda error: pytest.fail(str(error)))
    return [driver.drive(m) for m in moments(motions, is_raw=is_raw)]


def test_nobody_can_choose_the_tracker_of_told_motion() -> None:
    assert TOLD not in TRACKER_NAMES


def test_the_neutral_is_taken_from_a_calm_second() -> None:
    """A phone that lies a little low: its driver at rest looks past it, and is shown at rest."""
    rest = face(yaw_deg=6, pitch_deg=-9, browInnerUp=0.2, mouthPucker=0.1)
    shown = drives([rest] * round(2 * FPS))
    assert shown[0].state == "calibrating"
    assert shown[-1].state == "tracking"
    neutral = shown[-1].neutral
    assert yaw_pitch_roll_deg(neutral.rotation_rad) == pytest.approx([6, -9, 0], abs=0.1)
    assert neutral.expression == pytest.approx(rest.expression, abs=0.01)


def test_a_lively_second_is_no_neutral() -> None:
    driver = open_driver(TOLD)
    for moment in moments([face(jawOpen=0.3 + 0.3 * (k % 2)) for k in range(round(2 * FPS))]):
        driver.drive(moment)
    assert driver.neutral_report.state == "waiting"
    assert "talking" in driver.neutral_report.why


def test_recalibrating_and_a_kept_neutral_work_as_with_a_webcam() -> None:
    driver = open_driver(TOLD)
    for moment in moments([face()] * 60):
        driver.drive(moment)
    kept = driver.driver_neutral
    assert kept is not None
    driver.recalibrate()
    driver.drive(moments([face(yaw_deg=5)])[0])
    assert driver.neutral_report.state == "waiting"
    driver.use_neutral(kept)
    assert driver.drive(moments([face(yaw_deg=5)])[0]).neutral.rotation_rad == pytest.approx(
        np.zeros(3), abs=1e-5
    )
    assert driver.neutral_report.state == "taken"


def test_lips_and_lids_close_as_the_shapes_say() -> None:
    tracker = ToldTracker()
    told = moments(
        [face()] * 40 + [face(jawOpen=0.2), face(jawOpen=0.2, mouthClose=0.2), face(eyeBlinkLeft=1.0)]
    )
    tracks = [tracker.told(moment) for moment in told]
    closures = [t.motion.closure.tolist() for t in tracks[-4:] if t.motion is not None]
    at_rest, opened, pressed, winking = closures
    assert at_rest == pytest.approx([1, 0, 0], abs=0.02)
    assert opened[0] == pytest.approx(0, abs=0.02)
    assert pressed[0] > 0.8, "mouthClose closes lips over an open jaw"
    assert winking == pytest.approx([1, 0, 1], abs=0.05)


def test_raw_streams_are_smoothed_and_smooth_ones_left_alone() -> None:
    noise = np.random.default_rng(2).normal(0, 0.05, 90)
    jittery = [face(yaw_deg=float(20 * n), jawOpen=float(0.3 + n)) for n in noise]
    raw = [d.motion.jaw for d in drives(jittery)]
    smooth = [d.motion.jaw for d in drives(jittery, is_raw=False)]
    assert smooth == pytest.approx([m.jaw for m in jittery])
    assert np.std(raw[30:]) < 0.8 * np.std(smooth[30:])


def test_a_lost_face_is_held_eased_to_rest_and_found_in_three_frames() -> None:
    turned = face(yaw_deg=15, jawOpen=0.5)
    gone = round((HOLD_S + EASE_S + 0.5) * FPS)
    shown = drives([face()] * 60 + [turned] * 30 + [None] * gone + [turned] * RECOVER_FRAMES)
    lost = shown[90 : 90 + gone]
    yaws = [yaw_pitch_roll_deg(d.motion.rotation_rad)[0] for d in shown]
    assert lost[0].state == "holding"
    assert yaws[90] == pytest.approx(15, abs=0.5)
    assert lost[-1].state == "idle"
    assert lost[-1].motion.jaw == pytest.approx(0, abs=0.02)
    assert abs(yaws[89 + gone]) < 2.5, "idle life about the neutral"
    assert shown[-1].state == "tracking"
    assert yaws[-1] == pytest.approx(15, abs=0.5)


def test_silence_is_a_lost_face() -> None:
    driver = open_driver(TOLD)
    for moment in moments([face(jawOpen=0.5)] * 30):
        driver.drive(moment)
    assert driver.idle(1.2).motion.jaw == pytest.approx(0.5, abs=0.02)
    rested = driver.idle(1.2 + HOLD_S + EASE_S)
    assert (rested.state, rested.face) == ("idle", False)
    neutral_jaw = rested.neutral.jaw
    assert rested.motion.jaw == pytest.approx(neutral_jaw, abs=1e-5)
    assert neutral_jaw < 0.1, "what is no rest is not taken for one at once"


def test_what_is_told_moves_nobody_who_follows_pictures() -> None:
    tracker = FakeTracker([face()])
    drive = Driver(tracker).drive(moments([face(jawOpen=0.5)])[0])
    assert tracker.calls == 0
    assert not drive.face
    assert not open_driver(TOLD).drive(Moment(0.0, 0)).face


def test_a_motion_that_is_no_number_is_no_face() -> None:
    broken = replace(face(), rotation_rad=np.array([0, np.nan, 0], np.float32))
    shown = drives([face()] * 40 + [broken, face()])
    assert [d.face for d in shown[-2:]] == [False, True]
    assert all(d.motion.is_finite() for d in shown)


# ---- the other way: motion sent on


def read_back(datagrams: list[bytes]) -> Motion | None:
    dialect = Vmc()
    readings = [reading for d in datagrams if (reading := dialect.take(d)) is not None]
    return readings[-1].motion


def test_motion_is_sent_as_others_read_it() -> None:
    motion = face(yaw_deg=20, pitch_deg=-8, jawOpen=0.5, mouthSmileLeft=0.3)
    motion = replace(motion, gaze_rad=np.array([[0.1, -0.05], [0.1, -0.05]], np.float32))
    datagrams = datagrams_of(motion, Motion(), 1.5, is_there=True)
    assert max(len(d) for d in datagrams) <= MOST_BYTES
    heard = [(m.message.address, m.message.params) for d in datagrams for m in OscPacket(d).messages]
    shapes = {p[0]: p[1] for address, p in heard if address == "/VMC/Ext/Blend/Val"}
    assert set(shapes) == {n[0].upper() + n[1:] for n in ARKIT_NAMES}
    assert shapes["JawOpen"] == pytest.approx(0.5)
    assert heard[0] == ("/VMC/Ext/OK", [1, 3, 0, 1])
    assert heard[1] == ("/VMC/Ext/T", [1.5])
    (head,) = (p for address, p in heard if address == "/VMC/Ext/Bone/Pos")
    assert head[0] == "Head"
    assert head[5] < 0 < -head[4], "x: up, y: to the figure's left"
    assert [a for a, _ in heard].index("/VMC/Ext/Blend/Apply") == len(heard) - 1
    back = read_back(datagrams)
    assert back is not None
    assert back.rotation_rad == pytest.approx(motion.rotation_rad, abs=1e-4)
    assert back.gaze_rad == pytest.approx(motion.gaze_rad, abs=1e-4)


def test_motion_is_sent_as_far_as_it_leaves_rest() -> None:
    rest = face(yaw_deg=10, browInnerUp=0.3)
    back = read_back(datagrams_of(face(yaw_deg=30, browInnerUp=0.5), rest, 0.0, is_there=True))
    assert back is not None
    assert yaw_pitch_roll_deg(back.rotation_rad)[0] == pytest.approx(20, abs=0.01)
    assert back.expression[ARKIT_INDEX["browInnerUp"]] == pytest.approx(0.2, abs=1e-5)
    shut = replace(face(), closure=np.array([1, 1, 0], np.float32))
    lids = read_back(datagrams_of(shut, face(), 0.0, is_there=True))
    assert lids is not None
    assert lids.expression[ARKIT_INDEX["eyeBlinkRight"]] == pytest.approx(1)
    assert lids.expression[ARKIT_INDEX["eyeBlinkLeft"]] == 0


def test_nobody_there_is_said() -> None:
    assert read_back(datagrams_of(face(), face(), 0.0, is_there=False)) is None


def test_each_answer_of_a_driver_is_sent_on() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        other.settimeout(AT_LAST_S)
        clock = FakeClock()
        with MotionSender(MotionTarget("127.0.0.1", other.getsockname()[1]), clock=clock) as sender:
            driver = open_driver(TOLD, on_drive=sender.send)
            driver.drive(moments([face(jawOpen=0.5)])[0])
            driver.idle(1.0)
            assert sender.unsent == 0
            count = 2 * len(datagrams_of(face(), face(), 0.0, is_there=True))
            heard = [m.message.address for _ in range(count) for m in OscPacket(other.recv(65_535)).messages]
    assert heard.count("/VMC/Ext/Blend/Apply") == 2
    sender.send(Drive(face(), face(), "tracking", True))
    assert sender.unsent == count // 2, "what is sent too late is lost, and nothing else"
