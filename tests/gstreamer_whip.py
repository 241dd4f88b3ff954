"""GStreamer's webrtcbin as WHIP sender or WHEP player: `python3 gstreamer_whip.py whip|whep URL TOKEN SECONDS`.

For the system's Python, which has python3-gi; the tests run it as a program of its own. With no arguments it says
whether all that it needs is there. It prints one JSON object.
"""

# pyright: basic, reportMissingImports=none, reportAttributeAccessIssue=none, reportOptionalMemberAccess=none

from __future__ import annotations

import json
import sys
import urllib.request
from typing import Any

import gi  # type: ignore[import-not-found]

for name in ("Gst", "GstWebRTC", "GstSdp"):
    gi.require_version(name, "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC  # type: ignore[import-not-found]  # noqa: E402

NEEDED = ("webrtcbin", "nicesrc", "vp8enc", "vp8dec", "rtpvp8pay", "opusenc", "rtpopuspay", "videotestsrc")
SENDING = (
    "webrtcbin name=w bundle-policy=max-bundle "
    "videotestsrc is-live=true pattern=ball ! video/x-raw,width=512,height=512,framerate=30/1 ! videoconvert ! queue ! "
    "vp8enc deadline=1 target-bitrate=800000 keyframe-max-dist=60 ! rtpvp8pay pt=96 picture-id-mode=2 ! "
    "application/x-rtp,media=video,encoding-name=VP8,payload=96 ! w. "
    "audiotestsrc is-live=true ! audioconvert ! audioresample ! queue ! opusenc ! rtpopuspay pt=97 ! "
    "application/x-rtp,media=audio,encoding-name=OPUS,payload=97 ! w."
)


class Peer:
    """One call of webrtcbin."""

    def __init__(self, mode: str, url: str, token: str) -> None:
        self._url, self._token = url, token
        self.said: dict[str, Any] = {"status": 0, "frames": 0, "states": [], "sizes": []}
        self._location: str | None = None
        self._begun = self._offered = False
        if mode == "whip":
            self.pipeline = Gst.parse_launch(SENDING)
            self._bin = self.pipeline.get_by_name("w")
            for k in (0, 1):
                transceiver = self._bin.emit("get-transceiver", k)
                transceiver.set_property("direction", GstWebRTC.WebRTCRTPTransceiverDirection.SENDONLY)
        else:
            self.pipeline = Gst.Pipeline.new("p")
            self._bin = Gst.ElementFactory.make("webrtcbin", "w")
            self._bin.set_property("bundle-policy", "max-bundle")
            self.pipeline.add(self._bin)
            caps = "application/x-rtp,media=video,encoding-name=VP8,payload=96,clock-rate=90000"
            receive = GstWebRTC.WebRTCRTPTransceiverDirection.RECVONLY
            self._bin.emit("add-transceiver", receive, Gst.Caps.from_string(caps))
            self._bin.connect("pad-added", self._padded)
        self._bin.connect("on-negotiation-needed", self._begin)
        self._bin.connect("notify::ice-gathering-state", lambda *_: GLib.idle_add(self._gathered))
        self._bin.connect("notify::connection-state", self._changed)

    def _begin(self, *_: Any) -> None:
        if not self._begun:
            self._begun = True
            self._bin.emit("create-offer", None, Gst.Promise.new_with_change_func(self._made))

    def _made(self, promise: Any, *_: Any) -> None:
        promise.wait()
        self._reply = promise.get_reply()  # what is in it lives as long as it does
        self._offer = self._reply.get_value("offer")
        self._bin.emit("set-local-description", self._offer, Gst.Promise.new())

    def _gathered(self) -> bool:
        done = GstWebRTC.WebRTCICEGatheringState.COMPLETE
        if self._bin.get_property("ice-gathering-state") == done and not self._offered:
            self._offered = True
            answer = self._post(self._bin.get_property("local-description").sdp.as_text())
            _, message = GstSdp.SDPMessage.new_from_text(answer)
            described = GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, message)
            self._bin.emit("set-remote-description", described, Gst.Promise.new())
        return False

    def _post(self, offer: str) -> str:
        headers = {"Content-Type": "application/sdp", "Authorization": f"Bearer {self._token}"}
        request = urllib.request.Request(self._url, offer.encode(), headers, method="POST")
        with urllib.request.urlopen(request) as answer:
            self.said["status"], self._location = answer.status, answer.headers["Location"]
            return answer.read().decode()

    def _changed(self, *_: Any) -> None:
        self.said["states"].append(self._bin.get_property("connection-state").value_nick)

    def _padded(self, _: Any, pad: Any) -> None:
        if pad.direction == Gst.PadDirection.SRC:
            shown = "queue ! rtpvp8depay ! vp8dec ! videoconvert ! fakesink name=s signal-handoffs=true sync=false"
            part = Gst.parse_bin_from_description(shown, True)
            self.pipeline.add(part)
            part.sync_state_with_parent()
            pad.link(part.get_static_pad("sink"))
            part.get_by_name("s").connect("handoff", self._seen)

    def _seen(self, _: Any, __: Any, pad: Any) -> None:
        caps = pad.get_current_caps().get_structure(0)
        size = [caps.get_int("width")[1], caps.get_int("height")[1]]
        self.said["frames"] += 1
        if size not in self.said["sizes"]:
            self.said["sizes"].append(size)

    def end(self) -> None:
        """DELETE, and stop."""
        if self._location:
            url = "/".join(self._url.split("/")[:3]) + self._location
            headers = {"Authorization": f"Bearer {self._token}"}
            request = urllib.request.Request(url, headers=headers, method="DELETE")
            with urllib.request.urlopen(request) as answer:
                self.said["deleted"] = answer.status
        self.pipeline.set_state(Gst.State.NULL)


def main(arguments: list[str]) -> int:
    """One call, or what is missing for one."""
    Gst.init(None)
    if not arguments:
        missing = [name for name in NEEDED if Gst.ElementFactory.find(name) is None]
        print(json.dumps({"missing": missing}))
        return 0
    mode, url, token, seconds = arguments
    loop, peer = GLib.MainLoop(), Peer(mode, url, token)
    peer.pipeline.set_state(Gst.State.PLAYING)
    GLib.timeout_add(int(float(seconds) * 1000), loop.quit)
    loop.run()
    peer.end()
    print(json.dumps(peer.said))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
