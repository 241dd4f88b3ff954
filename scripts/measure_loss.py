"""What is heard and seen of a call over a bad network: concealed sound, frozen pictures, recovery from a blackout.

    python -m scripts.measure_loss                        # aiortc's client, 0, 1, 5 and 10 % loss, each way
    python -m scripts.measure_loss --client chromium      # the page in headless Chromium
    python -m scripts.measure_loss --loss 5 --burst 3 --jitter-ms 30 --delay-ms 20 --driver talk.mp4

Server, relay and client are processes of this computer; the demo photo is driven by a clip of itself, or by `--driver`.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from calibration.enroll import enroll
from engines.enrollment import save_enrollment
from scripts.benchmark import make_clip
from scripts.benchmarks.several_calls import serving
from scripts.measure.calls import STATISTICS, aiortc_call, chromium_page, fetched, through_a_bad_network
from scripts.measure.gaps import back_after_s, frozen
from streamer.drive.demo import DEMO_PHOTO, demo_track

BLACKOUT_S = 2.0
SETTLED_S = 6.0  # a call's first seconds are of another kind: bitrates climb, neutral is taken
RECOVERED_WITHIN_S = 15.0


@dataclass(frozen=True, slots=True)
class Row:
    """One call. Shares are in % of the sound that came or should have; `up` is what the server made of it."""

    loss_percent: float
    up_recovered: float
    up_concealed: float
    down_recovered: float
    down_concealed: float
    fps: float
    freezes_per_min: float
    frozen_percent: float
    lag_ms: float
    back_s: float

    @staticmethod
    def head() -> str:
        """Of a table in Markdown."""
        names = (
            "loss, each way", "up: from FEC", "up: concealed", "down: from FEC", "down: concealed",
            "fps", "freezes a minute", "frozen", "lag p50", f"back after {BLACKOUT_S:g} s",
        )  # fmt: skip
        return "| " + " | ".join(names) + " |\n|" + " --- |" * len(names)

    def line(self) -> str:
        """A row of it."""

        def told(value: float, form: str) -> str:
            return "?" if np.isnan(value) else form.format(value)

        cells = (
            f"{self.loss_percent:g} %",
            *(told(v, "{:.2f} %") for v in (self.up_recovered, self.up_concealed)),
            *(told(v, "{:.2f} %") for v in (self.down_recovered, self.down_concealed)),
            told(self.fps, "{:.1f}"),
            told(self.freezes_per_min, "{:.1f}"),
            told(self.frozen_percent, "{:.2f} %"),
            told(self.lag_ms, "{:.0f} ms"),
            told(self.back_s, "{:.2f} s"),
        )
        return "| " + " | ".join(cells) + " |"


def shares(before: dict[str, float], after: dict[str, float]) -> tuple[float, float]:
    """% of the sound between two looks that came from FEC, and that was concealed or left out."""
    passed = {name: after[name] - before.get(name, 0.0) for name in after}
    total = sum(passed.values())
    if total <= 0:
        return float("nan"), float("nan")
    return 100 * passed["recovered"] / total, 100 * (passed["concealed"] + passed["left_out"]) / total


def heard_by(server: str) -> dict[str, float]:
    """What the server says became of the sound of its one call."""
    calls = fetched(f"{server}/metrics.json")["calls"]
    return dict(calls[0]["sound_s"]) if calls else {}


async def by_aiortc(server: str, network: str, options: argparse.Namespace, loss: float, clip: Path) -> Row:
    """One call of the client that needs no browser."""
    offer: dict[str, object] = {"generator": options.generator, "size": options.size}
    async with aiortc_call(network, clip, offer) as client:
        await asyncio.sleep(SETTLED_S)
        await asyncio.to_thread(relay, network, loss, options)
        await asyncio.sleep(1.0)
        up, down, begin_s = await asyncio.to_thread(heard_by, server), client.sound_s(), time.monotonic()
        await asyncio.sleep(options.seconds)
        end_s = time.monotonic()
        up_after, down_after = await asyncio.to_thread(heard_by, server), client.sound_s()
        seen = client.watched
        pictures = [t for t in seen.pictures if begin_s <= t <= end_s]
        ages = [age for t, age in seen.answers if begin_s <= t <= end_s]
        await asyncio.to_thread(relay, network, 100.0, options)
        await asyncio.sleep(BLACKOUT_S)
        await asyncio.to_thread(relay, network, loss, options)
        over_s, back = time.monotonic(), None
        while back is None and time.monotonic() < over_s + RECOVERED_WITHIN_S:
            await asyncio.sleep(0.05)
            back = back_after_s(over_s, seen.pictures, seen.answers)
    still, seconds = frozen(pictures), end_s - begin_s
    return Row(
        loss, *shares(up, up_after), *shares(down, down_after),
        fps=len(ages) / seconds,
        freezes_per_min=60 * still.count / seconds,
        frozen_percent=100 * still.seconds / seconds,
        lag_ms=float(np.median(ages)) if ages else float("nan"),
        back_s=float("nan") if back is None else back,
    )  # fmt: skip


def by_chromium(server: str, network: str, options: argparse.Namespace, loss: float, page: Any) -> Row:
    """One call of the page; sound's concealment and freezes as Chromium counts them."""
    audio = f"audio=1&generator={options.generator}&size={options.size}"
    page.goto(f"{network}/?drive=webcam&{audio}")
    page.wait_for_function("() => window.visavis && window.visavis.stats().shown > 30", timeout=90_000)
    time.sleep(SETTLED_S)
    relay(network, loss, options)
    time.sleep(1.0)
    page.evaluate("window.visavis.reset()")
    up, before, begin_s = heard_by(server), page.evaluate(STATISTICS), time.monotonic()
    time.sleep(options.seconds)
    up_after, after, end_s = heard_by(server), page.evaluate(STATISTICS), time.monotonic()
    lag_ms = page.evaluate("window.visavis.stats().glass_to_glass_ms.p50")

    def grew(kind: str, name: str) -> float:
        return after[f"inbound-rtp {kind}"].get(name, 0) - before[f"inbound-rtp {kind}"].get(name, 0)

    relay(network, 100.0, options)
    time.sleep(BLACKOUT_S)
    decoded = page.evaluate(STATISTICS)["inbound-rtp video"]["framesDecoded"]
    relay(network, loss, options)
    over_s, back_s = time.monotonic(), float("nan")
    while time.monotonic() < over_s + RECOVERED_WITHIN_S:
        if page.evaluate(STATISTICS).get("inbound-rtp video", {}).get("framesDecoded", 0) > decoded + 2:
            back_s = time.monotonic() - over_s
            break
        time.sleep(0.02)
    page.goto("about:blank")  # hang up
    seconds, samples = end_s - begin_s, max(1.0, grew("audio", "totalSamplesReceived"))
    # a packet of FEC that was used is one of 20 ms
    from_fec = 960 * (grew("audio", "fecPacketsReceived") - grew("audio", "fecPacketsDiscarded"))
    return Row(
        loss, *shares(up, up_after),
        down_recovered=100 * from_fec / samples,
        down_concealed=100 * grew("audio", "concealedSamples") / samples,
        fps=grew("video", "framesDecoded") / seconds,
        freezes_per_min=60 * grew("video", "freezeCount") / seconds,
        frozen_percent=100 * grew("video", "totalFreezesDuration") / seconds,
        lag_ms=float("nan") if lag_ms is None else lag_ms,
        back_s=back_s,
    )  # fmt: skip


def relay(network: str, loss_percent: float, options: argparse.Namespace) -> None:
    """Make the network so bad."""
    faults = {
        "loss": loss_percent / 100, "burst_packets": options.burst,
        "delay_ms": options.delay_ms, "jitter_ms": options.jitter_ms,
    }  # fmt: skip
    fetched(f"{network}/relay", "PUT", faults)


def measure(options: argparse.Namespace, told: Callable[[str], None]) -> list[Row]:
    """A row for each loss; `told` gets each as it comes."""
    rows: list[Row] = []
    enrolled = enroll(options.photo)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip, avatar = options.driver or folder / "driver.mp4", folder / "a.avatar"
        if options.driver is None:
            make_clip(enrolled, clip, 6.0, demo_track().fps, 512)
        save_enrollment(enrolled, avatar)
        for loss in options.loss:
            # a server each: nothing of the call before is left
            with serving(avatar) as (server, _), through_a_bad_network(server, options.seed) as network:
                if options.client == "chromium":
                    with chromium_page(clip, folder) as page:
                        row = by_chromium(server, network, options, loss, page)
                else:
                    row = asyncio.run(by_aiortc(server, network, options, loss, clip))
            rows.append(row)
            told(row.line())
    return rows


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--client", choices=("aiortc", "chromium"), default="aiortc")
    parser.add_argument("--loss", type=float, nargs="+", default=[0.0, 1.0, 5.0, 10.0], help="%% each way")
    parser.add_argument("--burst", type=float, help="packets lost in a row, on average; else by themselves")
    parser.add_argument("--delay-ms", type=float, default=0.0)
    parser.add_argument("--jitter-ms", type=float, default=0.0)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each call that are measured")
    parser.add_argument("--generator", default="geometric")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--photo", type=Path, default=DEMO_PHOTO)
    parser.add_argument("--driver", type=Path, help="a video of a face, with sound if there is some")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args(arguments)


def main() -> None:
    """Command line."""
    from streamer.webrtc import aiortc_fixes

    options = parse()
    aiortc_fixes.apply(offer_loopback=True)
    print(f"{options.client}, {options.generator}, {options.size} px, {options.seconds:g} s each", flush=True)
    print(Row.head(), flush=True)
    measure(options, lambda line: print(line, flush=True))


if __name__ == "__main__":
    main()
