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
from engines.errors import SinkError
from engines.generators.names import DEFAULT_GENERATOR
from engines.renderer import Renderer
from engines.retarget import Controls
from streamer.avatar import Avatar
from streamer.clock import SystemClock
from streamer.drive.open import open_driver
from streamer.drive.trackers.names import DEFAULT_TRACKER
from streamer.latency.ledger import Ledger, Snapshot
from streamer.live import LiveLoop, Outcome
from streamer.look import AS_IS, Look, require_opaque
from streamer.sinks.open import open_sink
from streamer.sources.heard import HeardSource, latency_text
from streamer.sources.open import open_source
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
    trim_ms: float = 0.0  # in a file the sound comes this much later than the picture; below 0, earlier
    controls: Mapping[str, object] = field(default_factory=dict[str, object])


def run_live(options: LiveOptions, say: Callable[[str], None] | None = None) -> tuple[Outcome, Snapshot]:
    """Run until the source ends, the window is closed, Ctrl-C, or `seconds` are over.

    `say`: told at once what the user may want to know meanwhile; what it was told is not in the outcome's notice.
    """
    tune_for_small_pictures()
    clock = SystemClock()
    enrollment = load_enrollment(options.avatar)
    controls = Controls.from_dict(options.controls, enrollment.controls)
    _require_apart(options)
    background = options.look.background
    require_opaque(background, "what `visavis run` sends")
    with ExitStack() as stack:
        source_path = Path(options.source)
        # a repeated file has no one time at which its sound would belong
        audio_from = source_path if source_path.is_file() and not options.loop else None
        sink = stack.enter_context(
            open_sink(options.sink, audio_from=audio_from, audio_delay_s=options.trim_ms / 1e3)
        )
        source = stack.enter_context(open_source(options.source, loop=options.loop))
        ledger = stack.enter_context(Ledger(trace_path=options.trace))
        tracker = options.tracker if source.info.size_px else None
        driver = open_driver(tracker, lambda error: ledger.fault("tracked", error))
        stack.callback(driver.close)
        renderer = Renderer(
            enrollment, generator=options.generator, size_px=options.size_px, background=background,
            aspect=options.look.aspect,
        )  # fmt: skip
        avatar = Avatar(
            enrollment, driver, controls=controls, clock=clock, on_fault=ledger.fault, renderer=renderer
        )
        steady = options.sink.partition(":")[0] in ("window", "virtualcam")
        loop = LiveLoop(source, avatar, sink, ledger=ledger, clock=clock, repeat=steady, say=say)
        if say and isinstance(source, HeardSource):
            say(latency_text(source))
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
