"""Where finished pictures go."""
