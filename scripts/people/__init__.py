"""People in clips and portraits: their landmark tracks, the split by subject, and face recognition."""
