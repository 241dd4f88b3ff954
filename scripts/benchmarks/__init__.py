"""The single measurements of `scripts/benchmark.py`: each prints its numbers and judges none."""
