"""Criteria: how important each entry is.

A criterion is a frozen value called as ``criterion(params, masks) -> scores``: a tree like the params, floating-point,
higher = keep. Data it needs is bound when it is made. Any function with that signature is a criterion. Two optional
methods let a criterion say more:

``entrywise(values) -> scores``
    The score of an entry depends on that entry alone. It is then applied block by block, and no score tree exists.
``unit_scores(params, masks, structure, paths) -> {path: scores}``
    The scores of the structure's units for the leaves at ``paths``, where they are not the pooled scores of entries.
    `structures.grouped` says what those units are; a coupled group goes by its first leaf.
"""

from funcprune.criteria.first_order import saliency, taylor
from funcprune.criteria.fisher import fisher
from funcprune.criteria.grasp import grasp
from funcprune.criteria.lamp import lamp
from funcprune.criteria.magnitude import Magnitude, magnitude
from funcprune.criteria.movement import Movement, movement
from funcprune.criteria.random import Random, random
from funcprune.criteria.synflow import synflow
from funcprune.criteria.types import Criterion
from funcprune.criteria.wanda import wanda

__all__ = [
    "Criterion",
    "Magnitude",
    "Movement",
    "Random",
    "fisher",
    "grasp",
    "lamp",
    "magnitude",
    "movement",
    "random",
    "saliency",
    "synflow",
    "taylor",
    "wanda",
]
