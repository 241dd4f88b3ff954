"""MediaPipe's 478 face landmarks: the contours and pairs that visavis knows by number."""

from __future__ import annotations

LANDMARK_COUNT = 478
SURFACE = 468  # the last ten landmarks are irises

# Contours by MediaPipe landmark number; "right" is the subject's right, at the picture's left.
OVAL: tuple[int, ...] = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
EYE_RIGHT: tuple[int, ...] = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
EYE_LEFT: tuple[int, ...] = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
LIPS_INNER: tuple[int, ...] = (
    78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191,
)  # fmt: skip
LIPS_OUTER: tuple[int, ...] = (
    61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185,
)  # fmt: skip
# (upper, lower) lid pairs at the middle of each eye, and the (outer, inner) corners.
LIDS_RIGHT, CORNERS_RIGHT = (159, 145), (33, 133)
LIDS_LEFT, CORNERS_LEFT = (386, 374), (263, 362)
IRIS_RIGHT, IRIS_LEFT = 468, 473
UPPER_LIP, LOWER_LIP = 13, 14
# The skin of the upper lid: its edge, the fold above it, and halfway to the brow, from corner to corner.
LID_SKIN_RIGHT: tuple[tuple[int, ...], ...] = (
    (33, 246, 161, 160, 159, 158, 157, 173, 133),
    (130, 247, 30, 29, 27, 28, 56, 190, 243),
    (226, 113, 225, 224, 223, 222, 221, 189, 244),
)
LID_SKIN_LEFT: tuple[tuple[int, ...], ...] = (
    (263, 466, 388, 387, 386, 385, 384, 398, 362),
    (359, 467, 260, 259, 257, 258, 286, 414, 463),
    (446, 342, 445, 444, 443, 442, 441, 413, 464),
)
# (upper, lower) landmarks that meet when an eye or the mouth closes
MEETING: tuple[tuple[int, int], ...] = (
    (246, 7), (161, 163), (160, 144), (159, 145), (158, 153), (157, 154), (173, 155),
    (466, 249), (388, 390), (387, 373), (386, 374), (385, 380), (384, 381), (398, 382),
    (191, 95), (80, 88), (81, 178), (82, 87), (13, 14), (312, 317), (311, 402), (310, 318), (415, 324),
)  # fmt: skip
