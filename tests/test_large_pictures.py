"""A camera with too large a picture: the page is told, nothing of it is decoded, and a smaller one is welcome."""

# pyright: reportPrivateUsage=none, reportAttributeAccessIssue=none

from __future__ import annotations

import asyncio
from typing import Any

import av
import numpy as np
import pytest
from calls import Camera, Client, Painter, only_loopback, plain_enrollment, until
from hearing import EchoSpeech

from streamer.webrtc import aiortc_fixes, hearing
from streamer.webrtc.call_options import CallOptions
from streamer.webrtc.media import video_frame_of
from streamer.webrtc.reception import Reception, reception_of
from streamer.webrtc.session import Session


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    aiortc_fixes.apply()
    only_loopback(monkeypatch)
    monkeypatch.setattr(hearing, "shared_speech", lambda: EchoSpeech())


class LargeCamera(Camera):
    """Numbered pictures that come large while `is_large`, as those of a client that no server can hold back."""

    is_large = True

    def __init__(self) -> None:
        super().__init__()
        self.large = np.zeros((1440, 2560, 3), np.uint8)

    async def recv(self) -> av.VideoFrame:
        frame = await super().recv()
        if not self.is_large:
            return frame
        await asyncio.sleep(0.1)
        return video_frame_of(self.large, frame.pts or 0)


def of_video(call: Session) -> Reception:
    receiver: Any = next(t.receiver for t in call._peer._pc.getTransceivers() if t.kind == "video")
    reception = reception_of(receiver)
    assert reception is not None
    return reception


async def test_the_page_is_told_and_a_smaller_picture_is_taken() -> None:
    call = Session(plain_enrollment(), CallOptions(), make_avatar=Painter)  # type: ignore[arg-type]
    camera = LargeCamera()
    client = Client(camera)
    try:
        await client.accept(await call.answer(await client.offer()))
        await until(lambda: client.of_type("notice"), "the notice")
        assert (
            "is too large for a call; choose one of at most 1920 × 1200"
            in client.of_type("notice")[0]["text"]
        )
        assert of_video(call).buffer is None, "not a packet of it was kept"
        assert call._worker is not None
        assert call._worker.camera_size_px is None, "no picture of it was ever decoded"
        camera.is_large = False
        taken = len(camera.sent_s)
        await until(
            lambda: client.frames and client.frames[-1].number >= taken, "an answer to a small picture"
        )
        assert len(client.of_type("notice")) == 1
    finally:
        await client.close()
        await call.close()


@pytest.mark.parametrize("drive", ["voice", "demo"])
async def test_a_camera_that_nobody_asked_for_is_not_decoded(drive: Any) -> None:
    """aiortc would decode it and keep every picture for whoever may ask: 14 MB a second."""
    call = Session(plain_enrollment(), CallOptions(drive=drive), make_avatar=Painter)  # type: ignore[arg-type]
    client = Client(Camera(), audio=True)
    try:
        await client.accept(await call.answer(await client.offer()))
        receiver: Any = next(t.receiver for t in call._peer._pc.getTransceivers() if t.kind == "video")
        reception = of_video(call)
        await until(lambda: reception._arrived_ms > 0, "a packet of the camera")
        await until(lambda: client.audio_frames >= 20, "sound")
        assert receiver.track._queue.qsize() == 0
        assert reception.buffer is None
    finally:
        await client.close()
        await call.close()
