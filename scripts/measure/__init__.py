"""Measurements of the head model and of what is drawn with it; `scripts.measure_head` runs them."""
