"""Ablations of the papers' generators: which arms there are, training each, judging all alike, a table and a plot."""
