"""The page over a bad network, in a real Chromium: pictures and sound go on, and what was lost comes from FEC."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from browser import PATIENCE_MS, launched, served, wait_for
from clips import DemoClip

from engines.enrollment import Enrollment, save_enrollment
from scripts.measure.calls import (
    REMEMBER_PEERS,
    STATISTICS,
    fetched,
    through_a_bad_network,
    write_camera,
)

pytestmark = pytest.mark.browser


def test_a_page_over_five_percent_loss(astronaut: Enrollment, demo_clip: DemoClip, tmp_path: Path) -> None:
    """Counts alone, so that a busy computer needs longer and says the same."""
    avatar = tmp_path / "face.avatar"
    save_enrollment(astronaut, avatar)
    camera = write_camera(demo_clip(6, 30, 480), tmp_path)
    with (
        served("--avatar", str(avatar)) as server,
        through_a_bad_network(server.url) as network,
        launched(*camera) as chromium,
    ):
        page: Any = chromium.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.add_init_script(REMEMBER_PEERS)
        page.goto(f"{network}/?drive=webcam&audio=1&size=256&generator=geometric")
        wait_for(page, "window.visavis && window.visavis.stats().shown > 10")
        assert fetched(f"{network}/relay")["down"]["sent"] > 100, "its packets go through the relay"
        fetched(f"{network}/relay", "PUT", {"loss": 0.05})

        def sound() -> dict[str, float]:
            calls = fetched(f"{server.url}/metrics.json")["calls"]
            return dict(calls[0]["sound_s"]) if calls else {}

        shown = page.evaluate("window.visavis.stats().shown")
        wait_for(page, f"window.visavis.stats().shown > {shown} + 60")
        for _ in range(600):
            if sound().get("recovered", 0) > 0:
                break
            page.wait_for_timeout(200)
        else:
            pytest.fail(f"Chromium did not repeat its sound, though our answer asked for that: {sound()}")
        statistics = page.evaluate(STATISTICS)
        assert statistics["inbound-rtp video"]["framesDecoded"] > 60
        assert statistics["inbound-rtp audio"]["packetsLost"] > 0
        for _ in range(600):
            if page.evaluate(STATISTICS)["inbound-rtp audio"].get("fecPacketsReceived", 0) > 0:
                break
            page.wait_for_timeout(200)
        else:
            pytest.fail("our sound did not repeat itself though the page lost some of it")
