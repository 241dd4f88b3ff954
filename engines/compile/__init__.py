"""Networks made fast: the `Engine` contract and its tiers by name, building in the background, weights files."""
