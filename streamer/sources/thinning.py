"""`Thinning`: of a camera that is quicker than anybody looks, as many pictures as are worth drawing."""

from __future__ import annotations

from dataclasses import dataclass, replace

MOST_FPS = 30.0


@dataclass(frozen=True, slots=True)
class Thinning:
    """Which pictures of a live camera are followed; at most about `most_fps` a second, evenly spaced, none later.

    The others are let go as they come, so that a camera of 60 pictures a second costs no more than one of 30, and what
    is followed was taken just before. Immutable: `after` gives the next. `usual_ns`: between two pictures, lately.
    """

    most_fps: float = MOST_FPS
    last_ns: int | None = None
    kept_ns: int | None = None
    usual_ns: float | None = None
    keeps: bool = True

    def after(self, taken_ns: int) -> Thinning:
        """With one more picture, taken then; `keeps` says whether it is to be followed.

        Any clock will do. What was taken before the last one (another camera, a clock set back) begins anew.
        """
        if self.last_ns is None or self.kept_ns is None or not 0 < taken_ns - self.last_ns < 1_000_000_000:
            return Thinning(self.most_fps, taken_ns, taken_ns)
        step_ns = taken_ns - self.last_ns
        usual_ns = step_ns if self.usual_ns is None else self.usual_ns + 0.1 * (step_ns - self.usual_ns)
        # half a picture early is nearer to the time that is due than half a picture late
        keeps = taken_ns - self.kept_ns > 1e9 / self.most_fps - usual_ns / 2
        return replace(
            self,
            last_ns=taken_ns,
            kept_ns=taken_ns if keeps else self.kept_ns,
            usual_ns=usual_ns,
            keeps=keeps,
        )
