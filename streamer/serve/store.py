"""The server's avatars: those it was given, and uploads that only their uploader can name.

In memory; the one thing that goes to a disk is an avatar's controls, into the file that the avatar came from.
"""

from __future__ import annotations

import logging
import re
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
# as `secrets.token_urlsafe(16)` makes them
_UPLOAD_NAME = re.compile(r"u-[A-Za-z0-9_-]{22}")
_BACKGROUND_NAME = re.compile(r"b-[A-Za-z0-9_-]{22}")


class StoreError(VisavisError):
    """Controls could not be written into their avatar's file."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An avatar on the server; `public` ones are listed. `file` is where it came from, if from a file.

    `kept`: its file lies in the folder of kept avatars, and the page may rename and delete it.
    """

    enrollment: Enrollment
    title: str
    public: bool
    file: Path | None = None
    kept: bool = False


class AvatarStore:
    """Name → avatar. Uploads beyond `max_uploads` push out the oldest one. Event-loop only."""

    def __init__(self, max_uploads: int = 32) -> None:
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._max_uploads = max_uploads

    def add_public(self, enrollment: Enrollment, file: Path | None = None, *, kept: bool = False) -> str:
        """List an avatar that the server was given (from `file`, if from one); its name is made unique."""
        name = self._free(enrollment.name)
        self._entries[name] = Entry(renamed(enrollment, name), name, public=True, file=file, kept=kept)
        return name

    def rename_kept(self, name: str, file: Path) -> str:
        """The new name of a kept avatar whose file is now `file`; its place in the list stays."""
        entry = self._entries[name]
        new = name if name == file.stem else self._free(file.stem)
        changed = replace(entry, enrollment=renamed(entry.enrollment, new), title=new, file=file)
        self._entries = OrderedDict((new, changed) if n == name else (n, e) for n, e in self._entries.items())
        return new

    def _free(self, wanted: str) -> str:
        name, count = wanted, 1
        while name in self._entries:
            count += 1
            name = f"{wanted}-{count}"
        return name

    def add_upload(self, enrollment: Enrollment, title: str, again: str | None = None) -> str:
        """Keep an upload under an unguessable name.

        `again`: the name that the same photo had before the server lost it. It is given once more unless somebody
        else's photo has it, so that what names the avatar (a link in OBS, settings) goes on meaning it.
        """
        if again is not None and _UPLOAD_NAME.fullmatch(again):
            there = self._entries.get(again)
            if there is not None and there.enrollment.photo_sha256 == enrollment.photo_sha256:
                return again
            again = None if there is not None else again
        else:
            again = None
        uploads = [n for n, e in self._entries.items() if not e.public]
        for name in uploads[: max(0, len(uploads) + 1 - self._max_uploads)]:
            del self._entries[name]
        name = again or "u-" + secrets.token_urlsafe(16)
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

    def remove_kept(self, name: str) -> None:
        """List a kept avatar no longer; the upload that it was kept from goes too."""
        gone = self._entries.pop(name, None)
        for other, entry in list(self._entries.items()):
            if gone is not None and not entry.public and entry.enrollment.photo is gone.enrollment.photo:
                del self._entries[other]

    def public(self) -> list[tuple[str, Entry]]:
        """The listed avatars in the order they were added."""
        return [(n, e) for n, e in self._entries.items() if e.public]


class BackgroundStore:
    """Background pictures that pages sent, under unguessable names, in memory; the oldest goes. Event-loop only."""

    def __init__(self, max_pictures: int = 16) -> None:
        self._pictures: OrderedDict[str, Background] = OrderedDict()
        self._max_pictures = max_pictures

    def add(self, background: Background, again: str | None = None) -> str:
        """Keep it; its name: `again`, which it had before the server lost it, where that is one and free."""
        while len(self._pictures) >= self._max_pictures:
            self._pictures.popitem(last=False)
        name = BACKGROUND_PREFIX + secrets.token_urlsafe(16)
        if again is not None and _BACKGROUND_NAME.fullmatch(again) and again not in self._pictures:
            name = again
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
