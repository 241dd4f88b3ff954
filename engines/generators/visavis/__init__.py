"""`visavis`, the default generator: the geometric picture, completed, relit and given a mouth and eyes by networks.

- `inputs`: what the networks see of a frame of a call: windows of the geometric picture, looked-up guides, motion.
- `sight`: the same of a batch, in torch: what training sees.
- `networks`: the networks. - `blueprint`: sizes, what they see, losses.
- `generator`: photo → cache, frame → picture.
"""
