"""Speech features and the causal network: streams equal wholes, gain does not matter, silence and junk move nothing."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import kaldi_native_fbank as knf
import numpy as np
import pytest
import torch

from engines.compile.weights import load_weights, save_weights
from engines.errors import WeightsError
from engines.motion import ARKIT_INDEX
from engines.speech.features import (
    HIGHEST_HZ,
    LOWEST_FEATURE,
    LOWEST_HZ,
    MEL_COUNT,
    MFCC_COUNT,
    RATE_HZ,
    FeatureState,
    hz_to_mel,
    log_mel,
    mel_filters,
    mel_power,
    mel_to_hz,
    mfcc,
)
from engines.speech.network import (
    ANSWER_HZ,
    FEATURE_SCALE,
    HOPS,
    INPUT_COUNT,
    KIND,
    OUTPUT_COUNT,
    VOICE,
    WEIGHTS,
    SpeechConfig,
    SpeechNetwork,
    load_network,
    scaled,
)
from engines.speech.opening import opening_weights, openings_of
from engines.speech.prosody import BEARING_RAD, NOD_RAD, Follower, HeadState, advance
from engines.speech.speech_to_motion import (
    SpeechState,
    SpeechToMotion,
    Spoken,
    heard_closure,
    motion_of,
    motions_of,
    usual_closure,
)
from scripts.speech.data import at_hops, coloured_noise, music, relative_rotation, voiced
from scripts.speech.losses import visavis_losses
from scripts.speech.recipe import RECIPES, Recipe
from scripts.speech.task import SpeechNet
from scripts.train_speech import save_net


def vowel(seconds: float, pitch_hz: float = 120.0) -> np.ndarray:
    """A buzz with two formants that comes and goes four times a second."""
    t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    out = sum(
        np.sin(2 * np.pi * k * pitch_hz * t) * (np.exp(-(((k * pitch_hz - f) / 150) ** 2)))
        for k in range(1, 40)
        for f in (700, 1200)
    )
    return (0.05 * out * (1 + np.sin(2 * np.pi * 4 * t))).astype(np.float32)


def numpy_of(net: SpeechNet) -> SpeechNetwork:
    return SpeechNetwork({n: t.detach().numpy() for n, t in net.state_dict().items()}, net.recipe.config)


SHORT = SpeechConfig(6)


def network(config: SpeechConfig = SHORT) -> tuple[SpeechNetwork, SpeechNet]:
    torch.manual_seed(0)
    net = SpeechNet(32, recipe=Recipe("any", config, visavis_losses)).eval()
    return numpy_of(net), net


@pytest.fixture(params=[("log-mel", "gru"), ("log-mel", "lstm"), ("mfcc", "gru"), ("mfcc", "lstm")])
def config(request: pytest.FixtureRequest) -> SpeechConfig:
    features, cell = request.param
    return SpeechConfig(6, features, cell)


@pytest.mark.parametrize("sizes", [(160,), (1, 159, 7), (480,), (37, 4000, 3)])
def test_features_of_a_stream_are_those_of_the_whole(sizes: tuple[int, ...]) -> None:
    sound = vowel(1.0)
    whole, _ = log_mel(sound)
    state, parts, at = FeatureState(), [], 0
    k = 0
    while at < len(sound):
        size = sizes[k % len(sizes)]
        part, state = log_mel(sound[at : at + size], state)
        parts.append(part)
        at, k = at + size, k + 1
    assert np.array_equal(np.concatenate(parts), whole)
    assert whole.shape == (100, MEL_COUNT)


def test_mel_scale_and_filters() -> None:
    hz = np.linspace(50, 7000, 20)
    assert np.allclose(mel_to_hz(hz_to_mel(hz)), hz)
    assert np.isclose(float(hz_to_mel(1000.0)), 999.99, atol=0.05)  # the scale's anchor
    filters = mel_filters()
    assert (filters >= 0).all()
    assert (filters.sum(1) > 0).all()
    tone = np.sin(2 * np.pi * 1000 * np.arange(RATE_HZ) / RATE_HZ).astype(np.float32) * 0.3
    features, _ = log_mel(tone)
    centres = mel_to_hz(np.linspace(hz_to_mel(60.0), hz_to_mel(7600.0), MEL_COUNT + 2))[1:-1]
    assert abs(centres[features[50].argmax()] - 1000) < 120


def test_gain_does_not_matter() -> None:
    sound = vowel(8.0)
    loud, _ = log_mel(sound)
    soft, _ = log_mel(sound * np.float32(0.06))
    heard = (loud[600:] > LOWEST_FEATURE + 1) & (soft[600:] > LOWEST_FEATURE + 1)
    assert heard.mean() > 0.2
    assert np.abs(loud[600:] - soft[600:])[heard].max() < 0.15  # of 1 = 4.3 dB, for 24 dB of gain


def test_junk_in_gives_finite_features() -> None:
    bad = np.array([np.nan, np.inf, -np.inf, 1e30] * 200, np.float32)
    features, state = log_mel(bad)
    assert np.isfinite(features).all()
    assert np.isfinite(state.level)
    silent, _ = log_mel(np.zeros(RATE_HZ, np.float32))
    assert silent.max() < 0


def kaldi(options: knf.FbankOptions | knf.MfccOptions) -> None:
    frames, bands = options.frame_opts, options.mel_opts
    frames.dither, frames.preemph_coeff, frames.remove_dc_offset = 0.0, 0.0, False
    frames.window_type, frames.samp_freq = "hanning", float(RATE_HZ)
    frames.frame_length_ms, frames.frame_shift_ms, frames.snip_edges = 25.0, 10.0, True
    bands.num_bins, bands.low_freq, bands.high_freq = MEL_COUNT, LOWEST_HZ, HIGHEST_HZ
    options.use_energy = False


def test_features_are_those_of_kaldi() -> None:
    rng = np.random.default_rng(0)
    sound = vowel(1.0) + 0.003 * rng.normal(size=RATE_HZ).astype(np.float32)
    mel_options, mfcc_options = knf.FbankOptions(), knf.MfccOptions()
    kaldi(mel_options)
    kaldi(mfcc_options)
    mfcc_options.num_ceps, mfcc_options.cepstral_lifter = MFCC_COUNT, 0.0
    streams = knf.OnlineFbank(mel_options), knf.OnlineMfcc(mfcc_options)
    for at in range(0, len(sound), 777):
        for stream in streams:
            stream.accept_waveform(RATE_HZ, sound[at : at + 777].tolist())
    fbank, cepstrum = (np.array([s.get_frame(k) for k in range(s.num_frames_ready)]) for s in streams)
    ours = np.log(mel_power(sound))
    assert ours.shape == fbank.shape == (98, MEL_COUNT)
    shift = fbank - ours  # a constant: Kaldi's windows and spectra are not normalised
    assert np.ptp(shift) < 1e-3
    shift_0 = float(shift.mean()) * np.sqrt(MEL_COUNT)
    theirs = cepstrum - np.eye(1, MFCC_COUNT) * shift_0
    assert np.abs(mfcc(ours.astype(np.float32)) - theirs).max() < 2e-3


def test_network_equals_torch_and_is_causal(config: SpeechConfig) -> None:
    ours, net = network(config)
    assert net.first.in_features == config.input_count == {"log-mel": 80, "mfcc": 26}[config.features]
    heard = np.random.default_rng(1).uniform(LOWEST_FEATURE, 3, (2, 50, INPUT_COUNT)).astype(np.float32)
    with torch.no_grad():
        expected = net(torch.from_numpy(heard)).numpy()
    assert np.ptp(expected, axis=1).min(0).max() > 0.01  # it answers by what it hears
    state, answer = ours.fresh(2), np.zeros(0)
    for t in range(50):
        answer, state = ours(heard[:, t], state)
        assert np.allclose(answer, expected[:, t], atol=1e-5)
    assert answer.shape == (2, OUTPUT_COUNT)


def test_mfcc_of_two_hops_come_in_the_range_of_log_mel() -> None:
    hops = np.random.default_rng(0).uniform(-10, 3, (5, HOPS, MEL_COUNT)).astype(np.float32)
    heard = scaled(hops.reshape(5, -1), "mfcc").reshape(5, HOPS, MFCC_COUNT)
    mean = scaled(hops.reshape(5, -1), "log-mel").reshape(5, HOPS, MEL_COUNT).mean(-1)
    assert np.allclose(heard[..., 0], mean, atol=1e-5)
    assert np.allclose(heard[..., 1:], FEATURE_SCALE * mfcc(hops)[..., 1:], atol=1e-6)
    for k in range(5):  # each hop by itself
        assert np.array_equal(mfcc(hops)[k], mfcc(hops[k]))


def test_state_is_a_value(config: SpeechConfig) -> None:
    ours, _ = network(config)
    x = np.random.default_rng(2).uniform(LOWEST_FEATURE, 3, (3, 2, INPUT_COUNT)).astype(np.float32)
    assert [len(layer) for layer in ours.fresh().layers] == 2 * [{"gru": 1, "lstm": 2}[config.cell]]
    _, one = ours(x[0], ours.fresh(2))
    kept = [part.copy() for layer in one.layers for part in layer]
    first, _ = ours(x[1], one)
    assert not np.allclose(first, ours(x[1], ours.fresh(2))[0], atol=1e-4)  # it remembers
    ours(x[2], one)
    again, _ = ours(x[1], one)  # the same state again, whatever came between
    assert np.array_equal(first, again)
    assert all(np.array_equal(a, b) for a, b in zip(kept, (p for n in one.layers for p in n), strict=True))
    alone, _ = ours(x[0, 1:], ours.fresh())
    assert np.allclose(alone[0], ours(x[0], ours.fresh(2))[0][1], atol=1e-6)  # a row is a stream


def test_what_a_network_is_stands_in_its_weights(tmp_path: Path, config: SpeechConfig) -> None:
    ours, net = network(config)
    save_net(tmp_path / "w.safetensors", net, {})
    read = load_network(tmp_path / "w.safetensors")
    assert read.config == config
    x = np.full((1, INPUT_COUNT), -3, np.float32)
    assert np.array_equal(read(x, read.fresh())[0], ours(x, ours.fresh())[0])
    header = load_weights(tmp_path / "w.safetensors", KIND)[1]
    assert header.config == {"look_ahead_hops": 6, "features": config.features, "cell": config.cell}


@pytest.mark.parametrize(
    "wrong", [{"cell": "rnn"}, {"features": "pcm"}, {"cell": "lstm"}, {"features": "mfcc"}, {"hidden": 3},
              {"look_ahead_hops": "8"}, {"look_ahead_hops": 100}]
)  # fmt: skip
def test_a_header_that_tells_of_another_network_is_refused(tmp_path: Path, wrong: dict[str, object]) -> None:
    tensors, header = load_weights(WEIGHTS, KIND)
    assert dict(header.config) == {"look_ahead_hops": 8}
    path = tmp_path / "w.safetensors"
    save_weights(path, tensors, replace(header, config={**header.config, **wrong}))
    with pytest.raises(WeightsError, match="do not fit"):
        load_network(path)


def test_the_weights_that_ship_are_a_gru_on_log_mel() -> None:
    shipped = load_network()
    assert shipped.config == RECIPES["visavis"].config == SpeechConfig(8, "log-mel", "gru")
    assert str(shipped.config) == "GRU on log-mel"
    assert str(RECIPES["ifaceuv"].config) == "LSTM on MFCC"


@pytest.mark.parametrize("size", [97, 333, 1600])
def test_a_stream_in_pieces_moves_as_the_whole(size: int, config: SpeechConfig) -> None:
    speech = SpeechToMotion(network(config)[0])
    sound = vowel(1.0)
    whole, _ = speech.hear(sound)
    state, parts = SpeechState(), []
    for at in range(0, len(sound), size):
        part, state = speech.hear(sound[at : at + size], state)
        parts += part
    assert len(parts) == len(whole) == ANSWER_HZ
    assert all(
        np.allclose(a.answer, b.answer, atol=1e-6)
        and (a.voice, a.closed) == (b.voice, b.closed)
        and np.array_equal(a.turn_rad, b.turn_rad)
        for a, b in zip(parts, whole, strict=True)
    )
    again, _ = speech.hear(sound)  # no state of its own
    assert np.array_equal(again[-1].answer, whole[-1].answer)


def test_latency_is_within_the_promise() -> None:
    speech = SpeechToMotion(network()[0])
    assert speech.look_ahead_s <= 0.08
    assert speech.latency_ms <= 120


def test_motion_without_voice_is_rest_and_never_broken() -> None:
    answer = np.full(OUTPUT_COUNT, 0.5, np.float32)
    still = motion_of(Spoken(1.0, answer, 0.0))
    assert not still.expression.any()
    assert not still.closure.any()
    moving = motion_of(Spoken(1.0, answer, 1.0))
    assert moving.jaw == pytest.approx(0.5)
    assert moving.expression[ARKIT_INDEX["eyeBlinkLeft"]] == 0
    assert motion_of(Spoken(0.0, answer * np.nan, 1.0)).is_finite()


def test_motions_cover_the_recording_whatever_its_blocks() -> None:
    speech = SpeechToMotion(network()[0])
    sound = vowel(2.0)
    whole = list(motions_of(speech, [sound], 25.0))
    pieces = list(motions_of(speech, [sound[k : k + 777] for k in range(0, len(sound), 777)], 25.0))
    assert len(whole) == len(pieces) == 50
    assert [m.time_s for m in whole] == pytest.approx([k / 25 for k in range(50)])
    assert all(np.allclose(a.expression, b.expression, atol=1e-6) for a, b in zip(whole, pieces, strict=True))
    assert list(motions_of(speech, [], 25.0)) == []


def test_voice_opens_and_shuts_smoothly() -> None:
    net = network()[1]
    with torch.no_grad():
        net.head.weight[VOICE] = 0
        net.head.bias[VOICE] = 20
    speech = SpeechToMotion(numpy_of(net))
    voices = [s.voice for s in speech.hear(vowel(0.3))[0]]
    assert voices[0] < 0.5 < voices[-1]
    assert all(b >= a for a, b in pairwise(voices))


@pytest.mark.parametrize("content", [b"", b"junk" * 100])
def test_broken_weights_name_the_fix(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "speech.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="install visavis again"):
        load_network(path)
    with pytest.raises(WeightsError, match="missing"):
        load_network(tmp_path / "none")


def test_opening_is_the_gap_between_the_lips() -> None:
    assert opening_weights()[ARKIT_INDEX["jawOpen"]] == opening_weights().max()
    wide = np.zeros(52, np.float32)
    wide[ARKIT_INDEX["jawOpen"]] = 0.4
    assert openings_of(wide, 0.0) == pytest.approx(0.124, abs=0.01)
    assert openings_of(wide, 1.0) == 0
    wide[ARKIT_INDEX["mouthClose"]] = 0.5
    assert openings_of(wide, 0.0) == 0  # an open jaw behind closed lips
    assert openings_of(np.stack([wide, wide]), np.zeros(2)).shape == (2,)


def test_lips_meet_where_closure_is_likelier_than_usual() -> None:
    answer = np.zeros(OUTPUT_COUNT, np.float32)
    answer[ARKIT_INDEX["jawOpen"]] = 0.3
    apart, met = (motion_of(Spoken(0.0, answer, 1.0, closed=c)) for c in (0.0, 1.0))
    assert openings_of(apart.expression, apart.closure[0]) > 0.08
    assert openings_of(met.expression, met.closure[0]) == 0
    for level in (-3.0, 0.0, 2.0):  # of a speaker
        usual = 0.0
        for _ in range(500):
            usual = usual_closure(usual, level, 1.0)
        assert usual == pytest.approx(level, abs=0.01)
        assert heard_closure(level + 2.0, usual) == 1.0
        assert heard_closure(level, usual) < 0.7
        assert heard_closure(level - 3.0, usual) < 0.05
    assert usual_closure(1.0, 9.0, 0.0) == 1.0  # pauses teach nothing


def test_follower_arrives_without_overshoot() -> None:
    one = Follower().towards(1.0, 2.0, 0.5)
    many = Follower()
    path = [many := many.towards(1.0, 2.0, 0.01) for _ in range(50)]
    assert one.value == pytest.approx(many.value)  # exact whatever the step
    assert all(a.value < b.value <= 1 for a, b in pairwise(path))


def test_head_moves_with_stress_and_rests_in_silence() -> None:
    state, turns = HeadState(), []
    for k in range(400):  # syllables, two a second, the first of four stressed
        stressed = k % 100 < 10
        state = advance(state, 0.3 if stressed else -2.0, 1.0, 0.02)
        turns.append(state.turn_rad)
    limit = BEARING_RAD + np.array([NOD_RAD, 0, 0])
    assert (np.abs(turns) <= limit).all()
    assert np.ptp(np.array(turns)[200:, 0]) > np.radians(0.5)
    assert state.phrases == 1
    for _ in range(300):
        state = advance(state, -9.0, 0.0, 0.02)
    assert np.abs(state.turn_rad).max() < np.radians(0.05)
    assert advance(state, 0.3, 1.0, 0.02).phrases == 2


def test_targets_meet_their_sound() -> None:
    ramp = np.arange(50, dtype=np.float32)[:, None]
    read = at_hops(ramp, 25.0, 200)
    assert read[3, 0] == pytest.approx(1.0)  # the end of hop 3 is 40 ms: frame 1
    late = at_hops(ramp, 25.0, 200, late_s=0.08)
    assert late[11, 0] == pytest.approx(1.0)
    sway = np.linspace(0, 1, 200, dtype=np.float32)[:, None] * np.ones(3, np.float32)
    assert np.abs(relative_rotation(sway)[60:140]).max() < 1e-3


def test_voice_is_told_from_silence() -> None:
    sound = np.concatenate([np.zeros(RATE_HZ, np.float32), vowel(1.0), np.zeros(RATE_HZ, np.float32)])
    heard = voiced(sound)
    assert not heard[:80].any()
    assert heard[110:190].mean() > 0.6
    assert not heard[220:].any()


def test_noise_and_music_are_sound() -> None:
    rng = np.random.default_rng(0)
    for make in (coloured_noise, music):
        sound = make(rng, RATE_HZ)
        assert sound.shape == (RATE_HZ,)
        assert np.isfinite(sound).all()
        assert sound.std() == pytest.approx(1, abs=0.05)
