"""A photo parted into the person and what is behind them, so that the one over the other is the photo again."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.picture.push_pull import push_pull

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

_SURELY = 16
_GROWS = 4  # times the matte may be too small
_YIELDS = 0.25  # how much easier than the person's colour that behind them gives way
_TINY = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Parted:
    """`person` (H, W, 3) and `behind` (H, W, 3) uint8, both of straight colour, and `matte` (H, W) uint8 between them;
    all as large as the photo."""

    person: U8
    behind: U8
    matte: U8


def part(photo: U8, matte: U8, guess: U8, rim_px: float = 0.0) -> Parted:
    """Solve photo = α · person + (1 − α) · behind; `photo`, `guess` (H, W, 3), `matte` (H, W), 255 on the person.

    `guess` is what is taken to be behind the person; where nobody stands it does not count, for there the photo
    shows it. In the soft edge, α grows where it is too small for the photo to be over the guess (dark hair told as
    a breath of black). Then guesses of both colours, the person's from surely theirs near by, are corrected by the
    least that gives the photo, so that neither does the hair carry a rim of the old background along, nor does the
    person's colour stay behind. Where the matte says that nobody is, `behind` is the photo to the bit; where it is
    opaque, so is `person`.

    `rim_px`: so far beyond the matte there may be stray hair and a blurred edge. What differs there from the guess
    goes with the person, the less the further out: a turning head leaves no outline of itself behind.
    """
    person, behind, told = photo.copy(), photo.copy(), matte.astype(np.float32) / 255
    most = np.minimum(_GROWS * told, 1)
    if rim_px > 0:
        away = cv2.distanceTransform((matte == 0).astype(np.uint8), cv2.DIST_L2, 5)
        most = np.maximum(most, np.clip(1.2 - 1.2 * away / rim_px, 0, 1)) if (matte > 0).any() else most
    inside = most > 0
    behind[inside] = guess[inside]
    matte = matte.copy()
    soft = inside & (matte < 255)
    if not soft.any():
        return Parted(person, behind, matte)
    wide = photo.astype(np.float32)
    # the surer a place near by is, the more its colour counts
    near = push_pull(wide, told**_SURELY)[soft]
    shown, there = wide[soft], guess[soft].astype(np.float32)
    off = shown - there
    least = (np.abs(off) / np.maximum(np.where(off > 0, 255 - there, there), 1)).max(-1)
    matte[soft] = np.round(255 * np.clip(least, told[soft], most[soft]))
    alpha = (matte[soft].astype(np.float32) / 255)[:, None]
    missing = shown - alpha * near - (1 - alpha) * there
    share = missing / (alpha**2 + _YIELDS * (1 - alpha) ** 2)
    there = np.clip(there + _YIELDS * (1 - alpha) * share, 0, 255)
    # what lies beyond black and white in one is the other's
    own = np.clip((shown - (1 - alpha) * there) / np.maximum(alpha, _TINY), 0, 255)
    there = np.clip((shown - alpha * own) / np.maximum(1 - alpha, _TINY), 0, 255)
    there = np.where(alpha < 1, there, guess[soft])
    person[soft], behind[soft] = (own + 0.5).astype(np.uint8), (there + 0.5).astype(np.uint8)
    return Parted(person, behind, matte)


def over(person: U8, behind: U8) -> U8:
    """`person` (H, W, 4), premultiplied, over `behind` (H, W, 3), as `composite` does it, to the bit."""
    clear = 255 - person[..., 3:].astype(np.uint16)
    return np.minimum(person[..., :3] + _divided(behind * clear), 255).astype(np.uint8)


def _divided(product: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """`product` / 255, rounded; exact for all products of two bytes."""
    grown = product.astype(np.uint32) + 128
    return ((grown + (grown >> 8)) >> 8).astype(np.uint16)


def premultiplied(photo: U8, matte: U8, behind: U8) -> U8:
    """The person (H, W, 4) so that over `behind` they are the `photo`, as far as bytes and `matte` allow it.

    In a frame's pixels: there parting, which is done in the photo's, no longer holds to the bit.
    """
    clear = 255 - matte[..., None].astype(np.uint16)
    own = photo.astype(np.int16) - _divided(behind * clear).astype(np.int16)
    return np.dstack([np.clip(own, 0, matte[..., None]), matte]).astype(np.uint8)


def settle(photo: U8, person: U8, behind: U8) -> U8:
    """`behind` (H, W, 3), corrected where `person`, of `premultiplied`, over it is not yet `photo` (H, W, 3), to the
    bit: where the person's colour would have to be darker than black or brighter than white."""
    wrong = (over(person, behind) != photo).any(-1) & (person[..., 3] < 255)
    clear = 255 - person[..., 3][wrong].astype(np.int32)[:, None]
    left = photo[wrong].astype(np.int32) - person[..., :3][wrong]
    out = behind.copy()
    out[wrong] = np.clip((left * 255 + clear // 2) // clear, 0, 255)
    return out
