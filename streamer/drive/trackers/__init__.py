"""Trackers: pictures in, `Motion` out. `tracker` is the contract, `names` what there is, `open` how to get one."""
