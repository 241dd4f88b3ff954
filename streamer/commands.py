"""What a running `visavis run` can be told; imports nothing slow."""

from __future__ import annotations

from collections.abc import Mapping

# in the order in which they are told of
COMMANDS: Mapping[str, str] = {
    "recalibrate": "take your calm face again as the starting point",
    "freeze": "hold the last picture; again: go on",
    "still": "hide behind the avatar's still picture; again: go on",
    "camera": "show your real camera; again: the avatar",
    "mute": "close the avatar's mouth and silence --mic-to; again: speak",
    "avatar": "the avatar, live and speaking, whatever was told before",
    "quit": "end the run",
}
