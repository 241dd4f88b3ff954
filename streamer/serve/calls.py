"""`Calls`: the calls that are up, and who may begin one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from fastapi import HTTPException

from engines.enrollment import Enrollment
from streamer.clock import Clock, SystemClock
from streamer.latency.metrics import Metrics
from streamer.serve.capacity import FULL_FPS, CallKind, Capacity, Reading
from streamer.serve.errors import no_longer
from streamer.webrtc.call_options import CallOptions
from streamer.webrtc.ice import NOTHING, IceSettings
from streamer.webrtc.offer_sdp import Caller, check_offer
from streamer.webrtc.one_way import Ingest
from streamer.webrtc.peer import UnreachableError
from streamer.webrtc.player import Player
from streamer.webrtc.session import CHANGES_PER_S, RETRY_AFTER_S, MakeAvatar, Session
from streamer.webrtc.wish import Wish
from streamer.webrtc.workshop import shared_workshop

CLOSE_WITHIN_S = 2.0
# An offer is answered long before its browser is there. Those that wait cost a socket each and take nobody's place;
# who floods the server with more needs seconds to, and a browser needs less.
MOST_WAITING = 32
MOST_PLAYERS = 8  # of one sender's call: each has an encoder of its own
MOST_CALLS = 64  # however many cores there are: one event loop serves them all
SAMPLE_EVERY_S = 2.0


Kind = TypeVar("Kind", bound=Session)


class Calls:
    """The calls that are up. Event-loop only."""

    def __init__(
        self,
        metrics: Metrics,
        limit: int | None,
        capacity: Capacity,
        make_avatar: MakeAvatar | None,
        *,
        ice: IceSettings = NOTHING,
        clock: Clock | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        cpu_s: Callable[[], float] = time.process_time,
        done_beside: Callable[[], int | None] = lambda: 0,
    ) -> None:
        """`limit`: so many calls, whatever they cost; None: as many as `capacity` allows.

        `done_beside`: how much other work was done so far in this process; None while some is at work.
        """
        self.sessions: list[Session] = []  # in the order of their offers
        self.capacity = capacity
        self.telling = asyncio.Lock()  # whose turn it is to be told a line of a recording
        self._admitted: list[Session] = []  # those whose browser is there
        self._metrics = metrics
        self._limit = limit
        self._make_avatar = make_avatar
        self._ice = ice
        self._clock = clock or SystemClock()
        self._sleep = sleep
        self._cpu_s = cpu_s
        self._done_beside = done_beside
        self._sampling: asyncio.Task[None] | None = None

    async def begin(
        self,
        enrollment: Enrollment,
        options: CallOptions,
        sdp: str,
        kind: Callable[..., Kind] = Session,
        caller: Caller = "page",
    ) -> tuple[Kind, str]:
        """A new session and its SDP answer to an SDP offer of a `caller`. `kind`: what makes the session.

        Raises OfferError for an offer that makes no sense, HTTPException 503 when there is no room for one more call
        or no port.
        """
        check_offer(sdp, caller)
        refusal = self._refusal(options, self._awake())
        if refusal is not None:
            raise HTTPException(503, refusal, headers={"Retry-After": str(self._retry_after_s())})
        self._make_room()
        session = kind(
            enrollment,
            options,
            metrics=self._metrics,
            clock=self._clock,
            sleep=self._sleep,
            on_connected=self._connected,
            on_closed=self._forget,
            make_avatar=self._make_avatar,
            ice=self._ice,
        )
        self.sessions.append(session)
        self._metrics.session_opened()
        try:
            return session, await session.answer(sdp)
        except UnreachableError as error:
            raise HTTPException(503, str(error), headers={"Retry-After": str(RETRY_AFTER_S)}) from error

    @property
    def connected(self) -> list[Session]:
        """Those whose browser is there."""
        return [session for session in self.sessions if session.connected and not session.ending]

    def called(self, name: str) -> Session:
        """The call of that name. Raises 404 for one that is over, or of which nothing will ever be seen."""
        session = next((s for s in self.sessions if s.name == name), None)
        if session is None or session.ending or session.failed:
            raise no_longer("call", "this call is over; begin another one")
        return session

    def require_patience(self, session: Session) -> None:
        """Raises HTTPException 429 for a call that is changed faster than anybody could look at it."""
        if not session.may_change():
            sentence = (
                f"a call changes at most {CHANGES_PER_S} times a second; send the newest wish in a moment"
            )
            raise HTTPException(429, sentence, headers={"Retry-After": "1"})

    def change(self, session: Session, enrollment: Enrollment, options: CallOptions) -> Wish:
        """Go on with another face or look. Raises HTTPException 503 where that takes more than there is."""
        others = _kinds([s for s in self._awake() if s is not session])
        before, asked = CallKind.of(session.asked.options), CallKind.of(options)
        if self._limit is None and (refusal := self.capacity.change_refusal(others, before, asked)):
            raise HTTPException(503, refusal, headers={"Retry-After": str(self._retry_after_s())})
        return session.change(enrollment, options)

    def ingest(self, stream: str) -> Ingest | None:
        """The sender's call of that name, if there is one; the newest, where an earlier one is silent."""
        found = [s for s in self.sessions if isinstance(s, Ingest) and s.stream == stream]
        return next((s for s in reversed(found) if not s.ending and not s.failed), None)

    async def begin_player(self, ingest: Ingest, sdp: str) -> tuple[Player, str]:
        """One more who watches a sender's call, and the answer to its SDP offer; raises as `begin`."""
        check_offer(sdp, "player")
        self._require_room_for_player(ingest)
        player = ingest.new_player(self._ice)
        try:
            return player, await player.answer(sdp)
        except UnreachableError as error:
            raise HTTPException(503, str(error), headers={"Retry-After": str(RETRY_AFTER_S)}) from error

    def _require_room_for_player(self, ingest: Ingest) -> None:
        refusal = None
        if self._limit is None:
            watching = CallKind.watching(ingest.asked.options)
            refusal = self.capacity.refusal(_kinds(self._awake()), watching)
        if len(ingest.players) >= MOST_PLAYERS and refusal is None:
            waiting = next((p for p in ingest.players if not p.peer.connected and not p.ending), None)
            if waiting is None:
                refusal = f"{MOST_PLAYERS} players watch this avatar already; close one of them"
            else:
                waiting.end("a newer player took its place before it connected")
        if refusal is not None:
            raise HTTPException(503, refusal, headers={"Retry-After": str(RETRY_AFTER_S)})

    def _retry_after_s(self) -> int:
        """Sooner where one of the calls that are up may be dead."""
        quiet_s = max((session.quiet_s for session in self._awake()), default=0.0)
        return max(1, RETRY_AFTER_S - int(quiet_s))

    def _refusal(self, options: CallOptions, running: Sequence[Session]) -> str | None:
        up, most = len(running), self._limit or MOST_CALLS
        if up >= most:
            return (
                f"{up} call{'s are' if up > 1 else ' is'} up already; hang one up or start the server with a higher "
                "VISAVIS_MAX_SESSIONS"
            )
        if self._limit is not None:
            return None
        return self.capacity.refusal(_kinds(running), CallKind.of(options))

    def _awake(self) -> list[Session]:
        """The calls that count. A browser that has been silent for seconds may be the one that asks anew."""
        return [session for session in self._admitted if not session.resting and not session.ending]

    def _make_room(self) -> None:
        """The oldest offers whose browsers never came give way, at last those that are just connecting."""
        waiting = [s for s in self.sessions if not s.connected and not s.ending]
        waiting.sort(key=lambda session: session.heard)  # stable: the oldest first
        for session in waiting[: max(0, len(waiting) + 1 - MOST_WAITING)]:
            session.end("a newer offer took its place before it connected")

    def _connected(self, session: Session) -> str | None:
        """Asked again: others may have connected since the offer."""
        refusal = self._refusal(session.asked.options, self._awake())
        if refusal is None:
            kept = [other for other in self._admitted if not other.ending]
            while self._refusal(session.asked.options, kept) is not None:
                silent = next(s for s in kept if s.resting)
                kept.remove(silent)
                silent.end("another call took its place while it was silent")
            self._admitted.append(session)
            if self._sampling is None:
                self._sampling = asyncio.create_task(self._sample())
        return refusal

    async def _sample(self) -> None:
        """While a call is up, see what it costs."""
        before: tuple[int, int] | None = None
        while self._admitted:
            now_s, beside = self._clock.now_ns() / 1e9, self._beside()
            is_alone, before = beside is not None and beside == before, beside
            readings = {session.name: self._reading(session, now_s) for session in self._awake()}
            self.capacity.sample(now_s, self._cpu_s(), readings, is_alone=is_alone)
            await self._sleep(SAMPLE_EVERY_S)
        self._sampling = None

    def _beside(self) -> tuple[int, int] | None:
        if any(session.broadcast.crowded for session in self._awake()):
            return None
        done, made = self._done_beside(), shared_workshop.done
        return None if done is None or made is None else (done, made)

    @staticmethod
    def _reading(session: Session, now_s: float) -> Reading:
        work, options = session.work, session.options
        # the demo asks for a picture at each tick and counts none that it could not keep
        asked = round(now_s * FULL_FPS) if options.drive == "demo" else work.asked
        return Reading(CallKind.of(options), work.drawn, asked, work.busy_ms, work.lag_ms, work.timed)

    def _forget(self, session: Session) -> None:
        if session in self._admitted:
            self._admitted.remove(session)
        if session in self.sessions:
            self.sessions.remove(session)
            self._metrics.session_closed()

    async def close_all(self) -> None:
        """Hang up everything within `CLOSE_WITHIN_S`."""
        if self._sampling is not None:
            self._sampling.cancel()
            self._sampling = None
        closing = [asyncio.create_task(s.close()) for s in list(self.sessions)]
        if closing:
            _, late = await asyncio.wait(closing, timeout=CLOSE_WITHIN_S)
            for task in late:
                task.cancel()


def _kinds(sessions: Sequence[Session]) -> dict[str, CallKind]:
    """What calls cost and what those who watch them do, by name."""
    kinds: dict[str, CallKind] = {}
    for session in sessions:
        kinds[session.name] = CallKind.of(session.asked.options)
        players = session.players if isinstance(session, Ingest) else ()
        kinds |= {player.name: CallKind.watching(session.asked.options) for player in players}
    return kinds
