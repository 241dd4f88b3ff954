"""`visavis`, the default generator: the geometric picture, completed, relit and given a mouth and eyes by networks.

- `inputs`: what the networks see of a frame: windows of the geometric picture, looked-up guides, motion.
- `networks`: the networks.
- `generator`: photo → cache, frame → picture.
"""
