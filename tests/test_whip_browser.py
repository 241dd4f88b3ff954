"""Chromium as a WHIP sender and a WHEP player: a page of a few lines, none of ours, with a Bearer token."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from browser import PATIENCE_MS, SHARED_CLIPS, Server, launched, served, wait_for, write_camera
from clips import DemoClip

from engines.enrollment import Enrollment, save_enrollment

pytestmark = pytest.mark.browser

TOKEN = "let-me-in-please"

# RFC 9725 and draft-ietf-wish-whep, as somebody else would write them: one POST with all candidates, one DELETE
CLIENT = """
window.clients = {};
const gathered = (pc) => new Promise((done) => {
  const look = () => pc.iceGatheringState === "complete" && done();
  pc.addEventListener("icegatheringstatechange", look);
  look();
});
window.open_ = async (name, address, token, sends) => {
  const pc = new RTCPeerConnection();
  const client = (window.clients[name] = { pc, shown: 0, location: null });
  if (sends) {
    const stream = await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480 }, audio: true });
    for (const track of stream.getTracks()) pc.addTransceiver(track, { direction: "sendonly", streams: [stream] });
  } else {
    pc.addTransceiver("video", { direction: "recvonly" });
    pc.addTransceiver("audio", { direction: "recvonly" });
    const video = Object.assign(document.createElement("video"), { muted: true, autoplay: true });
    document.body.append(video);
    const stream = new MediaStream();
    pc.addEventListener("track", ({ track }) => {
      stream.addTrack(track);
      video.srcObject = stream;
      video.play();
    });
    const count = () => {
      client.shown += 1;
      client.size = `${video.videoWidth}x${video.videoHeight}`;
      video.requestVideoFrameCallback(count);
    };
    video.requestVideoFrameCallback(count);
  }
  await pc.setLocalDescription();
  await gathered(pc);
  const answer = await fetch(address, {
    method: "POST",
    headers: { "Content-Type": "application/sdp", Authorization: `Bearer ${token}` },
    body: pc.localDescription.sdp,
  });
  if (answer.status !== 201) {
    pc.close();
    return answer.status;
  }
  client.location = new URL(answer.headers.get("Location"), answer.url).href;
  await pc.setRemoteDescription({ type: "answer", sdp: await answer.text() });
  return answer.status;
};
window.close_ = async (name, token) => {
  const { pc, location } = window.clients[name];
  const { status } = await fetch(location, { method: "DELETE", headers: { Authorization: `Bearer ${token}` } });
  if (status === 200) pc.close();
  return status;
};
window.heard = async (name) => {
  const stats = [...(await window.clients[name].pc.getStats()).values()];
  return stats.find((s) => s.type === "inbound-rtp" && s.kind === "audio")?.totalSamplesReceived ?? 0;
};
"""


@pytest.fixture(scope="module")
def server(astronaut: Enrollment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    avatar = tmp_path_factory.mktemp("avatars") / "face.avatar"
    save_enrollment(astronaut, avatar)
    with served("--avatar", str(avatar), "--token", TOKEN) as running:
        yield Server(running.process, running.url.split("/?")[0])


@pytest.fixture(scope="module")
def page(server: Server, demo_clip: DemoClip, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("camera")
    clip = SHARED_CLIPS / "AOC_01.mp4"
    with launched(*write_camera(clip if clip.exists() else demo_clip(6, 30, 480), folder)) as browser:
        page = browser.new_page()
        page.set_default_timeout(PATIENCE_MS)
        # of the same origin, for no other one may; and without our page's own rules of what it may do
        page.route(
            f"{server.url}/somebody",
            lambda route: route.fulfill(body="<!doctype html>", content_type="text/html"),
        )
        page.goto(f"{server.url}/somebody")
        page.add_script_tag(content=CLIENT)
        yield page


def told(server: Server, path: str) -> Any:
    request = urllib.request.Request(server.url + path, headers={"Authorization": f"Bearer {TOKEN}"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def opened(page: Any, name: str, address: str, token: str, *, sends: bool) -> int:
    status: int = page.evaluate("([n, a, t, s]) => window.open_(n, a, t, s)", [name, address, token, sends])
    return status


def ended(page: Any, name: str, token: str = TOKEN) -> int:
    status: int = page.evaluate("([n, t]) => window.close_(n, t)", [name, token])
    return status


def test_chromium_sends_and_plays_and_frees_all(page: Any, server: Server) -> None:
    avatar = told(server, "/api/avatars")["default"]
    whip, whep = f"{server.url}/whip/{avatar}?size=256", f"{server.url}/whep/{avatar}"
    assert opened(page, "stranger", whip, "another", sends=True) == 401
    assert opened(page, "stranger", whep, "another", sends=False) == 401
    assert opened(page, "early", whep, TOKEN, sends=False) == 409, "nobody sends yet"

    assert opened(page, "sender", whip, TOKEN, sends=True) == 201
    wait_for(page, "clients.sender.pc.connectionState === 'connected'")
    assert opened(page, "player", whep, TOKEN, sends=False) == 201
    wait_for(page, "clients.player.shown > 30")
    assert page.evaluate("clients.player.size") == "256x256"
    wait_for(page, "heard('player').then(n => n > 48000)")
    calls = told(server, "/metrics.json")["calls"]
    assert len(calls) >= 1
    assert opened(page, "second", whip, TOKEN, sends=True) == 409, "one sender drives an avatar"

    assert ended(page, "player", "another") == 401
    assert ended(page, "player") == 200
    assert ended(page, "player") == 404
    assert opened(page, "last", whep, TOKEN, sends=False) == 201
    wait_for(page, "clients.last.shown > 5")
    assert ended(page, "sender") == 200
    assert ended(page, "sender") == 404
    assert ended(page, "last") == 404, "with its sender a player ends"
    end = time.monotonic() + PATIENCE_MS / 1e3
    while told(server, "/metrics.json")["calls"]:
        assert time.monotonic() < end, "something of it goes on"
        time.sleep(0.2)
