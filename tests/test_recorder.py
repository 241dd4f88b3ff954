"""Recording a call: its motion comes back as a file, its times as a trace; off unless asked, bounded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engines.motion import ARKIT_INDEX, EXPRESSION_COUNT, Motion, MotionTrack, read_motion
from engines.retarget import Controls, retarget
from streamer.drive.demo import demo_track, looped
from streamer.drive.driver import Drive
from streamer.frame import LatencyTrace
from streamer.latency.ledger import Ledger
from streamer.latency.trace import read_trace
from streamer.serve.call_recording import in_turns
from streamer.webrtc import recorder as recorder_module
from streamer.webrtc.recorder import FPS, MOST_S, Recorder, rebased

REST = replace(Motion(), closure=np.array([1, 0, 0], np.float32))


def drives(motions: Sequence[Motion], neutral: Motion = REST) -> list[Drive]:
    return [Drive(motion, neutral, "tracking", face=True) for motion in motions]


def record(recorder: Recorder, drive: Sequence[Drive], fps: float = FPS, begin_s: float = 0.0) -> None:
    for index, each in enumerate(drive):
        recorder.driven(each, begin_s + index / fps)


def written(recorder: Recorder, folder: Path) -> MotionTrack:
    path = folder / "motion.jsonl"
    path.write_text("".join(recorder.motion_lines()), encoding="utf-8")
    return read_motion(path)


def assert_near(one: Motion, other: Motion, tolerance: float = 2e-5) -> None:
    for name in ("expression", "rotation_rad", "translation_hu", "gaze_rad", "closure"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), abs=tolerance), name


def test_nothing_is_recorded_unless_asked() -> None:
    ledger = Ledger()
    recorder = Recorder(ledger)
    record(recorder, drives([REST] * 5))
    ledger.frame(LatencyTrace({"captured": 0, "sent": 9}), sequence=0, pts_s=0, fresh=True)
    assert (recorder.recording, recorder.frames) == (False, 0)
    assert list(recorder.motion_lines()) == list(recorder.trace_lines()) == []


def test_a_recording_is_a_motion_file_that_shows_the_same_again(tmp_path: Path) -> None:
    recorder = Recorder(Ledger())
    recorder.begin()
    motions = [looped(demo_track(), k / FPS) for k in range(60)]
    record(recorder, drives(motions), begin_s=12.5)
    track = written(recorder, tmp_path)
    assert (track.fps, len(track.motions)) == (FPS, 60)
    assert track.neutral is not None
    for before, after in zip(motions, track.motions, strict=True):
        assert_near(before, after)
        live = retarget(before, REST, Motion(), Controls())
        assert_near(live, retarget(after, track.neutral, Motion(), Controls()), 1e-4)
    assert [m.time_s for m in track.motions[:3]] == pytest.approx([0, 1 / 30, 2 / 30], abs=1e-4)


def test_pictures_that_came_unevenly_are_told_evenly(tmp_path: Path) -> None:
    recorder = Recorder(Ledger())
    recorder.begin()

    def at(time_s: float) -> Motion:
        expression = np.zeros(EXPRESSION_COUNT, np.float32)
        expression[ARKIT_INDEX["jawOpen"]] = time_s / 2
        return replace(Motion(), expression=expression)

    rng = np.random.default_rng(1)
    times = np.concatenate([[0.0], np.sort(rng.uniform(0, 2, 37)), [2.0]])
    for time_s in times:
        recorder.driven(drives([at(float(time_s))])[0], 100 + float(time_s))
    recorder.driven(drives([at(0)])[0], 50.0)  # time never goes back
    track = written(recorder, tmp_path)
    assert len(track.motions) == 61
    assert [m.jaw for m in track.motions] == pytest.approx(np.arange(61) / 60, abs=1e-4)


def test_one_picture_is_a_recording_too(tmp_path: Path) -> None:
    recorder = Recorder(Ledger())
    recorder.begin()
    record(recorder, drives([REST]))
    assert_near(written(recorder, tmp_path).motions[0], REST)


def test_a_neutral_that_is_taken_anew_is_told_in_the_whole_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)

    def face() -> Motion:
        return Motion(
            expression=rng.uniform(0, 0.2, EXPRESSION_COUNT).astype(np.float32),
            rotation_rad=rng.uniform(-0.1, 0.1, 3).astype(np.float32),
            translation_hu=np.array([*rng.uniform(-0.2, 0.2, 2), rng.uniform(5, 7)], np.float32),
            gaze_rad=rng.uniform(-0.1, 0.1, (2, 2)).astype(np.float32),
            closure=rng.uniform(0, 1, 3).astype(np.float32),
        )

    first, second = face(), face()
    lived = [*drives([face() for _ in range(5)], first), *drives([face() for _ in range(5)], second)]
    recorder = Recorder(Ledger())
    recorder.begin()
    record(recorder, lived)
    track = written(recorder, tmp_path)
    assert track.neutral is not None
    assert_near(track.neutral, second)
    free = Controls(keep_lips=False, keep_blink=False, lips=0, eyes=0)  # closure is told as it was
    for drive, motion in zip(lived, track.motions, strict=True):
        shown = retarget(drive.motion, drive.neutral, Motion(), free)
        assert_near(retarget(motion, track.neutral, Motion(), free), shown, 1e-3)
    assert rebased(first, first, second).expression == pytest.approx(second.expression)


def test_a_recording_ends_after_ten_minutes_and_keeps_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger()
    recorder = Recorder(ledger)
    recorder.begin()
    recorder.driven(drives([REST])[0], 0.0)
    recorder.driven(drives([REST])[0], MOST_S)
    assert recorder.recording
    recorder.driven(drives([REST])[0], MOST_S + 1)
    assert (recorder.recording, recorder.frames) == (False, 2)
    monkeypatch.setattr(recorder_module, "MOST_FRAMES", 10)
    monkeypatch.setattr(recorder_module, "MOST_LINES", 20)
    recorder.begin()
    for index in range(30):
        recorder.driven(drives([REST])[0], index * 1e-6)
        ledger.dropped(1, stage="tracked")
    assert (recorder.recording, recorder.frames) == (False, 10)
    recorder.begin()
    for _ in range(50):
        ledger.dropped(1, stage="tracked")
    assert len(list(recorder.trace_lines())) == 20


def test_a_motion_that_is_none_is_left_out() -> None:
    recorder = Recorder(Ledger())
    recorder.begin()
    broken = replace(Motion(), expression=np.full(EXPRESSION_COUNT, np.nan, np.float32))
    record(recorder, drives([REST, broken, REST]))
    assert recorder.frames == 2


def test_the_trace_of_a_call_can_be_read_and_begins_with_the_recording(tmp_path: Path) -> None:
    ledger = Ledger()
    recorder = Recorder(ledger)
    ledger.dropped(9, stage="tracked")
    recorder.begin()
    ledger.frame(LatencyTrace({"captured": 1, "sent": 2_000_001}), sequence=3, pts_s=0.5, fresh=True)
    ledger.dropped(2, stage="tracked")
    ledger.fault("generated", ValueError("odd"))
    recorder.stop()
    ledger.dropped(7, stage="tracked")
    path = tmp_path / "trace.jsonl"
    path.write_bytes(b"".join(recorder.trace_lines()))
    trace = read_trace(path)
    assert [f.trace.total_ms() for f in trace.frames] == [2]
    assert [(e.kind, e.count) for e in trace.events] == [("drop", 2), ("fault", 1)]


def test_a_second_recording_forgets_the_first_and_what_is_forgotten_is_gone() -> None:
    ledger = Ledger()
    recorder = Recorder(ledger)
    recorder.begin()
    record(recorder, drives([REST] * 4))
    ledger.dropped(1, stage="tracked")
    recorder.begin()
    record(recorder, drives([REST] * 2))
    assert recorder.frames == 2
    assert len(list(recorder.trace_lines())) == 1
    recorder.forget()
    ledger.dropped(1, stage="tracked")
    assert (recorder.recording, recorder.frames) == (False, 0)
    assert list(recorder.motion_lines()) == list(recorder.trace_lines()) == []


async def test_however_many_recordings_are_told_the_calls_wait_for_one_line_at_most() -> None:
    made = 0

    def lines() -> Iterator[str]:
        nonlocal made
        for index in range(70):
            made += 1
            yield f"{index}\n"

    async def told() -> bytes:
        return b"".join([piece async for piece in in_turns(lines(), turn)])

    turn = asyncio.Lock()
    telling = [asyncio.create_task(told()) for _ in range(5)]
    most = 0
    while not all(task.done() for task in telling):
        before = made
        await asyncio.sleep(0)
        most = max(most, made - before)
    assert {await task for task in telling} == {b"".join(b"%d\n" % index for index in range(70))}
    assert most == 1


def test_a_trace_file_and_a_recording_get_the_same_lines(tmp_path: Path) -> None:
    with Ledger(trace_path=tmp_path / "t.jsonl") as ledger:
        recorder = Recorder(ledger)
        recorder.begin()
        ledger.frame(LatencyTrace({"captured": 1, "sent": 5}), sequence=1, pts_s=0, fresh=True)
        ledger.dropped(1, stage="sent")
    in_file = [json.loads(line) for line in (tmp_path / "t.jsonl").read_bytes().splitlines()]
    assert [json.loads(line) for line in recorder.trace_lines()][1:] == in_file[1:]
