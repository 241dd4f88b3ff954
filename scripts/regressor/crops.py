"""The regressor's training cache: face crops as JPEG with their landmarks, and labels fitted to these.

    python -m scripts.regressor.crops cut DATA CACHE [--tracks runs/tracks]
    python -m scripts.regressor.crops label CACHE

`cut` reads the pictures once; `label` needs the landmarks alone, so that it can be repeated in a minute when
the head model or the fit has changed. Training needs nothing but the cache.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from calibration.calm import RESTLESS
from calibration.photo import open_photo
from engines.files import whole_file, write_whole
from engines.geometry import align_similarity, rotation_vector
from engines.head.fit import ExpressionFit, fit_driver, fit_source, measure_closure, measure_gaze, openings
from engines.head.model import HeadModel, load_head_model
from engines.head.regressor.crop import SKIN_LANDMARKS, CropBox, box_around, cut, face_extent, move_points
from scripts.people.decoding import decode as decode_clip
from scripts.people.tracks import Tracked, load_tracks

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

CACHE_PX = 192
CACHE_PER_FACE = 2.2  # room to shift, turn and shrink the crop
SHARD_FRAMES = 3000
BACKGROUND_EVERY = 25
JPEG_QUALITY = 92


@dataclass(frozen=True, slots=True)
class Crops:
    """F crops of M items (clips or portraits), as stored.

    `jpegs` F files, `points_px` (F, 478, 3) in crop pixels, `scores` (F, 52), `item` (F,) index into `names`,
    `subjects`, `kinds` ("clip", "portrait"), `frame` (F,) number in its clip, `box_px` (F, 3) of each crop: x,
    y, side in the picture.
    """

    jpegs: list[bytes]
    points_px: F32
    scores: F32
    item: NDArray[np.int32]
    frame: NDArray[np.int32]
    box_px: F32
    names: list[str]
    subjects: list[str]
    kinds: list[str]
    backgrounds: list[bytes]


def pictures(item: Tracked) -> Iterator[tuple[int, U8]]:
    """(row of the track, RGB picture) of every tracked frame."""
    if item.path.suffix != ".mp4":
        yield 0, open_photo(item.path).image
        return
    wanted = {int(number): row for row, number in enumerate(item.frame)}
    for index, image in decode_clip(item.path, wanted):
        yield wanted[index], image


def encode(crop: U8) -> bytes:
    """RGB crop → JPEG file."""
    ok, data = cv2.imencode(".jpg", crop[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not ok:
        raise RuntimeError("OpenCV could not write a JPEG")
    return bytes(data)


def decode(data: bytes) -> U8:
    """JPEG file → RGB crop."""
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB), np.uint8)


def background_box(points_px: F32, size_px: tuple[int, int], rng: np.random.Generator) -> CropBox | None:
    """A square of the picture that shows hardly any of the face; None when chance finds none."""
    x, y, face = face_extent(points_px)
    width, height = size_px
    for _ in range(20):
        side = face * rng.uniform(0.3, 1.5)
        box = CropBox(rng.uniform(0, width), rng.uniform(0, height), side)
        overlap = 1.0
        for centre, middle in ((box.x_px, x), (box.y_px, y)):
            overlap *= max(0.0, min(side, face, (side + face) / 2 - abs(centre - middle)))
        inside = 1.0
        for centre, length in ((box.x_px, width), (box.y_px, height)):
            inside *= min(centre + side / 2, length) - max(centre - side / 2, 0)
        if overlap < 0.12 * face * face and overlap < 0.25 * side * side and inside > 0.6 * side * side:
            return box
    return None


def write_cache(items: list[Tracked], folder: Path) -> None:
    """Cut every tracked frame of `items` into shards under `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    rows: list[tuple[bytes, F32, F32, int, int, F32]] = []
    backgrounds: list[bytes] = []
    shard = 0

    def flush() -> None:
        nonlocal shard
        if not rows:
            return
        jpegs, points, scores, item, frame, box = zip(*rows, strict=True)
        _write(
            folder / f"crops-{shard:03d}.npz",
            jpeg=np.frombuffer(b"".join(jpegs), np.uint8),
            jpeg_end=np.cumsum([len(j) for j in jpegs]),
            points_px=np.stack(points),
            scores=np.stack(scores),
            item=np.array(item, np.int32),
            frame=np.array(frame, np.int32),
            box_px=np.stack(box),
        )
        rows.clear()
        shard += 1

    for index, tracked in enumerate(tqdm(items, desc="cutting", mininterval=5)):
        is_clip = tracked.path.suffix == ".mp4"
        for row, image in pictures(tracked):
            points = tracked.points_px[row].astype(np.float32)
            box = box_around(points, CACHE_PER_FACE)
            moved = move_points(box.to_crop(CACHE_PX), points).astype(np.float32)
            where = np.array([box.x_px, box.y_px, box.side_px], np.float32)
            jpeg = encode(cut(image, box, CACHE_PX))
            rows.append(
                (jpeg, moved, tracked.scores[row].astype(np.float32), index, int(tracked.frame[row]), where)
            )
            if row % BACKGROUND_EVERY == 0:
                for _ in range(2 if is_clip else 3):
                    empty = background_box(points, (image.shape[1], image.shape[0]), rng)
                    if empty:
                        backgrounds.append(encode(cut(image, empty, CACHE_PX)))
            if len(rows) >= SHARD_FRAMES:
                flush()
    flush()
    _write(
        folder / "backgrounds.npz",
        jpeg=np.frombuffer(b"".join(backgrounds), np.uint8),
        jpeg_end=np.cumsum([len(j) for j in backgrounds]),
    )
    about = {
        "names": [t.name for t in items],
        "subjects": [t.subject for t in items],
        "kinds": ["clip" if t.path.suffix == ".mp4" else "portrait" for t in items],
        "shards": shard,
    }
    write_whole(folder / "items.json", json.dumps(about))


def _write(path: Path, **arrays: NDArray[np.generic]) -> None:
    with whole_file(path) as part:
        np.savez(part, **arrays)  # pyright: ignore[reportArgumentType]


def read_cache(folder: Path) -> Crops:
    """Everything `cut` wrote, in order."""
    about = json.loads((folder / "items.json").read_text())
    parts: dict[str, list[NDArray[np.generic]]] = {}
    jpegs: list[bytes] = []
    for shard in range(int(about["shards"])):
        with np.load(folder / f"crops-{shard:03d}.npz") as data:
            jpegs += _split(data["jpeg"], data["jpeg_end"])
            for name in ("points_px", "scores", "item", "frame", "box_px"):
                parts.setdefault(name, []).append(data[name])
    with np.load(folder / "backgrounds.npz") as data:
        backgrounds = _split(data["jpeg"], data["jpeg_end"])
    joined = {name: np.concatenate(values) for name, values in parts.items()}
    return Crops(
        jpegs=jpegs,
        points_px=joined["points_px"].astype(np.float32),
        scores=joined["scores"].astype(np.float32),
        item=joined["item"].astype(np.int32),
        frame=joined["frame"].astype(np.int32),
        box_px=joined["box_px"].astype(np.float32),
        names=about["names"],
        subjects=about["subjects"],
        kinds=about["kinds"],
        backgrounds=backgrounds,
    )


def _split(data: U8, ends: NDArray[np.int64]) -> list[bytes]:
    starts = np.concatenate([[0], ends[:-1]])
    return [data[a:b].tobytes() for a, b in zip(starts, ends, strict=True)]


CALM_FRAMES = 4


LABELS = ("expression", "rotation_rad", "scale_px", "shift_px", "gaze_rad", "closure", "residual", "identity")


def label_item(fit: ExpressionFit, points_px: F32, scores: F32) -> dict[str, F32]:
    """Labels of one person's frames (F, 478, 3): α from the calmest frames, then every frame against this neutral.

    What α does not explain of the calm frames' landmarks is this person's own, not expression: it is added to the
    neutral.
    """
    model = fit.model
    mean = model.landmarks(model.mean_hu)
    count = len(points_px)
    turned = [align_similarity(mean, p, model.fit_weight).rotation for p in points_px]
    away = np.array([np.linalg.norm(rotation_vector(r)) for r in turned])
    calm = np.argsort(scores[:, RESTLESS].sum(1) + away)[: max(1, count // 4)]
    calm = calm[np.linspace(0, len(calm) - 1, min(CALM_FRAMES, len(calm))).astype(int)]
    sources = [fit_source(model, points_px[row], scores[row]) for row in calm]
    identity = np.mean([s.identity for s in sources], 0).astype(np.float32)
    landmarks = model.landmarks(model.shape(identity)) + np.mean([s.left_hu for s in sources], 0)
    rest = np.median(
        [openings(s.pose.invert(points_px[row])) for s, row in zip(sources, calm, strict=True)], 0
    )
    out: dict[str, list[F32 | float]] = {name: [] for name in LABELS if name != "identity"}
    last: F32 | None = None
    for points, score in zip(points_px, scores, strict=True):
        frame = fit_driver(fit, landmarks, points, score, last)
        last = frame.expression
        shape = landmarks + fit.offset(frame.expression)
        missed = np.linalg.norm((frame.pose.apply(shape) - points)[:SKIN_LANDMARKS, :2], axis=1).mean()
        out["expression"].append(frame.expression)
        out["rotation_rad"].append(rotation_vector(frame.pose.rotation).astype(np.float32))
        out["scale_px"].append(frame.pose.scale)
        out["shift_px"].append(frame.pose.shift[:2].astype(np.float32))
        out["gaze_rad"].append(measure_gaze(frame.unposed_hu))
        out["closure"].append(measure_closure(frame.unposed_hu, rest))
        out["residual"].append(float(missed) / face_extent(points)[2])
    labels = {name: np.array(values, np.float32) for name, values in out.items()}
    return {**labels, "identity": identity}


def write_labels(crops: Crops, folder: Path, model: HeadModel) -> None:
    """Fit every item of a cache; `labels.npz` beside the shards."""
    fit = ExpressionFit(model)
    parts: dict[str, list[F32]] = {name: [] for name in LABELS}
    for index in tqdm(range(len(crops.names)), desc="fitting", mininterval=5):
        own = np.flatnonzero(crops.item == index)  # stored in order
        labels = label_item(fit, crops.points_px[own], crops.scores[own])
        for name in LABELS:
            parts[name].append(labels[name] if name != "identity" else labels[name][None])
    joined = {name: np.concatenate(values) for name, values in parts.items()}
    _write(folder / "labels.npz", **joined)
    residual = np.percentile(joined["residual"] * 100, [50, 90, 99])
    print(
        "landmarks missed by {:.2f} % of the face (median), {:.2f} % (p90), {:.2f} % (p99)".format(*residual)
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    cutting = commands.add_parser("cut", help="pictures and landmarks → crops")
    cutting.add_argument("data", type=Path, help="folder with clips (.mp4) and portraits/ (pictures)")
    cutting.add_argument("cache", type=Path)
    cutting.add_argument("--tracks", type=Path, default=Path("runs/tracks"))
    labelling = commands.add_parser("label", help="landmarks → labels")
    labelling.add_argument("cache", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "cut":
        clips, portraits = load_tracks(arguments.data, arguments.tracks)
        write_cache(clips + portraits, arguments.cache)
    else:
        write_labels(read_cache(arguments.cache), arguments.cache, load_head_model())


if __name__ == "__main__":
    main()
