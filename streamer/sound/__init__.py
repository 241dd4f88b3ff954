"""Sound beside the pictures of a live run: a microphone heard in other programs with the delay of the avatar."""
