"""`animate --driver FILE.wav`: a photo speaks, in sync, and sound that is none is told apart."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from clips import length_s

from engines.enrollment import Enrollment
from engines.errors import DriverError
from engines.speech.features import RATE_HZ
from streamer.animate import Job, animate
from streamer.sources.heard import HEARD_FPS
from streamer.sources.sound import sound_blocks
from streamer.sources.sound_reading import SoundReading


def write_sound(path: Path, seconds: float = 1.5, rate_hz: int = 44_100, channels: int = 2) -> Path:
    """A tone of 220 Hz in `channels` at `rate_hz`."""
    layout = {1: "mono", 2: "stereo"}[channels]
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    wave = np.round(8000 * np.sin(2 * np.pi * 220 * t)).astype(np.int16)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "pcm_s16le" if path.suffix == ".wav" else "flac", rate=rate_hz, layout=layout
        )
        frame = av.AudioFrame.from_ndarray(np.repeat(wave, channels)[None], "s16", layout)
        frame.sample_rate = rate_hz
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("rate_hz", "channels"), [(44_100, 2), (8_000, 1), (16_000, 1), (48_000, 2)])
def test_any_rate_and_channels_become_16_khz_mono(tmp_path: Path, rate_hz: int, channels: int) -> None:
    path = write_sound(tmp_path / "a.wav", rate_hz=rate_hz, channels=channels)
    sound = np.concatenate(list(sound_blocks(path)))
    assert len(sound) == pytest.approx(1.5 * RATE_HZ, abs=40)
    with SoundReading(path) as reading:
        assert reading.stated_s == pytest.approx(1.5, abs=0.01)
    middle = sound[4000:-4000]
    assert np.abs(middle).max() == pytest.approx(8000 / 32768, rel=0.05)
    crossings = np.count_nonzero((middle[1:] > 0) & (middle[:-1] <= 0))
    assert crossings == pytest.approx(220 * len(middle) / RATE_HZ, abs=2)


@pytest.mark.slow
def test_a_sound_file_animates_with_its_own_sound(tmp_path: Path, astronaut: Enrollment) -> None:
    driver = write_sound(tmp_path / "talk.wav")
    output = tmp_path / "out.mp4"
    done = animate(astronaut, Job(driver, output, generator="geometric", size_px=128))
    assert done.frames == round(1.5 * HEARD_FPS) or done.frames == round(1.5 * HEARD_FPS) + 1
    with av.open(str(output)) as container:
        assert container.streams.audio
    assert length_s(output) == pytest.approx(length_s(output, "audio"), abs=0.06)


@pytest.mark.parametrize("content", [b"", b"no sound at all" * 50])
def test_a_broken_sound_file_is_refused_and_leaves_nothing(
    tmp_path: Path, astronaut: Enrollment, content: bytes
) -> None:
    driver = tmp_path / "broken.wav"
    driver.write_bytes(content)
    output = tmp_path / "out.mp4"
    with pytest.raises(DriverError):
        animate(astronaut, Job(driver, output, generator="geometric", size_px=128))
    assert not output.exists()
