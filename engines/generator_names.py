"""Which generator draws when none is named; apart from the generators, so that a command line need not load them."""

from __future__ import annotations

DEFAULT_GENERATOR = "visavis"
FALLBACK_GENERATOR = "geometric"  # needs no weights
