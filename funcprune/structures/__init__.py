"""Structures: the unit that is kept or pruned as one.

A structure turns entry scores into unit scores and unit masks into entry masks. A unit is alive while it has a kept
entry; an entry already pruned neither counts in its unit's score nor comes back.

`Elements` and `NM` rank entries. `Slices`, `Blocks` and `Heads` cut a leaf into equal cells. `Coupled` makes one unit
of cells of several leaves.
"""

from funcprune.structures.cells import Blocks, Heads, Slices
from funcprune.structures.coupled import Coupled, Group, grouped
from funcprune.structures.entries import NM, Elements
from funcprune.structures.types import Structure

__all__ = ["NM", "Blocks", "Coupled", "Elements", "Group", "Heads", "Slices", "Structure", "grouped"]
