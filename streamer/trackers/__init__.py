"""Trackers: pictures in, `Motion` out."""
