"""The server's avatars: those it was given, and uploads that only their uploader can name. Memory only."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass

import cv2
import numpy as np

from engines.enrollment import Enrollment, renamed
from engines.head import head_viewport
from engines.resample import resample

PICTURE_PX = 256


@dataclass(frozen=True, slots=True)
class Entry:
    """An avatar on the server; `public` ones are listed."""

    enrollment: Enrollment
    title: str
    public: bool


class AvatarStore:
    """Name → avatar. Uploads beyond `max_uploads` push out the oldest one. Event-loop only."""

    def __init__(self, max_uploads: int = 32) -> None:
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._max_uploads = max_uploads

    def add_public(self, enrollment: Enrollment) -> str:
        """List an avatar that the server was given; its name is made unique."""
        name, count = enrollment.name, 1
        while name in self._entries:
            count += 1
            name = f"{enrollment.name}-{count}"
        self._entries[name] = Entry(renamed(enrollment, name), name, public=True)
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


def picture_of(enrollment: Enrollment) -> bytes:
    """JPEG of the head crop."""
    viewport = head_viewport(enrollment, PICTURE_PX)
    image = resample(enrollment.photo, viewport, 0, (PICTURE_PX, PICTURE_PX))
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])
    assert done
    return np.asarray(data).tobytes()
