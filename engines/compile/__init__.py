"""Networks made fast: the `Engine` contract and its tiers, building in the background, weights files."""
