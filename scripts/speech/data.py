"""Sound and motion on one 10 ms grid: clips with labels, hand-made curves, noise and music; augmented."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Sequence as AnySequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve, lfilter

from engines.motion import ARKIT_INDEX, ARKIT_NAMES, EXPRESSION_COUNT
from engines.speech.features import FRAME_HZ, HOP, LOWEST_FEATURE, MEL_COUNT, RATE_HZ, log_mel, mel_power
from engines.speech.network import CLOSURE, HOPS, INPUT_COUNT, OUTPUT_COUNT, ROTATION, VOICE
from engines.speech.opening import openings_of
from streamer.sources.sound import sound_blocks

F32 = NDArray[np.float32]

LOOK_AHEAD_HOPS = 8  # 80 ms
USUAL_OPENING = 0.13  # of an open vowel: what loud speakers and quiet ones are scaled to
LIPS_MEET = 0.03  # landmarks of lips that touch are not further apart than this
CURVES = "curves"
CURVES_LATE_S = -0.04  # hand-made curves follow their sound by this much more than mouths do
MISSING_BAND = -6.0
MOUTH = [k for k, n in enumerate(ARKIT_NAMES) if n.startswith(("jaw", "mouth"))]
VOICE_RANGE = 5.5  # 24 dB below the loud parts of a recording: still speech
VOICE_SPREAD_HOPS = 8


@dataclass(frozen=True, slots=True)
class Recording:
    """One piece of sound with what the face did: `targets` (T, OUTPUT_COUNT) at 100 Hz, `known` (T, OUTPUT_COUNT).

    `openings` (T,): gap between the lips (`engines.speech.opening`), known where jawOpen is.
    """

    name: str
    subject: str
    sound: F32
    targets: F32
    known: F32
    openings: F32


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


def recording(
    name: str, subject: str, sound: F32, targets: F32, known: F32, openings: F32 | None = None
) -> Recording:
    """A recording cut to whole hops; without measured `openings` those of the targets."""
    count = min(len(sound) // HOP, len(targets))
    if openings is None:
        openings = openings_of(targets[:, :EXPRESSION_COUNT], targets[:, CLOSURE])
    return Recording(
        name,
        subject,
        sound[: count * HOP],
        targets[:count],
        known[:count],
        openings[:count].astype(np.float32),
    )


def read_clip(label: Path, sound: F32, late_s: float = 0.0) -> Recording:
    """A labelled clip (see `scripts.speech.labels`) whose sound is `late_s` late.

    What the face does in the pauses is not known from sound, so it is not `known`. The mouth is scaled to the
    usual opening: how wide somebody opens it cannot be heard.
    """
    with np.load(label) as data:
        motion = np.concatenate(
            [data["expression"], relative_rotation(data["rotation_rad"]), data["closure"][:, :1]], 1
        ).astype(np.float32)
        gaps = data["lip_gap"].astype(np.float32)
        seen, fps = data["seen"].astype(np.float32)[:, None], float(data["fps"])
        subject = str(data["subject"])
    count = min(len(sound) // HOP, int((len(motion) / fps + late_s) * FRAME_HZ))
    targets = np.zeros((count, OUTPUT_COUNT), np.float32)
    known = np.zeros_like(targets)
    targets[:, : CLOSURE + 1] = at_hops(motion, fps, count, late_s)
    targets[:, VOICE] = voiced(sound)[:count]
    shown = (at_hops(seen, fps, count, late_s) > 0.99) & (targets[:, VOICE:] > 0.5)
    known[:, : CLOSURE + 1] = shown
    known[:, VOICE] = 1
    # met lips are a gap of 0; landmarks leave a little
    rest = min(LIPS_MEET, float(np.percentile(gaps, 5)))
    openings = at_hops(np.maximum(gaps - rest, 0)[:, None], fps, count, late_s)[:, 0]
    wide = float(np.percentile(openings[shown[:, 0]], 95)) if shown.any() else USUAL_OPENING
    scale = float(np.clip(USUAL_OPENING / max(wide, 1e-3), 0.5, 2.5))
    targets[:, MOUTH] *= scale
    return recording(label.stem, subject, sound, targets, known, openings * scale)


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
            targets[:, columns] = at_hops(curves, fps, count, CURVES_LATE_S)
            known[:, columns] = 1
            targets[:, VOICE] = voiced(sound)[:count]
            known[:, VOICE] = 1
            out.append(recording(name, CURVES, sound, targets, known))
    return out


def read_clips(data: Path, labels: Path, late_s: Mapping[str, float] | None = None) -> list[Recording]:
    """Every labelled clip under `labels` with its sound; `late_s`: by clip, how late the sound is."""
    return [
        read_clip(p, read_sound(data / "audio16k" / f"{p.stem}.flac"), (late_s or {}).get(p.stem, 0.0))
        for p in sorted(labels.glob("[!.]*.npz"))
    ]


def scaled_to_usual(recordings: AnySequence[Recording]) -> list[Recording]:
    """Recordings of one kind, their mouths scaled together to the usual opening."""
    if not recordings:
        return []
    wide = float(np.percentile(np.concatenate([r.openings for r in recordings]), 95))
    scale = USUAL_OPENING / max(wide, 1e-3)
    out: list[Recording] = []
    for r in recordings:
        targets = r.targets.copy()
        targets[:, MOUTH] *= scale
        out.append(replace(r, targets=targets, openings=r.openings * np.float32(scale)))
    return out


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


def band_of(sound: NDArray[np.floating], lowest_hz: float, highest_hz: float) -> NDArray[np.float64]:
    """(S,) with nothing outside the band, as a telephone has it."""
    spectrum = np.fft.rfft(sound)
    bins = np.fft.rfftfreq(len(sound), 1 / RATE_HZ)
    spectrum[(bins > highest_hz) | (bins < lowest_hz)] = 0
    return np.fft.irfft(spectrum, len(sound))


@dataclass(frozen=True, slots=True)
class Sequence:
    """What training reads, one row for `HOPS` hops: features (N, INPUT_COUNT), and of the moment
    `LOOK_AHEAD_HOPS` back targets (N, OUTPUT_COUNT), known (N, OUTPUT_COUNT) and openings (N,).
    """

    features: F32
    targets: F32
    known: F32
    openings: F32


def sequence_of(features: F32, targets: F32, known: F32, openings: F32) -> Sequence:
    """From values at every hop."""
    count = min(len(features), len(targets)) // HOPS
    stacked = features[: count * HOPS].reshape(count, -1)
    back = LOOK_AHEAD_HOPS // HOPS
    rows = slice(HOPS - 1, (count - back) * HOPS, HOPS)
    return Sequence(stacked[back:], targets[rows], known[rows], openings[rows])


def plain(recording: Recording) -> Sequence:
    """A recording as it is."""
    features, _ = log_mel(recording.sound)
    return sequence_of(features, recording.targets, recording.known, recording.openings)


def augmented(recording: Recording, rng: np.random.Generator) -> Sequence:
    """A recording as another voice, microphone, room and time would give it."""
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
        sound = band_of(sound, 250, 3600)
    loud = np.sqrt(np.mean(sound**2)) + 1e-9
    if rng.random() < 0.6:
        other = coloured_noise(rng, count) if rng.random() < 0.7 else music(rng, count)
        sound = sound + other * loud * 10 ** (-rng.uniform(6, 35) / 20)
    sound = sound / loud * 10 ** (rng.uniform(-45, -12) / 20)
    if rng.random() < 0.1:
        sound = np.clip(sound * 6, -0.4, 0.4)
    features, _ = log_mel(sound.astype(np.float32))
    known, openings = recording.known[places], recording.openings[places]
    return sequence_of(features[:hops], recording.targets[places], known, openings)


def hum(rng: np.random.Generator, count: int) -> F32:
    """(count,) a few steady tones that swell a little, as machines make them, of standard deviation 1."""
    t = np.arange(count) / RATE_HZ
    out = 0.05 * rng.standard_normal(count)
    for _ in range(int(rng.integers(1, 7))):
        tone_hz = (
            50 * rng.integers(1, 12) if rng.random() < 0.5 else np.exp(rng.uniform(np.log(60), np.log(4000)))
        )
        swell = 1 + rng.uniform(0, 0.8) * np.sin(2 * np.pi * rng.uniform(0.1, 3) * t + rng.uniform(0, 6))
        out += rng.uniform(0.1, 1) * swell * np.sin(2 * np.pi * tone_hz * t + rng.uniform(0, 6))
    return (out / out.std()).astype(np.float32)


def pauses_of(recordings: Iterable[Recording], least_s: float = 0.2) -> list[F32]:
    """What is heard in rooms where nobody speaks: the pauses of recordings, each of standard deviation 1."""
    out: list[F32] = []
    for r in recordings:
        silent = np.concatenate([[0], (r.targets[:, VOICE] < 0.5).astype(int), [0]])
        edges = np.flatnonzero(np.diff(silent))
        for begin, end in zip(edges[::2], edges[1::2], strict=True):
            piece = r.sound[begin * HOP : end * HOP]
            # digital zeros are no room
            if len(piece) >= least_s * RATE_HZ and piece.std() > 1e-5:
                out.append((piece / piece.std()).astype(np.float32))
    return out


def room(rng: np.random.Generator, count: int, pauses: AnySequence[F32]) -> F32:
    """(count,) pieces of one pause after the other, forwards and backwards, with soft seams."""
    piece = pauses[int(rng.integers(len(pauses)))]
    fade = min(len(piece) // 4, 800)
    window = np.ones(len(piece), np.float32)
    window[:fade] = np.sqrt(np.linspace(0, 1, fade))
    window[len(piece) - fade :] = window[:fade][::-1]
    out = np.zeros(count + 2 * len(piece), np.float32)
    at = 0
    while at < count:
        out[at : at + len(piece)] += window * (piece if rng.random() < 0.5 else piece[::-1])
        at += len(piece) - fade
    return out[:count]


def not_speech(rng: np.random.Generator, pauses: AnySequence[F32] = (), seconds: float = 12.0) -> Sequence:
    """Silence, noise, machines, rooms or music: nothing moves."""
    count = int(seconds * RATE_HZ)
    kind = rng.random()
    if pauses and kind < 0.45:
        sound = room(rng, count, pauses)
    elif kind < 0.65:
        sound = hum(rng, count)
    else:
        sound = coloured_noise(rng, count) if kind < 0.8 else music(rng, count)
    if rng.random() < 0.4:  # comes and goes
        steps = np.repeat(rng.uniform(0, 1, count // 4000 + 1) ** 3, 4000)[:count]
        sound = sound * steps
    if rng.random() < 0.5:
        sound = np.asarray(lfilter([1, rng.uniform(-0.9, 0.9)], [1], sound))
    features, _ = log_mel((sound * 10 ** (rng.uniform(-70, -15) / 20)).astype(np.float32))
    known = np.ones((len(features), OUTPUT_COUNT), np.float32)
    known[:, ROTATION] = 0
    known[:, CLOSURE] = 0
    return sequence_of(
        features,
        np.zeros((len(features), OUTPUT_COUNT), np.float32),
        known,
        np.zeros(len(features), np.float32),
    )


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of sequences, (B, T, …) each; `openings` (B, T). Shorter ones are filled up with what is not known."""

    features: F32
    targets: F32
    known: F32
    openings: F32


class Pool:
    """Augmented variants of recordings, made once, to draw chunks from."""

    def __init__(self, recordings: Iterable[Recording], rng: np.random.Generator, variants: int) -> None:
        """`variants` beside the recording as it is."""
        self._kept = [[plain(r)] + [augmented(r, rng) for _ in range(variants)] for r in recordings]
        # long recordings count less than their length
        weights = np.sqrt([float(len(k[0].features)) for k in self._kept])
        self._share = weights / weights.sum()

    def draw(self, rng: np.random.Generator) -> Sequence:
        """Any variant of any recording."""
        kept = self._kept[rng.choice(len(self._kept), p=self._share)]
        return kept[rng.integers(len(kept))]


class Quiet:
    """Silence, noise, rooms and music, made once."""

    def __init__(self, rng: np.random.Generator, count: int, pauses: AnySequence[F32] = ()) -> None:
        self._kept = [not_speech(rng, pauses) for _ in range(count)]

    def draw(self, rng: np.random.Generator) -> Sequence:
        """Any of them."""
        return self._kept[rng.integers(len(self._kept))]


def batch_of(
    sources: AnySequence[tuple[float, Pool | Quiet]], rng: np.random.Generator, rows: int, steps: int
) -> Batch:
    """`rows` chunks of `steps` rows, each from a source drawn by its share. Bands are left out here and there."""
    shares = np.array([share for share, _ in sources])
    x = np.full((rows, steps, INPUT_COUNT), LOWEST_FEATURE, np.float32)
    y = np.zeros((rows, steps, OUTPUT_COUNT), np.float32)
    known, openings = np.zeros_like(y), np.zeros((rows, steps), np.float32)
    for row, pick in enumerate(rng.choice(len(sources), rows, p=shares / shares.sum())):
        s = sources[pick][1].draw(rng)
        n = min(steps, len(s.features))
        part = slice(start := int(rng.integers(0, len(s.features) - n + 1)), start + n)
        x[row, :n], y[row, :n] = s.features[part], s.targets[part]
        known[row, :n], openings[row, :n] = s.known[part], s.openings[part]
        if rng.random() < 0.5:
            width = int(rng.integers(1, 8))
            low = int(rng.integers(0, MEL_COUNT - width))
            x[row].reshape(steps, HOPS, MEL_COUNT)[:, :, low : low + width] = MISSING_BAND
    return Batch(x, y, known, openings)
