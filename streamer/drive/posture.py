"""`Posture`: whether a camera's picture lies on its side or shows nobody, told once and never taken back."""

from __future__ import annotations

from dataclasses import dataclass, replace

from engines.geometry import yaw_pitch_roll_deg
from engines.motion import Motion

LYING_DEG = 60.0  # nobody leans a head so far for long
_FACES = 45  # looked at first, one and a half seconds of them; who lies down later has a reason
_NOBODY_S = 10.0


@dataclass(frozen=True, slots=True)
class Posture:
    """What the first faces of a camera told: how many were seen, and how many of them lay."""

    faces: int = 0
    lying: int = 0
    begin_s: float | None = None
    notice: str | None = None

    def after(self, motion: Motion | None, time_s: float) -> Posture:
        """The same after another moment; `motion` is None when no face was seen."""
        begin_s = time_s if self.begin_s is None else self.begin_s
        if motion is None:
            notice = self.notice
            if self.faces == 0 and time_s - begin_s >= _NOBODY_S:
                notice = "the camera shows no face; look into it from the front, in good light, and stand it upright"
            return replace(self, begin_s=begin_s, notice=notice)
        if self.faces >= _FACES:
            return self
        roll_deg = yaw_pitch_roll_deg(motion.rotation_rad)[2]
        now = replace(
            self, faces=self.faces + 1, lying=self.lying + (abs(roll_deg) > LYING_DEG), begin_s=begin_s
        )
        if now.faces < _FACES or now.lying <= 0.8 * _FACES:
            return now
        notice = "the camera's picture lies on its side, so that a nod becomes a shake; turn the camera by a quarter"
        return replace(now, notice=notice)
