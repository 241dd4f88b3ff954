"""Steps of `virtual_camera_vm.sh`: draw an avatar's pictures, send them to a virtual camera, see it in Chromium."""

from __future__ import annotations

import argparse
import http.server
import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]

WIDTH_PX, HEIGHT_PX, FPS = 640, 360, 20.0
PICTURES = 40
LOOK_S = 10.0
PATIENCE_MS = 300_000.0
LABEL = "visavis"
_SMALL_PX = (64, 36)
_SAME = (
    12.0  # of 255, mean: the camera's YUV and a reduction of ten lie between what is sent and what is seen
)

_PAGE = b"<!doctype html><video id=v autoplay muted playsinline></video>"
_LOOK = """async ([label, seconds, width, height]) => {
  await navigator.mediaDevices.getUserMedia({ video: true }).then(s => s.getTracks().forEach(t => t.stop()), () => 0);
  const cameras = (await navigator.mediaDevices.enumerateDevices()).filter(d => d.kind === "videoinput");
  const camera = cameras.find(d => d.label.includes(label));
  if (!camera) return { cameras: cameras.map(d => d.label) };
  const stream = await navigator.mediaDevices.getUserMedia({ video: { deviceId: { exact: camera.deviceId } } });
  const [track] = stream.getVideoTracks();
  v.srcObject = stream;
  let shown = 0;
  const count = () => { shown += 1; v.requestVideoFrameCallback(count); };
  v.requestVideoFrameCallback(count);
  while (shown < 10) await new Promise(r => setTimeout(r, 100));
  const before = { shown, given: track.stats?.deliveredFrames, at: performance.now() };
  await new Promise(r => setTimeout(r, 1000 * seconds));
  const took = (performance.now() - before.at) / 1000;
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const pen = canvas.getContext("2d");
  pen.drawImage(v, 0, 0, width, height);
  const rgba = [...pen.getImageData(0, 0, width, height).data];
  return { cameras: cameras.map(d => d.label), camera: track.label, size: [v.videoWidth, v.videoHeight],
    shown_fps: (shown - before.shown) / took,
    given_fps: track.stats ? (track.stats.deliveredFrames - before.given) / took : null, rgba };
}"""


def draw(path: Path) -> None:
    """The demo photo, moved by the demo motion, drawn by `geometric`: (N, H, W, 3) uint8 at `path`."""
    from calibration.enroll import enroll
    from engines.renderer import Renderer
    from engines.retarget import Controls, retarget
    from streamer.drive.demo import DEMO_PHOTO, demo_track, looped

    enrolled = enroll(DEMO_PHOTO)
    renderer = Renderer(enrolled, generator="geometric", size_px=HEIGHT_PX, aspect="16:9")
    track = demo_track()
    rest = track.neutral or track.motions[0]
    moved = (retarget(looped(track, k / FPS), rest, enrolled.motion, Controls()) for k in range(PICTURES))
    np.save(path, np.stack([renderer.render(motion)[..., :3] for motion in moved]))


def send(path: Path) -> None:
    """They go round into the virtual camera, at `FPS`, until the process ends."""
    from streamer.clock import Pacer, SystemClock
    from streamer.frame import Frame
    from streamer.sinks.sink import SinkInfo
    from streamer.sinks.virtualcam import VirtualCameraSink

    pictures: U8 = np.load(path)
    with VirtualCameraSink(LABEL) as sink:
        sink.open(SinkInfo(WIDTH_PX, HEIGHT_PX, FPS))
        print(f"guest: sending {len(pictures)} pictures to {sink.device}", flush=True)
        pacer = Pacer(FPS, SystemClock())
        begin, count = time.monotonic(), 0
        while True:
            pacer.wait()
            sink.write(Frame(count / FPS, 0, sequence=count, image=pictures[count % len(pictures)]))
            count += 1
            if count % 200 == 0:
                print(f"guest: sent {count}, {count / (time.monotonic() - begin):.1f} a second", flush=True)


def look(path: Path) -> None:
    """What Chromium reads of it: its size, how many pictures a second, and whether they are those that were sent."""
    from playwright.sync_api import sync_playwright

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/"
    flags = [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
    ]
    flags.append("--use-fake-ui-for-media-stream")
    begin = time.monotonic()
    with sync_playwright() as api:
        browser = api.chromium.launch(
            executable_path="/usr/bin/chromium", headless=True, timeout=PATIENCE_MS, args=flags
        )
        page = browser.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(address)
        print(f"guest: Chromium {browser.version} after {time.monotonic() - begin:.0f} s", flush=True)
        seen: dict[str, Any] = page.evaluate(_LOOK, [LABEL, LOOK_S, *_SMALL_PX])
        browser.close()
    if "rgba" not in seen:
        raise SystemExit(f"guest: no camera {LABEL!r} among {seen['cameras']}")
    width, height = _SMALL_PX
    picture = np.asarray(seen.pop("rgba"), np.float32).reshape(height, width, 4)[..., :3]
    sent: U8 = np.load(path)
    small = sent.reshape(len(sent), height, HEIGHT_PX // height, width, WIDTH_PX // width, 3).mean((2, 4))
    away = np.abs(small - picture).mean((1, 2, 3))
    seen |= {"differs_by": round(float(away.min()), 1), "is_the_avatar": bool(away.min() < _SAME)}
    print("guest:", json.dumps(seen), flush=True)


def read_vivid(number: int) -> None:
    """What visavis reads of the kernel's own test camera: its modes, the one that is asked for, pictures a second."""
    from streamer.sources.camera import CameraConfig, open_camera
    from streamer.sources.camera_pixels import rgb_of_shot
    from streamer.sources.v4l2 import camera_modes

    modes = camera_modes(number, 640, 480)
    print(f"guest: vivid lists {len(modes)} modes, of {sorted({m.fourcc for m in modes})}")
    camera = open_camera(CameraConfig(number, 640, 480, 30.0))
    count, begin, last = 0, time.monotonic(), None
    while count < 60 and time.monotonic() - begin < 20:
        ok, last = camera.read()
        if not ok:
            break
        count += 1
    took = time.monotonic() - begin
    rgb = None if last is None else rgb_of_shot(last, camera.fourcc)
    shape = None if rgb is None else rgb.shape
    middle = (
        None if rgb is None else rgb[rgb.shape[0] * 9 // 10, rgb.shape[1] // 16 :: rgb.shape[1] // 8].tolist()
    )
    print(
        f"guest: read as {camera.fourcc}, {shape}, {count / took:.1f} a second; a row: {middle}", flush=True
    )
    camera.release()


class _Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(_PAGE)

    def log_message(self, format: str, *args: Any) -> None:
        return


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    steps = parser.add_subparsers(dest="step", required=True)
    for name in ("draw", "send", "look"):
        steps.add_parser(name).add_argument("path", type=Path)
    steps.add_parser("read-vivid").add_argument("number", type=int)
    told = parser.parse_args()
    if told.step == "read-vivid":
        read_vivid(told.number)
    else:
        {"draw": draw, "send": send, "look": look}[told.step](told.path)


if __name__ == "__main__":
    main()
