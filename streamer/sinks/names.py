"""How a user names a sink; imports nothing slow, so that a command line may."""

from __future__ import annotations

from engines.errors import SinkError
from streamer.places import camera_number, is_address, output_file

SINK_NAMES = ("window", "virtualcam")  # any other name is a file's
SINK_CHOICES = "window, virtualcam, virtualcam:NAME, or a file name that ends in .mp4"
DEFAULT_SINK = "window"


def sink_named(spec: str) -> str:
    """`spec` as `open_sink` takes it: a sink's name as it is, else the path of a file.

    Raises SinkError for nothing, a device or an address, naming what to write instead.
    """
    if not spec.strip():
        raise SinkError(f"no output was named; choose {SINK_CHOICES}")
    if spec.partition(":")[0] in SINK_NAMES:
        return spec
    if camera_number(spec) is not None:
        raise SinkError(f"{spec} is a camera; write virtualcam:{spec}")
    if is_address(spec):
        raise SinkError(
            f"{spec} is an address, and there are no network outputs: write virtualcam and send that with OBS"
        )
    return str(output_file(spec))
