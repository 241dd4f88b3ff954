"""Item: what one clip or portrait gives to train on, in one safetensors file (pairs, version 3).

Positions are stored pixels: the item's square region of the clip, resampled to 512 × 512, pixel centres at +0.5. What
can be looked up from the head model (G-buffer, guides, flows, PNCC) is not stored. NumPy, OpenCV and safetensors alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from engines.digest import digest_of
from engines.files import write_whole
from engines.generators.networked.boxes import WHERE_PX
from scripts.training.errors import TrainingError

F32 = NDArray[np.float32]
F16 = NDArray[np.float16]
U8 = NDArray[np.uint8]
I16 = NDArray[np.int16]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]

FORMAT, VERSION = "visavis-pairs", 3
SUFFIX = ".safetensors"
STORED_PX, BACKGROUND_PX = 512, 256
VERTEX_STEPS = 32  # of a stored pixel: what vertices are rounded to
LANDMARKS = 478
JPEG_QUALITY = 95

Kind = Literal[
    "rgb", "matte", "colour", "visibility", "background", "degraded", "picture", "alpha", "openings"
]


@dataclass(frozen=True)
class About:
    """Who an item shows and how it was made: the header of its file.

    `subject` the person, `held_out` whether they are kept for judging; `sharpness` below 1 where the clip was enlarged;
    `head_model` digest of the head model that it was fitted with; `clip` sha256 of the file that it was made of.
    """

    name: str
    subject: str
    held_out: bool
    sharpness: float
    head_model: str
    clip: str


@dataclass(frozen=True, eq=False)
class Item(About):
    """K frames, each enrolled as if it were the photo; P ordered pairs of them; motions of T frames of the clip.

    Pictures are files one after another: `…_bytes` with where each ends, `…_ends` (`files` parts them).

    Of each frame:
    - `rgb` JPEG, `matte` PNG, 512². `colour` JPEG and `visibility` PNG, 512²: the UV maps of its enrollment.
    - `degraded`: the photo as it was enrolled and is shown, where that is not `rgb`; empty where it is.
    - `background` JPEG, 256²: what stands behind the person, in the frame's window.
    - `crop_px` (K, 3): left, top and side of the window when the frame is the photo; may reach beyond the picture.
    - `neutral_hu` (K, N, 3), `identity` (K, I), `landmarks_px` (K, 478, 3) of the frame as it is, `number` (K,) in the
      clip; `own_vertices` (K, N, 3) its own posed mesh, in 1/32 px, `own_motion` (K, 65).

    Of the clip, `fps` frames a second:
    - `motion` (K, T, 65): its frames `motion_number` (T,), ascending, against each photo's own neutral, as
      `motion_descriptor.describe` gives. All of `number` are among them.

    Of each pair, frame `source` (P,) driven by frame `target` (P,):
    - `vertices` (P, N, 3) in 1/32 px.
    - `picture` JPEG, premultiplied, and `alpha` PNG, 512²: what `geometric` draws in the photo's window.
    - `openings` PNG, premultiplied RGBA, 512²: what of it shows between lids and lips.
    - `where` (P, 32, 32, 2): where in that window each place of it comes from, as `where_in_photo`.
    """

    rgb_bytes: U8
    rgb_ends: I64
    matte_bytes: U8
    matte_ends: I64
    colour_bytes: U8
    colour_ends: I64
    visibility_bytes: U8
    visibility_ends: I64
    background_bytes: U8
    background_ends: I64
    degraded_bytes: U8
    degraded_ends: I64
    crop_px: F32
    neutral_hu: F32
    identity: F32
    landmarks_px: F32
    number: I32
    own_vertices: I16
    own_motion: F32
    fps: F32
    motion: F32
    motion_number: I32
    source: I32
    target: I32
    vertices: I16
    picture_bytes: U8
    picture_ends: I64
    alpha_bytes: U8
    alpha_ends: I64
    openings_bytes: U8
    openings_ends: I64
    where: F16

    @cached_property
    def row(self) -> I64:
        """(K,) where each frame stands among the T of `motion`."""
        return np.searchsorted(self.motion_number, self.number).astype(np.int64)


_TENSORS: dict[str, type[np.generic]] = {
    field.name: {"U8": np.uint8, "I64": np.int64, "I32": np.int32, "I16": np.int16, "F16": np.float16}.get(
        str(field.type), np.float32
    )
    for field in fields(Item)[len(fields(About)) :]
}
OF_FRAME: tuple[Kind, ...] = ("rgb", "matte", "colour", "visibility", "background", "degraded")
OF_PAIR: tuple[Kind, ...] = ("picture", "alpha", "openings")

_SHAPES: dict[str, tuple[str | int, ...]] = {
    "crop_px": ("K", 3), "neutral_hu": ("K", "N", 3), "identity": ("K", "I"), "landmarks_px": ("K", LANDMARKS, 3),
    "number": ("K",), "own_vertices": ("K", "N", 3), "own_motion": ("K", 65), "fps": (), "motion": ("K", "T", 65),
    "motion_number": ("T",), "source": ("P",), "target": ("P",), "vertices": ("P", "N", 3),
    "where": ("P", WHERE_PX, WHERE_PX, 2),
    **{f"{kind}_ends": ("K",) for kind in OF_FRAME}, **{f"{kind}_ends": ("P",) for kind in OF_PAIR},
}  # fmt: skip


# --- pictures as files --------------------------------------------------------------------------------


def jpeg(image: U8) -> bytes:
    """RGB picture (H, W, 3) → JPEG whose colours are as fine as its light."""
    return _encoded(".jpg", image[..., ::-1], _AS_JPEG)


_AS_JPEG = [
    cv2.IMWRITE_JPEG_QUALITY,
    JPEG_QUALITY,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
]


# one filter for all rows: a third of the time that trying them all takes, and no larger
_AS_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP]


def grey_png(image: U8) -> bytes:
    """Mask (H, W) → PNG: what is 0 stays 0."""
    return _encoded(".png", image, _AS_PNG)


def rgba_png(image: U8) -> bytes:
    """RGBA (H, W, 4) → PNG."""
    return _encoded(".png", image[..., [2, 1, 0, 3]], _AS_PNG)


def _encoded(kind: str, image: U8, options: Sequence[int]) -> bytes:
    ok, data = cv2.imencode(kind, image, options)
    if not ok:
        raise RuntimeError(f"OpenCV could not write a {kind}")
    return data.tobytes()


def decode_colour(data: bytes) -> U8:
    """A file of `rgb`, `colour`, `background`, `degraded` or `picture` → (H, W, 3) RGB. Raises TrainingError."""
    return _decoded(data, cv2.IMREAD_COLOR_RGB)


def decode_grey(data: bytes) -> U8:
    """A file of `matte`, `visibility` or `alpha` → (H, W). Raises TrainingError."""
    return _decoded(data, cv2.IMREAD_GRAYSCALE)


def decode_rgba(data: bytes) -> U8:
    """A file of `openings` → (H, W, 4) RGBA. Raises TrainingError."""
    return np.asarray(cv2.cvtColor(_decoded(data, cv2.IMREAD_UNCHANGED), cv2.COLOR_BGRA2RGBA), np.uint8)


def _decoded(data: bytes, how: int) -> U8:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), how) if data else None
    if image is None:
        raise TrainingError(
            "a picture of the pairs cannot be read; make them again: python -m scripts.generators.pairs"
        )
    return np.asarray(image, np.uint8)


def joined(kind: Kind, parts: Iterable[bytes]) -> dict[str, Any]:
    """Files → `kind_bytes` and `kind_ends` of an Item."""
    held = list(parts)
    ends = np.cumsum([len(p) for p in held], dtype=np.int64)
    return {f"{kind}_bytes": np.frombuffer(b"".join(held), np.uint8).copy(), f"{kind}_ends": ends}


def files(item: Item, kind: Kind) -> list[bytes]:
    """The pictures of a kind, one file each."""
    data: U8 = getattr(item, f"{kind}_bytes")
    ends: I64 = getattr(item, f"{kind}_ends")
    return [data[a:b].tobytes() for a, b in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)]


def photo_files(item: Item) -> list[bytes]:
    """(K) JPEG of each frame as the photo that was enrolled: degraded where it was."""
    return [poor or clean for poor, clean in zip(files(item, "degraded"), files(item, "rgb"), strict=True)]


def rounded(vertices_px: F32) -> I16:
    """Positions in stored pixels → 1/32 px; further away than 1023 px they stay there."""
    return np.clip(np.rint(vertices_px * VERTEX_STEPS), -32768, 32767).astype(np.int16)


def in_pixels(vertices: I16) -> F32:
    """Inverse of `rounded`."""
    return vertices.astype(np.float32) / np.float32(VERTEX_STEPS)


# --- files of items -----------------------------------------------------------------------------------


def save_item(path: Path, item: Item) -> None:
    """Write an item, whole or not at all. Raises OSError, ValueError for one that is not consistent."""
    tensors: dict[str, NDArray[np.generic]] = {
        name: np.asarray(getattr(item, name), kind, order="C") for name, kind in _TENSORS.items()
    }
    _require_consistent(tensors)
    header = {"format": FORMAT, "version": VERSION, **_about(item), "digest": digest_of(tensors)}
    write_whole(path, save(tensors, metadata={"visavis": json.dumps(header)}))


def load_item(path: Path) -> Item:
    """Read an item. Raises TrainingError, with the fix, where it is missing, damaged, foreign or of another version."""
    about, digest = _header(path)
    try:
        with safe_open(str(path), framework="numpy") as file:
            tensors: dict[str, NDArray[np.generic]] = {n: file.get_tensor(n) for n in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if digest_of(tensors) != digest:
        raise _damaged(path, "its sha256 does not match")
    try:
        _require_consistent(tensors)
    except (KeyError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    return Item(**_about(about), **{n: tensors[n] for n in _TENSORS})  # pyright: ignore[reportArgumentType]


def read_about(path: Path) -> About:
    """Who an item shows, from its header alone; truncation shows, a changed byte does not. Raises as `load_item`."""
    return _header(path)[0]


class ForeignFile(TrainingError):
    """A file that is no item of this version: not ours to replace."""


class DamagedItem(TrainingError):
    """An item's file is not whole: make it again."""


def _about(about: About) -> dict[str, object]:
    return {field.name: getattr(about, field.name) for field in fields(About)}


def _header(path: Path) -> tuple[About, str]:
    if not path.is_file():
        raise TrainingError(
            f"there are no pairs at {path}; make them with: python -m scripts.generators.pairs DATA -o {path.parent}"
        )
    try:
        with safe_open(str(path), framework="numpy") as file:
            raw = (file.metadata() or {}).get("visavis")
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    elsewhere = "move it away, or choose another folder with -o"
    try:
        header = json.loads(raw or "")
        kind, version = header["format"], header["version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ForeignFile(f"{path} holds no pairs of visavis; {elsewhere}") from error
    if kind != FORMAT:
        raise ForeignFile(f"{path} holds no pairs of visavis; {elsewhere}")
    if version != VERSION:
        raise ForeignFile(
            f"{path} holds pairs of version {version!r:.20}, this visavis reads {VERSION}; {elsewhere}"
        )
    try:
        told = {field.name: header[field.name] for field in fields(About)}
        strings = ("name", "subject", "head_model", "clip")
        if not all(isinstance(told[n], str) for n in strings) or not isinstance(told["held_out"], bool):
            raise TypeError("its header has a field of the wrong kind")
        told["sharpness"] = float(told["sharpness"])
        return About(**told), str(header["digest"])
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, f"its header: {error}") from error


def _damaged(path: Path, why: str) -> DamagedItem:
    return DamagedItem(
        f"{path} is damaged ({why:.120}); delete it and make it again: "
        f"python -m scripts.generators.pairs DATA -o {path.parent}"
    )


def _require_consistent(tensors: dict[str, NDArray[np.generic]]) -> None:
    """Raise ValueError or KeyError naming the first tensor that does not fit the others."""
    sizes: dict[str, int] = {}
    for name, kind in _TENSORS.items():
        if tensors[name].dtype != kind:
            raise ValueError(f"{name} is {tensors[name].dtype}, not {np.dtype(kind)}")
    for name, shape in _SHAPES.items():
        found = tensors[name].shape
        wanted = tuple(
            sizes.setdefault(n, m) if isinstance(n, str) else n for n, m in zip(shape, found, strict=False)
        )
        if found != wanted or len(found) != len(shape):
            raise ValueError(f"{name} is {found}, expected {shape} with {sizes}")
    for name in (n for n in _TENSORS if np.issubdtype(_TENSORS[n], np.floating)):
        if not np.isfinite(tensors[name]).all():
            raise ValueError(f"{name} holds a number that is not finite")
    for kind in (*OF_FRAME, *OF_PAIR):
        ends = tensors[f"{kind}_ends"].astype(np.int64)
        if (np.diff(ends, prepend=0) < 0).any() or (ends[-1] if len(ends) else 0) != tensors[
            f"{kind}_bytes"
        ].size:
            raise ValueError(f"{kind}_ends does not part {kind}_bytes")
    numbers, moments = tensors["number"].astype(np.int64), tensors["motion_number"].astype(np.int64)
    if (np.diff(moments) <= 0).any() or not np.isin(numbers, moments).all():
        raise ValueError("motion_number does not rise, or lacks a frame of number")
    for name in ("source", "target"):
        frame = tensors[name].astype(np.int64)
        if frame.size and not (frame.min() >= 0 and frame.max() < sizes["K"]):
            raise ValueError(f"{name} names a frame that is not there")
