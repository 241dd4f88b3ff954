"""Pictures without a face, made up: what a room, a page or a lawn may show that portraits never do."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]


def clouds(size_px: int, rng: np.random.Generator) -> U8:
    """Noise of all sizes in a few colours: bark, grass, walls."""
    picture = np.zeros((size_px, size_px, 3), np.float32)
    fall, stretch, upright = rng.uniform(0.2, 1.3), rng.uniform(0.2, 1), rng.random() < 0.5
    cells = 2
    while cells <= size_px:
        shape = (max(1, round(cells * stretch)), cells, 1 if rng.random() < 0.7 else 3)
        noise = rng.normal(0, cells**-fall, shape if upright else (shape[1], shape[0], shape[2]))
        large = cv2.resize(noise.astype(np.float32), (size_px, size_px), interpolation=cv2.INTER_CUBIC)
        picture += large.reshape(size_px, size_px, -1)
        cells *= 2
    picture = picture / max(float(picture.std()), 1e-6) * rng.uniform(10, 70) + rng.uniform(30, 220, 3)
    return np.clip(picture, 0, 255).astype(np.uint8)


def shapes(size_px: int, rng: np.random.Generator) -> U8:
    """Discs, bars and polygons: cups, coins, window frames, rockets."""
    picture = (
        clouds(size_px, rng)
        if rng.random() < 0.5
        else np.full((size_px, size_px, 3), rng.integers(0, 256, 3))
    )
    picture = np.ascontiguousarray(picture, np.uint8)
    for _ in range(int(rng.integers(2, 25))):
        colour = [int(v) for v in rng.integers(0, 256, 3)]
        x, y = (int(v) for v in rng.integers(-20, size_px + 20, 2))
        w, h = (int(v) for v in rng.integers(2, size_px // 2, 2))
        thickness = -1 if rng.random() < 0.6 else int(rng.integers(1, 8))
        kind = rng.random()
        if kind < 0.4:
            axes = (w // 2 + 1, (w if rng.random() < 0.5 else h) // 2 + 1)
            cv2.ellipse(
                picture, (x, y), axes, float(rng.uniform(0, 180)), 0, 360, colour, thickness, cv2.LINE_AA
            )
        elif kind < 0.7:
            cv2.rectangle(picture, (x, y), (x + w, y + h), colour, thickness)
        elif kind < 0.85:
            corners = rng.integers(0, size_px, (int(rng.integers(3, 7)), 2)).astype(np.int32)
            cv2.fillPoly(picture, [corners], colour, cv2.LINE_AA)
        else:
            cv2.line(
                picture,
                (x, y),
                (x + w * int(rng.choice([-1, 1])), y + h),
                colour,
                abs(thickness),
                cv2.LINE_AA,
            )
    return picture


def letters(size_px: int, rng: np.random.Generator) -> U8:
    """Lines of writing: pages, signs, subtitles."""
    dark = int(rng.integers(0, 90))
    light = int(rng.integers(150, 256))
    paper, ink = (light, dark) if rng.random() < 0.8 else (dark, light)
    picture = np.full((size_px, size_px, 3), paper, np.uint8)
    scale = float(rng.uniform(0.25, 1.6))
    step = max(6, round(scale * rng.uniform(22, 40)))
    for y in range(int(rng.integers(0, step)), size_px + step, step):
        words = "".join(chr(int(c)) for c in rng.choice([32, *range(48, 58), *range(65, 123)], 40))
        x = int(rng.integers(-60, 10))
        cv2.putText(
            picture, words, (x, y), int(rng.integers(0, 8)), scale, (ink,) * 3, int(rng.integers(1, 4))
        )
    return picture


def shuffled(crop: U8, rng: np.random.Generator) -> U8:
    """The pieces of a crop in another order: skin, hair and eyes, but no face."""
    count = int(rng.choice([2, 3, 4]))
    size = len(crop) // count
    pieces = [
        crop[y * size : (y + 1) * size, x * size : (x + 1) * size] for y in range(count) for x in range(count)
    ]
    order = rng.permutation(len(pieces))
    rows = [np.hstack([pieces[k] for k in order[r * count : (r + 1) * count]]) for r in range(count)]
    out = cv2.resize(np.vstack(rows), crop.shape[1::-1])
    return np.asarray(out, np.uint8)


def invented(size_px: int, rng: np.random.Generator) -> U8:
    """One of the above that needs no picture (size, size, 3)."""
    kind = rng.random()
    if kind < 0.4:
        return clouds(size_px, rng)
    return shapes(size_px, rng) if kind < 0.8 else letters(size_px, rng)
