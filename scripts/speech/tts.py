"""Speech of synthetic voices whose phones are known in time: NAME.flac (16 kHz) and NAME.npz in a folder.

python -m scripts.speech.tts runs/speech/tts --minutes 60 --seed 0

flite and festival print the end of every phone; espeak-ng is asked through its library, which tells the start of
every phone. Voices that are not installed are left out.
"""

from __future__ import annotations

import argparse
import ctypes
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly
from tqdm import tqdm

from engines.errors import VisavisError
from engines.speech.features import HOP, RATE_HZ
from engines.speech.network import CLOSURE, OUTPUT_COUNT, ROTATION, VOICE
from scripts.speech.data import Recording, read_sound, recording, voiced
from scripts.speech.tts_text import sentence
from scripts.speech.visemes import MOVED, Articulation, Phone, articulations_of, curves_of, from_arpabet

F32 = NDArray[np.float32]

INSTALL = (
    "apt-get install flite espeak-ng libespeak-ng1 festival festvox-us-slt-hts festvox-kallpc16k festvox-kdlpc16k "
    "festvox-czech-dita festvox-czech-machac festvox-czech-krb festvox-czech-ph festvox-italp16k festvox-itapc16k "
    "festvox-suopuhe-mv festvox-suopuhe-lj festvox-ru festvox-ca-ona-hts"
)
_VOICES = Path("/usr/share/festival/voices")
_SENTENCES = 9  # of one call of an engine
_TOGETHER = 3  # of one utterance


class TtsMissing(VisavisError):
    """No engine for text to speech is installed; the message names the command that installs them."""


@dataclass(frozen=True, slots=True)
class Voice:
    """One speaker of one engine; `share`: how often it is drawn."""

    engine: str
    name: str
    language: str
    share: float = 1.0
    encoding: str = "utf-8"


@dataclass(frozen=True, slots=True)
class Manner:
    """How fast (1: the voice's own) and how high (1: its own) a voice speaks."""

    speed: float = 1.0
    pitch: float = 1.0


@dataclass(frozen=True, slots=True)
class Spoken:
    """(S,) float32 sound at 16 kHz with the phones heard in it."""

    sound: F32
    phones: tuple[Phone, ...]


_FESTIVAL = (
    Voice("festival", "cmu_us_slt_arctic_hts", "en", 4),
    Voice("festival", "kal_diphone", "en", 2),
    Voice("festival", "ked_diphone", "en", 3),
    Voice("festival", "czech_dita", "cs", 2, "iso-8859-2"),
    Voice("festival", "czech_machac", "cs", 2, "iso-8859-2"),
    Voice("festival", "czech_krb", "cs", 1, "iso-8859-2"),
    Voice("festival", "czech_ph", "cs", 1, "iso-8859-2"),
    Voice("festival", "lp_diphone", "it", 2, "iso-8859-1"),
    Voice("festival", "pc_diphone", "it", 2, "iso-8859-1"),
    Voice("festival", "hy_fi_mv_diphone", "fi", 2, "iso-8859-1"),
    Voice("festival", "suo_fi_lj_diphone", "fi", 2, "iso-8859-1"),
    Voice("festival", "msu_ru_nsh_clunits", "ru", 4),
    Voice("festival", "upc_ca_ona_hts", "ca", 3, "iso-8859-1"),
)
_FLITE = tuple(
    Voice("flite", name, "en", share) for name, share in (("slt", 4), ("rms", 4), ("awb", 4), ("kal16", 1))
)
# espeak's own voice and its variants; the buzzing and the whispering ones are left out
_ESPEAK_VARIANTS = (
    "",
    "m1",
    "m3",
    "m7",
    "f2",
    "f3",
    "f5",
    "klatt3",
    "Annie",
    "Michael",
    "Andy",
    "linda",
    "max",
)
_ESPEAK_LANGUAGES = {
    "en-us": "en", "en-gb": "en", "de": "de", "fr-fr": "fr", "es": "es", "it": "it", "ru": "ru", "pt-br": "pt",
    "cmn-latn-pinyin": "cmn", "ja": "ja", "pl": "pl", "tr": "tr", "hi": "hi",
}  # fmt: skip
_ESPEAK = tuple(
    Voice("espeak", f"{name}+{variant}" if variant else name, language, 0.13)
    for name, language in _ESPEAK_LANGUAGES.items()
    for variant in _ESPEAK_VARIANTS
)

# --- what the engines print ----------------------------------------------------------------------

# names that mean something else in ARPAbet or IPA
_FESTIVAL_NAMES: dict[str, dict[str, str]] = {
    "cs": {
        "c": "ts",
        "c*": "tʃ",
        "s*": "ʃ",
        "z*": "ʒ",
        "r*": "ʒ",
        "n*": "ɲ",
        "t*": "c",
        "d*": "ɟ",
        "ch": "x",
    },
    "ru": {
        "y": "ɨ",
        "yy": "ɨ",
        "ay": "ə",
        "ae": "ə",
        "ee": "ɛ",
        "c": "ts",
        "h": "x",
        "hh": "x",
        "sch": "ɕ",
        "ur": "ə",
    },
    "it": {"y": "j", "SS": "ʃ", "LL": "ʎ", "JJ": "ɲ"},
    "fi": {"@": "æ", "@:": "æ", "7": "ø", "7:": "ø"},
    "ca": {"y": "j", "x": "ʃ"},
}


def flite_phones(printed: str) -> tuple[Phone, ...]:
    """Phones of `flite -psdur`: NAME:END in seconds."""
    ends = [(m[1], float(m[2])) for m in re.finditer(r"(\S+?):(\d+\.\d+)", printed)]
    return _from_ends((from_arpabet(name), end) for name, end in ends)


def festival_phones(labels: str, language: str) -> tuple[Phone, ...]:
    """Phones of festival's `utt.save.segs`: lines END NUMBER NAME after a line "#"."""
    names = _FESTIVAL_NAMES.get(language)
    rows = [line.split() for line in labels.split("#\n", 1)[-1].splitlines()]
    return _from_ends(
        (from_arpabet(row[2]) if names is None else names.get(row[2], row[2]), float(row[0]))
        for row in rows
        if len(row) >= 3
    )


def espeak_phones(events: Sequence[tuple[str, float]], seconds: float) -> tuple[Phone, ...]:
    """Phones of espeak's phoneme events (IPA, start in seconds); a stop's event comes with its burst."""
    heard = [(s, t) for s, t in events if not s.startswith("(")]
    ends = [t for _, t in heard[1:]] + [seconds]
    out: list[Phone] = []
    for (symbol, start), end in zip(heard, ends, strict=True):
        if end <= start:
            continue
        before = out[-1] if out else None
        short_gap = before is not None and _silent(before) and before.end_s - before.start_s < 0.12
        if before is not None and short_gap and len(out) > 1 and _is_stop(symbol):
            out.pop()  # that silence is the closure
            start = before.start_s
        out.append(Phone(symbol or "_", start, end))
    return tuple(out)


def with_closures(phones: Sequence[Phone], sound: F32, longest_s: float = 0.08) -> tuple[Phone, ...]:
    """Phones with stops that start when it gets quiet before their burst, at most `longest_s` earlier."""
    step = RATE_HZ // 200
    power = (sound[: len(sound) // step * step].reshape(-1, step).astype(np.float64) ** 2).mean(1)
    quiet = power < np.percentile(power, 95) * 10**-2.5
    out = list(phones)
    for k, phone in enumerate(out):
        if not _is_stop(phone.symbol):
            continue
        first = at = min(int(phone.start_s * 200), len(quiet))
        while at > 0 and quiet[at - 1] and first - at < longest_s * 200:
            at -= 1
        start = min(phone.start_s, max(at / 200, out[k - 1].start_s if k else 0.0))
        out[k] = replace(phone, start_s=start)
        if k:
            out[k - 1] = replace(out[k - 1], end_s=min(out[k - 1].end_s, start))
    return tuple(out)


def _from_ends(ends: Iterable[tuple[str, float]]) -> tuple[Phone, ...]:
    out: list[Phone] = []
    at = 0.0
    for name, end in ends:
        out.append(Phone(name, at, max(at, end)))
        at = max(at, end)
    return tuple(out)


def _silent(phone: Phone) -> bool:
    return articulations_of(phone.symbol) == (Articulation.SILENCE,)


def _is_stop(symbol: str) -> bool:
    return symbol[:1] in "pbtdkgɡcqʈ" and symbol != ""


# --- the engines ---------------------------------------------------------------------------------


def installed_voices() -> list[Voice]:
    """Voices that can speak here. Raises TtsMissing when there is none."""
    out: list[Voice] = []
    if shutil.which("flite"):
        out += _FLITE
    if shutil.which("festival"):
        there = {p.name for p in _VOICES.glob("*/*")}
        out += [v for v in _FESTIVAL if v.name in there]
    if _espeak_library() is not None:
        out += _ESPEAK
    if not out:
        raise TtsMissing(f"no text to speech is installed; {INSTALL}")
    return out


def speak(voice: Voice, manner: Manner, texts: Sequence[str]) -> list[Spoken]:
    """Every text spoken; a text that the engine cannot speak is left out."""
    with tempfile.TemporaryDirectory() as folder:
        if voice.engine == "flite":
            found = [_flite(voice, manner, text, Path(folder) / "a.wav") for text in texts]
        elif voice.engine == "festival":
            found = _festival(voice, manner, texts, Path(folder))
        else:
            espeak = Espeak.shared()
            found = [espeak.speak(voice.name, manner, text) for text in texts]
    return [s for s in found if s is not None and len(s.phones) > 2 and len(s.sound) > RATE_HZ // 4]


def _flite(voice: Voice, manner: Manner, text: str, wav: Path) -> Spoken | None:
    mean_hz = {"slt": 170, "rms": 100, "awb": 130, "kal16": 105}[voice.name] * manner.pitch
    options = [
        "--setf",
        f"duration_stretch={1 / manner.speed:.3f}",
        "--setf",
        f"int_f0_target_mean={mean_hz:.0f}",
    ]
    command = ["flite", "-voice", voice.name, *options, "-psdur", "-t", text, "-o", str(wav)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return Spoken(read_sound(wav), flite_phones(done.stdout)) if done.returncode == 0 else None


def _festival(voice: Voice, manner: Manner, texts: Sequence[str], folder: Path) -> list[Spoken | None]:
    lines = [f"(voice_{voice.name})", f"(Parameter.set 'Duration_Stretch {1 / manner.speed:.3f})"]
    for k, text in enumerate(texts):
        plain = text.replace("\\", "").replace('"', "")
        lines.append(f'(set! u (SynthText "{plain}"))')
        lines.append(f'(utt.save.wave u "{folder}/{k}.wav" \'riff)')
        lines.append(f'(utt.save.segs u "{folder}/{k}.lab")')
    script = folder / "say.scm"
    script.write_bytes("\n".join(lines).encode(voice.encoding, "ignore"))
    subprocess.run(["festival", "-b", str(script)], capture_output=True, check=False, timeout=300)
    out: list[Spoken | None] = []
    for k in range(len(texts)):
        wav, labels = folder / f"{k}.wav", folder / f"{k}.lab"
        if wav.is_file() and labels.is_file():
            phones = festival_phones(labels.read_text(errors="replace"), voice.language)
            out.append(Spoken(read_sound(wav), phones))
    return out


class _Event(ctypes.Structure):
    # espeak_EVENT of speak_lib.h; the id is a union of a number, a pointer and eight letters
    _fields_ = (
        ("type", ctypes.c_int), ("unique_identifier", ctypes.c_uint), ("text_position", ctypes.c_int),
        ("length", ctypes.c_int), ("audio_position", ctypes.c_int), ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p), ("id", ctypes.c_char * 8),
    )  # fmt: skip


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)
_SYNCHRONOUS, _PHONEME_EVENTS, _PHONEME_IPA, _PHONEME = 2, 1, 2, 7
_ESPEAK_RATE, _ESPEAK_PITCH, _UTF8 = 1, 3, 1


def _espeak_library() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL("libespeak-ng.so.1")
    except OSError:
        return None


class Espeak:
    """espeak-ng's library, which is one per process."""

    _one: Espeak | None = None

    @classmethod
    def shared(cls) -> Espeak:
        """The process's own. Raises TtsMissing."""
        cls._one = cls._one or cls()
        return cls._one

    def __init__(self) -> None:
        library = _espeak_library()
        if library is None:
            raise TtsMissing(f"libespeak-ng is not installed; {INSTALL}")
        self._library = library
        self._rate_hz = int(library.espeak_Initialize(_SYNCHRONOUS, 0, None, _PHONEME_EVENTS | _PHONEME_IPA))
        if self._rate_hz <= 0:
            raise TtsMissing(f"espeak-ng does not start, its data are missing; {INSTALL}")
        self._sound: list[NDArray[np.int16]] = []
        self._events: list[tuple[str, float]] = []
        self._callback = _CALLBACK(self._heard)
        library.espeak_SetSynthCallback(self._callback)

    def _heard(
        self,
        samples: ctypes._Pointer[ctypes.c_short],  # pyright: ignore[reportPrivateUsage] (has no public name)
        count: int,
        events: ctypes._Pointer[_Event],  # pyright: ignore[reportPrivateUsage]
    ) -> int:
        if samples and count:
            self._sound.append(np.ctypeslib.as_array(samples, (count,)).copy())
        k = 0
        while events[k].type:
            if events[k].type == _PHONEME:
                symbol = bytes(events[k].id).decode("utf-8", "ignore")
                self._events.append((symbol, events[k].audio_position / 1000))
            k += 1
        return 0

    def speak(self, voice: str, manner: Manner, text: str) -> Spoken | None:
        """`text` in one of espeak's voices; None for a voice or text it refuses."""
        self._sound.clear()
        self._events.clear()
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            return None
        self._library.espeak_SetParameter(_ESPEAK_RATE, int(165 * manner.speed), 0)
        self._library.espeak_SetParameter(_ESPEAK_PITCH, int(np.clip(50 * manner.pitch**2, 0, 99)), 0)
        letters = text.encode()
        if self._library.espeak_Synth(letters, len(letters) + 1, 0, 0, 0, _UTF8, None, None) != 0:
            return None
        if not self._sound or not self._events:
            return None
        samples = np.concatenate(self._sound).astype(np.float32) / 32768
        ratio = Fraction(RATE_HZ, self._rate_hz)
        sound = np.asarray(resample_poly(samples, ratio.numerator, ratio.denominator), np.float32)
        phones = espeak_phones(self._events, len(samples) / self._rate_hz)
        return Spoken(sound, with_closures(phones, sound))


# --- files ---------------------------------------------------------------------------------------


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
    np.savez(
        folder / f"{name}.npz",
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
