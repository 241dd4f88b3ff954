"""Options that several commands share; their choices come from the families' `names`. Imports nothing slow."""

from __future__ import annotations

from collections.abc import Callable, Collection
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from engines.errors import VisavisError, no_such
from engines.generators.names import GENERATOR_NAMES
from engines.head.names import HEAD_MODEL_SETTING
from streamer.drive.trackers.names import TRACKER_NAMES
from streamer.places import avatar_file, input_file, output_file, path_of
from streamer.sinks.names import MOTION_TO_CHOICES, SINK_CHOICES, motion_target, sink_named
from streamer.sources.names import SOURCE_CHOICES, source_named

MIN_PX, MAX_PX = 64, 1024


def _one_of(what: str, names: Collection[str]) -> Callable[[str], str]:
    def check(name: str) -> str:
        if name not in names:
            raise VisavisError(no_such(what, name, names))
        return name

    return check


def _choice(what: str, names: Collection[str], text: str) -> Any:
    # no enumeration: what is refused is refused in the words of the family, whichever way it was named
    return typer.Option(metavar=f"[{'|'.join(names)}]", help=text, callback=_one_of(what, names))


def _background(text: str) -> str:
    return str(input_file(text)) if text.strip() else text


def _motion_to(text: str) -> str:
    motion_target(text)
    return text


GeneratorName = Annotated[str, _choice("generator", GENERATOR_NAMES, "Which generator draws.")]
TrackerName = Annotated[str, _choice("tracker", TRACKER_NAMES, "What follows the driver's face.")]
SourceName = Annotated[
    str, typer.Option("--from", metavar="SOURCE", help=f"{SOURCE_CHOICES}.", parser=source_named)
]
SinkName = Annotated[str, typer.Option("--to", metavar="SINK", help=f"{SINK_CHOICES}.", parser=sink_named)]
MotionTo = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help=f"Also send the driver's motion to another program: {MOTION_TO_CHOICES}.",
        parser=_motion_to,
    ),
]
AvatarFile = Annotated[
    Path,
    typer.Argument(
        help="An .avatar file, or the name of a kept one (`visavis avatars`).", parser=avatar_file
    ),
]
Side = Annotated[int, typer.Option(min=MIN_PX, max=MAX_PX, help="Side of the picture in pixels.")]
Height = Annotated[
    int | None,
    typer.Option(min=MIN_PX, max=MAX_PX, help="Height of the picture in pixels (default 512; 720 in 16:9)."),
]
PublishUrl = Annotated[
    str | None,
    typer.Option(
        envvar="VISAVIS_PUBLISH",
        metavar="URL",
        help="A WHIP server to push the avatar to: of several calls the oldest. Its token: VISAVIS_PUBLISH_TOKEN.",
    ),
]
PublishTokenFile = Annotated[
    Path | None,
    typer.Option(
        envvar="VISAVIS_PUBLISH_TOKEN_FILE", metavar="FILE", help="A file that holds that token instead."
    ),
]
HeadModelSpec = Annotated[
    str | None,
    typer.Option(
        envvar=HEAD_MODEL_SETTING,
        metavar="KIND:FILE",
        help="The head model to fit: ict:FILE, flame:FILE or bfm:FILE; visavis is its own.",
    ),
]
BackgroundText = Annotated[
    str,
    typer.Option(
        metavar="KEEP|SOFT|BLUR|TRANSPARENT|#RRGGBB|PICTURE",
        parser=_background,
        help="Behind the person: keep (the photo's own), soft (a little out of focus), blur, transparent, a colour, or "
        "a picture file.",
    ),
]
TrimMs = Annotated[
    float,
    typer.Option(
        min=-1000,
        max=1000,
        help="Sound this many ms later than the picture (−: earlier), in a file or --mic-to.",
    ),
]
MicTo = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Your voice as well, as late as the picture: a virtual microphone of this name (Linux makes it), or the "
        "input of a virtual cable.",
    ),
]
TraceFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Also write each frame's times here (.jsonl).", parser=output_file),
]

HeadMotion = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A motion file (.jsonl) that moves the head, repeated, while the driver moves the face.",
        parser=input_file,
    ),
]


class AspectChoice(StrEnum):
    """The picture's shape."""

    square = "1:1"
    wide = "16:9"


AspectName = Annotated[
    AspectChoice,
    typer.Option(help="Shape of the picture: 1:1, or 16:9 as calls have it; --size is its height."),
]


class FramingChoice(StrEnum):
    """What the picture shows."""

    head = "head"
    photo = "photo"


def head_model_file(spec: str | None) -> str | None:
    """The file that a KIND:FILE names, as typed; None where there is none."""
    return path_of((spec or "").partition(":")[2]) or None


def height_px(size: int | None, aspect: AspectChoice) -> int:
    """The picture's height in pixels, even: what was asked for, else what is usual for its shape."""
    return (size or (512 if aspect is AspectChoice.square else 720)) & ~1
