"""How a user names a head model; imports nothing, so that a command line may."""

from __future__ import annotations

OWN_HEAD_MODEL = "visavis"
HEAD_MODEL_KINDS = ("ict", "flame", "bfm")  # each with a file of the user's: KIND:FILE
HEAD_MODEL_CHOICES = "visavis, ict:FILE.npz, flame:FILE.pkl or .npz, bfm:FILE.h5, .mat or .npz"
HEAD_MODEL_SETTING = "VISAVIS_HEAD_MODEL"
