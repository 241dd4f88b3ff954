"""Speech of synthetic voices whose phones are known in time: NAME.flac (16 kHz) and NAME.npz in a folder.

python -m scripts.speech.tts runs/speech/tts --minutes 60 --seed 0
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from engines.errors import VisavisError
from engines.files import whole_file
from engines.speech.features import HOP, RATE_HZ
from engines.speech.network import CLOSURE, OUTPUT_COUNT, ROTATION, VOICE
from scripts.speech.data import Recording, read_sound, recording, voiced
from scripts.speech.tts_engines import Manner, Spoken, Voice, installed_voices, speak
from scripts.speech.tts_text import sentence
from scripts.speech.visemes import MOVED, Phone, curves_of

F32 = NDArray[np.float32]

_SENTENCES = 9  # of one call of an engine
_TOGETHER = 3  # of one utterance


def joined(parts: Sequence[Spoken], pauses_s: Sequence[float]) -> Spoken:
    """One after the other, each after its pause of `pauses_s`, with one pause more at the end, equally loud."""
    sound: list[F32] = []
    phones: list[Phone] = []
    at = 0
    for part, pause_s in zip(parts, pauses_s[:-1], strict=True):
        pause = int(pause_s * RATE_HZ)
        phones.append(Phone("_", at / RATE_HZ, (at + pause) / RATE_HZ))
        sound.append(np.zeros(pause, np.float32))
        at += pause
        start_s = at / RATE_HZ
        length_s = len(part.sound) / RATE_HZ
        phones += [
            Phone(p.symbol, start_s + min(p.start_s, length_s), start_s + min(p.end_s, length_s))
            for p in part.phones
        ]
        sound.append(part.sound * np.float32(0.06 / max(float(np.sqrt(np.mean(part.sound**2))), 1e-4)))
        at += len(part.sound)
    pause = int(pauses_s[-1] * RATE_HZ)
    phones.append(Phone("_", at / RATE_HZ, (at + pause) / RATE_HZ))
    sound.append(np.zeros(pause, np.float32))
    return Spoken(np.clip(np.concatenate(sound), -1, 1), tuple(phones))


def write_utterance(folder: Path, name: str, spoken: Spoken, voice: Voice) -> None:
    """`name`.flac and `name`.npz; the second is written last, so one that exists is complete."""
    with av.open(str(folder / f"{name}.flac"), "w") as container:
        stream = container.add_stream("flac", rate=RATE_HZ)
        stream.layout = "mono"
        samples = (spoken.sound * 32767).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(samples, "s16", "mono")
        frame.sample_rate = RATE_HZ
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    with whole_file(folder / f"{name}.npz") as part:
        np.savez(
            part,
            phones=np.array([p.symbol for p in spoken.phones]),
            starts=np.array([p.start_s for p in spoken.phones], np.float32),
            ends=np.array([p.end_s for p in spoken.phones], np.float32),
            voice=np.str_(f"{voice.engine}-{voice.name}"),
            language=np.str_(voice.language),
        )


def read_phones(npz: Path) -> tuple[Phone, ...]:
    """The phones of an utterance, in order."""
    with np.load(npz) as data:
        rows = zip(data["phones"].tolist(), data["starts"].tolist(), data["ends"].tolist(), strict=True)
        return tuple(Phone(symbol, start, max(start, end)) for symbol, start, end in rows)


def read_utterance(npz: Path) -> Recording:
    """An utterance with what the mouth should do; eyes, brows and head are not known."""
    sound = read_sound(npz.with_suffix(".flac"))
    with np.load(npz) as data:
        voice = str(data["voice"])
    count = len(sound) // HOP
    targets = np.zeros((count, OUTPUT_COUNT), np.float32)
    known = np.zeros_like(targets)
    curves = curves_of(read_phones(npz), count * HOP / RATE_HZ, RATE_HZ / HOP)
    targets[:, : ROTATION.start] = curves[:, :-1]
    targets[:, CLOSURE] = curves[:, -1]
    targets[:, VOICE] = voiced(sound)[:count]
    known[:, [*MOVED, CLOSURE, VOICE]] = 1
    return recording(npz.stem, f"tts-{voice}", sound, targets, known)


def read_utterances(folder: Path) -> list[Recording]:
    """Every utterance in a folder, by name."""
    return [read_utterance(p) for p in sorted(folder.glob("*.npz"))]


def generate(folder: Path, minutes: float, seed: int) -> None:
    """Utterances of all voices in turn until there are `minutes` of sound."""
    folder.mkdir(parents=True, exist_ok=True)
    voices = installed_voices()
    rng = np.random.default_rng(seed)
    shares = np.array([v.share for v in voices])
    made_s, number = 0.0, 0
    with tqdm(total=round(minutes * 60), unit="s", mininterval=5) as bar:
        while made_s < minutes * 60:
            voice = voices[int(rng.choice(len(voices), p=shares / shares.sum()))]
            manner = Manner(float(np.exp(rng.uniform(-0.25, 0.25))), float(np.exp(rng.uniform(-0.18, 0.18))))
            texts = [sentence(voice.language, rng) for _ in range(_SENTENCES)]
            spoken = speak(voice, manner, texts)
            for first in range(0, len(spoken), _TOGETHER):
                parts = spoken[first : first + _TOGETHER]
                # mostly short pauses, now and then one of a listener
                pauses = np.where(rng.random(4) < 0.2, rng.uniform(0.8, 2, 4), rng.uniform(0.05, 0.6, 4))
                whole = joined(parts, pauses.tolist())
                write_utterance(folder, f"{seed:02d}-{number:05d}", whole, voice)
                number += 1
                made_s += len(whole.sound) / RATE_HZ
                bar.update(round(len(whole.sound) / RATE_HZ))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where the utterances go, such as runs/speech/tts")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    try:
        generate(arguments.folder, arguments.minutes, arguments.seed)
    except VisavisError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
