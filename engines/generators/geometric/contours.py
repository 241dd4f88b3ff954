"""Where one surface passes before another (the chin before the neck): each side's own flow up to a smooth contour.

The flow is known on a grid coarser than the picture. Interpolated across such a contour it would fetch everything that
lies between two places of the photo: a line of stairs.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.generators.geometric.limits import CONTOUR_DEPTH, CONTOUR_PX, SEEN, STEP_PX

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

_TWO = np.ones((2, 2), np.uint8)  # the two grid pixels on either side of a contour, no more
_WIDER, _TWO_WIDER = np.ones((3, 3), np.uint8), np.ones((5, 5), np.uint8)


def grow(values: F32, covered: U8) -> None:
    """Continue values (h, w, C), 0 where not covered, by two pixels beyond the covered ones, in place."""
    rim = np.flatnonzero(cv2.dilate(covered, _TWO_WIDER) != covered)
    total = cv2.blur(values, (5, 5), borderType=cv2.BORDER_CONSTANT).reshape(-1, values.shape[2])[rim]
    weight = cv2.blur(covered.astype(np.float32), (5, 5), borderType=cv2.BORDER_CONSTANT).reshape(-1)[rim]
    values.reshape(-1, values.shape[2])[rim] = total / np.maximum(weight, 1e-6)[:, None]


def steps_between(depth: F32, flow: F32, skin: U8) -> U8:
    """(h, w) 1 where one surface of the head passes before another and the two move apart; `skin` (h, w) is 1 on
    the surfaces that count, `flow` (h, w, 2) continued beyond them.

    `depth` (h, w) is the G-buffer's, and what does not go with the head lies `CONTOUR_BEHIND` of the grid's height
    further back: a chin that presses on the neck touches it, and passes before it all the same.
    """
    nearest, furthest = _range(depth, skin, _TWO)
    inner = furthest - nearest > CONTOUR_DEPTH * skin.shape[0]
    if not inner.any():
        return inner.astype(np.uint8)
    return (inner & (_steepness(flow) > STEP_PX)).astype(np.uint8)


def _steepness(flow: F32) -> F32:
    """The most that `flow` (h, w, 2) changes over two grid pixels, in either direction: (h, w)."""
    across, down = cv2.split(cv2.morphologyEx(flow, cv2.MORPH_GRADIENT, _TWO))
    return np.asarray(cv2.max(across, down), np.float32)


def _range(depth: F32, skin: U8, kernel: U8) -> tuple[F32, F32]:
    """Nearest and furthest skin (h, w) around each place; what is no skin is neither."""
    off = skin ^ np.uint8(1)
    least, most = depth.copy(), depth.copy()
    cv2.copyTo(np.full_like(depth, depth.max()), off, least)
    cv2.copyTo(np.zeros_like(depth), off, most)
    return np.asarray(cv2.erode(least, kernel), np.float32), np.asarray(cv2.dilate(most, kernel), np.float32)


def part_sides(full: F32, flow: F32, depth: F32, steps: U8, skin: U8, seen: F32) -> None:
    """Along `steps` (h, w), give each side its own flow, in place: `full` (H, W, 2) is `flow` (h, w, 2) enlarged.
    `depth` as in `steps_between`.

    `seen` (h, w) is O_c. Where the photo does not show what lies behind, nothing true could be fetched: there what lies
    between both sides is stretched.
    """
    left, top, wide, high = cv2.boundingRect(steps)
    if wide == 0:
        return
    rows, columns = skin.shape
    box = np.s_[max(top - _REACH, 0) : top + high + _REACH, max(left - _REACH, 0) : left + wide + _REACH]
    own, on_skin = flow[box], skin[box]
    nearest, furthest = _range(depth[box], on_skin, _TWO_WIDER)
    middle = cv2.addWeighted(nearest, 0.5, furthest, 0.5, 0)
    band = np.asarray(cv2.dilate(steps[box], _TWO_WIDER), np.uint8) & on_skin
    before = (depth[box] < middle).astype(np.uint8) & band
    after = band ^ before
    unknown = np.asarray(cv2.dilate(after & (seen[box] < SEEN).astype(np.uint8), _TWO_WIDER), np.uint8)
    parted = steps[box] & (unknown ^ np.uint8(1))
    if not parted.any():
        return
    near, far = (_without(own, on_skin, side) for side in (after, before))
    values = cv2.merge([*cv2.split(near), *cv2.split(far)])
    sharper = cv2.GaussianBlur(before.astype(np.float32) - after.astype(np.float32), (5, 5), 1.0)
    # only the few pixels beside the contour are looked up
    height, width = full.shape[:2]
    beside = np.zeros((rows, columns), np.uint8)
    beside[box] = cv2.dilate(parted, _WIDER)
    pixels = np.flatnonzero(cv2.resize(beside, (width, height), interpolation=cv2.INTER_NEAREST))
    y, x = np.divmod(pixels, width)
    at_x = ((x + 0.5) * (columns / width) - 0.5 - box[1].start).astype(np.float32)
    at_y = ((y + 0.5) * (rows / height) - 0.5 - box[0].start).astype(np.float32)
    found, side = _look_up(values, at_x, at_y), _look_up(sharper, at_x, at_y)
    full.reshape(-1, 2)[pixels] = np.where(side[:, None] >= 0, found[:, :2], found[:, 2:])


def _look_up(values: NDArray[np.generic], x: F32, y: F32) -> F32:
    """Values (h, w[, C]) at places (N,): (N[, C]). OpenCV takes fewer than 32 768 in a row."""
    lines = max(1, -(-len(x) // _LINE_PX))
    room = np.zeros((2, lines * _LINE_PX), np.float32)
    room[0, : len(x)], room[1, : len(y)] = x, y
    places = room.reshape(2, lines, _LINE_PX)
    found = cv2.remap(values, places[0], places[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # pyright: ignore[reportCallIssue, reportArgumentType]
    return np.asarray(found, np.float32).reshape(lines * _LINE_PX, *values.shape[2:])[: len(x)]


_LINE_PX = 4096
_REACH = 6  # grid pixels around a contour that its two sides are grown from


def _without(flow: F32, skin: U8, side: U8) -> F32:
    """`flow` (h, w, 2) but for one side of a contour, over which the other's goes on."""
    kept = skin ^ side
    alone = np.asarray(cv2.copyTo(flow, kept), np.float32)
    grow(alone, kept)
    return alone


def soften_contours(image: U8, depth: F32, covered: U8, flow: F32, behind: F32, below_px: int) -> None:
    """Anti-alias, in place, where one surface occludes another: there two places of the photo meet.

    Only the few pixels along such contours are touched (3 × 3 mean), and only where both sides move apart: at rest
    the photo stays as it is. `depth` as in `steps_between`.
    """
    step = cv2.morphologyEx(depth, cv2.MORPH_GRADIENT, _TWO)
    inner = (step > CONTOUR_DEPTH * covered.shape[0]) & (cv2.erode(covered, _WIDER) > 0)
    inner &= _steepness(flow) > CONTOUR_PX
    rim = cv2.morphologyEx(covered, cv2.MORPH_GRADIENT, _TWO) > 0
    step_x, step_y = cv2.split(cv2.absdiff(flow, cv2.add(behind, (0, -float(below_px), 0, 0))))
    apart = cv2.max(step_x, step_y) > CONTOUR_PX
    jump = inner | (rim & apart)
    if not jump.any():
        return
    height, width = image.shape[:2]
    rows, columns = (_beside(*sides) for sides in zip((height, width), jump.shape, strict=True))
    mask = np.ascontiguousarray(jump.astype(np.uint8)[rows][:, columns])
    cv2.copyTo(cv2.blur(image, (3, 3)), mask, image)


@lru_cache(maxsize=8)
def _beside(size_px: int, count: int) -> NDArray[np.intp]:
    """(size_px,): of `count` grid pixels the one whose beginning, between it and the one before, is nearest."""
    at = np.minimum((np.arange(size_px) + 0.5) * count / size_px + 0.5, count - 1)
    return at.astype(np.intp)
