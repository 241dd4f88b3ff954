"""The service: HTTP around the calls, settings, the avatars it offers, and how it starts."""
