"""Contact sheet: six moments of a motion on several photos, under the motion drawn as a wire face.

    python scripts/contact_sheet.py -o docs/contact-sheet.png [--motion FILE.jsonl] [PHOTO …]

Without photos: an astronaut (NASA; scikit-image) and an admiral (US Navy; matplotlib), both public domain.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib.cbook import get_sample_data
from numpy.typing import NDArray
from PIL import Image

from calibration.enroll import enroll
from engines.gbuffer import front_facing
from engines.geometry import Camera, yaw_pitch_roll_deg
from engines.head_model import Part, load_head_model
from engines.motion import ARKIT_INDEX, Motion, MotionTrack, read_motion
from engines.renderer import Renderer
from engines.retarget import Controls, retarget
from streamer.demo import DEMO_MOTION, DEMO_PHOTO

U8 = NDArray[np.uint8]
SIDE_PX = 320


def telling_moments(track: MotionTrack) -> list[tuple[str, Motion]]:
    """The motion's extremes, by name: what a viewer should see follow."""
    angles = np.array([yaw_pitch_roll_deg(m.rotation_rad) for m in track.motions])
    expression = np.array([m.expression for m in track.motions])

    def of(*names: str) -> NDArray[np.float32]:
        return expression[:, [ARKIT_INDEX[n] for n in names]].sum(1)

    blink = of("eyeBlinkLeft", "eyeBlinkRight")
    picks = {
        "mouth open": int((of("jawOpen") - of("mouthClose")).argmax()),
        "eyes closed": int(blink.argmax()),
        "turned left": int((angles[:, 0] + 10 * blink).argmin()),
        "turned right": int((angles[:, 0] - 10 * blink).argmax()),
        "head down": int(angles[:, 1].argmax()),
        "smile": int((of("mouthSmileLeft", "mouthSmileRight") - blink).argmax()),
    }
    return [(name, track.motions[i]) for name, i in picks.items()]


def wire_face(motion: Motion) -> U8:
    """The mean head, posed and moved by `motion`, as lines."""
    model = load_head_model()
    points = Camera(SIDE_PX, SIDE_PX).to_similarity(motion.rotation_rad, motion.translation_hu * (1, 1, 0.66))
    px = points.apply(model.decode(model.mean_hu, motion.expression, motion.gaze_rad))[:, :2].astype(np.float32)
    image = np.full((SIDE_PX, SIDE_PX, 3), 24, np.uint8)
    shown = front_facing(px, model.triangles) & (model.part == Part.SKIN)
    for triangle in model.triangles[shown]:
        corners = np.rint(px[triangle] * 16).astype(np.int32)
        cv2.polylines(image, [corners], True, (90, 190, 170), 1, cv2.LINE_AA, 4)
    return image


def label(image: U8, text: str) -> U8:
    """`image` with a caption in its corner."""
    out = image.copy()
    cv2.putText(out, text, (8, SIDE_PX - 10), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
    return out


def sheet(photos: Sequence[Path | bytes], track: MotionTrack) -> U8:
    """Rows: the motion, then each photo; columns: the moments."""
    moments = telling_moments(track)
    rest = track.neutral or track.motions[0]
    rows = [np.hstack([label(wire_face(m), name) for name, m in moments])]
    for photo in photos:
        enrollment = enroll(photo)
        renderer = Renderer(enrollment, size_px=SIDE_PX)
        pictures = [renderer.render(retarget(m, rest, enrollment.motion, Controls())) for _, m in moments]
        rows.append(np.hstack(pictures))
    return np.vstack(rows)


def public_domain_photos() -> list[Path | bytes]:
    """The two portraits that come with packages."""
    return [DEMO_PHOTO, Path(str(get_sample_data("grace_hopper.jpg", asfileobj=False)))]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", nargs="*", type=Path)
    parser.add_argument("--motion", type=Path, default=DEMO_MOTION)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    picture = sheet(arguments.photos or public_domain_photos(), read_motion(arguments.motion))
    Image.fromarray(picture).save(arguments.output)
    print(f"{arguments.output}: {picture.shape[1]} × {picture.shape[0]} px")


if __name__ == "__main__":
    main()
