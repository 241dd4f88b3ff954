"""Sound and motion on one 10 ms grid: clips with labels, hand-made curves, noise and music; augmented."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve, lfilter

from engines.motion import ARKIT_INDEX
from engines.speech.features import FRAME_HZ, HOP, MEL_COUNT, RATE_HZ, log_mel, mel_power
from engines.speech.network import CLOSURE, OUTPUT_COUNT, ROTATION, VOICE
from scripts.head.tracks import is_held_out
from streamer.sources.sound import sound_blocks

F32 = NDArray[np.float32]

LOOK_AHEAD_HOPS = 6  # 60 ms
VOICE_RANGE = 5.5  # 24 dB below the loud parts of a recording: still speech
VOICE_SPREAD_HOPS = 8


@dataclass(frozen=True, slots=True)
class Recording:
    """One piece of sound with what the face did: `targets` (T, OUTPUT_COUNT) at 100 Hz, `known` (T, OUTPUT_COUNT)."""

    name: str
    subject: str
    sound: F32
    targets: F32
    known: F32

    @property
    def held_out(self) -> bool:
        """Whether this speaker is kept for evaluation."""
        return is_held_out(self.subject)


def read_sound(path: Path) -> F32:
    """(S,) float32 mono at 16 kHz."""
    blocks = list(sound_blocks(path))
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


def at_hops(values: F32, fps: float, count: int, late_s: float = 0.0) -> F32:
    """(count, D): frames (F, D) at `fps` read at the end of every hop; `late_s`: the sound is that much late."""
    times = ((np.arange(count) + 1) / FRAME_HZ - late_s) * fps
    x = np.clip(times, 0, len(values) - 1)
    low = np.floor(x).astype(int)
    high = np.minimum(low + 1, len(values) - 1)
    w = (x - low)[:, None].astype(np.float32)
    return ((1 - w) * values[low] + w * values[high]).astype(np.float32)


def voiced(sound: F32) -> NDArray[np.bool_]:
    """(T,) where a clean recording has speech, by its energy, spread a little over closures within words."""
    power = mel_power(np.concatenate([np.zeros(240, np.float32), sound])).sum(1)
    energy = np.log(np.maximum(power, 1e-10))
    loud = energy > np.percentile(energy, 95) - VOICE_RANGE
    return np.convolve(loud, np.ones(2 * VOICE_SPREAD_HOPS + 1), "same") > 0


def read_clip(label: Path, sound: F32) -> Recording:
    """A labelled clip (see `scripts.speech.labels`)."""
    with np.load(label) as data:
        motion = np.concatenate(
            [data["expression"], relative_rotation(data["rotation_rad"]), data["closure"][:, :1]], 1
        ).astype(np.float32)
        seen, fps = data["seen"].astype(np.float32)[:, None], float(data["fps"])
        subject, late_s = str(data["subject"]), float(data["late_s"])
    count = min(len(sound) // HOP, int((len(motion) / fps + late_s) * FRAME_HZ))
    targets = np.zeros((count, OUTPUT_COUNT), np.float32)
    known = np.zeros_like(targets)
    targets[:, : CLOSURE + 1] = at_hops(motion, fps, count, late_s)
    known[:, : CLOSURE + 1] = at_hops(seen, fps, count, late_s) > 0.99
    targets[:, VOICE] = voiced(sound)[:count]
    known[:, VOICE] = 1
    return Recording(label.stem, subject, sound[: count * HOP], targets, known)


def relative_rotation(rotation_rad: F32) -> F32:
    """Rotation vectors less their slow course (2 s), which speech says nothing about."""
    width = 51
    padded = np.pad(rotation_rad, ((width // 2, width // 2), (0, 0)), "edge")
    slow = np.stack([np.convolve(padded[:, d], np.ones(width) / width, "valid") for d in range(3)], 1)
    return (rotation_rad - slow).astype(np.float32)


def read_curves(path: Path) -> list[Recording]:
    """Hand-made mouth curves (`facegood_arkit.npz` beside its .flac files)."""
    out: list[Recording] = []
    with np.load(path) as data:
        # some curves are the maker's own and have no ARKit counterpart
        ours = [k for k, n in enumerate(data["names"]) if str(n) in ARKIT_INDEX]
        columns = [ARKIT_INDEX[str(data["names"][k])] for k in ours]
        fps = float(data["fps"])
        for name in data.files:
            sound_path = path.parent / f"{name}.flac"
            if not sound_path.is_file():
                continue
            sound = read_sound(sound_path)
            curves = data[name][:, ours].astype(np.float32)
            count = min(len(sound) // HOP, int(len(curves) / fps * FRAME_HZ))
            targets = np.zeros((count, OUTPUT_COUNT), np.float32)
            known = np.zeros_like(targets)
            targets[:, columns] = at_hops(curves, fps, count)
            known[:, columns] = 1
            targets[:, VOICE] = voiced(sound)[:count]
            known[:, VOICE] = 1
            out.append(Recording(name, "curves", sound[: count * HOP], targets, known))
    return out


def read_all(data: Path, labels: Path, curves: Path | None) -> list[Recording]:
    """Every labelled clip under `labels` with its sound, and the curves."""
    clips = [
        read_clip(p, read_sound(data / "audio16k" / f"{p.stem}.flac"))
        for p in sorted(labels.glob("[!.]*.npz"))
    ]
    return clips + (read_curves(curves) if curves else [])


# --- augmentation --------------------------------------------------------------------------------


def coloured_noise(rng: np.random.Generator, count: int) -> F32:
    """(count,) noise whose spectrum falls by 0 … 6 dB per octave, of standard deviation 1."""
    spectrum = np.fft.rfft(rng.standard_normal(count))
    spectrum /= np.maximum(np.arange(len(spectrum)), 20.0) ** rng.uniform(0, 1)
    noise = np.fft.irfft(spectrum, count)
    return (noise / noise.std()).astype(np.float32)


def music(rng: np.random.Generator, count: int) -> F32:
    """(count,) chords of decaying tones with a beat: what must not move the mouth."""
    out = np.zeros(count)
    beat = int(rng.uniform(0.25, 0.7) * RATE_HZ)
    for start in range(0, count, beat):
        t = np.arange(min(RATE_HZ, count - start)) / RATE_HZ
        chord = np.zeros(len(t))
        root = 110 * 2 ** (rng.integers(0, 25) / 12)
        for step in (0, rng.choice([3, 4]), 7, 12)[: rng.integers(1, 5)]:
            tone_hz = root * 2 ** (step / 12)
            for harmonic in range(1, int(rng.integers(2, 8))):
                chord += np.sin(2 * np.pi * harmonic * tone_hz * t + rng.uniform(0, 6)) / harmonic
        chord *= np.exp(-t / rng.uniform(0.15, 0.6))
        if rng.random() < 0.5:
            chord += 2 * np.exp(-t / 0.03) * rng.standard_normal(len(t))
        out[start : start + len(t)] += chord
    return (out / (out.std() + 1e-9)).astype(np.float32)


def augmented(recording: Recording, rng: np.random.Generator) -> tuple[F32, F32, F32]:
    """(features, targets, known) of a recording as another voice, microphone, room and time would give it."""
    # played faster or slower: another pitch and vocal tract, and the motion along with it
    speed = float(np.exp(rng.uniform(-0.16, 0.16)))
    count = int(len(recording.sound) / speed)
    sound = np.interp(np.arange(count) * speed, np.arange(len(recording.sound)), recording.sound)
    hops = count // HOP
    places = np.minimum((np.arange(hops) * speed).astype(int), len(recording.targets) - 1)
    if rng.random() < 0.5:  # a microphone's tilt
        sound = np.asarray(lfilter([1, rng.uniform(-0.6, 0.6)], [1], sound))
    if rng.random() < 0.2:  # a small room
        impulse = rng.standard_normal(2400) * np.exp(-np.arange(2400) / rng.uniform(200, 900)) * 0.1
        impulse[0] = 1
        sound = fftconvolve(sound, impulse)[:count]
    if rng.random() < 0.15:  # a telephone
        spectrum = np.fft.rfft(sound)
        bins = np.fft.rfftfreq(count, 1 / RATE_HZ)
        spectrum[(bins > 3600) | (bins < 250)] = 0
        sound = np.fft.irfft(spectrum, count)
    loud = np.sqrt(np.mean(sound**2)) + 1e-9
    if rng.random() < 0.6:
        other = coloured_noise(rng, count) if rng.random() < 0.7 else music(rng, count)
        sound = sound + other * loud * 10 ** (-rng.uniform(6, 35) / 20)
    sound = sound / loud * 10 ** (rng.uniform(-45, -12) / 20)
    if rng.random() < 0.1:
        sound = np.clip(sound * 6, -0.4, 0.4)
    features, _ = log_mel(sound.astype(np.float32))
    return features[:hops], recording.targets[places], recording.known[places]


def not_speech(rng: np.random.Generator, seconds: float = 12.0) -> tuple[F32, F32, F32]:
    """(features, targets, known) of silence, noise or music: nothing moves."""
    count = int(seconds * RATE_HZ)
    sound = coloured_noise(rng, count) if rng.random() < 0.5 else music(rng, count)
    if rng.random() < 0.4:  # comes and goes
        steps = np.repeat(rng.uniform(0, 1, count // 4000 + 1) ** 3, 4000)[:count]
        sound = sound * steps
    features, _ = log_mel((sound * 10 ** (rng.uniform(-70, -15) / 20)).astype(np.float32))
    known = np.ones((len(features), OUTPUT_COUNT), np.float32)
    known[:, ROTATION] = 0
    return features, np.zeros((len(features), OUTPUT_COUNT), np.float32), known


class Pool:
    """Augmented sequences to draw chunks from; made anew one by one while training goes on."""

    def __init__(
        self, recordings: Sequence[Recording], seed: int, quiet: int = 12, variants: int = 2
    ) -> None:
        self._rng = np.random.default_rng(seed)
        self._recordings = list(recordings)
        self._kept = [augmented(r, self._rng) for _ in range(variants) for r in self._recordings]
        self._quiet = [not_speech(self._rng) for _ in range(quiet)]
        # long recordings count less than their length
        self._weights = np.sqrt([float(len(r.targets)) for r in self._recordings])
        self._next = 0

    def renew(self, count: int) -> None:
        """Replace the `count` oldest sequences and one piece without speech."""
        for _ in range(count):
            self._kept[self._next] = augmented(
                self._recordings[self._next % len(self._recordings)], self._rng
            )
            self._next = (self._next + 1) % len(self._kept)
        self._quiet[self._next % len(self._quiet)] = not_speech(self._rng)

    def batch(self, rows: int, hops: int, quiet_share: float = 0.15) -> tuple[F32, F32, F32]:
        """(rows, hops, …) features, targets and what of them is known; targets lie `LOOK_AHEAD_HOPS` back."""
        x = np.zeros((rows, hops, MEL_COUNT), np.float32)
        y = np.zeros((rows, hops, OUTPUT_COUNT), np.float32)
        known = np.zeros_like(y)
        share = np.tile(self._weights, len(self._kept) // len(self._recordings))
        picks = self._rng.choice(len(self._kept), rows, p=share / share.sum())
        for row, pick in enumerate(picks):
            quiet = self._rng.random() < quiet_share
            f, t, k = self._quiet[pick % len(self._quiet)] if quiet else self._kept[pick]
            start = int(self._rng.integers(0, max(1, len(f) - hops)))
            n = min(hops, len(f) - start)
            x[row, :n] = f[start : start + n]
            back = np.maximum(np.arange(start, start + n) - LOOK_AHEAD_HOPS, 0)
            y[row, :n], known[row, :n] = t[back], k[back]
        return x, y, known
