"""Driving clips without any recorded person: the enrolled astronaut, moved by the demo motion."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from engines.enrollment import Enrollment
from engines.motion import Motion
from engines.renderer import Framing, Renderer
from engines.retarget import Controls, retarget
from streamer.drive.demo import demo_track, looped

U8 = NDArray[np.uint8]
DemoClip = Callable[..., Path]  # the fixture `demo_clip`


def motions_at(astronaut: Enrollment, times_s: list[float]) -> list[Motion]:
    """The demo motion, told in the astronaut's own photo."""
    rest = demo_track().neutral or Motion()
    return [retarget(looped(demo_track(), t), rest, astronaut.motion, Controls()) for t in times_s]


def render(
    astronaut: Enrollment, times_s: list[float], size_px: int = 512, framing: Framing = "head"
) -> Iterator[U8]:
    """Pictures (size, size, 3) of the demo motion at `times_s`."""
    renderer = Renderer(astronaut, generator="geometric", framing=framing, size_px=size_px)
    for motion in motions_at(astronaut, times_s):
        yield renderer.render(motion)


def pictures_of(path: Path) -> list[U8]:
    """All frames (H, W, 3) RGB."""
    with av.open(str(path)) as container:
        return [np.asarray(f.to_ndarray(format="rgb24"), np.uint8) for f in container.decode(video=0)]


def times_of(path: Path) -> list[float]:
    """When each frame is shown, in seconds."""
    with av.open(str(path)) as container:
        return [float(f.time) for f in container.decode(video=0)]


def length_s(path: Path, kind: str = "video") -> float:
    """The length of the first track of `kind`."""
    with av.open(str(path)) as container:
        stream = next(s for s in container.streams if s.type == kind)
        assert stream.duration is not None
        assert stream.time_base is not None
        return float(stream.duration * stream.time_base)


def sound_of(path: Path, rate_hz: int = 48000) -> NDArray[np.float32]:
    """(N,) float32: the first audio track from media time 0."""
    pieces: list[NDArray[np.float32]] = []
    first_s: float | None = None
    with av.open(str(path)) as container:
        resampler = av.AudioResampler("fltp", "mono", rate_hz)
        for frame in container.decode(audio=0):
            if first_s is None:
                first_s = float(frame.time or 0.0)
            pieces += [np.asarray(f.to_ndarray()[0], np.float32) for f in resampler.resample(frame)]
    lead = round((first_s or 0.0) * rate_hz)
    joined = np.concatenate(pieces)
    return joined[-lead:] if lead < 0 else np.concatenate([np.zeros(lead, np.float32), joined])


def onset_s(sound: NDArray[np.float32], rate_hz: int = 48000) -> float:
    """When it first becomes loud."""
    loud = np.abs(sound) > 0.2
    assert loud.any(), "nothing is heard"
    return float(np.argmax(loud)) / rate_hz
