"""From a posed head to the G-buffer, and every look-up into it: one rasterisation a frame, all else is read from it."""
