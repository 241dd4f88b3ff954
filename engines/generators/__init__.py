"""The generators; importing this registers them by name."""

from engines.generator import register
from engines.generators.geometric import GeometricGenerator

register("geometric", GeometricGenerator)
