"""WebRTC on aiortc: sessions, their media, and the corrections aiortc needs."""
