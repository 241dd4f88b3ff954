"""Where driving pictures come from."""

# Before any module here loads PyAV: both bring their own libxcb, and with PyAV's first, OpenCV's windows
# hang for ever (PyAV-Org/PyAV#978, opencv/opencv#29195).
import cv2  # noqa: F401  # pyright: ignore[reportUnusedImport]
