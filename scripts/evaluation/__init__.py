"""How good is a generator: metrics, protocols, statistics and reports behind `scripts/evaluate.py`."""
