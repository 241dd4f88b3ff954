"""The pose of one driver with the expression of another: a recorded motion moves the head, the driver the face."""

from __future__ import annotations

from dataclasses import dataclass, replace

from engines.motion import Motion, MotionTrack, blend
from engines.retarget import Controls, retarget
from streamer.drive.demo import looped
from streamer.drive.share import Share

FADE_S = 0.6
_AT_FIRST = Share(FADE_S)


@dataclass(frozen=True, slots=True)
class RecordedHead:
    """How much of the head's pose comes from `track`, which is repeated without end; a value, advanced per picture."""

    track: MotionTrack
    share: Share = _AT_FIRST

    def towards(self, wanted: bool, time_s: float) -> RecordedHead:
        """At `time_s`: eased in or out, so that the head does not jump."""
        return replace(self, share=self.share.towards(wanted, time_s))

    def posed(self, asked: Motion, time_s: float, source: Motion, controls: Controls) -> Motion:
        """`asked` of the photo `source`, with as much of its pose as is due from the recording at `time_s`.

        Strengths and limits of the head count as for a driver; nothing else of the recording gets through.
        """
        if self.share.value <= 0:
            return asked
        pose = replace(controls, region="pose", preset="none")
        neutral = self.track.neutral or self.track.motions[0]
        theirs = retarget(looped(self.track, time_s), neutral, source, pose)
        turned = replace(asked, rotation_rad=theirs.rotation_rad, translation_hu=theirs.translation_hu)
        return turned if self.share.value >= 1 else blend(asked, turned, self.share.value)
