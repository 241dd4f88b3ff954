"""`Figure`: one enrolled face as an avatar draws it, with one generator, over one background, in one shape."""

from __future__ import annotations

from engines.enrollment import Enrollment
from engines.generators.kept import KeptGenerators
from engines.renderer import Renderer
from streamer.options import AvatarOptions


class Figure:
    """`rest_picture` is what a fault eases into. Raises as `Renderer` does; takes a while, in any thread."""

    def __init__(self, enrollment: Enrollment, options: AvatarOptions, generators: KeptGenerators) -> None:
        self.enrollment = enrollment
        self.renderer: Renderer = options.renderer_for(enrollment, generators)
        self.source = enrollment.motion
        # drawn now, while everything works, but not with networks that may be drawing somebody in another thread
        shared = self.renderer.draws_with_kept
        self.rest_picture = self.renderer.still if shared else self.renderer.render(self.source)
        self.renderer.forget()

    @property
    def notice(self) -> str | None:
        """A sentence for the user when something is other than asked for, else None."""
        return self.renderer.notice
