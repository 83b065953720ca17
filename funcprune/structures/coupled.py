"""Coupled units: cells of several leaves, kept or pruned as one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from funcprune import masks as algebra
from funcprune import trees
from funcprune.structures.cells import Cells, Slices, check_norm, power_mean
from funcprune.structures.types import Structure


@dataclass(frozen=True, init=False)
class Coupled:
    """Units that span several leaves: unit ``i`` is the ``i``-th cell of every leaf of a group.

    A group maps paths to what cuts the leaf: a dimension, for `Slices`, or a structure of cells. An output channel
    with its bias, its BatchNorm entries and the inputs it feeds, and the heads of an attention layer::

        fp.Coupled({"conv1.weight": 0, "conv1.bias": 0, "bn1.weight": 0, "bn1.bias": 0, "conv2.weight": 1})
        fp.Coupled({"q.weight": fp.Heads(12, 0), "k.weight": fp.Heads(12, 0), "v.weight": fp.Heads(12, 0),
                    "out.weight": fp.Heads(12, 1)})

    ``where`` selects which leaves of a group are scored (by default those with two or more dimensions); a group
    without one is left alone, and the masks of all leaves of the others are pruned. The score of a unit is the power
    mean over its entries in the scored leaves, as in `Slices`. At the leaf scope each group is a ranking of its own;
    it goes by the path, and in an allocation by the shape, of its first leaf.

    >>> couple = fp.Coupled({"w": 0, "b": 0})
    >>> fp.Pruner(fp.criteria.magnitude(), 1, structure=couple)({"w": torch.tensor([[1.0], [3.0]]), "b": torch.ones(2)})
    {'w': tensor([[False],
            [ True]]), 'b': tensor([False,  True])}
    """

    groups: tuple[tuple[tuple[str, Cells], ...], ...]
    n: float

    def __init__(self, *groups: Mapping[str, int | Cells], n: float = 2) -> None:
        check_norm(self, n)
        cut = []
        for group in groups:
            if not isinstance(group, Mapping) or not group:
                raise TypeError(f"Coupled: found {group!r}, expected mappings of paths to dimensions or structures")
            cut.append(tuple((path, _cells(path, how)) for path, how in group.items()))
        first = [group[0][0] for group in cut]
        for path in first:
            if first.count(path) > 1:
                raise ValueError(f"Coupled: two groups begin with {path!r}, by which a group goes: begin with another")
        object.__setattr__(self, "groups", tuple(cut))
        object.__setattr__(self, "n", n)

    def __repr__(self) -> str:
        words = [repr({path: c.dim if c == Slices(getattr(c, "dim", 0)) else c for path, c in g}) for g in self.groups]
        return f"Coupled({', '.join(words + ([] if self.n == 2 else [f'n={self.n!r}']))})"


@dataclass(frozen=True)
class Group:
    """One ranking's worth of units: the structures of its leaves by path, and which of those are scored."""

    members: Mapping[str, Any]
    scored: tuple[str, ...]
    n: float = 2

    @property
    def name(self) -> str:
        """The path that stands for the group: its first leaf."""
        return next(iter(self.members))

    def unit_shape(self, leaves: Mapping[str, Tensor], /) -> tuple[int, ...]:
        """The shape of the units; ValueError, naming the path, where a leaf does not fit."""
        shapes: dict[str, tuple[int, ...]] = {}
        for path, structure in self.members.items():
            try:
                shapes[path] = structure.unit_shape(leaves[path].shape)
            except ValueError as error:
                raise ValueError(f"params at {path!r}: {error}") from error
            if shapes[path] != shapes[next(iter(shapes))]:
                first = next(iter(shapes))
                raise ValueError(
                    f"params at {path!r}: found units of shape {shapes[path]}, expected {shapes[first]} as at {first!r}"
                )
        return shapes[self.name]

    def pool(self, scores: Mapping[str, Tensor], masks: Mapping[str, Tensor | None], /) -> Tensor:
        """Unit scores from the entry scores of the scored leaves."""
        if len(self.members) == 1:
            return self._only.pool(scores[self.name], masks[self.name])
        joined = torch.cat([self.members[path].entries(scores[path]) for path in self.scored], -1)
        kept = [self.members[path].entries(algebra.written(scores[path], masks[path])) for path in self.scored]
        return power_mean(joined, self.n, [joined.ndim - 1], torch.cat(kept, -1))

    def total(self, values: Mapping[str, Tensor], masks: Mapping[str, Tensor | None], /) -> Tensor:
        """The sum of the values over the kept entries of each unit, in the scored leaves."""
        parts = [self.members[path].total(values[path], masks[path]) for path in self.scored]
        result: Tensor = sum(parts[1:], parts[0])
        return result

    def alive(self, leaves: Mapping[str, Tensor], masks: Mapping[str, Tensor | None], /) -> Tensor | None:
        """Units with a kept entry in any leaf; None: all."""
        found: list[Tensor | None] = [
            structure.alive(leaves[path].shape, masks[path]) for path, structure in self.members.items()
        ]
        found = [None if units is None else units.to(leaves[self.name].device) for units in found]
        return reduce(lambda a, b: None if a is None or b is None else a | b, found)

    @property
    def _only(self) -> Structure:
        structure: Structure = self.members[self.name]
        return structure


def grouped(structure: "Structure | Coupled", paths: Sequence[str], leaves: Mapping[str, Tensor], /) -> list[Group]:
    """What is ranked when ``paths`` are selected among ``leaves``: each path alone, or the groups of `Coupled`.

    Raises ValueError, naming the path, where a leaf is missing or does not fit its structure.
    """
    if not isinstance(structure, Coupled):
        groups = [Group({path: structure}, (path,)) for path in paths]
    else:
        groups = []
        for members in structure.groups:
            for path, _ in members:
                if path not in leaves:
                    raise ValueError(f"structure={structure!r}: no leaf at {path!r}{trees.closest(path, leaves)}")
            scored = tuple(path for path, _ in members if path in paths)
            if scored:
                groups.append(Group(dict(members), scored, structure.n))
        if paths and not groups:
            raise ValueError(f"structure={structure!r}: where= selects no leaf of any group, only {', '.join(paths)}")
    for group in groups:
        group.unit_shape(leaves)
    return groups


def _cells(path: object, how: object) -> Cells:
    if isinstance(how, Cells):
        return how
    if isinstance(how, int) and not isinstance(how, bool):
        return Slices(how)
    raise TypeError(f"Coupled at {path!r}: found {how!r}, expected a dimension, Slices, Heads or Blocks")
