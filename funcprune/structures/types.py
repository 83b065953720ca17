"""What a pruner asks of a structure."""

from typing import Protocol

import torch
from torch import Tensor


class Structure(Protocol):
    """Units of one leaf."""

    def unit_shape(self, shape: torch.Size, /) -> tuple[int, ...]:
        """The shape of the units of a leaf of ``shape``; ValueError where it has none."""

    def pool(self, scores: Tensor, mask: Tensor | None, /) -> Tensor:
        """Unit scores from the entry scores of the kept entries."""

    def total(self, values: Tensor, mask: Tensor | None, /) -> Tensor:
        """The sum of ``values`` over the kept entries of each unit."""

    def alive(self, shape: torch.Size, mask: Tensor | None, /) -> Tensor | None:
        """Which units have a kept entry; None: all."""

    def expand(self, units: Tensor, shape: torch.Size, /) -> Tensor:
        """The entry mask of a unit mask."""
