"""`build_avatar`: the avatar of a call, its tracker or its voice, and the neutral that its driver brings along."""

from __future__ import annotations

from typing import Protocol

from engines.enrollment import Enrollment
from streamer.avatar import Avatar
from streamer.clock import Clock
from streamer.drive.open import open_driver
from streamer.latency.ledger import Ledger
from streamer.webrtc.call_options import CallOptions
from streamer.webrtc.hearing import Hearing


class Called(Protocol):
    """What an avatar needs to know of its call."""

    @property
    def enrollment(self) -> Enrollment: ...
    @property
    def options(self) -> CallOptions: ...

    hearing: Hearing
    ledger: Ledger
    clock: Clock


def build_avatar(call: Called) -> Avatar:
    """The real thing: a tracker drives the enrolled face, or the voice does. Runs in the worker's thread."""
    options, ledger = call.options, call.ledger
    by_voice = options.drive == "voice"
    driver = open_driver(
        None if by_voice else options.tracker,
        lambda error: ledger.fault("tracked", error),
        said=None if by_voice else call.hearing.said,
    )
    if options.neutral is not None:
        driver.use_neutral(options.neutral)
    return Avatar(call.enrollment, driver, options, clock=call.clock, on_fault=ledger.fault)
