"""Training of our own tracker: crops, no-faces, the network and its table."""
