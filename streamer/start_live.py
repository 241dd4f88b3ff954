"""Putting a live run together: source and sink by name, avatar, ledger, loop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from engines.ending import end_at_once, told_to_end
from engines.enrollment import Enrollment
from engines.files import require_apart
from streamer.avatar import Avatar
from streamer.clock import SystemClock
from streamer.curtain import Curtain, Scene
from streamer.drive.open import open_driver
from streamer.drive.trackers.names import TOLD
from streamer.latency.account import Account
from streamer.latency.ledger import Ledger, Snapshot
from streamer.latency.minute import log_every_s, say_each
from streamer.live import LiveLoop, Outcome
from streamer.look import require_opaque
from streamer.options import AvatarOptions
from streamer.sinks.motion_sender import MotionSender
from streamer.sinks.names import DEFAULT_SINK, SINK_NAMES, motion_target
from streamer.sinks.open import open_sink
from streamer.sound.devices import SoundError
from streamer.sound.virtual_microphone import VirtualMicrophone, open_virtual_microphone
from streamer.sources.heard import HeardSource, latency_text
from streamer.sources.names import DEFAULT_SOURCE
from streamer.sources.open import open_source
from streamer.tell import listening
from streamer.tuning import tune_for_small_pictures


@dataclass(frozen=True, slots=True)
class LiveOptions(AvatarOptions):
    """What `visavis run` was asked for; `mic_to`: a virtual microphone. `trim_ms` is for its sound, and a file's.

    `motion_to`: where the driver's motion goes too, as `motion_target` reads it.
    """

    source: str = DEFAULT_SOURCE
    sink: str = DEFAULT_SINK
    loop: bool = False
    seconds: float | None = None
    trace: Path | None = None
    motion_to: str | None = None
    mic_to: str | None = None


def curtain_of(
    avatar: Avatar, sound: VirtualMicrophone | None, act: Mapping[str, Callable[[], None]]
) -> Curtain:
    """What `visavis tell` does to a run."""
    spoken = avatar.controls

    def on_scene(scene: Scene) -> None:
        avatar.controls = replace(spoken, lips=0.0) if scene.muted else spoken
        if sound is not None:
            sound.muted = scene.muted

    return Curtain(lambda: avatar.still, on_scene=on_scene, act=act)


def run_live(
    enrollment: Enrollment, options: LiveOptions, say: Callable[[str], None] | None = None
) -> tuple[Outcome, Snapshot]:
    """Run until the source ends, the window is closed, Ctrl-C, or `seconds` are over.

    `say`: told at once what the user may want to know meanwhile; what it was told is not in the outcome's notice.
    """
    every_s = log_every_s()
    tune_for_small_pictures()
    clock = SystemClock()
    require_apart({"--to": options.sink, "--trace": options.trace}, {"the driving video": options.source})
    if options.mic_to is not None and Path(options.source).is_file():
        raise SoundError(
            "--mic-to is for your voice beside a camera or a microphone; a file's sound goes into a file (--to FILE)"
        )
    require_opaque(options.look.background, "what `visavis run` sends")
    with ExitStack() as stack:
        source_path = Path(options.source)
        # a repeated file has no one time at which its sound would belong
        audio_from = source_path if source_path.is_file() and not options.loop else None
        sink = stack.enter_context(
            open_sink(options.sink, audio_from=audio_from, audio_delay_s=options.trim_ms / 1e3)
        )
        source = stack.enter_context(open_source(options.source, loop=options.loop))
        sound = None
        if options.mic_to is not None:
            sound = open_virtual_microphone(options.mic_to, trim_s=options.trim_ms / 1e3)
            stack.enter_context(sound)
        account = Account()
        ledger = stack.enter_context(Ledger(trace_path=options.trace, metrics=account))
        tracker = TOLD if source.info.tells_motion else options.tracker if source.info.size_px else None
        on_drive = None
        if options.motion_to is not None:
            on_drive = stack.enter_context(MotionSender(motion_target(options.motion_to), clock=clock)).send
        driver = open_driver(tracker, lambda error: ledger.fault("tracked", error), on_drive=on_drive)
        stack.callback(driver.close)
        avatar = Avatar(enrollment, driver, options, clock=clock, on_fault=ledger.fault)
        steady = options.sink.partition(":")[0] in SINK_NAMES
        act = {"recalibrate": driver.recalibrate}
        curtain = curtain_of(avatar, sound, act)
        loop = LiveLoop(
            source, avatar, sink, ledger=ledger, clock=clock, repeat=steady, say=say, sound=sound, curtain=curtain
        )  # fmt: skip
        act["quit"] = loop.stop
        stack.enter_context(listening(curtain.obey))
        if say and isinstance(source, HeardSource):
            say(latency_text(source))
        timer = threading.Timer(options.seconds, loop.stop) if options.seconds else None
        if timer:
            timer.daemon = True
            timer.start()
        if say:
            ended = threading.Event()
            stack.callback(ended.set)
            arguments = (every_s, account, say, ended.wait)
            threading.Thread(target=say_each, args=arguments, name="minute", daemon=True).start()
        # in a thread: the one that is told may hold the very lock that `stop` takes
        stop = threading.Thread(target=loop.stop, name="stop")
        try:
            # the first is the wish to stop: what was written is kept
            with told_to_end(stop.start) as told:
                outcome = loop.run()
        finally:
            if timer:
                timer.cancel()
        if told and not outcome.frames and not steady:
            if say:
                say("stopped before the first picture; nothing was recorded")
            end_at_once(told[0])
        return outcome, ledger.snapshot()
