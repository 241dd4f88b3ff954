"""Sound that drives: files as blocks of 16 kHz mono, however long they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import av.container
import av.error
import numpy as np
from av.audio.resampler import AudioResampler
from numpy.typing import NDArray

from engines.errors import DriverError
from engines.speech.features import RATE_HZ
from streamer.sources.video import open_media

F32 = NDArray[np.float32]


def sound_seconds(path: Path) -> float | None:
    """Length of a sound file, None where it does not say. Raises DriverError when it is none."""
    with _opened(path) as container:
        return None if container.duration is None else container.duration / 1e6


def sound_blocks(path: Path) -> Iterator[F32]:
    """(S,) float32 mono blocks at 16 kHz, from the start to the end or to where the file is damaged.

    One block is in memory at a time. Raises DriverError for a file without sound.
    """
    resampler = AudioResampler("fltp", None, RATE_HZ)
    with _opened(path) as container:
        frames = container.decode(container.streams.audio[0])
        while True:
            try:
                frame = next(frames)
            except StopIteration:
                break
            except (av.error.FFmpegError, OSError):
                return  # what was heard until here is kept
            for piece in resampler.resample(frame):
                yield _samples(piece)
        for piece in resampler.resample(None):
            yield _samples(piece)


def _samples(piece: av.AudioFrame) -> F32:
    # the mean: FFmpeg's own way from stereo to mono is 3 dB louder and would clip
    return np.asarray(piece.to_ndarray(), np.float32).mean(0)


def _opened(path: Path) -> av.container.InputContainer:
    container = open_media(path)
    if not container.streams.audio:
        container.close()
        raise DriverError(f"{path.name} has no sound; use a .wav, .flac, .mp3 or .m4a file with speech")
    return container
