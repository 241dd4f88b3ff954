"""The server's avatars: those it was given, and uploads that only their uploader can name.

In memory; the one thing that goes to a disk is an avatar's controls, into the file that the avatar came from.
"""

from __future__ import annotations

import logging
import secrets
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from engines.enrollment import Enrollment, load_enrollment, renamed, save_enrollment
from engines.errors import EnrollmentError, VisavisError
from engines.picture.background import Background
from engines.raster.pose import head_viewport
from engines.raster.resample import resample
from engines.retarget import Controls

logger = logging.getLogger(__name__)

PICTURE_PX = 256
BACKGROUND_PREFIX = "b-"


class StoreError(VisavisError):
    """Controls could not be written into their avatar's file."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An avatar on the server; `public` ones are listed. `file` is where it came from, if from a file."""

    enrollment: Enrollment
    title: str
    public: bool
    file: Path | None = None


class AvatarStore:
    """Name → avatar. Uploads beyond `max_uploads` push out the oldest one. Event-loop only."""

    def __init__(self, max_uploads: int = 32) -> None:
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._max_uploads = max_uploads

    def add_public(self, enrollment: Enrollment, file: Path | None = None) -> str:
        """List an avatar that the server was given (from `file`, if from one); its name is made unique."""
        name, count = enrollment.name, 1
        while name in self._entries:
            count += 1
            name = f"{enrollment.name}-{count}"
        self._entries[name] = Entry(renamed(enrollment, name), name, public=True, file=file)
        return name

    def add_upload(self, enrollment: Enrollment, title: str) -> str:
        """Keep an upload under an unguessable name."""
        uploads = [n for n, e in self._entries.items() if not e.public]
        for name in uploads[: max(0, len(uploads) + 1 - self._max_uploads)]:
            del self._entries[name]
        name = "u-" + secrets.token_urlsafe(16)
        self._entries[name] = Entry(renamed(enrollment, name), title, public=False)
        return name

    def get(self, name: str) -> Entry | None:
        """The avatar called `name`, or None."""
        return self._entries.get(name)

    def set_controls(self, name: str, controls: Controls) -> bool:
        """Keep `controls` with the avatar for the calls to come; False when there is none of that name."""
        entry = self._entries.get(name)
        if entry is None:
            return False
        self._entries[name] = replace(entry, enrollment=replace(entry.enrollment, controls=controls))
        return True

    def remove_upload(self, name: str) -> bool:
        """Forget an upload; False when there is none of that name (public avatars stay)."""
        entry = self._entries.get(name)
        if entry is None or entry.public:
            return False
        del self._entries[name]
        return True

    def public(self) -> list[tuple[str, Entry]]:
        """The listed avatars in the order they were added."""
        return [(n, e) for n, e in self._entries.items() if e.public]


class BackgroundStore:
    """Background pictures that pages sent, under unguessable names, in memory; the oldest goes. Event-loop only."""

    def __init__(self, max_pictures: int = 16) -> None:
        self._pictures: OrderedDict[str, Background] = OrderedDict()
        self._max_pictures = max_pictures

    def add(self, background: Background) -> str:
        """Keep it; its name."""
        while len(self._pictures) >= self._max_pictures:
            self._pictures.popitem(last=False)
        name = BACKGROUND_PREFIX + secrets.token_urlsafe(16)
        self._pictures[name] = background
        return name

    def get(self, name: str) -> Background | None:
        """The picture called `name`, or None."""
        return self._pictures.get(name)


def write_controls(entry: Entry, controls: Controls) -> bool:
    """Save `controls` into the file that the avatar came from; False when it came from none. Blocks.

    Raises StoreError when the file cannot be read or written, or holds another photo by now.
    """
    if entry.file is None:
        return False
    # through a link: the file itself is replaced, not the link
    path = entry.file.resolve()
    try:
        stored = load_enrollment(path)
        if stored.photo_sha256 != entry.enrollment.photo_sha256:
            raise StoreError(
                f"the file of {entry.title!r} holds another photo by now; start the server again to use it"
            )
        save_enrollment(replace(stored, controls=controls), path)
    except (EnrollmentError, OSError) as error:
        # the error names the place on the server's disk: that is for the log, not for a page
        logger.warning("the controls of %r were not written: %s", entry.title, error)
        raise StoreError(
            f"the file of {entry.title!r} cannot be written; see the server's log, and start it where the file "
            "may be changed"
        ) from error
    return True


def picture_of(enrollment: Enrollment) -> bytes:
    """JPEG of the head crop."""
    viewport = head_viewport(enrollment, PICTURE_PX)
    image = resample(enrollment.photo, viewport, 0, (PICTURE_PX, PICTURE_PX))
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])
    assert done
    return np.asarray(data).tobytes()
