"""A line a minute: what was sent since the last one, how long it took, and what went wrong."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping

from engines.errors import VisavisError
from streamer.latency.account import Account, Counted
from streamer.latency.percentiles import Percentiles

EVERY_S, MOST_S = 60.0, 86_400.0
VARIABLE = "VISAVIS_LOG_EVERY_S"


def line_of(minute: Counted, calls: int | None = None) -> str | None:
    """One readable line, or None where there is nothing to say. `calls`: how many are up, where that counts."""
    if not (minute.pictures or minute.late or minute.faults or minute.dropped or calls):
        return None
    rate = minute.pictures / minute.seconds if minute.seconds > 0 else 0.0
    words: list[str] = [] if calls is None else [_counted(calls, "call")]
    words.append(f"{rate:.1f} fps sent")
    if minute.total_ms is not None:
        stages = ", ".join(f"{stage} {_times(p)}" for stage, p in minute.stage_ms.items())
        words.append(f"latency p50/p95 {_times(minute.total_ms)} ms ({stages})")
    words.append(_counted(sum(minute.dropped.values()), "frame") + " dropped" + _by_stage(minute.dropped))
    words.append(_counted(sum(minute.faults.values()), "fault") + _by_stage(minute.faults))
    return ", ".join(words)


def _times(p: Percentiles) -> str:
    return f"{p.p50:.0f}/{p.p95:.0f}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _by_stage(counts: Mapping[str, int]) -> str:
    parts = ", ".join(f"{stage} {count}" for stage, count in sorted(counts.items()))
    return f" ({parts})" if parts else ""


def log_every_s(environment: Mapping[str, str] = os.environ) -> float:
    """Seconds between two lines, 0 for none. Raises VisavisError for what is no such number."""
    given = environment.get(VARIABLE, "")
    try:
        seconds = float(given) if given else EVERY_S
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MOST_S:
        raise VisavisError(
            f"{VARIABLE} is {given!r:.60}; give seconds from 0 (no line) to {MOST_S:g}, or unset it"
        )
    return seconds


async def log_each(
    every_s: float,
    account: Account,
    calls: Callable[[], int],
    say: Callable[[str], None],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """For a server: each `every_s` a line, until cancelled; none where nothing was sent, nor ever with 0."""
    while every_s > 0:
        await sleep(every_s)
        line = line_of(account.read(anew=True), calls())
        if line is not None:
            say(line)


def say_each(
    every_s: float, account: Account, say: Callable[[str], None], ended: Callable[[float], bool]
) -> None:
    """For a thread of its own: each `every_s` a line, until `ended(every_s)`, which waits so long, is true."""
    while every_s > 0 and not ended(every_s):
        line = line_of(account.read(anew=True))
        if line is not None:
            say(line)
