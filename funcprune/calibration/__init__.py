"""Calibration: pruning in several steps, in rounds or layer after layer, with what the steps before left.

`iterate` scores anew in every round, `layerwise` in every layer; `sparsegpt` also adapts the weights that stay.
"""

from funcprune.calibration.iteration import iterate
from funcprune.calibration.layerwise import layerwise
from funcprune.calibration.sparsegpt import sparsegpt

__all__ = ["iterate", "layerwise", "sparsegpt"]
