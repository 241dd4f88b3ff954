"""Where finished pictures go."""

# Before any module here loads PyAV, as in streamer/sources/__init__.py: windows hang otherwise.
import cv2  # noqa: F401  # pyright: ignore[reportUnusedImport]
