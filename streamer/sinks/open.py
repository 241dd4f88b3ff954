"""`open_sink`: a sink by its name. A new one stands here and in `names`, and can be chosen everywhere."""

from __future__ import annotations

from pathlib import Path

from streamer.sinks.names import sink_named
from streamer.sinks.sink import Sink


def open_sink(
    spec: str,
    *,
    audio_from: Path | None = None,
    audio_delay_s: float = 0.0,
    alpha: bool = False,
    crf: int = 18,
) -> Sink:
    """The sink that `spec` names: `window`, `virtualcam`, `virtualcam:NAME` or a file; not yet opened.

    `audio_from`, `audio_delay_s`, `alpha` and `crf` concern files only. Raises SinkError naming the choices, or
    the fix for a file name that cannot work, before any work is done.
    """
    # Each kind brings its own heavy or optional library: load the one that is wanted.
    spec = sink_named(spec)
    if spec == "window":
        from streamer.sinks.window import WindowSink

        return WindowSink()
    kind, _, name = spec.partition(":")
    if kind == "virtualcam":
        from streamer.sinks.virtualcam import VirtualCameraSink

        return VirtualCameraSink(name or None)
    from streamer.sinks.file import FileSink

    return FileSink(Path(spec), audio_from=audio_from, audio_delay_s=audio_delay_s, alpha=alpha, crf=crf)
