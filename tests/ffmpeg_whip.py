"""FFmpeg's WHIP muxer, as PyAV's wheel has it: `python ffmpeg_whip.py URL TOKEN CERT KEY SIDE_PX` until it is ended.

FFmpeg's own certificate fails in DTLS, so it is given one of P-256. It sends H264 and Opus; it exits with 0 when it is
told to end, after DELETE.
"""

from __future__ import annotations

import signal
import sys
import time
from fractions import Fraction
from typing import Any

import av
import numpy as np

FPS, RATE_HZ, PIECE = 30, 48_000, 960


def main(url: str, token: str, cert: str, key: str, side: str) -> None:
    """Send a texture that moves, and 440 Hz, in real time."""
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
    options = {"authorization": token, "cert_file": cert, "key_file": key}
    out: Any = av.open(url, "w", format="whip", options=options)
    picture: Any = out.add_stream(
        "libx264", rate=FPS, options={"profile": "baseline", "tune": "zerolatency", "preset": "veryfast"}
    )
    picture.width = picture.height = int(side)
    picture.pix_fmt, picture.bit_rate = "yuv420p", 800_000
    picture.codec_context.gop_size, picture.codec_context.max_b_frames = FPS, 0
    sound: Any = out.add_stream("libopus", rate=RATE_HZ)
    sound.codec_context.layout = "stereo"
    texture = np.kron(
        np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8),
        np.ones((int(side) // 16, int(side) // 16, 1), np.uint8),
    )
    start_s, count, samples = time.monotonic(), 0, 0
    while not ended:
        frame = av.VideoFrame.from_ndarray(np.roll(texture, 4 * count, 1), format="rgb24").reformat(
            format="yuv420p"
        )
        frame.pts, frame.time_base = count, Fraction(1, FPS)
        for packet in picture.encode(frame):
            out.mux(packet)
        while samples * FPS < (count + 1) * RATE_HZ:
            wave = 0.3 * np.sin(2 * np.pi * 440 * (samples + np.arange(PIECE)) / RATE_HZ)
            piece = av.AudioFrame.from_ndarray(np.tile(wave.astype(np.float32), (2, 1)), "fltp", "stereo")
            piece.sample_rate, piece.pts, piece.time_base = RATE_HZ, samples, Fraction(1, RATE_HZ)
            samples += PIECE
            for packet in sound.encode(piece):
                out.mux(packet)
        count += 1
        time.sleep(max(0.0, start_s + count / FPS - time.monotonic()))
    out.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
