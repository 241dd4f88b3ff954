"""A long call over a bad network: whether delay, memory, threads, sockets and tasks stay where they were.

    python -m scripts.measure.soak_call --minutes 60 --plot soak.svg

5 % loss and 50 ms of jitter each way, and a blackout of 2 s a minute, by the relay. Server, relay and client are
processes of this computer. Ends with 1 when something was not as it should be.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from calibration.enroll import enroll
from engines.enrollment import save_enrollment
from scripts.benchmark import make_clip
from scripts.measure.calls import AiortcClient, aiortc_call, fetched, through_a_bad_network
from scripts.measure.gaps import back_after_s, slope_per_min
from scripts.measure.watched_server import running_in
from streamer.drive.demo import DEMO_PHOTO, demo_track

FAULTS: dict[str, object] = {"loss": 0.05, "jitter_ms": 50.0}
BLACKOUT_S = 2.0
GROWN_BY_MS = 50.0  # delay's own noise
MOST_BACK_S = 2.0
MOST_MB_PER_MIN = 1.0
LEFT_AFTER_S = 20.0  # what a call leaves at its end is gone within this
_RECOVERED_WITHIN_S = 20.0


@dataclass(slots=True)
class Soaked:
    """Seconds since the faults began, each with what was then; `back_s`: of each blackout, nan where it did not end."""

    minutes: float
    lag_ms: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    memory_mb: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    back_s: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    before: dict[str, int] = field(default_factory=dict[str, int])
    during: dict[str, int] = field(default_factory=dict[str, int])
    after: dict[str, int] = field(default_factory=dict[str, int])

    def lag_of(self, fifth: int) -> float:
        """Median lag of the first (0) … last (4) fifth, in ms."""
        span_s = 12 * self.minutes
        within = [lag for t, lag in self.lag_ms if fifth * span_s <= t < (fifth + 1) * span_s]
        return float(np.median(within)) if within else float("nan")

    @property
    def mb_per_min(self) -> float:
        """Of the server's memory, after a warm-up of a third, at most five minutes."""
        return slope_per_min(self.memory_mb, min(300.0, 20 * self.minutes))

    def verdicts(self) -> list[tuple[str, bool]]:
        """Each claim in words with its numbers, and whether it holds."""
        first, last = self.lag_of(0), self.lag_of(4)
        back = [seconds for _, seconds in self.back_s]
        worst = float(np.max(back)) if back else float("nan")  # nan where one never ended
        left = {k: f"{v} → {self.after.get(k)}" for k, v in self.before.items()}
        return [
            (f"delay: {first:.0f} ms at first, {last:.0f} ms at last", last <= first + GROWN_BY_MS),
            (
                f"recovery: {len(back)} blackouts, median {np.median(back) if back else float('nan'):.2f} s, "
                f"worst {worst:.2f} s",
                worst <= MOST_BACK_S,
            ),
            (f"memory: {self.mb_per_min:+.2f} MB a minute", self.mb_per_min < MOST_MB_PER_MIN),
            (
                f"left behind, of {', '.join(f'{k} {v}' for k, v in left.items())}",
                bool(self.after) and all(self.after[k] <= v for k, v in self.before.items()),
            ),
        ]


@contextmanager
def watched_server(avatar: Path, counts: Path) -> Generator[tuple[str, psutil.Process]]:
    """The address of a server that tells what runs in it, and its process."""
    command = [sys.executable, "-m", "scripts.measure.watched_server", str(counts)]
    command += ["serve", "--avatar", str(avatar), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield (
            process.stdout.readline().split()[-1].replace("localhost", "127.0.0.1"),
            psutil.Process(process.pid),
        )
    finally:
        process.terminate()
        process.wait(30)


async def a_call(network: str, clip: Path, options: argparse.Namespace) -> None:
    """A short one first: what a server keeps from its first call on is no leak."""
    offer: dict[str, object] = {"generator": options.generator, "size": options.size}
    async with aiortc_call(network, clip, offer):
        await asyncio.sleep(3)


async def soak(
    network: str, clip: Path, server: psutil.Process, counts: Path, options: argparse.Namespace
) -> Soaked:
    """The call. Raises what an unreachable server raises."""
    soaked = Soaked(options.minutes)
    await a_call(network, clip, options)
    await asyncio.sleep(LEFT_AFTER_S)
    soaked.before = await asyncio.to_thread(running_in, server, counts)
    offer: dict[str, object] = {"generator": options.generator, "size": options.size}
    async with aiortc_call(network, clip, offer) as client:
        await asyncio.sleep(5)
        await asyncio.to_thread(fetched, f"{network}/relay", "PUT", FAULTS)
        begin_s = time.monotonic()
        gauging = asyncio.create_task(gauge(soaked, client, server, begin_s))
        try:
            for minute in range(1, int(options.minutes) + 1):
                await asyncio.sleep(max(0.0, begin_s + 60 * minute - 30 - time.monotonic()))
                soaked.back_s.append((time.monotonic() - begin_s, await black_out(network, client)))
                print(f"minute {minute}: {told(soaked)}", flush=True)
            await asyncio.sleep(max(0.0, begin_s + 60 * options.minutes - time.monotonic()))
        finally:
            gauging.cancel()
        soaked.during = await asyncio.to_thread(running_in, server, counts)
    await asyncio.sleep(LEFT_AFTER_S)
    soaked.after = await asyncio.to_thread(running_in, server, counts)
    return soaked


async def gauge(soaked: Soaked, client: AiortcClient, server: psutil.Process, begin_s: float) -> None:
    """Once a second, until it is cancelled. What the client noted is thinned out: an hour of it is long."""
    while True:
        await asyncio.sleep(1.0)
        now_s, seen = time.monotonic(), client.watched
        ages = [age for at_s, age in seen.answers if at_s > now_s - 1]
        if ages:
            soaked.lag_ms.append((now_s - begin_s, float(np.median(ages))))
        soaked.memory_mb.append((now_s - begin_s, server.memory_info().rss / 1e6))
        del seen.answers[:-600], seen.pictures[:-600], seen.sounds[:-600]


async def black_out(network: str, client: AiortcClient) -> float:
    """Nothing passes for 2 s: how long after it the answers are to new pictures again."""
    await asyncio.to_thread(fetched, f"{network}/relay", "PUT", {"loss": 1.0})
    await asyncio.sleep(BLACKOUT_S)
    await asyncio.to_thread(fetched, f"{network}/relay", "PUT", FAULTS)
    over_s = time.monotonic()
    while time.monotonic() < over_s + _RECOVERED_WITHIN_S:
        await asyncio.sleep(0.02)
        back = back_after_s(over_s, client.watched.pictures, client.watched.answers)
        if back is not None:
            return back
    return float("nan")


def told(soaked: Soaked) -> str:
    """How it stands."""
    lag = soaked.lag_ms[-1][1] if soaked.lag_ms else float("nan")
    memory = soaked.memory_mb[-1][1] if soaked.memory_mb else float("nan")
    return f"back after {soaked.back_s[-1][1]:.2f} s, lag {lag:.0f} ms, memory {memory:.0f} MB"


def plot(soaked: Soaked, path: Path) -> None:
    """Delay, recovery and memory over the minutes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(3, 1, figsize=(9, 7), sharex=True, layout="constrained")
    panels = (
        (soaked.lag_ms, "delay, ms", "-"),
        (soaked.back_s, f"back after {BLACKOUT_S:g} s\nof blackout, s", "."),
        (soaked.memory_mb, "server's memory, MB", "-"),
    )
    for axis, (samples, label, style) in zip(axes, panels, strict=True):
        axis.plot([t / 60 for t, _ in samples], [v for _, v in samples], style, linewidth=0.8)
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[-1].set_xlabel("minutes of 5 % loss and 50 ms of jitter, each way")
    figure.savefig(path)
    pyplot.close(figure)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--generator", default="geometric")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--photo", type=Path, default=DEMO_PHOTO)
    parser.add_argument("--driver", type=Path, help="a video of a face, with sound if there is some")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plot", type=Path, help="where to draw it (.svg, .png)")
    return parser.parse_args(arguments)


def main() -> None:
    """Command line."""
    from streamer.webrtc import aiortc_fixes

    options = parse()
    aiortc_fixes.apply(offer_loopback=True)
    enrolled = enroll(options.photo)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip, avatar, counts = options.driver or folder / "driver.mp4", folder / "a.avatar", folder / "counts"
        if options.driver is None:
            make_clip(enrolled, clip, 6.0, demo_track().fps, 512)
        save_enrollment(enrolled, avatar)
        with (
            watched_server(avatar, counts) as (url, server),
            through_a_bad_network(url, options.seed) as network,
        ):
            soaked = asyncio.run(soak(network, clip, server, counts, options))
    if options.plot is not None:
        plot(soaked, options.plot)
    print(f"during the call: {', '.join(f'{v} {k}' for k, v in soaked.during.items())}")
    verdicts = soaked.verdicts()
    for claim, holds in verdicts:
        print(f"{'as it should be' if holds else 'NOT MET':<16} {claim}")
    sys.exit(0 if all(holds for _, holds in verdicts) else 1)


if __name__ == "__main__":
    main()
