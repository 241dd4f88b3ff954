"""The addresses of avatars: which there are, their pictures and files, saved settings, those kept on this computer."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Body, HTTPException
from fastapi.responses import Response
from pydantic import BaseModel, Field

from engines.enrollment import avatar_bytes, load_enrollment, renamed
from engines.errors import EnrollmentError
from engines.presets import preset_names
from engines.retarget import Controls
from streamer.drive.trackers.names import TRACKER_NAMES
from streamer.kept import KeptAvatars, KeptError, safe_name, shown_folder
from streamer.serve.errors import documented, no_longer
from streamer.serve.requests import StrictRoute
from streamer.serve.service import Served, Service
from streamer.serve.store import Entry, picture_of, write_controls

GONE = "this avatar is not on the server; choose another, or add its photo again"
ELSEWHERE = "avatars are kept only on the computer that the server runs on; download the file instead"
NOT_KEPT = "the server was started with this avatar: its file is changed where it lies"


class JpegResponse(Response):
    """A picture."""

    media_type = "image/jpeg"


class AvatarResponse(Response):
    """An `.avatar` file."""

    media_type = "application/octet-stream"


class Named(BaseModel):
    """What a kept avatar is to be called."""

    name: str = Field(min_length=1, max_length=80)


avatars = APIRouter(route_class=StrictRoute)


@avatars.get("/api/avatars", responses=documented())
async def list_avatars(service: Served) -> dict[str, object]:
    """What can be chosen: avatars, generators, trackers, emotions, and how calls look at first."""
    public, kept = service.store.public(), service.settings.kept
    return {
        "avatars": [{"name": n, "title": e.title, "kept": e.kept} for n, e in public],
        "generators": list(service.generators),
        "trackers": list(TRACKER_NAMES),
        "emotions": list(preset_names()),
        "default": public[0][0] if public else None,
        "look": {"background": service.look.background.mode, "aspect": service.look.aspect},
        "keep_in": shown_folder(kept.folder) if kept else None,
    }


@avatars.get("/api/avatars/{name}/picture", response_class=JpegResponse, responses=documented(404))
async def picture(name: str, service: Served) -> Response:
    """An avatar's face, JPEG."""
    return JpegResponse(picture_of(found(name, service).enrollment))


@avatars.put("/api/avatars/{name}/controls", responses=documented(404, 409, 411, 415, 422))
async def keep_controls(
    name: str, body: Annotated[dict[str, object], Body()], service: Served
) -> dict[str, object]:
    """Save how an avatar moves."""
    entry = found(name, service)
    controls = Controls.from_dict(body)
    in_file = await service.aside(lambda: write_controls(entry, controls))
    if not service.store.set_controls(name, controls):
        raise no_longer("avatar", GONE)
    return {"controls": controls.to_dict(), "kept": "file" if in_file else "memory"}


@avatars.delete("/api/avatars/{name}", status_code=204, responses=documented(404, 409))
async def delete(name: str, service: Served) -> Response:
    """Forget an upload; of an avatar kept on this computer, its file too."""
    entry = found(name, service)
    if entry.public:
        _, folder = _kept(name, service)
        await service.aside(lambda: _delete(folder, entry))
        service.store.remove_kept(name)
    else:
        service.store.remove_upload(name)
    # who deletes a face does not want it to be shown on, in OBS say
    for session in list(service.calls.sessions):
        if any(e.photo is entry.enrollment.photo for e in (session.enrollment, session.asked.enrollment)):
            session.end("its avatar was deleted")
    return Response(status_code=204)


@avatars.get("/api/avatars/{name}/file", response_class=AvatarResponse, responses=documented(404, 409, 503))
async def download(name: str, service: Served) -> Response:
    """The `.avatar` file of an upload, or of an avatar kept on this computer."""
    entry = found(name, service)
    if entry.public:
        _kept(name, service)
    title = safe_name(entry.title)
    data = await service.work.run(lambda _: avatar_bytes(renamed(entry.enrollment, title)))
    names = f"filename=\"avatar.avatar\"; filename*=UTF-8''{quote(title)}.avatar"
    return AvatarResponse(
        data, headers={"Content-Disposition": f"attachment; {names}", "Cache-Control": "no-store"}
    )


@avatars.post("/api/avatars/{name}/keep", status_code=201, responses=documented(404, 409, 411, 415, 422, 503))
async def keep(name: str, body: Annotated[Named, Body()], service: Served) -> dict[str, object]:
    """Keep an upload as a file on this computer; it is listed from now on, and after the next start."""
    entry, folder = found(name, service), service.settings.kept
    if folder is None:
        raise HTTPException(409, ELSEWHERE)
    if entry.public:
        raise HTTPException(409, "this avatar has a file already")

    def write(_: threading.Event) -> Path:
        called = renamed(entry.enrollment, safe_name(body.name))
        return folder.keep(called.name, avatar_bytes(called))

    file = await service.work.run(write)
    listed = service.store.add_public(renamed(entry.enrollment, file.stem), file, kept=True)
    return {"name": listed, "title": listed, "file": shown_folder(file)}


@avatars.patch("/api/avatars/{name}", responses=documented(404, 409, 411, 415, 422))
async def rename(name: str, body: Annotated[Named, Body()], service: Served) -> dict[str, object]:
    """Another name for an avatar that is kept on this computer, and for its file."""
    entry, folder = _kept(name, service)
    renamed_to = await service.aside(lambda: _rename(folder, entry, body.name))
    if service.store.get(name) is None:
        raise no_longer("avatar", GONE)
    new = service.store.rename_kept(name, renamed_to)
    return {"name": new, "title": new}


def found(name: str, service: Service) -> Entry:
    """The avatar called `name`. Raises HTTPException 404."""
    entry = service.store.get(name)
    if entry is None:
        raise no_longer("avatar", GONE)
    return entry


def _kept(name: str, service: Service) -> tuple[Entry, KeptAvatars]:
    """An avatar kept on this computer, and their folder. Raises HTTPException 404 or 409."""
    entry, folder = found(name, service), service.settings.kept
    if folder is None:
        raise HTTPException(409, ELSEWHERE)
    if not entry.kept or entry.file is None:
        raise HTTPException(409, NOT_KEPT)
    return entry, folder


def _delete(folder: KeptAvatars, entry: Entry) -> None:
    file = _file_of(folder, entry)
    if file is not None:  # else somebody has removed it already
        folder.delete(file.stem)


def _rename(folder: KeptAvatars, entry: Entry, new: str) -> Path:
    file = _file_of(folder, entry)
    if file is None:
        raise KeptError(f"the file of {entry.title!r} is gone; start the server again to see which are kept")
    return folder.rename(file.stem, new)


def _file_of(folder: KeptAvatars, entry: Entry) -> Path | None:
    """The file of a kept avatar; None for one that is gone. Raises KeptError where another has its name by now."""
    if entry.file is None or entry.file not in folder.files():  # not `find`, which takes a name alike
        return None
    try:
        stored = load_enrollment(entry.file)
    except EnrollmentError:
        return entry.file  # broken since
    if stored.photo_sha256 != entry.enrollment.photo_sha256:
        raise KeptError(
            f"the file of {entry.title!r} holds another photo by now; start the server again to see it"
        )
    return entry.file
