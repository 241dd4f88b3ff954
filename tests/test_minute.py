"""A line a minute: what was sent and how long it took, on a virtual clock; nothing while nothing is sent."""

from __future__ import annotations

import asyncio
import inspect
import logging

import pytest
from uvicorn.protocols.http import h11_impl

from engines.errors import VisavisError
from streamer.frame import LatencyTrace
from streamer.latency.account import Account
from streamer.latency.ledger import Ledger
from streamer.latency.metrics import Metrics
from streamer.latency.minute import EVERY_S, line_of, log_each, log_every_s, say_each
from streamer.serve.seldom import UVICORN_SAYS, Seldom


class Time:
    """Goes on when told; sleeping is going on."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns

    def later(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)


def send(account: Account, time: Time, seconds: float, fps: int, ms: float = 20.0) -> None:
    for _ in range(round(seconds * fps)):
        account.frame({"tracked": ms / 2, "sent": ms / 2}, ms, fresh=True)
        time.later(1 / fps)


def test_a_line_says_calls_rate_latency_drops_and_faults() -> None:
    time = Time()
    account = Account(time)
    send(account, time, 10, 30, 40.0)
    account.dropped(3, stage="tracked")
    account.dropped(1, stage="sent")
    account.fault("generated")
    assert line_of(account.read(), 2) == (
        "2 calls, 30.0 fps sent, latency p50/p95 40/40 ms (tracked 20/20, sent 20/20), "
        "4 frames dropped (sent 1, tracked 3), 1 fault (generated 1)"
    )
    assert line_of(account.read()) == str(line_of(account.read(), 1)).removeprefix("1 call, ")


def test_the_rate_counts_from_the_first_picture_and_what_was_read_is_not_read_again() -> None:
    time = Time()
    account = Account(time)
    time.later(50)
    send(account, time, 10, 25)
    assert "25.0 fps sent" in str(line_of(account.read(anew=True)))
    assert line_of(account.read()) is None
    assert "0.0 fps sent" in str(line_of(account.read(), 1)), "a call that is up and sends nothing is told"
    account.frame({}, None, fresh=False)
    assert "0.0 fps sent, 0 frames dropped, 0 faults" in str(line_of(account.read()))


def test_a_server_says_a_line_each_minute_and_none_while_it_idles() -> None:
    time = Time()
    account, said, slept = Account(time), list[str](), list[float]()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) in (2, 3):
            send(account, time, seconds, 30)
        else:
            time.later(seconds)
        if len(slept) == 5:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(log_each(60, account, lambda: 1 if len(slept) in (2, 3) else 0, said.append, sleep))
    assert slept == [60] * 5
    assert len(said) == 2
    assert {line.split(",")[0] for line in said} == {"1 call"}
    asyncio.run(log_each(0, account, lambda: 1, said.append, sleep))
    assert len(slept) == 5, "0: never"


def test_a_run_says_a_line_each_minute_until_it_ends() -> None:
    time = Time()
    account, said, waited = Account(time), list[str](), list[float]()

    def ended(seconds: float) -> bool:
        waited.append(seconds)
        if len(waited) < 3:
            send(account, time, seconds, 25)
        return len(waited) == 4

    say_each(30, account, said.append, ended)
    assert waited == [30] * 4
    assert [line.split(",")[0] for line in said] == ["25.0 fps sent"] * 2
    say_each(0, account, said.append, ended)
    assert len(waited) == 4


def test_all_ledgers_of_a_server_are_counted_together() -> None:
    metrics = Metrics()
    for _ in range(3):
        ledger = Ledger(metrics=metrics)
        ledger.frame(LatencyTrace({"captured": 0, "sent": 5_000_000}), sequence=0, pts_s=0, fresh=True)
        ledger.dropped(2, stage="tracked")
        ledger.fault("generated", ValueError("x"))
    for counted in (metrics.minute.read(anew=True), metrics.ever.read()):
        assert (counted.pictures, counted.dropped, counted.faults) == (3, {"tracked": 6}, {"generated": 3})
        assert counted.total_ms is not None
        assert counted.total_ms.p50 == pytest.approx(5, rel=0.01)
    assert metrics.minute.read().pictures == 0


def test_the_time_between_lines_is_a_setting() -> None:
    assert log_every_s({}) == log_every_s({"VISAVIS_LOG_EVERY_S": ""}) == EVERY_S
    assert log_every_s({"VISAVIS_LOG_EVERY_S": "0"}) == 0
    assert log_every_s({"VISAVIS_LOG_EVERY_S": "5"}) == 5
    for wrong in ("often", "-1", "nan", "inf", "1e9"):
        with pytest.raises(VisavisError, match=r"VISAVIS_LOG_EVERY_S is .* from 0 \(no line\) to 86400"):
            log_every_s({"VISAVIS_LOG_EVERY_S": wrong})


def test_what_is_no_http_is_told_once_a_minute() -> None:
    assert f'"{UVICORN_SAYS}"' in inspect.getsource(h11_impl), "uvicorn says it in other words now"
    now_s = 0.0
    seldom = Seldom(lambda: now_s)

    def said(message: str) -> str | None:
        record = logging.LogRecord("uvicorn.error", logging.WARNING, "", 0, message, (), None)
        return record.getMessage() if seldom.filter(record) else None

    assert "no HTTP" in str(said(UVICORN_SAYS))
    assert [said(UVICORN_SAYS) for _ in range(500)] == [None] * 500
    assert said("something else") == "something else"
    now_s = 61.0
    assert str(said(UVICORN_SAYS)).endswith("; 500 more since the last such line")
    assert said(UVICORN_SAYS) is None
