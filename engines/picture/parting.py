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
_NEARLY_CLEAR = 0.1
_TINY = 1e-4
_ROUNDED = 0.25  # grey levels
_AS_OPAQUE = 2
_LESS_SO = 26  # both of 255; between them what `settle` made up goes bit by bit, or a dot would blink


@dataclass(frozen=True, slots=True, eq=False)
class Parted:
    """`person` (H, W, 3) and `behind` (H, W, 3) uint8, both of straight colour, and `matte` (H, W) uint8 between them;
    all as large as the photo."""

    person: U8
    behind: U8
    matte: U8


def part(photo: U8, matte: U8, guess: U8, rim_px: float | None) -> Parted:
    """Solve photo = α · person + (1 − α) · behind; `photo`, `guess` (H, W, 3), `matte` (H, W), 255 on the person.

    `guess` is what is taken to be behind the person; where nobody stands it does not count, for there the photo
    shows it. In the soft edge α grows where it is too small for anything over the guess to be the photo (dark hair
    told as a breath of black); what even so cannot be is in `behind`. So neither does the hair carry a rim of the
    old background along, nor does the person's colour stay behind.

    `rim_px`: so far beyond the matte there may be stray hair and a blurred edge. What differs there from the guess
    goes with the person, the less the further out: a turning head leaves no outline of itself. Further out `behind`
    is the photo to the bit. None is for another background, before which a rim would be a fringe: then nothing is
    taken from beyond the matte, and where that is nearly clear the person has the colour that they have near by.
    """
    person, behind, told = photo.copy(), photo.copy(), matte.astype(np.float32) / 255
    most = np.minimum(_GROWS * told, 1)
    if rim_px and (matte > 0).any():
        away = cv2.distanceTransform((matte == 0).astype(np.uint8), cv2.DIST_L2, 5)
        most = np.maximum(most, np.clip(1.2 - 1.2 * away / rim_px, 0, 1))
    inside = most > 0
    behind[inside] = guess[inside]
    soft = inside & (matte < 255)
    if not soft.any():
        return Parted(person, behind, matte)
    shown, there = photo[soft].astype(np.float32), guess[soft].astype(np.float32)
    off = shown - there
    least = (np.abs(off) / np.maximum(np.where(off > 0, 255 - there, there), 1)).max(-1)
    matte = matte.copy()
    # never below what can be, for a byte
    matte[soft] = np.minimum(np.ceil(255 * np.clip(least, told[soft], most[soft]) - _TINY), 255)
    alpha = (matte[soft].astype(np.float32) / 255)[:, None]
    own = np.clip((shown - (1 - alpha) * there) / np.maximum(alpha, _TINY), 0, 255)
    left = np.clip((shown - alpha * own) / np.maximum(1 - alpha, _TINY), 0, 255)
    # a guess that can be is kept: only what a byte rounds would come of solving for it again
    behind[soft] = np.where(np.abs(left - there) * (1 - alpha) > _ROUNDED, left + 0.5, there).astype(np.uint8)
    if rim_px is None:
        # the surer a place near by is, the more its colour counts
        near = push_pull(photo.astype(np.float32), np.asarray(told**_SURELY, np.float32))[soft]
        sure = np.clip(alpha / _NEARLY_CLEAR, 0, 1)
        own = own * sure + near * (1 - sure)
    person[soft] = (own + 0.5).astype(np.uint8)
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


class Behind:
    """What is seen behind a person, frame by frame: `plain` (H, W, 3), but `settled` (H, W, 3) where they are as opaque
    as at rest, `alpha` (H, W), and between the two where they nearly are.

    What `settle` puts behind them, to make up at rest for colours that no person can have, is far from what is there:
    a head that moves away must not bare it.
    """

    def __init__(self, plain: U8, settled: U8, alpha: U8) -> None:
        self._now = plain.copy()
        self._odd = np.flatnonzero((plain != settled).any(-1))
        self._plain, there = (a.reshape(-1, 3)[self._odd].astype(np.int32) for a in (plain, settled))
        self._off = there - self._plain
        self._alpha = alpha.reshape(-1)[self._odd].astype(np.int16)

    def under(self, person: U8) -> U8:
        """(H, W, 3) for the person (H, W, 4) of a frame; it changes with the next one."""
        if len(self._odd):
            now = person[..., 3].reshape(-1)[self._odd].astype(np.int16)
            same = np.clip(_LESS_SO - np.abs(now - self._alpha), 0, _LESS_SO - _AS_OPAQUE)[:, None]
            self._now.reshape(-1, 3)[self._odd] = self._plain + self._off * same // (_LESS_SO - _AS_OPAQUE)
        return self._now
