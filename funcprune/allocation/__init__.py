"""Allocation: how many units go, and the scopes they are counted in.

A `Budget` turns an amount or a sparsity into the count of one ranking. A scope says what the rankings are: a leaf, all
selected leaves, a slice of a leaf; `uniform`, `er` and `erk` share one budget out over leaves, and a mapping gives each
leaf its own.
"""

from funcprune.allocation.budget import Budget
from funcprune.allocation.scopes import Amounts, Scope, Within, parse, within
from funcprune.allocation.sharing import Leaf, Share, apportion, er, erk, uniform

__all__ = [
    "Amounts",
    "Budget",
    "Leaf",
    "Scope",
    "Share",
    "Within",
    "apportion",
    "er",
    "erk",
    "parse",
    "uniform",
    "within",
]
