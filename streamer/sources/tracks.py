"""Which track of a file drives, and which is heard: those that decode, no covers, no previews."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from streamer.pyav import Disposition, Stream, av
from streamer.sources.media_file import open_media

_COVER = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
_FOR_OTHERS = (
    Disposition.comment
    | Disposition.descriptions
    | Disposition.visual_impaired
    | Disposition.hearing_impaired
    | Disposition.dependent
    | Disposition.non_diegetic
)
_PREVIEW_SHARE = 0.25  # of the largest track's pixels: a smaller one is there to be leafed through
_GOES_ON = 250  # pictures of one track, by which another that is a film has two


@dataclass(frozen=True, slots=True)
class TrackFacts:
    """What decides between tracks of one kind; `area_px` is 0 for sound. `still`: one picture beside a film."""

    index: int
    default: bool = False
    for_others: bool = False
    area_px: int = 0
    still: bool = False


def best_first(tracks: Sequence[TrackFacts]) -> list[int]:
    """Indices of `tracks`: no still or preview before a film, then the default, the largest, the first."""
    full_px = _PREVIEW_SHARE * max((t.area_px for t in tracks if not t.still), default=0)
    ranked = sorted(
        tracks, key=lambda t: (t.still, t.area_px < full_px, t.for_others, not t.default, -t.area_px, t.index)
    )
    return [t.index for t in ranked]


def pictures_of(container: av.container.InputContainer) -> list[av.VideoStream]:
    """Its video tracks, covers left out, whether they decode or not."""
    return [s for s in container.streams.video if not s.disposition & _COVER]


def videos_of(container: av.container.InputContainer, path: Path) -> list[av.VideoStream]:
    """The video tracks of `container`, which is `path`, that have a decoder, best first."""
    streams = {s.index: s for s in pictures_of(container) if has_decoder(s)}
    stills = _stills_of(path) if len(streams) > 1 else set[int]()
    facts = [
        TrackFacts(
            s.index,
            bool(s.disposition & Disposition.default),
            bool(s.disposition & _FOR_OTHERS),
            s.codec_context.width * s.codec_context.height,
            s.index in stills,
        )
        for s in streams.values()
    ]
    return [streams[k] for k in best_first(facts)]


def _stills_of(path: Path) -> set[int]:
    """Indices of the tracks that end before their second picture while another goes on: covers that nobody marked.

    They are counted: headers state nothing, too much, or of a film in fragments only what its first one holds.
    """
    with open_media(path) as container:
        counts = {s.index: 0 for s in pictures_of(container)}
        with suppress(av.error.FFmpegError, OSError):
            for packet in container.demux(pictures_of(container)):
                counts[packet.stream.index] += bool(packet.size)
                if min(counts.values()) > 1 or max(counts.values()) >= _GOES_ON:
                    break
    return {index for index, count in counts.items() if count <= 1} if max(counts.values()) > 1 else set()


def sounds_of(container: av.container.InputContainer) -> list[av.AudioStream]:
    """The sound tracks that have a decoder, best first."""
    streams = {s.index: s for s in container.streams.audio if has_decoder(s)}
    facts = [
        TrackFacts(s.index, bool(s.disposition & Disposition.default), bool(s.disposition & _FOR_OTHERS))
        for s in streams.values()
    ]
    return [streams[k] for k in best_first(facts)]


def has_decoder(stream: Stream) -> bool:
    """Whether FFmpeg knows what is in it."""
    context: object = stream.codec_context  # PyAV's stubs do not say that there may be none
    return bool(context)


def is_sound_alone(path: Path) -> bool:
    """Whether there is sound in the file and nothing to look at but a cover, whatever its name is.

    A single picture is one, marked or not.

    Raises DriverError for what is neither video nor sound.
    """
    with open_media(path) as container:
        if not container.streams.audio:
            return False
        shown = pictures_of(container)
        if not shown:
            return True
        with suppress(av.error.FFmpegError, OSError):  # a track of pictures without one
            full = (packet for packet in container.demux(shown) if packet.size)
            return len(list(islice(full, 2))) <= 1
    return False
