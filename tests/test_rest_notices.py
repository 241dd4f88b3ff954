"""What a terminal says of the driver's neutral: nothing to the calm, once what to do, and when it became another."""

from __future__ import annotations

import re
from collections.abc import Iterable

from calibration.neutral import NeutralReport
from streamer.drive.rest_notices import _DO, SAY_AFTER_S, RestNotices


def told(reports: Iterable[tuple[float, NeutralReport]]) -> tuple[str, ...]:
    notices = RestNotices()
    for time_s, report in reports:
        notices = notices.after(report, time_s)
    return notices.said


def waiting(*why: str, revision: int = 0) -> NeutralReport:
    return NeutralReport("waiting", why, revision)


def taken(revision: int) -> NeutralReport:
    return NeutralReport("taken", (), revision)


def test_who_is_calm_at_once_reads_nothing() -> None:
    assert told([(0, waiting()), (0.5, waiting()), (1.1, taken(1)), (50, taken(1))]) == ()


def test_a_short_wait_is_not_worth_a_word() -> None:
    assert told([(0, waiting()), (1, waiting("talking")), (1.5, taken(1))]) == ()


def test_what_to_do_is_said_once_and_then_that_it_is_done() -> None:
    talk = [(k / 10, waiting("talking", "turned") if k % 2 else waiting("smiling")) for k in range(60)]
    said = told([*talk, (7, taken(1)), (9, taken(1))])
    assert len(said) == 2
    assert said[0].startswith("waiting for your face at rest: ")
    assert said[1] == "your face at rest was taken"
    assert SAY_AFTER_S < 6


def test_a_revision_by_later_evidence_is_said() -> None:
    assert told([(0, taken(1)), (20, taken(2))]) == ("you look calmer now; your face at rest was taken anew",)


def test_a_recalibration_by_hand_is_no_surprise() -> None:
    assert told([(0, taken(1)), (5, waiting(revision=1)), (6.2, taken(2))]) == ()


def test_a_clock_that_goes_back_begins_the_wait_anew() -> None:
    assert told([(100, waiting("talking")), (0, waiting("talking")), (1, waiting("talking"))]) == ()


def test_there_are_words_for_each_reason() -> None:
    """As `NeutralReport` lists them."""
    assert NeutralReport.__doc__ is not None
    assert set(re.findall(r'"(\w+)"', NeutralReport.__doc__)) == set(_DO)
