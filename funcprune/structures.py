"""Structures: the unit that is kept or pruned as one.

A structure turns entry scores into unit scores and unit masks into entry masks. A unit is alive while it has a kept
entry; an entry already pruned neither counts in its unit's score nor comes back.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["Elements", "Slices", "Structure"]


class Structure(Protocol):
    """What a pruner asks of a structure, leaf by leaf."""

    def unit_shape(self, shape: torch.Size, /) -> tuple[int, ...]:
        """The shape of the units of a leaf of ``shape``; ValueError where it has none."""

    def pool(self, scores: Tensor, mask: Tensor | None, /) -> Tensor:
        """Unit scores from the entry scores of the kept entries."""

    def alive(self, shape: torch.Size, mask: Tensor | None, /) -> Tensor | None:
        """Which units have a kept entry; None: all."""

    def expand(self, units: Tensor, shape: torch.Size, /) -> Tensor:
        """The entry mask of a unit mask."""


@dataclass(frozen=True)
class Elements:
    """Every entry is a unit of its own: unstructured pruning.

    >>> fp.Elements().unit_shape(torch.Size([3, 4]))
    (3, 4)
    """

    def unit_shape(self, shape: torch.Size, /) -> tuple[int, ...]:
        """The shape itself."""
        return tuple(shape)

    def pool(self, scores: Tensor, mask: Tensor | None, /) -> Tensor:
        """The scores themselves."""
        return scores

    def alive(self, shape: torch.Size, mask: Tensor | None, /) -> Tensor | None:
        """The mask itself."""
        return mask

    def expand(self, units: Tensor, shape: torch.Size, /) -> Tensor:
        """The unit mask itself."""
        return units


@dataclass(frozen=True)
class Slices:
    """The slices of a leaf along ``dim``: ``Slices(0)``, the output channels of a convolution or rows of a Linear.

    The score of a unit is the power mean of the entry scores, with the entries pruned already as zeros: their
    ``n``-norm over ``size ** (1 / n)``, accumulated in float32 or better. Within a leaf it ranks as the norm does;
    the division makes units of different leaves comparable in the global scope. ``n`` is any number: 1, 2, inf, -inf;
    0 counts the nonzero. For ``n < 0`` pruned entries do not count at all.

    >>> fp.Slices(0, n=1).pool(torch.tensor([[1.0, 3.0], [5.0, 5.0]]), None)
    tensor([2., 5.])
    """

    dim: int
    n: float = 2

    def __post_init__(self) -> None:
        if isinstance(self.dim, bool) or not isinstance(self.dim, int):
            raise TypeError(f"Slices(dim={self.dim!r}): expected an int")
        if isinstance(self.n, bool) or not isinstance(self.n, int | float) or math.isnan(self.n):
            raise ValueError(f"Slices(n={self.n!r}): expected a number, the order of the norm")

    def unit_shape(self, shape: torch.Size, /) -> tuple[int, ...]:
        """One unit an index along ``dim``; ValueError where the leaf has no such dimension."""
        if not -len(shape) <= self.dim < len(shape):
            raise ValueError(f"shape {tuple(shape)} has no dimension {self.dim} to slice along: exclude it with where=")
        return (shape[self.dim],)

    def pool(self, scores: Tensor, mask: Tensor | None, /) -> Tensor:
        """The power mean of each slice, float32 or float64."""
        dtype = torch.promote_types(scores.dtype, torch.float32)
        others = [dim for dim in range(scores.ndim) if dim != self.dim % scores.ndim]
        size = math.prod(scores.shape[dim] for dim in others)
        if size == 0:
            return torch.zeros(scores.shape[self.dim], dtype=dtype, device=scores.device)
        if mask is not None:
            scores = torch.where(mask, scores, torch.full((), math.inf if self.n < 0 else 0.0).to(scores))
        if not others:
            return scores.abs().to(dtype)
        norm: Tensor = torch.linalg.vector_norm(scores, self.n, others, dtype=dtype)
        return norm / (size if self.n == 0 else size ** (1 / self.n))

    def alive(self, shape: torch.Size, mask: Tensor | None, /) -> Tensor | None:
        """Slices with a kept entry; empty slices have none."""
        if mask is None:
            return None if math.prod(shape) else torch.zeros(self.unit_shape(shape), dtype=torch.bool)
        return mask.movedim(self.dim, 0).flatten(1).any(1) if mask.ndim > 1 else mask

    def expand(self, units: Tensor, shape: torch.Size, /) -> Tensor:
        """A view of the unit mask: one bool a unit, stride 0 elsewhere."""
        view = [1] * len(shape)
        view[self.dim] = -1
        return units.view(view).expand(shape)
