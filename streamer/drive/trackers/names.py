"""Which trackers there are; imports nothing, so that a command line may."""

from __future__ import annotations

TRACKER_NAMES = ("mediapipe", "regressor")
DEFAULT_TRACKER = "mediapipe"
TOLD = "told"  # follows no picture: others tell the motion; nobody chooses it
