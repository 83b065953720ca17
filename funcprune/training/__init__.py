"""Training with masks: methods that prune, rewire and rewind while a model trains.

Every method is a frozen value with an ``init`` and an ``update``, pure functions over a NamedTuple of tensors and
numbers. ``torch.save`` writes such a state, and ``torch.load(..., weights_only=True)`` reads it once this package is
imported.
"""

from funcprune.training.dynamic import Dynamic, DynamicState, dynamic, rigl, sparse_evolution, static
from funcprune.training.gradual import Gradual, GradualState, gradual
from funcprune.training.lottery import Lottery, LotteryState, lottery, reinitialized, shuffled
from funcprune.training.optimizers import project_optimizer_, project_state
from funcprune.training.straight_through import sr_ste, straight_through
from funcprune.training.tickets import Ticket, find_tickets

__all__ = [
    "Dynamic",
    "DynamicState",
    "Gradual",
    "GradualState",
    "Lottery",
    "LotteryState",
    "Ticket",
    "dynamic",
    "find_tickets",
    "gradual",
    "lottery",
    "project_optimizer_",
    "project_state",
    "reinitialized",
    "rigl",
    "shuffled",
    "sparse_evolution",
    "sr_ste",
    "static",
    "straight_through",
]
