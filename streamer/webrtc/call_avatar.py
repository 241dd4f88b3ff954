"""`CallAvatar`: the avatar of one call, from the one that it begins with to whatever the page changes it into."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from engines.enrollment import Enrollment
from engines.retarget import Controls
from streamer.avatar import Avatar
from streamer.webrtc.call_options import CallOptions
from streamer.webrtc.messages import Message, notice, one_line, unchanged
from streamer.webrtc.wish import Wish
from streamer.webrtc.workshop import Workshop

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Moving:
    """A wish, and how its avatar moves."""

    wish: Wish
    controls: Controls


class CallAvatar:
    """All methods run on the event loop, except `prepare`, which the worker's thread calls.

    What is to be shown next is made in `workshop` while the avatar goes on as it is; then the drawing thread changes
    it between two pictures. Of wishes that come meanwhile the newest counts. Driver, neutral and smoothing stay.
    """

    def __init__(
        self,
        wish: Wish,
        workshop: Workshop,
        *,
        tell: Callable[[Message], None],
        insist: Callable[[Message], None],
        sleep: Callable[[float], Awaitable[None]],
        on_fault: Callable[[str, BaseException], None],
    ) -> None:
        """`tell` and `insist` say something to the page; they and `on_fault` are called from any thread."""
        self._lock = threading.Lock()  # the avatar is made in one thread and changed in another
        self._asked = self._shown = _Moving(wish, wish.options.controls_for(wish.enrollment))
        self._made = wish  # what is shown now, or from the next picture on
        self._count = wish.number
        self._avatar: Avatar | None = None
        self._closed = False
        self._making: asyncio.Task[None] | None = None
        self._workshop = workshop
        self._tell = tell
        self._insist = insist
        self._sleep = sleep
        self._on_fault = on_fault

    @property
    def avatar(self) -> Avatar | None:
        """That which is drawn; None before it is made, and when the call is over."""
        return self._avatar

    @property
    def asked(self) -> Wish:
        """The newest wish that was taken."""
        return self._asked.wish

    @property
    def shown(self) -> Wish:
        """What the pictures show."""
        return self._shown.wish

    @property
    def controls(self) -> Controls:
        """How the avatar that was asked for last moves."""
        return self._asked.controls

    def set_controls(self, controls: Controls) -> None:
        """They are for the face that was asked for last: another one goes on as it was while that is made."""
        with self._lock:
            self._asked = replace(self._asked, controls=controls)
            if self._asked.wish.enrollment is self._shown.wish.enrollment:
                self._shown = replace(self._shown, controls=controls)
                if self._avatar is not None:
                    self._avatar.controls = controls

    def change(self, enrollment: Enrollment, options: CallOptions) -> Wish:
        """Show this as soon as it is made."""
        self._count += 1
        wish = Wish(enrollment, options, self._count)
        with self._lock:
            before, shown = self._asked, self._shown
            same_face = next((m for m in (before, shown) if m.wish.enrollment is enrollment), None)
            controls = same_face.controls if same_face else options.controls_for(enrollment)
            self._asked = _Moving(wish, controls)
            if options.mode == "echo":  # there is nothing to draw
                self._shown, self._made = self._asked, wish
        if self._avatar is not None:
            self._make_next()
        return wish

    def prepare(self, make: Callable[[], Avatar], loop: asyncio.AbstractEventLoop) -> Avatar:
        """The call's avatar, in the worker's thread. What the page asks for meanwhile is not lost."""
        with self._lock:
            self._shown = self._asked
            self._made = self._shown.wish
        avatar = make()
        with self._lock:
            if self._asked.wish.enrollment is self._made.enrollment:
                self._shown = replace(self._shown, controls=self._asked.controls)
            avatar.controls = self._shown.controls
            self._avatar = None if self._closed else avatar
        if avatar.notice:
            self._tell(notice(avatar.notice))
        loop.call_soon_threadsafe(self._make_next)
        return avatar

    def close(self) -> None:
        """Let go of it all; what is being made is left."""
        with self._lock:
            self._avatar, self._closed = None, True
        if self._making is not None:
            self._making.cancel()

    def _make_next(self) -> None:
        if self._making is None and not self._closed and self._asked.wish is not self._made:
            self._making = asyncio.get_running_loop().create_task(self._make_all())

    async def _make_all(self) -> None:
        try:
            while (wish := self._asked.wish) is not self._made:
                took_s = await self._make(wish)
                if took_s and self._asked.wish is not wish:
                    # who asks without end has half of the workshop's time at most
                    await self._sleep(took_s)
        finally:
            self._making = None

    async def _make(self, wish: Wish) -> float:
        """Seconds that it took."""
        avatar = self._avatar
        if avatar is None or wish.looks_like(self._made):
            self._made = wish
            with self._lock:
                # else the picture that is about to be drawn says so
                if self._asked.wish is wish and wish.looks_like(self._shown.wish):
                    self._shown = self._asked
            return 0.0
        took_s = 0.0
        try:
            figure, took_s = await self._workshop.make(
                lambda: avatar.figure_of(wish.enrollment, wish.options)
            )
        except Exception as error:
            logger.error("a change of the avatar could not be made", exc_info=error)
            self._on_fault("changed", error)
            self._leave(wish, f"the avatar stays as it was ({one_line(error)}); choose something else")
            return 0.0
        made = self._asked
        # a face that nobody wants any more is not shown in between
        if made.wish.enrollment is wish.enrollment:
            self._made = wish
            avatar.become(figure, lambda: self._begun(avatar, replace(made, wish=wish)))
            if figure.notice:
                self._tell(notice(figure.notice))
        return took_s

    def _begun(self, avatar: Avatar, made: _Moving) -> None:
        """Called by the drawing thread, before the first picture of what was made."""
        with self._lock:
            asked = self._asked
            if asked.wish.looks_like(made.wish):
                self._shown = asked
            elif asked.wish.enrollment is made.wish.enrollment:
                self._shown = replace(made, controls=asked.controls)
            else:
                self._shown = made
            avatar.controls = self._shown.controls

    def _leave(self, wish: Wish, why: str) -> None:
        """`wish` cannot be: the picture stays as it is. What was asked of the sound stays asked."""
        if self._asked.wish is not wish:
            return  # a newer one is tried
        with self._lock:
            made = self._made
            options = replace(
                made.options, voice_helps=wish.options.voice_helps, trim_ms=wish.options.trim_ms
            )
            shown = self._shown
            is_drawn = shown.wish.enrollment is made.enrollment
            controls = shown.controls if is_drawn else options.controls_for(made.enrollment)
            self._made = replace(made, options=options)
            self._asked = _Moving(self._made, controls)
            if shown.wish is made:
                self._shown = self._asked
        self._insist(unchanged(wish.number, made.number, why))
