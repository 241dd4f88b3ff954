"""pncc: the photo warped by flow, then enhanced, both told by PNCC pictures of the 3DMM (paper 003)."""
