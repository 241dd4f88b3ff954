"""A flow and layers of a window or a turned box, blended into a picture of any size (paper 001, eqs. 6 and 7)."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.generators.networked.boxes import TurnedBox, Window
from engines.geometry import F64

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

_LEAST_PX = 0.05  # a flow smaller than this is none


def move(picture: U8, flow: F32, window: Window) -> U8:
    """`P(x + D(x))` with D (64, 64, 2) in shares of the window's side; the picture itself where D is nothing."""
    if float(np.abs(flow).max()) * window.side_px < _LEAST_PX:
        return picture
    side = window.side_px
    where = cv2.resize(flow * np.float32(side), (side, side), interpolation=cv2.INTER_LINEAR)
    moving = (np.abs(flow).max(-1) > 0).astype(np.uint8)
    # only the box in which anything moves; bilinear: cubic is eight times slower
    x, y, wide, high = cv2.boundingRect(cv2.dilate(moving, np.ones((3, 3), np.uint8)))
    step = side / flow.shape[0]
    height, width = picture.shape[:2]
    x0, y0 = max(window.left_px + int(x * step), 0), max(window.top_px + int(y * step), 0)
    x1 = min(window.left_px + int(np.ceil((x + wide) * step)), width)
    y1 = min(window.top_px + int(np.ceil((y + high) * step)), height)
    if x1 <= x0 or y1 <= y0:
        return picture
    part = where[y0 - window.top_px : y1 - window.top_px, x0 - window.left_px : x1 - window.left_px]
    rows = np.arange(y0, y1, dtype=np.float32)[:, None]
    columns = np.arange(x0, x1, dtype=np.float32)[None]
    moved = cv2.remap(
        picture,
        part[..., 0] + columns,
        part[..., 1] + rows,
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    out = picture.copy()
    out[y0:y1, x0:x1] = moved
    return out


def blend_window(picture: U8, layers: U8, window: Window) -> None:
    """`P (1 − M) + added − taken` in the window, in place; layers (9, 128, 128) of `networks.blending`, in bytes."""
    if not layers.any():
        return
    added, stays, taken = cv2.merge(list(layers[:4])), cv2.bitwise_not(layers[4]), cv2.merge(list(layers[5:]))
    side = window.side_px
    height, width = picture.shape[:2]
    x0, y0 = max(window.left_px, 0), max(window.top_px, 0)
    x1, y1 = min(window.left_px + side, width), min(window.top_px + side, height)
    inside = np.s_[y0 - window.top_px : y1 - window.top_px, x0 - window.left_px : x1 - window.left_px]

    def large(x: NDArray[np.generic]) -> U8:
        return np.asarray(cv2.resize(x, (side, side), interpolation=cv2.INTER_LINEAR), np.uint8)[inside]  # pyright: ignore[reportCallIssue, reportArgumentType]

    part = picture[y0:y1, x0:x1]
    under = cv2.multiply(part, cv2.merge([large(stays)] * 4), scale=1 / 255)
    picture[y0:y1, x0:x1] = cv2.subtract(cv2.add(under, large(added)), large(taken))


def blend_box(picture: U8, layers: U8, box: TurnedBox, *, mirrored: bool = False) -> None:
    """The same in a crop's place, within the person; layers (7, s, s)."""
    size = layers.shape[1]
    more, less = cv2.merge([*layers[:3], cv2.bitwise_not(layers[3])]), cv2.merge(list(layers[4:]))
    affine = box.affine(size, mirrored=mirrored)
    height, width = picture.shape[:2]
    x0, y0, x1, y1 = box.reach(size, width, height, mirrored=mirrored)
    if x1 - x0 < 2 or y1 - y0 < 2:
        return
    # from picture pixels of this rectangle to crop pixels
    inverse = _inverted(affine)
    inverse[:, 2] += inverse[:, :2] @ (float(x0), float(y0))
    shape = (x1 - x0, y1 - y0)
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    more = cv2.warpAffine(
        more, inverse, shape, flags=how, borderMode=cv2.BORDER_CONSTANT, borderValue=(0, 0, 0, 255)
    )
    less = cv2.warpAffine(less, inverse, shape, flags=how)
    part = picture[y0:y1, x0:x1]
    under = cv2.cvtColor(part, cv2.COLOR_RGBA2RGB)
    person = cv2.cvtColor(cv2.extractChannel(part, 3), cv2.COLOR_GRAY2RGB)
    kept = cv2.cvtColor(cv2.extractChannel(more, 3), cv2.COLOR_GRAY2RGB)
    # what is painted counts as much as the person is there; what is kept is premultiplied already
    painted = cv2.multiply(cv2.cvtColor(more, cv2.COLOR_RGBA2RGB), person, scale=1 / 255)
    taken = cv2.multiply(less, person, scale=1 / 255)
    out = cv2.subtract(cv2.add(cv2.multiply(under, kept, scale=1 / 255), painted), taken)
    picture[y0:y1, x0:x1, :3] = out


def _inverted(affine: F64) -> F64:
    linear = np.linalg.inv(affine[:, :2])
    return np.column_stack([linear, -linear @ affine[:, 2]]).astype(np.float64)
