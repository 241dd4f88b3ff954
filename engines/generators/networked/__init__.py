"""What generators with networks of their own share: loss terms and discriminators."""
