"""The stateful world: modules pruned with hooks, to and from masks as data; a drop-in for ``torch.nn.utils.prune``."""

from funcprune.compat import prune
from funcprune.compat.hooks import bake, clean, extract, install
from funcprune.compat.pruner import as_pruner
from funcprune.compat.state_dicts import join_state_dict, split_state_dict

__all__ = ["as_pruner", "bake", "clean", "extract", "install", "join_state_dict", "prune", "split_state_dict"]
