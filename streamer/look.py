"""How a picture looks, as a user says it: what stands behind the person, and the picture's shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from calibration.photo import Photo, open_photo
from engines.errors import PhotoError
from engines.picture.background import KEEP, Background, BackgroundError, read_colour
from engines.renderer import Aspect

BACKGROUND_CHOICES = "keep, soft, blur, transparent, a colour such as '#00ff00', or a picture file"


@dataclass(frozen=True, slots=True)
class Look:
    """A background and a shape: "1:1", or "16:9" for calls."""

    background: Background = KEEP
    aspect: Aspect = "1:1"


AS_IS = Look()


def read_background(text: str) -> Background:
    """What `--background` means. Raises BackgroundError naming the choices, or what is wrong with a picture."""
    word = text.strip()
    if word == "keep":
        return KEEP
    if word == "soft" or word == "blur" or word == "transparent":
        return Background(word)
    if word.startswith("#"):
        return Background("colour", colour=read_colour(word))
    path = Path(word)
    if not word or not path.exists():
        raise BackgroundError(f"there is no background and no file {text!r:.80}; choose {BACKGROUND_CHOICES}")
    return read_picture(path)


def read_picture(path: Path) -> Background:
    """A picture file as a background. Raises BackgroundError for what is no usable picture."""
    return as_background(lambda: open_photo(path))


def as_background(open_picture: Callable[[], Photo]) -> Background:
    """What `open_picture` gives as a background. Raises BackgroundError for what is no usable picture."""
    try:
        return Background("picture", picture=open_picture().image)
    except PhotoError as error:
        reason = str(error).replace("the photo", "the background picture", 1)
        raise BackgroundError(f"no background: {reason}") from error


def require_opaque(background: Background, where: str) -> None:
    """Raises BackgroundError, with what works instead, for a transparent background in a place that cannot have one."""
    if background.mode == "transparent":
        raise BackgroundError(
            f"{where} cannot be transparent; give a colour and key it out there (--background '#00ff00'), or "
            "write a file with `visavis animate … --background transparent -o out.mov`"
        )
