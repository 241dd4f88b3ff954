"""Generators with networks: what each tells of itself (`blueprint`), what its networks see (`scene`), how they serve.

- `blueprint`: one generator's networks, inputs, losses and sizes, told once.
- `scene`: photo, posed head and motion in the generator's window, and every look-up into them, in torch.
- `base`: weights, engines and what is kept with an avatar, for every generator with networks.
- `window`: the generator that a blueprint alone makes.
- `paste`, `blend`, `boxes`: what networks say at low resolution, applied to the picture at full resolution.
- `terms`, `discriminators`: what losses are made of.
"""
