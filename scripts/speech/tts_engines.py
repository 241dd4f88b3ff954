"""Text-to-speech engines and their voices: text → sound with the phones heard in it.

flite and festival print the end of every phone; espeak-ng is asked through its library, which tells the start of
every phone. Voices that are not installed are left out.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

from engines.errors import VisavisError
from engines.speech.features import RATE_HZ
from scripts.speech.data import read_sound
from scripts.speech.tts_phones import espeak_phones, festival_phones, flite_phones, with_closures
from scripts.speech.visemes import Phone

F32 = NDArray[np.float32]

INSTALL = (
    "apt-get install flite espeak-ng libespeak-ng1 festival festvox-us-slt-hts festvox-kallpc16k festvox-kdlpc16k "
    "festvox-czech-dita festvox-czech-machac festvox-czech-krb festvox-czech-ph festvox-italp16k festvox-itapc16k "
    "festvox-suopuhe-mv festvox-suopuhe-lj festvox-ru festvox-ca-ona-hts"
)
_VOICES = Path("/usr/share/festival/voices")


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
