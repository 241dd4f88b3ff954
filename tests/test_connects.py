"""Calls that come and go, half of them abruptly, leave the server's descriptors and threads where they were."""

from __future__ import annotations

import pytest

from scripts.measure import connects
from streamer.webrtc import aiortc_fixes


@pytest.mark.slow
def test_a_server_holds_after_calls_what_it_held_before(monkeypatch: pytest.MonkeyPatch) -> None:
    aiortc_fixes.apply(offer_loopback=True)
    monkeypatch.setattr(connects, "PICTURES_S", 0.2)
    monkeypatch.setattr(connects, "WARM_UP_CALLS", 6)
    before, after = connects.measured(6)
    assert after.descriptors <= before.descriptors
    assert after.threads <= before.threads


def test_what_is_held_is_told() -> None:
    assert str(connects.Held(12, 3, 100.4)) == "12 descriptors, 3 threads, 100 MB"
