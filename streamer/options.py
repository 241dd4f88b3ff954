"""`AvatarOptions`: what every way of showing an avatar is asked for, be it a file, a live run or a call."""

from __future__ import annotations

from dataclasses import dataclass, replace

from engines.enrollment import Enrollment
from engines.generators.kept import KeptGenerators
from engines.generators.names import DEFAULT_GENERATOR
from engines.motion import MotionTrack
from engines.renderer import Framing, Renderer
from engines.retarget import Controls
from streamer.drive.trackers.names import DEFAULT_TRACKER
from streamer.look import AS_IS, Look


@dataclass(frozen=True, slots=True, kw_only=True)
class AvatarOptions:
    """How an avatar is drawn, followed and heard; what is asked for beyond that is added by subclasses.

    `trim_ms`: the sound comes this much later than the picture; below 0, earlier. `controls`: None for those saved
    with the avatar. `head_motion`: what moves the head where the controls say so; None for the demo's.
    """

    generator: str = DEFAULT_GENERATOR
    tracker: str = DEFAULT_TRACKER
    size_px: int = 512
    framing: Framing = "head"
    look: Look = AS_IS
    trim_ms: float = 0.0
    controls: Controls | None = None
    head_motion: MotionTrack | None = None

    def controls_for(self, enrollment: Enrollment) -> Controls:
        """How the avatar moves at first."""
        controls = self.controls or enrollment.controls or Controls()
        # in the photo's own framing an absolute driver is also where it is in its own picture
        return replace(controls, place_absolutely=True) if self.framing == "photo" else controls

    def renderer_for(self, enrollment: Enrollment, generators: KeptGenerators | None = None) -> Renderer:
        """What draws the enrolled face, with one of `generators`; raises as `Renderer` does."""
        return Renderer(
            enrollment,
            generator=self.generator,
            framing=self.framing,
            size_px=self.size_px,
            background=self.look.background,
            aspect=self.look.aspect,
            generators=generators,
        )
