"""What moves an avatar before anyone does: a recorded motion, looped without a jump."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

from engines.motion import Motion, MotionTrack, blend, read_motion

DATA = Path(__file__).parents[1] / "data"
DEMO_MOTION = DATA / "demo_motion.jsonl"
DEMO_PHOTO = DATA / "demo.jpg"
LOOP_FADE_S = 0.6


@cache
def demo_track() -> MotionTrack:
    """The recorded motion that ships."""
    return read_motion(DEMO_MOTION)


def looped(track: MotionTrack, time_s: float) -> Motion:
    """Motion at any time of an endless loop; the end fades into the start."""
    length = max(track.duration_s - LOOP_FADE_S, 1 / track.fps)
    t = time_s % length
    motion = track.at(t)
    if time_s >= length and t < LOOP_FADE_S:
        weight = t / LOOP_FADE_S
        motion = blend(track.at(length + t), motion, weight * weight * (3 - 2 * weight))
    return replace(motion, time_s=time_s)
