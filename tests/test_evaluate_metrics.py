"""Every measure against a reference implementation or a case whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import sqrtm
from scipy.ndimage import gaussian_filter
from skimage import data
from skimage.metrics import peak_signal_noise_ratio

from engines.geometry import Similarity, rotation_from_degrees, rotation_matrix, rotation_vector
from engines.head.fit import ExpressionFit, fit_driver, openings
from engines.head.landmark_names import (
    CORNERS_LEFT,
    CORNERS_RIGHT,
    EYE_LEFT,
    EYE_RIGHT,
    LIPS_INNER,
    LIPS_OUTER,
    OVAL,
)
from engines.head.model import load_head_model
from scripts.evaluation import metrics
from scripts.evaluation.features import PerceptualMeasure, distances, pooled
from scripts.evaluation.metrics import Gaussian, frechet_distance
from scripts.evaluation.perceptual import CHANNELS
from scripts.evaluation.take import bin_of, turn_deg

U8 = NDArray[np.uint8]


@pytest.fixture(scope="module")
def pair() -> tuple[U8, U8]:
    """A crop of the astronaut's photo (NASA, public domain), and the same with noise."""
    photo = np.asarray(data.astronaut(), np.uint8)[20:148, 160:288]
    noise = np.random.default_rng(1).normal(0, 12, photo.shape)
    return photo, np.clip(photo + noise, 0, 255).astype(np.uint8)


def landmarks() -> NDArray[np.float64]:
    """A frontal face in a 256² picture."""
    model = load_head_model()
    return np.asarray(model.landmarks(model.mean_hu), np.float64) * 70 + [128, 128, 0]


# --- pictures ------------------------------------------------------------------------------------


def test_l1_over_a_mask() -> None:
    a, b = np.full((4, 4, 3), 10, np.uint8), np.full((4, 4, 3), 14, np.uint8)
    b[0, 0] = 110
    mask = np.zeros((4, 4), bool)
    mask[0, 0] = True
    assert metrics.l1(a, b, mask) == 100
    assert metrics.l1(a, b, ~mask) == 4
    assert metrics.l1(a, b) == pytest.approx((100 + 15 * 4) / 16)
    assert np.isnan(metrics.l1(a, b, np.zeros((4, 4), bool)))


def test_psnr_is_that_of_scikit_image(pair: tuple[U8, U8]) -> None:
    assert metrics.psnr_db(*pair) == pytest.approx(peak_signal_noise_ratio(*pair), abs=1e-9)
    assert metrics.psnr_db(pair[0], pair[0]) == pytest.approx(100)
    half = np.zeros(pair[0].shape[:2], bool)
    half[:64] = True
    wanted = peak_signal_noise_ratio(pair[0][:64], pair[1][:64])
    assert metrics.psnr_db(*pair, half) == pytest.approx(wanted, abs=1e-9)
    assert np.isnan(metrics.psnr_db(*pair, np.zeros_like(half)))


def test_ssim_is_the_formula_of_the_paper(pair: tuple[U8, U8]) -> None:
    """Wang et al. 2004, eq. 13, told over again with scipy's Gaussian filter (σ = 1.5, 11 × 11)."""
    values: list[float] = []
    for channel in range(3):
        x, y = (p[..., channel].astype(np.float64) for p in pair)

        def mean(v: NDArray[np.float64]) -> NDArray[np.float64]:
            return gaussian_filter(v, 1.5, truncate=3.5)

        mx, my = mean(x), mean(y)
        vx, vy, vxy = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        whole = ((2 * mx * my + c1) * (2 * vxy + c2)) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
        values.append(float(whole[5:-5, 5:-5].mean()))
    assert metrics.ssim(*pair) == pytest.approx(np.mean(values), abs=1e-9)
    assert metrics.ssim(pair[0], pair[0]) == pytest.approx(1)


@pytest.mark.slow
def test_perceptual_distance_of_pictures(pair: tuple[U8, U8]) -> None:
    measure = PerceptualMeasure()
    clean, noisy = measure.features([pair[0]]), measure.features([pair[1]])
    assert distances(clean, clean) == [0]
    assert distances(clean, noisy)[0] > 0.01
    one_by_one = distances([*clean, *noisy], [*noisy, *noisy])
    batched = distances(measure.features(list(pair)), [*noisy, *noisy])
    assert batched == pytest.approx(one_by_one, abs=1e-3)
    assert pooled(clean).shape == (1, CHANNELS[-1])


# --- FID -----------------------------------------------------------------------------------------


def test_frechet_distance_of_known_gaussians() -> None:
    """Commuting covariances: |Δμ|² + Σ (σ_a − σ_b)²."""
    a = Gaussian(np.array([0.0, 1.0]), np.diag([4.0, 9.0]))
    b = Gaussian(np.array([3.0, 1.0]), np.diag([1.0, 25.0]))
    assert frechet_distance(a, b) == pytest.approx(9 + (2 - 1) ** 2 + (3 - 5) ** 2)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_is_the_matrix_root_formula() -> None:
    """As the usual implementations have it, with scipy's root of the product."""
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(200, 12)), rng.normal(size=(180, 12)) @ rng.normal(size=(12, 12)) + 0.3
    a, b = Gaussian.of(x), Gaussian.of(y)
    root = np.real(np.asarray(sqrtm(a.covariance @ b.covariance)))
    wanted = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(np.cov(x.T) + np.cov(y.T) - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(float(wanted), rel=1e-6)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-6)


def test_frechet_distance_of_fewer_vectors_than_dimensions() -> None:
    few = Gaussian.of(np.random.default_rng(2).normal(size=(5, 30)))
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="two vectors"):
        Gaussian.of(np.zeros((1, 3)))


# --- landmarks and parameters --------------------------------------------------------------------


def test_akd_is_told_at_256() -> None:
    points = landmarks() * 2
    moved = points + np.array([3, 1, 50])  # depth does not count
    assert metrics.akd_px(points, moved, 512) == pytest.approx((3 + 1) / 2 / 2)


def test_aed_and_apd_against_a_known_motion() -> None:
    """A face posed by hand, fitted again: the distances are what was put in."""
    model = load_head_model()
    fit = ExpressionFit(model)
    neutral = np.asarray(model.landmarks(model.mean_hu), np.float64)
    beta = np.zeros(52, np.float32)
    beta[24] = 0.5  # jawOpen
    turn = rotation_from_degrees(12, -5, 3)
    pose = Similarity(80.0, rotation_matrix(turn), np.array([128.0, 128.0, 0.0]))
    seen = pose.apply(neutral + fit.offset(beta)).astype(np.float32)
    fitted = fit_driver(fit, neutral, seen, beta)
    assert metrics.apd_deg(rotation_vector(fitted.pose.rotation), np.zeros(3)) == pytest.approx(
        20 / 3, abs=0.1
    )
    offset, none = fit.offset(fitted.expression), np.zeros((478, 3))
    wanted = 100 * np.linalg.norm(fit.offset(beta)[:468], axis=1).mean() / metrics.eye_distance_px(neutral)
    assert metrics.aed_shape_percent(offset, none, neutral) == pytest.approx(wanted, rel=0.05)
    assert metrics.aed_shape_percent(offset, offset, neutral) == 0
    assert metrics.aed(fitted.expression, np.zeros(52)) == pytest.approx(0.5 / 52, abs=2e-3)
    assert metrics.apd_deg(rotation_from_degrees(179, 0, 0), rotation_from_degrees(-179, 0, 0)) < 1


def test_turns_and_bins() -> None:
    a = rotation_from_degrees(10, 0, 0)
    assert turn_deg(rotation_from_degrees(25, 0, 0), a) == pytest.approx(15)
    assert [bin_of(v) for v in (0, 9.99, 10, 25, 30, 80)] == [
        "0–10°", "0–10°", "10–20°", "20–30°", "over 30°", "over 30°",
    ]  # fmt: skip


# --- time ----------------------------------------------------------------------------------------


def test_smooth_motion_does_not_shake() -> None:
    face = landmarks()
    steady = np.stack([face + np.array([2.0 * t, -t, 0]) for t in range(6)])
    assert metrics.landmark_shake_percent(steady) == pytest.approx(0, abs=1e-9)
    trembling = steady.copy()
    trembling[::2, :, 0] += 1.0
    # ±1 every other frame: second differences of length 2
    wanted = 100 * 2 / metrics.eye_distance_px(face)
    assert metrics.landmark_shake_percent(trembling) == pytest.approx(wanted)
    assert np.isnan(metrics.landmark_shake_percent(steady[:2]))


def test_jitter_of_the_error_rewards_following_not_standing_still() -> None:
    face = landmarks()
    nod = np.stack([face + np.array([0, 3 * np.sin(1.3 * t), 0]) for t in range(8)])
    still = np.stack([face] * 8)
    assert metrics.landmark_jitter_percent(nod + np.array([4, 0, 0]), nod) == pytest.approx(0, abs=1e-9)
    assert metrics.landmark_jitter_percent(still, nod) == pytest.approx(metrics.landmark_shake_percent(nod))


def test_flicker_counts_what_changes_and_changes_back() -> None:
    dark, light = np.full((4, 4, 3), 100, np.uint8), np.full((4, 4, 3), 110, np.uint8)
    assert metrics.flicker([dark, light, dark, light]) == 20
    fading = [np.full((4, 4, 3), 100 + 5 * t, np.uint8) for t in range(4)]
    assert metrics.flicker(fading) == 0
    assert np.isnan(metrics.flicker([dark, light]))


# --- regions -------------------------------------------------------------------------------------


def test_regions_hold_their_landmarks_and_no_others() -> None:
    points = landmarks()
    mouth, eyes = metrics.mouth_mask(points, 256), metrics.eye_mask(points, 256)

    def inside(mask: NDArray[np.bool_], numbers: tuple[int, ...]) -> NDArray[np.bool_]:
        x, y = points[list(numbers), :2].round().astype(int).T
        return mask[y, x]

    assert inside(mouth, LIPS_OUTER + LIPS_INNER).all()
    assert inside(eyes, EYE_LEFT + EYE_RIGHT + CORNERS_LEFT + CORNERS_RIGHT).all()
    assert not inside(mouth, EYE_LEFT + EYE_RIGHT).any()
    assert not inside(eyes, (*LIPS_OUTER, 1)).any()  # nor the tip of the nose
    head = metrics.head_mask(points, 256)
    assert (head | ~(mouth | eyes)).all()  # both lie within
    assert inside(head, OVAL).all()
    assert 0.005 < mouth.mean() < 0.1
    assert 0.005 < eyes.mean() < 0.1


def test_lip_gap_is_what_the_landmarks_say() -> None:
    points = landmarks()
    closed = points.copy()
    for upper, lower in ((82, 87), (13, 14), (312, 317)):
        closed[lower] = closed[upper]
    assert openings(closed)[0] == 0
    assert openings(points + np.array([0, 0, 9]))[0] == pytest.approx(openings(points)[0])
