"""`LatencyTrace` and `Frame`: times travel with the picture."""

from __future__ import annotations

import numpy as np
import pytest

from streamer.frame import STAGES, Frame, LatencyTrace, Moment


def test_marks_make_new_traces() -> None:
    empty = LatencyTrace()
    one = empty.mark("captured", 1_000_000)
    two = one.mark("tracked", 4_000_000)
    assert dict(empty.stamps_ns) == {}
    assert dict(one.stamps_ns) == {"captured": 1_000_000}
    assert two.stage_ms() == {"tracked": 3.0}
    assert two.total_ms() == 3.0


def test_stages_are_told_in_their_order_whatever_the_order_of_marks() -> None:
    trace = LatencyTrace()
    for index, stage in reversed(list(enumerate(STAGES))):
        trace = trace.mark(stage, index * 2_000_000)
    assert list(trace.stage_ms()) == list(STAGES[1:])
    assert set(trace.stage_ms().values()) == {2.0}
    assert trace.total_ms() == 2.0 * (len(STAGES) - 1)


def test_a_stage_that_was_left_out_counts_to_the_next_one() -> None:
    trace = LatencyTrace({"captured": 0, "generated": 7_000_000})
    assert trace.stage_ms() == {"generated": 7.0}


@pytest.mark.parametrize("stamps", [{}, {"captured": 5}])
def test_fewer_than_two_stamps_are_no_time(stamps: dict[str, int]) -> None:
    assert LatencyTrace(stamps).stage_ms() == {}
    assert LatencyTrace(stamps).total_ms() == 0.0


def test_unknown_stages_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"unknown stage 'teleported'; one of captured, "):
        LatencyTrace().mark("teleported", 0)


def test_a_frame_keeps_everything_but_its_trace() -> None:
    image = np.zeros((2, 3, 3), np.uint8)
    frame = Frame(1.5, 77, sequence=9, image=image)
    marked = frame.mark("decoded", 99)
    assert marked.image is image
    assert (marked.pts_s, marked.capture_time_ns, marked.sequence) == (1.5, 77, 9)
    assert dict(marked.trace.stamps_ns) == {"decoded": 99}
    assert dict(frame.trace.stamps_ns) == {}


def test_a_moment_gets_a_picture_and_keeps_its_clock() -> None:
    moment = Moment(1.5, 77, sequence=9).mark("captured", 77)
    assert type(moment) is Moment
    frame = moment.with_image(np.zeros((2, 3, 3), np.uint8)).mark("decoded", 99)
    assert type(frame) is Frame
    assert (frame.pts_s, frame.capture_time_ns, frame.sequence) == (1.5, 77, 9)
    assert dict(frame.trace.stamps_ns) == {"captured": 77, "decoded": 99}
