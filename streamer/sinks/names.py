"""How a user names a sink; imports nothing, so that a command line may."""

from __future__ import annotations

SINK_NAMES = ("window", "virtualcam")  # any other name is a file's
SINK_CHOICES = "window, virtualcam, virtualcam:NAME, or a file name that ends in .mp4"
DEFAULT_SINK = "window"
