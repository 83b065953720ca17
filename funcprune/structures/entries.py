"""Structures whose units are single entries."""

from dataclasses import dataclass

import torch
from torch import Tensor


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

    def total(self, values: Tensor, mask: Tensor | None, /) -> Tensor:
        """The values themselves."""
        return values

    def alive(self, shape: torch.Size, mask: Tensor | None, /) -> Tensor | None:
        """The mask itself."""
        return mask

    def expand(self, units: Tensor, shape: torch.Size, /) -> Tensor:
        """The unit mask itself."""
        return units


@dataclass(frozen=True)
class NM(Elements):
    """Of each run of ``of`` consecutive entries along ``dim``, the ``keep`` best stay: ``NM(keep=2, of=4)``.

    It fixes its own count: a pruner with it takes no amount, no sparsity and no scope. A run with no more than ``keep``
    alive entries keeps those. ``dim=1`` runs along the inputs of a Linear and the input channels of a convolution, as
    sparse matrix kernels want it. ``of`` must divide the length of the dimension.

    References: Mishra et al. 2021, arXiv:2104.08378; Zhou et al. 2021, arXiv:2102.04010.

    >>> fp.Pruner(fp.criteria.magnitude(), structure=fp.NM(keep=2, of=4))({"w": torch.tensor([[1.0, 4.0, 3.0, 2.0]])})
    {'w': tensor([[False,  True,  True, False]])}
    """

    keep: int
    of: int
    dim: int = 1

    def __post_init__(self) -> None:
        for name, value in (("keep", self.keep), ("of", self.of), ("dim", self.dim)):
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"NM({name}={value!r}): expected an int")
        if not 0 <= self.keep <= self.of or self.of < 1:
            raise ValueError(f"NM(keep={self.keep}, of={self.of}): expected 0 <= keep <= of: keep counts what stays")

    def unit_shape(self, shape: torch.Size, /) -> tuple[int, ...]:
        """The shape itself; ValueError where no whole number of runs fits along ``dim``."""
        if not -len(shape) <= self.dim < len(shape):
            raise ValueError(f"shape {tuple(shape)} has no dimension {self.dim} for {self}: exclude it with where=")
        if shape[self.dim] % self.of:
            raise ValueError(
                f"{self} needs a multiple of {self.of} along dimension {self.dim}, found {shape[self.dim]} in shape "
                f"{tuple(shape)}: exclude it with where="
            )
        return tuple(shape)
