"""Opus over losses: what the next packet repeats is heard as it was, the rest is concealed, and nothing clicks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from streamer.webrtc import libopus, opus_sound
from streamer.webrtc.decoding import Decoding
from streamer.webrtc.libopus import MOST_SAMPLES, RATE_HZ, STEP, OpusDecoder, OpusEncoder, OpusError, has_fec
from streamer.webrtc.opus_sound import OpusSound
from streamer.webrtc.shared_library import candidates, shared_library
from streamer.webrtc.sound_filler import Sound, SoundCounts

I16 = NDArray[np.int16]
PACKET = 960


def voice(seconds: float) -> I16:
    """(S, 2): harmonics of a pitch that wanders, with syllables, over a faint noise."""
    t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    phase = 2 * np.pi * np.cumsum(140 + 30 * np.sin(2 * np.pi * 0.7 * t)) / RATE_HZ
    tone = sum(np.sin(k * phase) / k for k in range(1, 12))
    noise = np.random.default_rng(0).normal(0, 20, len(t))
    mono = 4000 * tone * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * t)) + noise
    return np.repeat(mono.astype(np.int16)[:, None], 2, 1)


def packets(sound: I16, loss_percent: int, bitrate: int = 96_000) -> list[bytes]:
    encoder = OpusEncoder(2, bitrate)
    encoder.expect(loss_percent)
    return [encoder.encode(sound[k : k + PACKET]) for k in range(0, len(sound) - PACKET + 1, PACKET)]


@pytest.fixture(scope="module")
def said() -> I16:
    return voice(4.0)


@pytest.fixture(scope="module")
def repeated(said: I16) -> list[bytes]:
    return packets(said, 10)


def decoded(encoded: list[bytes], lost: set[int], counts: SoundCounts | None = None) -> list[Sound]:
    stream = OpusSound(counts)
    return [s for k, data in enumerate(encoded) if k not in lost for s in stream.next(data, k * PACKET)]


def line(sounds: list[Sound]) -> I16:
    """All of them in their places; fails where two overlap or one is missing."""
    assert all(a.at + len(a.samples) == b.at for a, b in itertools.pairwise(sounds))
    return np.concatenate([s.samples for s in sounds])


def snr_db(sound: I16, exact: I16) -> float:
    error = sound.astype(float) - exact
    return float(10 * np.log10((exact.astype(float) ** 2).mean() / max((error**2).mean(), 1e-9)))


LOST = set(range(10, 190, 9))


def test_a_lost_packet_is_heard_from_the_next_one(repeated: list[bytes], said: I16) -> None:
    exact = line(decoded(repeated, set()))
    counts = SoundCounts()
    with_fec = line(decoded(repeated, LOST, counts))
    assert len(with_fec) == len(exact)
    followed = sum(has_fec(repeated[k + 1]) for k in LOST)
    assert 2 * followed > len(LOST), "libopus repeats what it takes for speech"
    assert counts.recovered_s == pytest.approx(0.02 * followed)
    assert counts.concealed_s == pytest.approx(0.02 * (len(LOST) - followed))
    assert counts.heard_s == pytest.approx(0.02 * (len(repeated) - len(LOST)))
    plain = packets(said, 0)
    exact_plain = line(decoded(plain, set()))
    spoken = {k for k in range(10, 190, 3) if has_fec(repeated[k + 1])}
    assert (
        snr_db(line(decoded(repeated, spoken)), exact) > snr_db(line(decoded(plain, spoken)), exact_plain) + 2
    )


def test_where_nothing_repeats_it_libopus_conceals(said: I16) -> None:
    encoded = packets(said, 0)
    assert not any(has_fec(p) for p in encoded)
    counts = SoundCounts()
    exact, concealed = line(decoded(encoded, set())), line(decoded(encoded, LOST, counts))
    silent = exact.copy()
    for k in LOST:
        silent[k * PACKET : (k + 1) * PACKET] = 0
    assert (counts.recovered_s, counts.concealed_s) == (0, pytest.approx(0.02 * len(LOST)))
    assert snr_db(concealed, exact) > snr_db(silent, exact)


@pytest.mark.parametrize("length", [1, 2, 3, 6])
@pytest.mark.parametrize("loss_percent", [0, 10])
def test_short_gaps_are_filled_to_the_sample_without_a_click(
    said: I16, length: int, loss_percent: int
) -> None:
    encoded = packets(said, loss_percent)
    exact = line(decoded(encoded, set()))
    filled = line(decoded(encoded, set(range(50, 50 + length))))
    assert len(filled) == len(exact)
    around = slice(49 * PACKET, (52 + length) * PACKET)
    steps = np.abs(np.diff(filled[around, 0].astype(int)))
    assert steps.max() <= 1.5 * np.abs(np.diff(exact[:, 0].astype(int))).max()


def test_a_long_gap_is_a_jump_after_which_sound_begins_softly(repeated: list[bytes]) -> None:
    counts = SoundCounts()
    stream = OpusSound(counts)
    for k in range(50):
        stream.next(repeated[k], k * PACKET)
    after = stream.next(repeated[57], 57 * PACKET)
    assert [(s.at, len(s.samples)) for s in after] == [(57 * PACKET, PACKET)]
    assert counts.left_out_s == pytest.approx(0.14)
    assert np.abs(after[0].samples[:20]).max() < 0.15 * np.abs(after[0].samples).max()


def test_what_overlaps_is_left_out(repeated: list[bytes]) -> None:
    stream = OpusSound()
    stream.next(repeated[0], 0)
    half = stream.next(repeated[1], PACKET // 2)
    assert [(s.at, len(s.samples)) for s in half] == [(PACKET, PACKET // 2)]
    assert stream.next(repeated[2], 0) == [], "all of it was before"
    assert [s.at for s in stream.next(repeated[3], 3 * PACKET // 2)] == [3 * PACKET // 2]


def test_a_gap_that_is_no_multiple_of_a_frame(repeated: list[bytes]) -> None:
    stream = OpusSound()
    stream.next(repeated[0], 0)
    sounds = stream.next(repeated[2], 2 * PACKET - 7)
    assert [(s.at, len(s.samples)) for s in sounds] == [(PACKET, PACKET - 7), (2 * PACKET - 7, PACKET)]


@pytest.mark.parametrize("data", [b"\xff", b"\x03", b"\x7f\xff" + bytes(20)])
def test_what_is_no_packet_is_missing(repeated: list[bytes], data: bytes) -> None:
    stream = OpusSound()
    stream.next(repeated[0], 0)
    with pytest.raises(OpusError):
        stream.next(data, 2 * PACKET)
    sounds = stream.next(repeated[3], 3 * PACKET)
    assert [(s.at, len(s.samples)) for s in sounds] == [(PACKET, 2 * PACKET), (3 * PACKET, PACKET)]


def test_no_octets_crash_it() -> None:
    chance = np.random.default_rng(3)
    stream, at = OpusSound(), 0
    for _ in range(3000):
        data = chance.bytes(int(chance.integers(1, 200)))
        has_fec(data)
        at += int(chance.integers(0, 4)) * STEP
        try:
            sounds = stream.next(data, at)
        except OpusError:
            continue
        assert all(0 < len(s.samples) <= MOST_SAMPLES for s in sounds)


def test_another_loss_needs_no_other_encoder(said: I16) -> None:
    """Bits that repeat come and go as they are asked for, and what is heard goes on."""
    encoder, decoder = OpusEncoder(2, 96_000), OpusDecoder()
    fec: list[bool] = []
    heard: list[I16] = []
    for k in range(180):
        encoder.expect(10 if 60 <= k < 120 else 0)
        data = encoder.encode(said[k * PACKET : (k + 1) * PACKET])
        fec.append(has_fec(data))
        heard.append(decoder.decode(data))
    assert not any(fec[:60])
    assert sum(fec[62:120]) > 29
    assert not any(fec[125:])
    steps = np.abs(np.diff(np.concatenate(heard)[:, 0].astype(int)))
    assert steps.max() <= 1.5 * np.abs(np.diff(said[:, 0].astype(int))).max()


def test_the_flag_is_where_libopus_reads_it(repeated: list[bytes]) -> None:
    library = shared_library("opus")
    assert library is not None
    if not hasattr(library, "opus_packet_has_lbrr"):
        pytest.skip("libopus before 1.5")
    others = [
        packets(voice(1.0), loss, bitrate) for loss in (0, 5, 20) for bitrate in (16_000, 32_000, 64_000)
    ]
    for data in [*repeated, *(p for some in others for p in some)]:
        assert bool(library.opus_packet_has_lbrr(data, len(data))) == has_fec(data)


def test_without_libopus_it_is_as_it_was(repeated: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    from receiving import OPUS

    from streamer.webrtc.sound_buffer import EncodedSound

    monkeypatch.setattr(libopus, "_library", lambda: None)
    with pytest.raises(OpusError, match="install PyAV"):
        opus_sound.OpusSound()
    counts = SoundCounts()
    decode = Decoding(counts)
    frames = [
        f
        for k, data in enumerate(repeated[:60])
        if k != 50
        for f in decode(OPUS, EncodedSound(k * PACKET, data, 0.0))
    ]
    assert sum(f.samples for f in frames) == 60 * PACKET  # pyright: ignore[reportAttributeAccessIssue]
    assert counts.concealed_s == pytest.approx(0.02)


def test_where_wheels_keep_their_libraries(tmp_path) -> None:  # type: ignore[no-untyped-def]
    package = tmp_path / "av"
    for folder, name in (
        ("av.libs", "libopus-114e2b1a.so.0.11.1"),
        ("av.libs", "libopus-0-4369.dll"),
        ("av.libs", "libopusenc.so"),
        ("av/.dylibs", "libopus.0.dylib"),
    ):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / name).touch()
    found = [c.rsplit("/", 1)[-1] for c in candidates("opus", package)]
    assert found[:3] == ["libopus-0-4369.dll", "libopus-114e2b1a.so.0.11.1", "libopus.0.dylib"]
    assert "libopusenc.so" not in found
