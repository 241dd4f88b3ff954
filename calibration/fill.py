"""What a person hides, continued by patches of what the photo shows beside them, so that lines and textures go on.

Each patch of the hole becomes like one that the photo has, coarse to fine, by turns: the likest patch is looked for
(PatchMatch, Barnes et al. 2009), then every place is made the mean of the patches over it (Wexler et al. 2007). How
much the picture changes about a place counts like a colour (Newson et al. 2014): else texture ends in a wash. The last
step takes the photo's own pixels by the offsets that were found, and evens out what is left at the rim.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.picture.push_pull import push_pull

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
U8 = NDArray[np.uint8]
Mask = NDArray[np.bool_]

WORK_PX = 256  # offsets are looked for in a picture of at most this side
_COARSEST_PX = 40
_RADIUS = 3  # of a patch
_SIDE = 2 * _RADIUS + 1
_SQUARE = np.ones((_SIDE, _SIDE), np.uint8)
_AXES = 24  # a patch is told by these many numbers
_ROUNDS = (8, 5, 4, 3)  # of looking and averaging, coarsest level first, the last for all that follow
_TEXTURE = 1.0
_NEAR = 0.15  # how much a patch from far away must be likelier
_TRUST = 0.8  # what each pixel deeper in the hole counts less
_SHARP = 0.03
_SEED = 7
_LEAST_SOURCES = 50
_TINY = 1e-10


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """A step of the pyramid: `image` (h, w, 5), colours and texture; `hole` (h, w) is to be filled, and nothing is
    taken from `barred` (h, w), which holds the hole."""

    image: F32
    hole: Mask
    barred: Mask

    @property
    def sources(self) -> Mask:
        """(h, w): the middles of patches that can be copied."""
        ok = cv2.dilate(self.barred.astype(np.uint8), _SQUARE) == 0
        ok[:_RADIUS] = ok[-_RADIUS:] = False
        ok[:, :_RADIUS] = ok[:, -_RADIUS:] = False
        return np.asarray(ok)


def fill(photo: U8, hole: Mask, barred: Mask | None = None, work_px: int = WORK_PX) -> U8:
    """`photo` (H, W, 3) with `hole` (H, W) filled from the rest of it; nothing is copied from `barred` (H, W) either.

    Offsets are looked for at `work_px`; half of it takes a third of the time, and lines meet less well. Where there is
    too little to copy from, the fill is smooth (`push_pull`). The same photo is filled the same always.
    """
    if not hole.any():
        return photo.copy()
    barred = hole if barred is None else hole | barred
    levels = _pyramid(photo, hole, barred, work_px)
    rng = np.random.default_rng(_SEED)
    field: Field | None = None
    now: F32 | None = None
    for number, level in enumerate(reversed(levels)):
        if np.count_nonzero(level.sources) < _LEAST_SOURCES or not level.hole.any():
            continue
        if field is None or now is None:
            now = _peeled(level)
            field = Field(level, rng)
        else:
            field = field.grown(level, rng)
            now = field.averaged()
        for _ in range(_ROUNDS[min(number, len(_ROUNDS) - 1)]):
            field.search(now, rng)
            now = field.averaged()
    if field is None:
        smooth = push_pull(photo.astype(np.float32), (~barred).astype(np.float32))
        return np.where(hole[..., None], np.clip(smooth + 0.5, 0, 255), photo).astype(np.uint8)
    return _copied(photo, hole, barred, field)


def _pyramid(photo: U8, hole: Mask, barred: Mask, work_px: int) -> list[Level]:
    """Finest first."""
    height, width = hole.shape
    step = min(1.0, work_px / max(height, width))
    known = (~barred).astype(np.float32)
    shown = _with_texture(photo, known) * known[..., None]
    levels: list[Level] = []
    while True:
        size = (max(2, round(width * step)), max(2, round(height * step)))
        if levels and max(size) < _COARSEST_PX:
            return levels
        weight, empty = (
            cv2.resize(m, size, interpolation=cv2.INTER_AREA) for m in (known, hole.astype(np.float32))
        )
        parts = (
            cv2.resize(part, size, interpolation=cv2.INTER_AREA) for part in (shown[..., :3], shown[..., 3:])
        )
        image = np.dstack(list(parts)) / np.maximum(weight, 1e-6)[..., None]
        # what is neither copied nor filled stays as the photo has it, as far as it is known
        own = cv2.resize(photo, size, interpolation=cv2.INTER_AREA).astype(np.float32)
        image[..., :3] = np.where((weight < 0.5)[..., None], own, image[..., :3])
        levels.append(Level(image.astype(np.float32), np.asarray(empty > 0.25), np.asarray(weight < 0.5)))
        step /= 2


def _with_texture(photo: U8, known: F32) -> F32:
    """(H, W, 5): colours, and how much the picture changes about each place, across and down."""
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY).astype(np.float32)
    inner = cv2.erode(known, np.ones((3, 3), np.uint8)) * _TEXTURE
    across, down = (np.abs(cv2.Sobel(grey, cv2.CV_32F, dx, 1 - dx, scale=0.25)) * inner for dx in (1, 0))
    return np.asarray(np.dstack([photo.astype(np.float32), across, down]), np.float32)


def _patches(image: F32) -> F32:
    """(h, w, c, side, side): the patch about each place of `image` (h, w, c)."""
    padded = cv2.copyMakeBorder(image, _RADIUS, _RADIUS, _RADIUS, _RADIUS, cv2.BORDER_REFLECT_101)
    padded = padded.reshape(*padded.shape[:2], -1)
    return np.asarray(np.lib.stride_tricks.sliding_window_view(padded, (_SIDE, _SIDE), (0, 1)), np.float32)


def _peeled(level: Level) -> F32:
    """The coarsest level filled from the rim inwards, each place by the patch that continues what is there by then."""
    ok = level.sources
    now = level.image.copy()
    sources = _patches(level.image)[ok]
    count, channels = sources.shape[:2]
    sources = sources.reshape(count, channels, -1)
    squares = (sources**2).sum(1)
    known = ~level.hole
    while not known.all():
        rim = ~known & (cv2.dilate(known.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0)
        y, x = np.nonzero(rim)
        have = _patches(known.astype(np.float32))[y, x].reshape(len(y), 1, -1)
        want = (_patches(now)[y, x].reshape(len(y), channels, -1) * have).reshape(len(y), -1)
        cost = have[:, 0] @ squares.T - 2 * want @ sources.reshape(count, -1).T
        now[y, x] = sources[cost.argmin(1)][:, :, _SIDE * _SIDE // 2]
        known = known | rim
    return now


class Field:
    """Which place of the photo each place of the hole, and just beside it, is like."""

    def __init__(self, level: Level, rng: np.random.Generator) -> None:
        """By chance at first. Raises ValueError where there is nothing to copy from."""
        self.level = level
        self.ok = level.sources
        self.source_y, self.source_x = _places(self.ok)
        if not len(self.source_y):
            raise ValueError("no patch of the photo can be copied")
        around = cv2.dilate(level.hole.astype(np.uint8), _SQUARE) > 0
        self.to_y, self.to_x = _places(np.asarray(around))
        self.index = np.full(level.hole.shape, -1, np.int32)
        self.index[self.to_y, self.to_x] = np.arange(len(self.to_y))
        depth = cv2.distanceTransform(level.hole.astype(np.uint8), cv2.DIST_L2, 5)
        self.trust = np.asarray(_TRUST ** depth[self.to_y, self.to_x], np.float32)
        self._tell_patches(rng)
        pick = rng.integers(0, len(self.source_y), len(self.to_y))
        self.y, self.x = self.source_y[pick], self.source_x[pick]
        self.cost = np.ones(len(self.to_y), np.float32)

    def _tell_patches(self, rng: np.random.Generator) -> None:
        """The axes along which the photo's own patches differ most, and all of them along these."""
        known = _patches(self.level.image)[self.source_y, self.source_x].reshape(len(self.source_y), -1)
        some = known[rng.choice(len(known), min(len(known), 4000), replace=False)]
        self.mean = np.asarray(some.mean(0), np.float32)
        values, vectors = np.linalg.eigh(np.cov((some - self.mean).T))
        self.axes = np.ascontiguousarray(vectors[:, -_AXES:]).astype(np.float32)
        self.spread = float(max(values[-_AXES:].sum(), 1.0))
        height, width = self.ok.shape
        self.features = np.zeros((height * width, _AXES), np.float32)
        self.features[self.source_y * width + self.source_x] = (known - self.mean) @ self.axes

    def grown(self, level: Level, rng: np.random.Generator) -> Field:
        """The same on the next finer level: its offsets enlarged."""
        out = Field(level, rng)
        height, width = level.hole.shape
        old_height, old_width = self.ok.shape
        fy, fx = height / old_height, width / old_width
        at = self.index[
            np.minimum(out.to_y * old_height // height, old_height - 1),
            np.minimum(out.to_x * old_width // width, old_width - 1),
        ]
        kept = at >= 0
        at = np.where(kept, at, 0)
        y = out.to_y + np.round((self.y - self.to_y)[at] * fy).astype(np.int32)
        x = out.to_x + np.round((self.x - self.to_x)[at] * fx).astype(np.int32)
        kept &= out.valid(y, x)
        out.y, out.x = np.where(kept, y, out.y), np.where(kept, x, out.x)
        return out

    def valid(self, y: I32, x: I32) -> Mask:
        """Whether a patch can be copied from there."""
        height, width = self.ok.shape
        inside = (y >= 0) & (x >= 0) & (y < height) & (x < width)
        return inside & self.ok[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)]

    def search(self, now: F32, rng: np.random.Generator) -> None:
        """Better the offsets: by those of places near by, and by chance ever nearer to what there is."""
        height, width = self.ok.shape
        want = _patches(now)[self.to_y, self.to_x].reshape(len(self.to_y), -1)
        want = np.asarray((want - self.mean) @ self.axes, np.float32)
        everywhere = np.arange(len(self.to_y))
        self.cost = self._costs(want, self.y, self.x, everywhere)

        def attempt(y: I32, x: I32, allowed: Mask) -> None:
            which = np.flatnonzero(allowed & self.valid(y, x))
            cost = self._costs(want[which], y[which], x[which], which)
            better = cost < self.cost[which]
            won = which[better]
            self.y[won], self.x[won], self.cost[won] = y[won], x[won], cost[better]

        for jump in (8, 4, 2, 1, 1):
            for dy, dx in ((0, jump), (0, -jump), (jump, 0), (-jump, 0)):
                beside = self.index[
                    np.clip(self.to_y + dy, 0, height - 1), np.clip(self.to_x + dx, 0, width - 1)
                ]
                there = beside >= 0
                beside = np.where(there, beside, 0)
                attempt(self.y[beside] - dy, self.x[beside] - dx, there)
        reach = max(height, width)
        while reach >= 1:
            dy, dx = rng.integers(-reach, reach + 1, (2, len(everywhere)), np.int32)
            attempt(self.y + dy, self.x + dx, np.ones(len(everywhere), np.bool_))
            reach //= 3

    def _costs(self, want: F32, y: I32, x: I32, which: NDArray[np.intp]) -> F32:
        width = self.ok.shape[1]
        off = self.features[y * width + x] - want
        far = (y - self.to_y[which]) ** 2 + (x - self.to_x[which]) ** 2
        cost = np.einsum("nk,nk->n", off, off) + (_NEAR * self.spread / width**2) * far
        return np.asarray(cost, np.float32)

    @property
    def weights(self) -> F32:
        """How much each patch counts: the likelier and the nearer to the rim, the more."""
        usual = float(np.quantile(self.cost, 0.75)) * _SHARP + 1e-6
        return np.asarray(np.exp(-self.cost / usual) * self.trust + _TINY, np.float32)

    def averaged(self) -> F32:
        """(h, w, 5): the level with its hole made of the patches."""
        height, width = self.ok.shape
        channels = self.level.image.shape[2] + 1
        image = np.dstack([self.level.image, np.ones((height, width), np.float32)]).reshape(-1, channels)
        row = width + 2 * _RADIUS
        total = np.zeros(((height + 2 * _RADIUS) * row, channels), np.float32)
        weight = self.weights[:, None]
        source = self.y.astype(np.intp) * width + self.x
        to = (self.to_y.astype(np.intp) + _RADIUS) * row + self.to_x + _RADIUS
        for dy in range(-_RADIUS, _RADIUS + 1):
            for dx in range(-_RADIUS, _RADIUS + 1):
                # places differ within one offset, so none is added to twice
                total[to + (dy * row + dx)] += image.take(source + (dy * width + dx), 0) * weight
        total = total.reshape(height + 2 * _RADIUS, row, -1)[_RADIUS:-_RADIUS, _RADIUS:-_RADIUS]
        out = self.level.image.copy()
        hole = self.level.hole
        out[hole] = total[hole][:, :-1] / total[hole][:, -1:]
        return out


def _places(mask: Mask) -> tuple[I32, I32]:
    y, x = np.nonzero(mask)
    return y.astype(np.int32), x.astype(np.int32)


# of 255: so far off what stands beside the hole counts less, and this much further not at all
_ELSE, _LIKE = 40.0, 20.0
_COPIED_REACH = 1  # patches of the finest level over each pixel that are asked


def _copied(photo: U8, hole: Mask, barred: Mask, field: Field) -> U8:
    """The photo's own pixels, at its own size, by the offsets of `field`; what differs at the rim fades inwards."""
    height, width = hole.shape
    h, w = field.ok.shape
    fy, fx = height / h, width / w
    around = cv2.dilate(hole.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=2) > 0
    y, x = _places(np.asarray(around))
    at_y, at_x = (y + 0.5) / fy - 0.5, (x + 0.5) / fx - 0.5
    near_y, near_x = np.round(at_y).astype(np.int32), np.round(at_x).astype(np.int32)
    shift_y = np.round((field.y - field.to_y) * fy).astype(np.int32)
    shift_x = np.round((field.x - field.to_x) * fx).astype(np.int32)
    weight = field.weights
    free = (~barred).astype(np.float32)
    total, count = np.zeros((len(y), 3), np.float32), np.zeros(len(y), np.float32)
    for dy in range(-_COPIED_REACH, _COPIED_REACH + 1):
        for dx in range(-_COPIED_REACH, _COPIED_REACH + 1):
            place_y, place_x = near_y + dy, near_x + dx
            at = field.index[np.clip(place_y, 0, h - 1), np.clip(place_x, 0, w - 1)]
            have = at >= 0
            at = np.where(have, at, 0)
            from_y = np.clip(y + shift_y[at], 0, height - 1)
            from_x = np.clip(x + shift_x[at], 0, width - 1)
            close = np.exp(-((place_y - at_y) ** 2 + (place_x - at_x) ** 2) / 2)
            share = (weight[at] * close * have * free[from_y, from_x]).astype(np.float32)
            total += photo[from_y, from_x] * share[:, None]
            count += share
    copied = np.zeros((height, width, 3), np.float32)
    copied[y, x] = total / np.maximum(count, 1e-20)[:, None]
    found = np.zeros((height, width), np.float32)
    found[y, x] = count > 1e-20
    if (found[hole] == 0).any():
        copied = push_pull(copied, found)
    shown = photo.astype(np.float32)
    # what stands beside the hole counts though it is not copied from, but not what is something else: a rim of the
    # person is not to spread
    off = shown - copied
    like = np.clip((_ELSE - np.abs(off).max(2)) / _LIKE + 1, 0, 1)
    rim = (np.where(barred, like, 1) * (around & ~hole & (found > 0))).astype(np.float32)
    if rim.any():
        copied = copied + push_pull(off * rim[..., None], rim)
    shown[hole] = np.clip(copied[hole] + 0.5, 0, 255)
    return shown.astype(np.uint8)
