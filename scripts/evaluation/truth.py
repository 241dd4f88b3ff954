"""What of a take does not depend on who draws it, looked at once: the driver's faces, features, mattes, opinions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from engines.geometry import F64
from scripts.evaluation import metrics
from scripts.evaluation.clips import spread_indices
from scripts.evaluation.eye import Eye, Face
from scripts.evaluation.features import PerceptualMeasure, pooled
from scripts.evaluation.judges import Judge, Look, Opinion
from scripts.evaluation.segment import Cut, cut_all, cut_of
from scripts.evaluation.take import Shot, Take

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]
IDENTITY_FRAMES = 12
# names of the FIDs: self and backward take the protocol's name
SEGMENTED, TO_SOURCES, TO_DRIVERS = "segmented", "sources", "drivers"
# how far apart expressions and poses usually are, to weigh one against the other
_USUAL_AED, _USUAL_APD_DEG = 0.1, 5.0


@dataclass(frozen=True, slots=True)
class Instruments:
    """What looks at pictures."""

    eye: Eye
    perceptual: PerceptualMeasure
    judges: Sequence[Judge]


@dataclass(frozen=True, slots=True)
class Segmented:
    """The driver's pictures of `Take.apart` without background: mattes, pictures, features."""

    cuts: Sequence[Cut]
    pictures: Sequence[U8]
    features: Sequence[Sequence[Tensor]]


@dataclass(frozen=True, slots=True)
class Sight:
    """One second judge on one take: who looks at the drawn pictures, and what it reads in the driver's by number.

    `rests`, cross only: its opinions of the photo and of the driver at rest, from which each is told.
    """

    judge: Judge
    look: Look
    theirs: Mapping[int, Opinion]
    rests: tuple[Opinion, Opinion] | None = None


@dataclass(frozen=True, slots=True)
class Truth:
    """The driver's faces by frame number, the photo's face, descriptors, and what the driver's pictures look like.

    `features` of `Take.apart`, where the driver's pictures are the truth. `pools`: by the name of each FID, the pooled
    features (N, 320) of its real pictures. `segmented` is None, with the reason in `no_matte`, without a segmenter.
    """

    faces: Mapping[int, Face | None]
    photo: Face | None
    photo_descriptors: Mapping[str, F32]
    descriptors: Mapping[int, Mapping[str, F32]]
    features: Sequence[Sequence[Tensor]]
    pools: Mapping[str, F64]
    sights: Mapping[str, Sight]
    segmented: Segmented | None = None
    no_matte: str = ""


def identity_shots(take: Take) -> list[Shot]:
    """The shots on which CSIM is measured: up to twelve of them, for the nets cost more than all the rest."""
    return [take.apart[k] for k in spread_indices(len(take.apart), IDENTITY_FRAMES)]


def look_at_truth(take: Take, tools: Instruments) -> Truth:
    """Look at the driver's pictures and the photo, once per take."""
    eye = tools.eye
    neutral = take.neutral_hu if take.rest is None else take.rest.mesh_hu
    faces = {s.number: eye.face(s.driver, neutral) for s in take.shots}
    photo = eye.face(take.photo, take.neutral_hu)
    features = tools.perceptual.features([s.driver for s in take.apart])
    segmented, no_matte = _segment(take, faces, tools.perceptual) if take.has_truth else (None, "")
    pools: dict[str, F64] = {take.protocol if take.has_truth else TO_DRIVERS: pooled(features)}
    if not take.has_truth:
        pools[TO_SOURCES] = pooled(tools.perceptual.features(take.sources))
    if take.protocol == "self" and segmented is not None:
        pools[SEGMENTED] = pooled(segmented.features)
    return Truth(
        faces=faces,
        photo=photo,
        photo_descriptors=eye.descriptors(take.photo, photo),
        descriptors={s.number: eye.descriptors(s.driver, faces[s.number]) for s in identity_shots(take)}
        if take.has_truth
        else {},
        features=features,
        pools=pools,
        sights=_sights(take, faces, tools),
        segmented=segmented,
        no_matte=no_matte,
    )


def _segment(
    take: Take, faces: Mapping[int, Face | None], perceptual: PerceptualMeasure
) -> tuple[Segmented | None, str]:
    cuts: list[Cut] = []
    for shot in take.apart:
        face = faces[shot.number]
        cut, reason = cut_of(shot.driver, None if face is None else face.points_px)
        if cut is None:
            return None, reason
        cuts.append(cut)
    pictures = cut_all([s.driver for s in take.apart], cuts)
    return Segmented(cuts, pictures, perceptual.features(pictures)), ""


def _sights(take: Take, faces: Mapping[int, Face | None], tools: Instruments) -> dict[str, Sight]:
    """The second judges' views; none of a photo in which the detector sees no face."""
    photo = tools.eye.detect(take.photo)
    rest = rest_shot(take, faces)
    out: dict[str, Sight] = {}
    if photo is None or (rest is None and not take.has_truth):
        return out
    for judge in tools.judges:
        look = judge.meet(take.photo, photo)
        rests, theirs = None, look
        if rest is not None:
            found = tools.eye.detect(rest.driver)
            assert found is not None  # rest_shot has a face
            theirs = judge.meet(rest.driver, found)
            rests = look(take.photo, photo), theirs(rest.driver, found)
        opinions: dict[int, Opinion] = {}
        for shot in take.apart:
            found = tools.eye.detect(shot.driver)
            if found is not None and faces[shot.number] is not None:
                opinions[shot.number] = theirs(shot.driver, found)
        out[judge.name] = Sight(judge, look, opinions, rests)
    return out


def rest_shot(take: Take, faces: Mapping[int, Face | None]) -> Shot | None:
    """The shot in which the driver is nearest to their own rest (cross), for judges that know no rest of theirs."""
    if take.rest is None:
        return None
    rest = take.rest.motion
    best: tuple[float, Shot] | None = None
    for shot in take.shots:
        face = faces[shot.number]
        if face is None:
            continue
        away = metrics.aed(face.expression, rest.expression) / _USUAL_AED
        away += metrics.apd_deg(face.rotation_rad, np.asarray(rest.rotation_rad, np.float64)) / _USUAL_APD_DEG
        if best is None or away < best[0]:
            best = away, shot
    return None if best is None else best[1]
