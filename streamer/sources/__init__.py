"""Where driving pictures come from."""
