"""`OpusSound`: Opus packets at their times → sound without holes: lost ones from FEC in the next, else concealed."""

from __future__ import annotations

from streamer.webrtc.libopus import RATE_HZ, STEP, OpusDecoder, OpusError, has_fec
from streamer.webrtc.sound_filler import LONGEST_FILL_S, Sound, SoundCounts, faded_in

CHANNELS = 2
_LONGEST = round(LONGEST_FILL_S * RATE_HZ)
_FEC_SAMPLES = RATE_HZ // 50  # what one packet can repeat, as browsers send them


class OpusSound:
    """The sound of one stream: as many samples as its time says, to the sample.

    Of a gap of up to `LONGEST_FILL_S`, what the packet after it repeats (RFC 6716 § 2.1.7) is as good as heard, and
    libopus conceals the rest; a longer one stays a jump in time, after which sound begins softly.
    """

    def __init__(self, counts: SoundCounts | None = None) -> None:
        """Raises OpusError where there is no libopus."""
        self._decoder = OpusDecoder(CHANNELS)
        self._counts = counts or SoundCounts()
        self._end: int | None = None

    def next(self, data: bytes, at: int) -> list[Sound]:
        """The next packet and its time in samples → what was missing before it, and its own sound.

        What overlaps the sound before is left out. Raises OpusError for what is no packet: then it is missing.
        """
        gap = 0 if self._end is None else at - self._end
        missing = self._missing(gap, data) if 0 < gap <= _LONGEST else []
        samples = self._decoder.decode(data)
        self._counts.heard_s += len(samples) / RATE_HZ
        if gap > _LONGEST:
            self._counts.left_out_s += gap / RATE_HZ
            samples = faded_in(samples, RATE_HZ)
        overlap = max(0, -gap)
        self._end = at + max(overlap, len(samples))
        own = [Sound(samples[overlap:], at + overlap)] if len(samples) > overlap else []
        return [*missing, *own]

    def _missing(self, gap: int, following: bytes) -> list[Sound]:
        assert self._end is not None
        odd = gap % STEP  # of a sender that counts otherwise
        try:
            samples = self._decoder.missing(gap + (STEP - odd if odd else 0), None if odd else following)[
                :gap
            ]
        except OpusError:
            return []  # a packet that cannot be read: nothing is made up before it, and it is refused next
        recovered = min(gap, _FEC_SAMPLES) if has_fec(following) and not odd else 0
        self._counts.recovered_s += recovered / RATE_HZ
        self._counts.concealed_s += (gap - recovered) / RATE_HZ
        return [Sound(samples, self._end)]
