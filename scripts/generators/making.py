"""One clip or portrait → its Item: frames chosen and enrolled, the clip's motions, pairs both ways round."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.face import find_face, head_crop
from calibration.photo import open_photo
from calibration.usable import require_whole_face
from engines.errors import VisavisError
from engines.geometry import F64, rotation_from_degrees, rotation_matrix, rotation_vector
from engines.head.landmarks import FaceLandmarks
from engines.motion import ARKIT_INDEX, Motion
from engines.renderer import Renderer
from scripts.generators.item import STORED_PX, Item, grey_png, joined, jpeg
from scripts.generators.motions import Track, clip_motions, motion_of, rest_openings
from scripts.generators.plans import Plan
from scripts.generators.source import CAMERA, Drawing, Source, Tools, degrade, enrolled
from scripts.people.decoding import ClipError, clip_info, decode

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
Bools = NDArray[np.bool_]

MOST_FRAMES = 300  # of a clip whose motion is kept: of longer ones those around the chosen frames
MIN_FRAMES = 10
DEGRADED_SHARE = 0.25  # of the photos: blurred or compressed as poor photos are
_LIVELY_SHARE = 0.5  # of the chosen frames: by chance, with blinks and open mouths likelier
_WHOLE_PX = 640  # a square clip up to this size is stored as it is
_ROOM = 1.1  # around the head crops
_MOST_ROOM = 1.8  # over one head crop: who walks through the picture is not shown small
_BAD_NEUTRAL = 0.5  # a photo that fits less of the clip's frames


class Rejected(Exception):
    """A clip or portrait gives no pairs; the message says why."""


@dataclass(frozen=True, slots=True)
class Region:
    """The square of a clip that is stored, in its pixels; within the picture."""

    left_px: int
    top_px: int
    side_px: int

    def cut(self, image: U8, most_px: int = STORED_PX) -> U8:
        """The region of `image` (H, W, 3), at most `most_px` large."""
        x, y, side = self.left_px, self.top_px, self.side_px
        part = np.ascontiguousarray(image[y : y + side, x : x + side])
        return part if side <= most_px else resized(part, most_px)

    def stored(self, face: FaceLandmarks) -> FaceLandmarks:
        """A face of the clip in stored pixels."""
        points = (face.points_px - np.array([self.left_px, self.top_px, 0])) * (STORED_PX / self.side_px)
        return FaceLandmarks(points.astype(np.float32), face.scores)


def resized(image: U8, side_px: int) -> U8:
    """A square picture at another size."""
    how = cv2.INTER_AREA if len(image) > side_px else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (side_px, side_px), interpolation=how), np.uint8)


def region_of(faces: Sequence[FaceLandmarks], size_px: tuple[int, int]) -> Region:
    """What is stored of a clip of `size_px` (width, height): the square around the head crops of `faces`."""
    width, height = size_px
    if width == height <= _WHOLE_PX:
        return Region(0, 0, width)
    crops = np.array([head_crop(face.points_px, width, height) for face in faces], np.float64)
    low, high = crops[:, :2].min(0), (crops[:, :2] + crops[:, 2:]).max(0)
    middle, most = (low + high) / 2, float(np.median(crops[:, 2])) * _MOST_ROOM
    if (high - low).max() * _ROOM > most:
        middle = np.median(crops[:, :2] + crops[:, 2:] / 2, axis=0)
    side = round(min(float((high - low).max()) * _ROOM, most, width, height))
    left, top = (
        round(float(np.clip(m - side / 2, 0, n - side))) for m, n in zip(middle, size_px, strict=True)
    )
    return Region(left, top, side)


# --- which frames -------------------------------------------------------------------------------------


def choose_frames(points_px: F64, scores: F32, count: int, rng: np.random.Generator) -> list[int]:
    """Rows of a track (T, 478, 3): the first, those that differ most in pose and expression, and lively ones."""
    mean = points_px[:, :468] - points_px[:, :468].mean(1, keepdims=True)
    shape = (mean / np.linalg.norm(mean, axis=(1, 2), keepdims=True)).reshape(len(mean), -1)
    rows = [0]
    away = np.linalg.norm(shape - shape[0], axis=1)
    while len(rows) < min(count - int(count * _LIVELY_SHARE), len(shape)):
        away[rows] = -1  # of frames that are all alike others are taken too
        rows.append(int((away * rng.uniform(0.5, 1, len(away))).argmax()))
        away = np.minimum(away, np.linalg.norm(shape - shape[rows[-1]], axis=1))
    lively = 1 + 3 * scores[:, ARKIT_INDEX["jawOpen"]] + 2 * scores[:, ARKIT_INDEX["eyeBlinkLeft"]]
    lively = lively.astype(np.float64)
    lively[rows] = 0
    more = min(count - len(rows), int((lively > 0).sum()))
    if more > 0:
        rows += [int(k) for k in rng.choice(len(lively), more, replace=False, p=lively / lively.sum())]
    return sorted(set(rows))


def choose_pairs(count: int, partners: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Ordered pairs among `count` frames, both ways round: each with `partners` others, an even number, or all."""
    order = rng.permutation(count)
    pairs: set[tuple[int, int]] = set()
    for k in range(count):
        for step in range(1, partners // 2 + 1):
            a, b = int(order[k]), int(order[(k + step) % count])
            if a != b:
                pairs |= {(a, b), (b, a)}
    return sorted(pairs)


def windows(chosen: Collection[int], frames: int) -> set[int]:
    """Numbers of at most `MOST_FRAMES` frames around the `chosen` of a clip of so many."""
    reach = max(0, MOST_FRAMES // max(1, len(chosen)) - 1)
    before = reach - reach // 2
    return {n for c in chosen for n in range(max(0, c - before), min(frames, c + reach // 2 + 1))}


# --- clips --------------------------------------------------------------------------------------------


class Watched:
    """Faces seen in a clip, by frame number, and why the clip ends early, if it does."""

    def __init__(self, tools: Tools, plan: Plan) -> None:
        self.tools, self.path = tools, plan.path
        self.info = clip_info(plan.path)
        self.faces: dict[int, FaceLandmarks] = {}
        self.pictures: dict[int, U8] = {}
        self.cut_short: str | None = None

    def look(self, wanted: Collection[int] | None, kept: Collection[int] = ()) -> None:
        """Look for the face in the frames `wanted`, all by default; the pictures of those `kept` are kept."""
        both = None if wanted is None else {*wanted, *kept}
        try:
            for number, image in decode(self.path, both):
                if number in kept:
                    self.pictures[number] = image
                if number in self.faces or not (wanted is None or number in wanted):
                    continue
                faces = self.tools.detector.detect(image)
                if faces:
                    self.faces[number] = faces[0]
        except ClipError as error:
            if not self.faces:
                raise
            self.cut_short = str(error)

    def track(self, numbers: Collection[int]) -> Track:
        """Of the faces seen in `numbers`, in the clip's pixels."""
        own = sorted(set(numbers) & set(self.faces))
        points = np.array([self.faces[n].points_px for n in own], np.float64).reshape(-1, 478, 3)
        scores = np.array([self.faces[n].scores for n in own], np.float32).reshape(-1, 52)
        return Track(np.array(own, np.int32), points, scores)


def clip_item(tools: Tools, plan: Plan) -> tuple[Item, str | None]:
    """The Item of a clip, and why it ends early, if it does. Raises Rejected, ClipError."""
    rng = np.random.default_rng(plan.seed)
    seen = Watched(tools, plan)
    frames = seen.info.frames or sum(1 for _ in decode(plan.path))
    step = 1 if frames <= MOST_FRAMES else -(-frames // (MOST_FRAMES // 2))
    seen.look(None if step == 1 else range(0, frames, step))
    track = seen.track(seen.faces)
    if len(track.number) < MIN_FRAMES:
        raise Rejected(f"a face shows in {len(track.number)} of its frames, {MIN_FRAMES} are needed")
    chosen = [
        int(track.number[row]) for row in choose_frames(track.points_px, track.scores, plan.frames, rng)
    ]
    moments = set(seen.faces) if step == 1 else windows(chosen, frames)
    seen.look(moments - set(seen.faces), chosen)
    size = (seen.info.width_px, seen.info.height_px)
    region = region_of([seen.faces[n] for n in chosen], size)
    sources: list[Source] = []
    reasons: list[str] = []
    for number in (n for n in chosen if n in seen.pictures):
        cut = region.cut(seen.pictures.pop(number))
        poor = degrade(cut, rng) if not plan.held_out and rng.uniform() < DEGRADED_SHARE else None
        face = seen.faces[number]
        try:
            require_whole_face(face.points_px, *size)
            sources.append(
                enrolled(
                    tools,
                    resized(cut, STORED_PX),
                    region.stored(face),
                    number,
                    None if poor is None else resized(poor, STORED_PX),
                    shift=rng if sources and not plan.held_out else None,
                )
            )
        except (VisavisError, ValueError) as error:
            reasons.append(str(error))
    return _item(
        tools, plan, sources, _stored(seen.track(moments), region), seen.info.fps, reasons, rng
    ), seen.cut_short


def _stored(track: Track, region: Region) -> Track:
    faces = [
        region.stored(FaceLandmarks(p.astype(np.float32), s))
        for p, s in zip(track.points_px, track.scores, strict=True)
    ]
    return Track(track.number, np.array([f.points_px for f in faces], np.float64), track.scores)


def _item(
    tools: Tools,
    plan: Plan,
    sources: Sequence[Source],
    track: Track,
    fps: float,
    reasons: Sequence[str],
    rng: np.random.Generator,
) -> Item:
    """Everything of a clip put together. Raises Rejected."""
    rest = rest_openings(tools.model, track)
    fits = [clip_motions(tools.fit, s.landmarks_hu, track, rest) for s in sources]
    refused = [s.refused or _misfit(ok) for s, (_, ok) in zip(sources, fits, strict=True)]
    usable = [ok for (_, ok), why in zip(fits, refused, strict=True) if why is None]
    if not usable:
        raise Rejected(next((why for why in (*refused, *reasons) if why), "no frame can be enrolled"))
    moments = np.flatnonzero(np.all(usable, 0))
    numbers = track.number[moments]
    kept = [k for k, s in enumerate(sources) if s.number in numbers]
    pairs = [
        (kept[a], kept[b]) for a, b in choose_pairs(len(kept), plan.partners, rng) if refused[kept[a]] is None
    ]
    motions = np.stack([fits[k][0][moments] for k in kept]) if kept else np.zeros((0, 0, 65), np.float32)
    row = {int(n): t for t, n in enumerate(numbers)}
    drawn = {k: n for n, k in enumerate(kept)}
    return assembled(
        plan,
        [sources[k] for k in kept],
        replace(track, number=numbers, points_px=track.points_px[moments], scores=track.scores[moments]),
        motions,
        [(drawn[a], drawn[b], row[sources[b].number]) for a, b in pairs],
        fps,
    )


def _misfit(ok: Bools) -> str | None:
    return None if ok.mean() >= _BAD_NEUTRAL else "the landmarks are no face that the model can make"


def assembled(
    plan: Plan,
    sources: Sequence[Source],
    track: Track,
    motions: F32,
    pairs: Sequence[tuple[int, int, int]],
    fps: float,
) -> Item:
    """Draw the `pairs` (photo, driver, row of the driver in the track) and put the Item together. Raises Rejected."""
    if not pairs:
        raise Rejected("no other frame shows the face")
    drawings: dict[int, Drawing] = {}
    rows: list[tuple[NDArray[np.int16], bytes, bytes, bytes, NDArray[np.float16]]] = []
    for photo, _, moment in pairs:
        if photo not in drawings:
            drawings = {photo: Drawing(sources[photo])}  # pairs come photo by photo
        rows.append(drawings[photo].pair(motion_of(motions[photo, moment], CAMERA)[0]))
    vertices, pictures, alphas, openings, where = zip(*rows, strict=True)
    enrollments = [s.enrollment for s in sources]
    return Item(
        name=plan.name,
        subject=plan.subject,
        held_out=plan.held_out,
        sharpness=plan.sharpness,
        head_model=sources[0].tools.model.digest,
        clip=plan.clip,
        **joined("rgb", [s.rgb for s in sources]),
        **joined("matte", [grey_png(s.matte) for s in sources]),
        **joined("colour", [jpeg(e.uv_colour) for e in enrollments]),
        **joined("visibility", [grey_png(e.uv_visibility) for e in enrollments]),
        **joined("background", [s.background() for s in sources]),
        **joined("degraded", [s.degraded for s in sources]),
        crop_px=np.array([e.crop_px for e in enrollments], np.float32),
        neutral_hu=np.stack([e.neutral_hu for e in enrollments]),
        identity=np.stack([e.identity for e in enrollments]),
        landmarks_px=np.stack([s.landmarks_px for s in sources]),
        number=np.array([s.number for s in sources], np.int32),
        own_vertices=np.stack([s.own_vertices for s in sources]),
        own_motion=np.stack([s.own_motion for s in sources]),
        fps=np.array(fps, np.float32),
        motion=motions,
        motion_number=track.number,
        source=np.array([p[0] for p in pairs], np.int32),
        target=np.array([p[1] for p in pairs], np.int32),
        vertices=np.stack(vertices),
        **joined("picture", pictures),
        **joined("alpha", alphas),
        **joined("openings", openings),
        where=np.stack(where),
    )


# --- portraits ----------------------------------------------------------------------------------------


def portrait_item(tools: Tools, plan: Plan) -> tuple[Item, str | None]:
    """Posed copies of a portrait are the photos, the portrait is the truth of each. Raises Rejected."""
    rng = np.random.default_rng(plan.seed)
    try:
        found = find_face(open_photo(plan.path).image)
        size = (found.image.shape[1], found.image.shape[0])
        require_whole_face(found.face.points_px, *size)
        region = region_of([found.face], size)
        truth = enrolled(tools, resized(region.cut(found.image), STORED_PX), region.stored(found.face), 0)
    except (VisavisError, ValueError) as error:
        raise Rejected(str(error)) from error
    if truth.refused:
        raise Rejected(truth.refused)
    renderer = Renderer(truth.enrollment, generator="geometric", framing="photo")
    track = Track(
        np.zeros(1, np.int32), truth.landmarks_px[None].astype(np.float64), _scores(found.face)[None]
    )
    rest = rest_openings(tools.model, track)
    sources, reasons = [truth], list[str]()
    motions = [clip_motions(tools.fit, truth.landmarks_hu, track, rest)[0]]
    for _ in range(plan.frames):
        copy = renderer.render(another_pose(truth.enrollment.motion, rng))
        faces = tools.detector.detect(copy)
        if not faces:
            reasons.append("no face in a posed copy")
            continue
        try:
            source = enrolled(tools, copy, faces[0], 0)
        except (VisavisError, ValueError) as error:
            reasons.append(str(error))
            continue
        motion, ok = clip_motions(tools.fit, source.landmarks_hu, track, rest)
        if source.refused or _misfit(ok):
            reasons.append(source.refused or str(_misfit(ok)))
            continue
        sources.append(source)
        motions.append(motion)
    if len(sources) == 1:
        raise Rejected(reasons[0] if reasons else "no copy is asked for")
    pairs = [(k, 0, 0) for k in range(1, len(sources))]
    return assembled(plan, sources, track, np.stack(motions), pairs, 25.0), None


def _scores(face: FaceLandmarks) -> F32:
    return np.asarray(face.scores, np.float32)


def another_pose(own: Motion, rng: np.random.Generator) -> Motion:
    """The head turned by up to 28°, with more or less of a smile, a blink and an open mouth."""
    yaw, pitch, roll = rng.uniform((-28, -14, -8), (28, 14, 8))
    turn = rotation_matrix(rotation_from_degrees(yaw, pitch, roll)) @ rotation_matrix(own.rotation_rad)
    expression = own.expression.copy()
    for name in ("jawOpen", "mouthSmileLeft", "eyeBlinkLeft"):
        amount = max(0.0, rng.uniform(-0.3, 0.5))
        names = [name, name.replace("Left", "Right")]
        expression[[ARKIT_INDEX[n] for n in names]] += np.float32(amount)
    return replace(
        own, rotation_rad=rotation_vector(turn).astype(np.float32), expression=np.clip(expression, 0, 1)
    )
