"""`Curtain`: what of a live run others see and hear just now: the avatar, a frozen or still picture, the real camera.

Pure but for one lock: told by any thread, asked by those of the loop. Each command again takes itself back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engines.errors import VisavisError, no_such
from streamer.commands import COMMANDS
from streamer.frame import Frame, Moment
from streamer.sinks.sink import fit_picture

U8 = NDArray[np.uint8]
Shows = Literal["avatar", "freeze", "still", "camera"]

_SAID: Mapping[Shows, str] = {
    "avatar": "the avatar is live",
    "freeze": "the picture is frozen",
    "still": "a still picture is shown",
    "camera": "your camera is shown",
}


@dataclass(frozen=True, slots=True)
class Scene:
    """What is shown, and whether the mouth is muted."""

    shows: Shows = "avatar"
    muted: bool = False

    def after(self, command: str) -> Scene:
        """With one more command; those that are not about the picture change nothing."""
        if command == "avatar":
            return Scene()
        if command == "mute":
            return replace(self, muted=not self.muted)
        if command in ("freeze", "still", "camera"):
            return replace(self, shows="avatar" if self.shows == command else command)
        return self

    def __str__(self) -> str:
        return _SAID[self.shows] + (", its mouth muted" if self.muted else "")


class Curtain:
    """`still`: the avatar at rest. `on_scene` is told of each change, by the thread that commands; `act` does what
    commands ask beside it, by name."""

    def __init__(
        self,
        still: Callable[[], U8],
        *,
        on_scene: Callable[[Scene], None] = lambda _: None,
        act: Mapping[str, Callable[[], None]] | None = None,
    ) -> None:
        self._still = still
        self._on_scene = on_scene
        self._act = act or {}
        self._lock = threading.Lock()
        self._scene = Scene()
        self._camera: U8 | None = None

    @property
    def scene(self) -> Scene:
        """What is shown now."""
        return self._scene

    def obey(self, command: str) -> str:
        """Do it; a sentence that says what is so now. Raises VisavisError for a command that there is not."""
        if command not in COMMANDS:
            raise VisavisError(no_such("command", command, COMMANDS))
        with self._lock:
            self._scene = scene = self._scene.after(command)
            self._on_scene(scene)
        if command in self._act:
            self._act[command]()
        return {"recalibrate": "your calm face is taken anew", "quit": "the run ends"}.get(
            command, str(scene)
        )

    def captured(self, moment: Moment) -> None:
        """The camera's newest picture; a moment of sound has none."""
        if isinstance(moment, Frame):
            self._camera = moment.image

    def chosen(self, picture: Frame | None) -> Frame | None:
        """What leaves in the place of the avatar's newest `picture`: None is the last one again."""
        shows = self._scene.shows
        if picture is None or shows == "avatar":
            return picture
        if shows == "freeze":
            return None
        height, width = picture.image.shape[:2]
        # where there is no camera to show, nothing is shown that was not asked for
        image = self._camera if shows == "camera" and self._camera is not None else self._still()
        return replace(picture, image=fit_picture(image[..., :3], width, height))
