"""`Kernels`, the compiled library called with arrays. Sizes and kinds of arrays are checked here, for C does not."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.errors import EngineError

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]
_POINTER, _INT, _LONG, _FLOAT = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_float
_FIRST_ROOM, _MOST_ROOM = 1 << 22, 1 << 31
_ROOM = (("room", _POINTER), ("room_bytes", _LONG))

WINDOW_PX, WHERE_PX, GUIDE_CHANNELS = 128, 32, 10  # of `window.c`


def _numbers(names: str) -> tuple[tuple[str, type[ctypes.c_int32]], ...]:
    return tuple((name, ctypes.c_int32) for name in names.split())


def _pointers(names: str) -> tuple[tuple[str, type[ctypes.c_void_p]], ...]:
    return tuple((name, _POINTER) for name in names.split())


class Shape(ctypes.Structure):
    """Of `layers.c`: sizes of grid, picture, canvas and maps, and how the body moves."""

    _fields_ = (
        *_numbers("w h W H canvas_w canvas_h margin_px below_px map_px follow_w follow_h head_w head_h"),
        ("turned", _FLOAT), ("linear", ctypes.c_double * 4), ("shift", ctypes.c_double * 2),
    )  # fmt: skip


class _Buffers(ctypes.Structure):
    _fields_ = (
        *_pointers("uv part depth source colour canvas follow head outside painted picture both seen"), *_ROOM,
    )  # fmt: skip


class _Seen(ctypes.Structure):
    _fields_ = (
        ("picture", _POINTER), *_numbers("W H left_px top_px side_px"), *_pointers("uv part flow"), *_numbers("w h"),
        *_pointers("first second"), *_numbers("map_px"), *_pointers("skin eye mouth low guide where"), *_ROOM,
    )  # fmt: skip


class _Blend(ctypes.Structure):
    _fields_ = (
        *_pointers("picture out"), *_numbers("W H left_px top_px side_px"), *_pointers("flow layers"), *_ROOM,
    )  # fmt: skip


class Crop(ctypes.Structure):
    """A square crop that turns: `affine` (6) from its pixels to a picture's, both counted from their middles."""

    _fields_ = (("affine", ctypes.c_double * 6), *_numbers("size finer"))

    @staticmethod
    def of(affine: F64, size_px: int, finer: int = 1) -> Crop:
        """`affine` (2, 3) of a crop `finer` times as fine as `size_px`, which is averaged."""
        return Crop((ctypes.c_double * 6)(*affine.ravel()), size_px, finer)


class Kernels:
    """A loaded library. Its functions may be called from any thread, and let other threads of Python run.

    Raises EngineError when `path` is no library of ours. Arrays lie in one piece; each call says which they are.
    """

    def __init__(self, path: Path) -> None:
        try:
            library = ctypes.CDLL(str(path))
            for name, arguments, result in (
                ("rasterise", [_POINTER] * 3 + [_LONG, _POINTER, _FLOAT, _POINTER, _POINTER, _FLOAT, _INT, _INT]
                 + [_POINTER] * 3, _LONG),
                ("layers", [_POINTER] * 2, _INT),
                ("window", [_POINTER], _INT),
                ("blend", [_POINTER], _INT),
                ("crop", [_POINTER, _INT, _INT, _POINTER, _POINTER], None),
                ("crop_parts", [_POINTER, _INT, _INT, _POINTER, _POINTER, _INT, _POINTER], None),
                ("blend_crop", [_POINTER, _INT, _INT, _POINTER, _POINTER], None),
                ("over", [_POINTER] * 3 + [_LONG], None),
            ):  # fmt: skip
                function = getattr(library, f"visavis_{name}")
                function.argtypes, function.restype = arguments, result
        except (OSError, AttributeError) as error:
            raise EngineError(f"the compiled drawing {path} does not load: {error}") from error
        self._library = library
        self._own = threading.local()

    def rasterise(
        self,
        points: F32,
        triangles: NDArray[np.int32],
        chosen: NDArray[np.int64] | None,
        inner: U8,
        push: float,
        uv: F32,
        part: U8,
        width: int,
        height: int,
    ) -> tuple[F32, U8, F32]:
        """(uv (h, w, 2), part (h, w), depth (h, w)) of a head, as `raster.c` and `gbuffer.rasterise` say.

        `points` (N, 3), `triangles` (T, 3), `chosen` of them, `inner` (T,), `uv` (N, 2), `part` (T,).
        """
        out = np.empty((height, width, 2), np.float32), np.empty((height, width), np.uint8)
        depth = np.empty((height, width), np.float32)
        count = len(triangles)
        self._library.visavis_rasterise(
            _at(points, np.float32), _at(triangles, np.int32), None if chosen is None else _at(chosen, np.int64),
            count if chosen is None else len(chosen), _at(inner, np.uint8, count), push,
            _at(uv, np.float32, 2 * len(points)), _at(part, np.uint8, count),
            64.0 * height, width, height, *(x.ctypes.data for x in (*out, depth)),
        )  # fmt: skip
        return *out, depth

    def layers(self, shape: Shape, **buffers: F32 | U8) -> None:
        """Draw head over body as `layers.c` says; each of its buffers by name, `picture`, `both` and `seen` written.

        Raises EngineError when there is no memory for it.
        """
        s = shape
        sizes = {
            "uv": 2 * s.w * s.h, "part": s.w * s.h, "depth": s.w * s.h, "source": 4 * s.map_px**2,
            "colour": 3 * s.map_px**2, "canvas": 4 * s.canvas_w * s.canvas_h, "follow": s.follow_w * s.follow_h,
            "head": s.head_w * s.head_h, "outside": 256, "painted": 256, "picture": 4 * s.W * s.H,
            "both": 2 * s.w * s.h, "seen": s.w * s.h,
        }  # fmt: skip
        told = _Buffers(**{name: _at(buffers[name], _kind_of(name), size) for name, size in sizes.items()})
        self._with_room(lambda: self._library.visavis_layers(ctypes.byref(shape), ctypes.byref(told)), told)

    def window(
        self,
        picture: U8,
        window: tuple[int, int, int],
        grid: tuple[F32, U8, F32],
        maps: tuple[F32, ...],
        kinds: tuple[U8, U8, U8],
    ) -> tuple[F32, F32, F32]:
        """What the head network sees: picture (4, 128, 128), guide (10, 128, 128), where (32, 32, 2).

        `picture` (H, W, 4), the window's left, top and side in it, `grid` uv, parts and flow of the G-buffer, `maps`
        (s, s, 4) and (s, s, 3), `kinds` (256,) which parts are skin, eye and mouth.
        """
        out = (
            np.empty((4, WINDOW_PX, WINDOW_PX), np.float32),
            np.empty((GUIDE_CHANNELS, WINDOW_PX, WINDOW_PX), np.float32),
            np.empty((WHERE_PX, WHERE_PX, 2), np.float32),
        )
        size, side = grid[1].size, len(maps[0])
        told = _Seen(
            _at_picture(picture), picture.shape[1], picture.shape[0], *window, _at(grid[0], np.float32, 2 * size),
            _at(grid[1], np.uint8), _at(grid[2], np.float32, 2 * size), grid[1].shape[1], grid[1].shape[0],
            _at(maps[0], np.float32, 4 * side**2), _at(maps[1], np.float32, 3 * side**2), side,
            *(_at(x, np.uint8, 256) for x in kinds), *(x.ctypes.data for x in out),
        )  # fmt: skip
        self._with_room(lambda: self._library.visavis_window(ctypes.byref(told)), told)
        return out

    def blend(self, picture: U8, window: tuple[int, int, int], flow: F32 | None, layers: F32 | None) -> U8:
        """A new picture (H, W, 4): moved by `flow` (2, 64, 64), `layers` (9, 128, 128) on it, each where given."""
        out = np.empty_like(picture)
        told = _Blend(
            _at_picture(picture), out.ctypes.data, picture.shape[1], picture.shape[0], *window,
            None if flow is None else _at(flow, np.float32, 2 * (WINDOW_PX // 2) ** 2),
            None if layers is None else _at(layers, np.float32, 9 * WINDOW_PX**2),
        )  # fmt: skip
        self._with_room(lambda: self._library.visavis_blend(ctypes.byref(told)), told)
        return out

    def crop(self, picture: U8, crop: Crop) -> F32:
        """(3, size, size) 0 … 1 of a picture (H, W, 4)."""
        out = np.empty((3, crop.size, crop.size), np.float32)
        height, width = picture.shape[:2]
        self._library.visavis_crop(_at_picture(picture), width, height, ctypes.byref(crop), out.ctypes.data)
        return out

    def crop_parts(self, part: U8, crop: Crop, kinds: U8) -> F32:
        """(count, size, size) 0 or 1 of parts (h, w); `kinds` (256, count) which of them count."""
        out = np.empty((kinds.shape[1], crop.size, crop.size), np.float32)
        self._library.visavis_crop_parts(
            _at(part, np.uint8), part.shape[1], part.shape[0], ctypes.byref(crop),
            _at(kinds, np.uint8, 256 * kinds.shape[1]), kinds.shape[1], out.ctypes.data,
        )  # fmt: skip
        return out

    def blend_crop(self, picture: U8, crop: Crop, layers: F32) -> None:
        """Blend `layers` (7, size, size) into a picture (H, W, 4), in place, within the person."""
        height, width = picture.shape[:2]
        self._library.visavis_blend_crop(
            _at_picture(picture), width, height, ctypes.byref(crop), _at(layers, np.float32, 7 * crop.size**2)
        )

    def over(self, rgba: U8, background: U8) -> U8:
        """(H, W, 3): `rgba` (H, W, 4), premultiplied, over `background` (H, W, 3)."""
        out = np.empty(background.shape, np.uint8)
        count = rgba.shape[0] * rgba.shape[1]
        self._library.visavis_over(
            _at_picture(rgba), _at(background, np.uint8, 3 * count), out.ctypes.data, count
        )
        return out

    def _with_room(self, call: Callable[[], int], told: _Buffers | _Seen | _Blend) -> None:
        """`call` with as much memory of this thread as it asks for, kept from call to call."""
        size = int(getattr(self._own, "room_bytes", _FIRST_ROOM))
        while size <= _MOST_ROOM:
            if getattr(self._own, "room_bytes", 0) != size:
                self._own.room, self._own.room_bytes = np.empty(size, np.uint8), size
            told.room, told.room_bytes = self._own.room.ctypes.data, size
            if call() == 0:
                return
            size *= 2
        raise EngineError("a picture of this size has no room in the compiled drawing")


def _at_picture(picture: U8) -> int:
    return _at(picture, np.uint8, 4 * picture.shape[0] * picture.shape[1])


_BYTES = frozenset(("part", "canvas", "outside", "painted", "picture"))


def _kind_of(name: str) -> type[np.generic]:
    return np.uint8 if name in _BYTES else np.float32


def _at(values: NDArray[np.generic], kind: type[np.generic], size: int | None = None) -> int:
    """Where `values` lie, `size` of them where that is told."""
    if not values.flags.c_contiguous or values.dtype != kind or (size is not None and values.size != size):
        wanted = f"{kind.__name__} in one piece" + (f", {size} of them" if size is not None else "")
        raise TypeError(f"the compiled drawing takes {wanted}, not {values.size} of {values.dtype}")
    return values.ctypes.data
