"""`Talk`: the data channel of one call. It says what can be heard at once, and obeys no faster than a page asks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from aiortc import RTCDataChannel

from engines.errors import VisavisError
from streamer.clock import Clock
from streamer.webrtc.budget import Budget
from streamer.webrtc.messages import Command, Message, Ping, notice, read_command, refusal, text_of

MESSAGES_PER_S, MESSAGES_AT_ONCE = 100, 200  # a slider drawn on a fast display says 60
MOST_UNHEARD = 1000  # so many more, at once or for seconds on end, and the page is none
_MOST_WAITING_CHARS = 65_536
_MOST_UNSAID = 16
_REPEATS = 3


class Talk:
    """All methods run on the event loop.

    `obey` does what a message asks, and raises VisavisError with what is wrong; a ping is answered here. `on_flood` is
    told, with a reason, of a page that does not stop.
    """

    def __init__(
        self, clock: Clock, obey: Callable[[Command], None], on_flood: Callable[[str], None]
    ) -> None:
        self.unheard = 0  # messages that came faster than they may
        self._clock = clock
        self._obey = obey
        self._on_flood = on_flood
        self._channel: RTCDataChannel | None = None
        self._budget = Budget(MESSAGES_PER_S, MESSAGES_AT_ONCE)
        self._patience = Budget(MESSAGES_PER_S, MOST_UNHEARD)
        self._unsaid: list[Message] = []  # notices from before the channel was open
        self._insisted: dict[object, tuple[Message, int]] = {}

    def open(self, channel: RTCDataChannel) -> None:
        """Talk over `channel`; a second one is closed again."""
        if self._channel is not None and self._channel.readyState == "open":
            channel.close()
            return
        self._channel = channel
        while self._unsaid:
            self.say(self._unsaid.pop(0))
        channel.on("message", self.heard)

    def tell(self, message: Message) -> None:
        """Say it now, or as soon as the page can hear."""
        if self._channel is not None:
            self.say(message)
        elif len(self._unsaid) < _MOST_UNSAID:
            self._unsaid.append(message)

    def insist(self, message: Message) -> None:
        """Tell it now and with each of the next `repeat`s: the channel loses messages. The newest of a type counts."""
        self._insisted[message["type"]] = message, _REPEATS
        self.tell(message)

    def repeat(self) -> None:
        """Say once more what is insisted on; to be called now and then."""
        for kind, (message, left) in list(self._insisted.items()):
            self.say(message)
            if left > 1:
                self._insisted[kind] = message, left - 1
            else:
                del self._insisted[kind]

    def say(self, message: Message) -> None:
        """Say it now, or never."""
        self.say_text(text_of(message))

    def say_text(self, text: str) -> None:
        """`say`, for a message that is already text."""
        channel = self._channel
        # a slow page must not make messages pile up: skip rather than queue
        if (
            channel is not None
            and channel.readyState == "open"
            and channel.bufferedAmount < _MOST_WAITING_CHARS
        ):
            with suppress(ValueError):  # longer than the offer's a=max-message-size
                channel.send(text)

    def heard(self, message: object) -> None:
        """A message of the page. One that makes no sense is answered by a notice and changes nothing."""
        if not self._budget.take(self._clock.now_ns()):
            self._overheard()
            return
        try:
            command = read_command(message)
            if isinstance(command, Ping):
                self.say(command.pong())
            else:
                self._obey(command)
        except VisavisError as error:
            self.say(refusal(error))

    def _overheard(self) -> None:
        self.unheard += 1
        if self.unheard == 1:
            text = f"more than {MESSAGES_PER_S} messages a second are not heard; send fewer"
            self.say(notice(text))
        if not self._patience.take(self._clock.now_ns()):
            self._on_flood(f"its page did not stop at {MESSAGES_PER_S} messages a second")
