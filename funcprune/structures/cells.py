"""Structures that cut a leaf into equal cells: slices, blocks, heads.

Each is a view of the leaf in which some dimensions number the units and the others run through a unit's entries.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_BLOCK = 1 << 18  # entries at a time: they stay in cache


def power_mean(scores: Tensor, n: float, dims: Sequence[int], mask: Tensor | None = None) -> Tensor:
    """The ``n``-norm over ``dims`` divided by ``size ** (1 / n)``, in float32 or better; pruned entries are zeros."""
    dtype = torch.promote_types(scores.dtype, torch.float32)
    size = math.prod(scores.shape[dim] for dim in dims)
    if size == 0:
        shape = [length for dim, length in enumerate(scores.shape) if dim not in dims]
        return torch.zeros(shape, dtype=dtype, device=scores.device)
    if mask is not None:
        scores = torch.where(mask, scores, scores.new_full((), math.inf if n < 0 else 0.0))
    if not dims:
        return scores.abs().to(dtype)
    if 0 < n < math.inf and scores.ndim - 1 not in dims:
        norm = _norm_across(scores, n, dims, dtype)
    else:
        norm = torch.linalg.vector_norm(scores, n, list(dims), dtype=dtype)
    return norm / (size if n == 0 else size ** (1 / n))


def _norm_across(scores: Tensor, n: float, dims: Sequence[int], dtype: torch.dtype) -> Tensor:
    """The ``n``-norm over all dimensions but the last ones, along which memory runs.

    ``vector_norm`` would stride through memory, at up to ten times the cost.
    """
    rows = max(1, _BLOCK * scores.shape[dims[0]] // max(1, scores.numel()))
    blocks = (block.to(dtype) for block in torch.split(scores, rows, dims[0]))
    powers = ((block.square() if n == 2 else block.abs().pow(n)).sum(list(dims)) for block in blocks)
    total: Tensor = sum(powers, torch.zeros((), dtype=dtype, device=scores.device))
    return total.pow(1 / n)


class Cells:
    """What the structures of cells share: everything follows from the view."""

    n: float

    def view(self, shape: torch.Size, /) -> tuple[list[int], list[int]]:
        """The shape of the view, and which of its dimensions number the units; ValueError where there is none."""
        raise TypeError(f"{type(self).__name__} must define view(shape)")

    def unit_shape(self, shape: torch.Size, /) -> tuple[int, ...]:
        """The shape of the units; ValueError where they do not fit the leaf."""
        viewed, units = self.view(shape)
        return tuple(viewed[dim] for dim in units)

    def pool(self, scores: Tensor, mask: Tensor | None, /) -> Tensor:
        """The power mean of each unit, float32 or float64."""
        viewed, units = self.view(scores.shape)
        kept = None if mask is None else mask.reshape(viewed)
        return power_mean(scores.reshape(viewed), self.n, _others(viewed, units), kept)

    def total(self, values: Tensor, mask: Tensor | None, /) -> Tensor:
        """The sum over each unit, float32 or float64."""
        entries = self.entries(values if mask is None else torch.where(mask, values, values.new_zeros(())))
        return entries.sum(-1, dtype=torch.promote_types(values.dtype, torch.float32))

    def alive(self, shape: torch.Size, mask: Tensor | None, /) -> Tensor | None:
        """Units with a kept entry; empty units have none."""
        if mask is None:
            return None if math.prod(shape) else torch.zeros(self.unit_shape(shape), dtype=torch.bool, device="cpu")
        return self.entries(mask).any(-1)

    def entries(self, leaf: Tensor, /) -> Tensor:
        """The entries of each unit along a new last dimension: shape ``(*unit_shape, entries)``."""
        viewed, units = self.view(leaf.shape)
        others = _others(viewed, units)
        size = math.prod(viewed[dim] for dim in others)
        return leaf.reshape(viewed).permute(*units, *others).reshape(*(viewed[dim] for dim in units), size)

    def expand(self, units: Tensor, shape: torch.Size, /) -> Tensor:
        """The unit mask over the entries of each unit: a view where the cells are slices, stride 0 within a unit."""
        viewed, numbered = self.view(shape)
        ones = [length if dim in numbered else 1 for dim, length in enumerate(viewed)]
        return units.reshape(ones).expand(viewed).reshape(shape)


@dataclass(frozen=True)
class Slices(Cells):
    """The slices of a leaf along ``dim``: ``Slices(0)``, the output channels of a convolution or rows of a Linear.

    The score of a unit is the power mean of the entry scores, with the entries pruned already as zeros: their
    ``n``-norm over ``size ** (1 / n)``, accumulated in float32 or better. Within a leaf it ranks as the norm does;
    the division makes units of different leaves comparable in the global scope. ``n`` is any number: 1, 2, inf, -inf;
    0 counts the nonzero. For ``n < 0`` pruned entries do not count at all. Powers are taken in float32 (float64 of
    float64 scores): with ``n=2``, scores above 1e19 or below 1e-22 overflow or vanish, and tie; rescale them first.

    >>> fp.Slices(0, n=1).pool(torch.tensor([[1.0, 3.0], [5.0, 5.0]]), None)
    tensor([2., 5.])
    """

    dim: int
    n: float = 2

    def __post_init__(self) -> None:
        _check_int(self, "dim", self.dim)
        check_norm(self, self.n)

    def view(self, shape: torch.Size, /) -> tuple[list[int], list[int]]:
        """One unit an index along ``dim``; ValueError where the leaf has no such dimension."""
        return list(shape), [_dimension(shape, self.dim)]


@dataclass(frozen=True)
class Blocks(Cells):
    """Blocks of ``shape``, one length a dimension of the leaf; -1 is the whole dimension.

    ``Blocks((4, 4))`` cuts a matrix into squares, ``Blocks((1, 1, -1, -1))`` a convolution into its kernels. The
    lengths must divide the leaf's. The score of a block is the power mean of its entry scores, as in `Slices`.

    >>> fp.Blocks((1, 2), n=1).pool(torch.tensor([[1.0, 3.0, 5.0, 5.0]]), None)
    tensor([[2., 5.]])
    """

    shape: tuple[int, ...]
    n: float = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        for length in self.shape:
            _check_int(self, "shape", length)
            if length < 1 and length != -1:
                raise ValueError(f"Blocks({self.shape}): found the length {length}, expected >= 1, or -1: all")
        check_norm(self, self.n)

    def view(self, shape: torch.Size, /) -> tuple[list[int], list[int]]:
        """Each dimension split into blocks and places within a block; ValueError where a length does not divide."""
        if len(shape) != len(self.shape):
            raise ValueError(
                f"blocks of {self.shape} need {len(self.shape)} dimensions, found shape {tuple(shape)}: give one "
                "length a dimension (-1: all of it), or exclude the leaf with where="
            )
        viewed = []
        for whole, length in zip(shape, self.shape, strict=True):
            if length != -1 and whole % length:
                raise ValueError(f"blocks of {self.shape} do not divide shape {tuple(shape)}: exclude it with where=")
            viewed += [1, whole] if length == -1 else [whole // length, length]
        return viewed, list(range(0, len(viewed), 2))


@dataclass(frozen=True)
class Heads(Cells):
    """``count`` equal consecutive parts of ``dim``: attention heads, or the inputs a flattened channel feeds.

    ``parts`` says how many projections are stacked along ``dim``: 3 for the ``in_proj_weight`` of
    ``torch.nn.MultiheadAttention``, whose heads then are units across q, k and v. See `Coupled` for the output
    projection. The score of a head is the power mean of its entry scores, as in `Slices`.

    >>> fp.Heads(2, 0, n=1).pool(torch.tensor([[1.0], [3.0], [5.0], [5.0]]), None)
    tensor([2., 5.])
    """

    count: int
    dim: int
    n: float = 2
    parts: int = 1

    def __post_init__(self) -> None:
        for name in ("count", "dim", "parts"):
            _check_int(self, name, getattr(self, name))
        if self.count < 1 or self.parts < 1:
            raise ValueError(f"Heads(count={self.count}, parts={self.parts}): expected counts >= 1")
        check_norm(self, self.n)

    def view(self, shape: torch.Size, /) -> tuple[list[int], list[int]]:
        """The dimension split into parts, heads and places within a head; ValueError where they do not divide it."""
        dim = _dimension(shape, self.dim)
        size, left = divmod(shape[dim], self.parts * self.count)
        if left:
            words = f"{self.count} heads" + (f" in each of {self.parts} parts" if self.parts > 1 else "")
            raise ValueError(f"{words} do not divide dimension {self.dim} of shape {tuple(shape)}")
        return [*shape[:dim], self.parts, self.count, size, *shape[dim + 1 :]], [dim + 1]


def check_norm(structure: object, n: object) -> None:
    """Raises ValueError where ``n`` is no order of a norm."""
    if isinstance(n, bool) or not isinstance(n, int | float) or math.isnan(n):
        raise ValueError(f"{type(structure).__name__}(n={n!r}): expected a number, the order of the norm")


def _check_int(structure: object, name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{type(structure).__name__}({name}={value!r}): expected an int")


def _dimension(shape: torch.Size, dim: int) -> int:
    if not -len(shape) <= dim < len(shape):
        raise ValueError(f"shape {tuple(shape)} has no dimension {dim} to slice along: exclude it with where=")
    return dim % len(shape)


def _others(viewed: Sequence[int], units: Sequence[int]) -> list[int]:
    return [dim for dim in range(len(viewed)) if dim not in units]
