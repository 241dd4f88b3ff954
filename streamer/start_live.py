"""Putting a live run together: avatar file, source and sink by name, ledger, loop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from engines.enrollment import load_enrollment
from engines.errors import DriverError, SinkError
from engines.generator_names import DEFAULT_GENERATOR
from engines.renderer import Renderer
from engines.retarget import Controls
from streamer.avatar import Avatar
from streamer.clock import SystemClock
from streamer.driver import Driver
from streamer.ledger import Ledger, Snapshot
from streamer.live import LiveLoop, Outcome
from streamer.look import AS_IS, Look, require_opaque
from streamer.sinks.sink import open_sink
from streamer.sources.source import Source
from streamer.sources.video import VideoSource
from streamer.trackers import DEFAULT_TRACKER, make_tracker
from streamer.tuning import tune_for_small_pictures


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """What `visavis run` was asked for; `controls` come before those saved with the avatar."""

    avatar: Path
    source: str = "webcam"
    sink: str = "window"
    generator: str = DEFAULT_GENERATOR
    tracker: str = DEFAULT_TRACKER
    size_px: int = 512
    look: Look = AS_IS
    loop: bool = False
    seconds: float | None = None
    trace: Path | None = None
    controls: Mapping[str, object] = field(default_factory=dict[str, object])


def open_source(spec: str, *, loop: bool = False) -> Source:
    """`webcam`, `webcam:N` or a video file, played at its own pace."""
    kind, _, index = spec.partition(":")
    if kind == "webcam":
        from streamer.sources.webcam import WebcamSource

        if index and not index.isdigit():
            raise DriverError(f"{spec!r} is no camera; write webcam:N with a number from `visavis devices`")
        return WebcamSource(int(index or 0))
    return VideoSource(Path(spec), loop=loop, realtime=True)


def run_live(options: LiveOptions) -> tuple[Outcome, Snapshot]:
    """Run until the source ends, the window is closed, Ctrl-C, or `seconds` are over."""
    tune_for_small_pictures()
    clock = SystemClock()
    enrollment = load_enrollment(options.avatar)
    controls = Controls.from_dict(options.controls, enrollment.controls)
    _require_apart(options)
    background = options.look.background
    require_opaque(background, "what `visavis run` sends")
    with ExitStack() as stack:
        sink = stack.enter_context(open_sink(options.sink))
        source = stack.enter_context(open_source(options.source, loop=options.loop))
        ledger = stack.enter_context(Ledger(trace_path=options.trace))
        driver = Driver(make_tracker(options.tracker), on_fault=lambda error: ledger.fault("tracked", error))
        stack.callback(driver.close)
        renderer = Renderer(
            enrollment, generator=options.generator, size_px=options.size_px, background=background,
            aspect=options.look.aspect,
        )  # fmt: skip
        avatar = Avatar(
            enrollment, driver, controls=controls, clock=clock, on_fault=ledger.fault, renderer=renderer
        )
        steady = options.sink.partition(":")[0] in ("window", "virtualcam")
        loop = LiveLoop(source, avatar, sink, ledger=ledger, clock=clock, repeat=steady)
        timer = threading.Timer(options.seconds, loop.stop) if options.seconds else None
        if timer:
            timer.daemon = True
            timer.start()
        try:
            with _ctrl_c_calls(loop.stop):
                outcome = loop.run()
        finally:
            if timer:
                timer.cancel()
        return outcome, ledger.snapshot()


def _require_apart(options: LiveOptions) -> None:
    source, sink = Path(options.source), Path(options.sink)
    if source.is_file() and sink.exists() and sink.samefile(source):
        raise SinkError(f"{sink} is the driving video itself; choose another name with --to")


@contextmanager
def _ctrl_c_calls(stop: Callable[[], None]) -> Generator[None]:
    """The first Ctrl-C is the wish to stop: what was written is kept, whatever was being done. The second is not."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def wish(_: int, __: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # in a thread: this one may hold the very lock that `stop` takes
        threading.Thread(target=stop, name="stop").start()

    before = signal.signal(signal.SIGINT, wish)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
