"""The regressor: a small network that reads the head 3DMM's parameters straight from a 128 × 128 crop.

- `crop`: squares of a picture, and points that move with them.
- `prediction`: what the network's numbers mean.
- `network`: the network.
- `file`: its weights.
"""
