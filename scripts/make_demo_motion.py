"""Join recorded motions into one demo track: each retargeted to a common rest, ends faded into each other.

python scripts/make_demo_motion.py A.jsonl B.jsonl -o streamer/data/demo_motion.jsonl
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from engines.motion import Motion, MotionTrack, blend, read_motion, write_motion
from engines.retarget import Controls, retarget

FADE_FRAMES = 15


def common(track: MotionTrack) -> list[Motion]:
    """The track's motion around the default rest."""
    rest = track.neutral or track.motions[0]
    return [retarget(m, rest, Motion(), Controls()) for m in track.motions]


def join(parts: Sequence[Sequence[Motion]], fps: float) -> list[Motion]:
    """The parts in order, overlapping by `FADE_FRAMES`."""
    out = list(parts[0])
    for part in parts[1:]:
        tail = out[-FADE_FRAMES:]
        fade = [
            blend(a, b, (i + 1) / (FADE_FRAMES + 1)) for i, (a, b) in enumerate(zip(tail, part, strict=False))
        ]
        out = [*out[:-FADE_FRAMES], *fade, *part[FADE_FRAMES:]]
    return [replace(m, time_s=i / fps) for i, m in enumerate(out)]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    tracks = [read_motion(path) for path in arguments.parts]
    if len({round(t.fps, 2) for t in tracks}) > 1:
        parser.error("the parts have different frame rates; record them from clips of one rate")
    fps = tracks[0].fps
    motions = join([common(t) for t in tracks], fps)
    write_motion(arguments.output, motions, fps, Motion())
    print(f"{arguments.output}: {len(motions)} frames, {len(motions) / fps:.1f} s")


if __name__ == "__main__":
    main()
