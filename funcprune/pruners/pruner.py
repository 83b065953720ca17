"""`Pruner`: rank the units of the selected leaves, drop the lowest."""

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from funcprune import allocation, selectors, structures
from funcprune.allocation import Amounts, Budget, Leaf, Scope, Share, Within
from funcprune.criteria import Criterion
from funcprune.criteria.types import Entrywise, UnitScored
from funcprune.pruners import rankings
from funcprune.pruners.state import State
from funcprune.ranking import Source
from funcprune.selectors import Where
from funcprune.structures import NM, Blocks, Coupled, Elements, Group, Structure
from funcprune.trees import Masks, Params, Scores

Drops: TypeAlias = Callable[[Budget, int, int, str], int]


@dataclass(frozen=True, repr=False)
class Pruner:
    """Prunes the lowest-scoring units: ``pruner(params, masks=None, *, scores=None) -> masks``.

    Args:
        criterion: ``(params, masks) -> scores``, higher = keep; see `funcprune.criteria`.
        amount: float, the fraction of the alive units to prune (rounded half to even); int, that many.
        sparsity: instead of ``amount``, the fraction of all units to be dead afterwards; where as many are dead
            already, nothing changes.
        structure: the unit that is kept or pruned as one; see `funcprune.structures`.
        scope: ``"leaf"``: each leaf loses its own share; ``"global"``: all selected leaves are ranked together;
            ``within(dim)``: each slice of a leaf loses its own share (entries and blocks); ``uniform()``, ``er()``,
            ``erk()``: one amount, counted over all selected leaves, is shared out by a formula; a mapping of paths to
            amounts, instead of ``amount``: each of these leaves loses its own, the other selected leaves nothing.
        where: which leaves; see `funcprune.selectors`. The others keep their masks.

    A call ranks alive units only, and its result is a subset of ``masks``: pruners compose. Counts are exact; ties go
    by path in natural order, then by flat index. ``scores=`` replaces the criterion's scores: a tree like the params
    (None at leaves not selected) of floating-point entry scores, which the structure pools. Nothing passed in is
    changed, and no global random state is read.

    Raises:
        ValueError: here or at a call: an amount or sparsity out of range, a count that exceeds the alive units, a
            selector that matches nothing, a structure that does not fit a leaf, trees that do not match, a NaN score on
            an alive unit, params on the meta device or inside a transform.
        TypeError: params, masks or scores of the wrong type or dtype.

    >>> half = fp.Pruner(fp.criteria.magnitude(), 0.5, where="w")
    >>> half
    Pruner(magnitude(), 0.5, where=glob('w'))
    >>> masks = half({"w": torch.tensor([[1.0, -4.0], [3.0, 2.0]])})
    >>> masks
    {'w': tensor([[False,  True],
            [ True, False]])}
    """

    criterion: Criterion
    amount: float | int | None = None
    _: KW_ONLY
    sparsity: float | None = None
    structure: Structure | Coupled = field(default_factory=Elements)
    scope: Scope = "leaf"
    where: Where = selectors.default

    def __post_init__(self) -> None:
        if not callable(self.criterion):
            raise TypeError(f"criterion: found {self.criterion!r}, expected a callable (params, masks) -> scores")
        is_structure = isinstance(self.structure, Coupled) or hasattr(self.structure, "unit_shape")
        if isinstance(self.structure, type) or not is_structure:
            raise TypeError(
                f"structure: found {self.structure!r}, expected Elements(), Slices(dim) or another structure"
            )
        object.__setattr__(self, "where", selectors.parse(self.where))
        object.__setattr__(self, "scope", allocation.parse(self.scope))
        fixed = self.structure if isinstance(self.structure, NM) else self.scope
        if not isinstance(fixed, NM | Amounts):
            Budget(self.amount, self.sparsity)
        elif self.amount is not None or self.sparsity is not None:
            raise ValueError(f"{fixed!r} sets the counts itself: found amount= or sparsity= too, expected neither")
        if isinstance(fixed, NM) and self.scope != "leaf":
            raise ValueError(f"{fixed!r} ranks each run for itself: found scope={self.scope!r}, expected none")
        if isinstance(self.scope, Within) and not isinstance(self.structure, Elements | Blocks):
            raise ValueError(
                f"scope={self.scope!r} needs units along every dimension, found structure={self.structure!r}: use "
                "Elements() or Blocks(shape)"
            )

    def __call__(self, params: Params, masks: Masks | None = None, *, scores: Scores | None = None) -> Masks:
        """The masks after pruning; see the class."""
        return self.paced(params, masks, Budget.drops, scores=scores)

    @torch.no_grad()
    def paced(self, params: Params, masks: Masks | None, drops: Drops, /, *, scores: Scores | None = None) -> Masks:
        """The masks when ``drops(budget, units, alive, ranking)`` says how many units each ranking loses.

        ``Budget.drops`` makes it the pruner itself; a method that works in rounds takes its own pace.
        """
        tree = State(params, masks)
        groups = self._groups(tree)
        alive = [group.alive(tree.leaves, tree.masks) for group in groups]
        names = [group.name for group in groups]
        counts = [] if self._in_rows else self._counts(tree, groups, alive, drops)  # before what may take long
        sources = self._sources(tree, groups, alive, scores)
        if self._in_rows:
            kept = [self._drop_in_rows(name, source, drops) for name, source in zip(names, sources, strict=True)]
        elif self.scope == "global":
            kept = rankings.drop_together(names, sources, counts[0])
        else:
            each = zip(names, sources, counts, strict=True)
            kept = [rankings.drop_together([name], [source], count)[0] for name, source, count in each]
        for group, units in zip(groups, kept, strict=True):
            if units is not None:
                for path, structure in group.members.items():
                    before, entries = tree.masks[path], structure.expand(units, tree.leaves[path].shape)
                    tree.masks[path] = entries if before is None or entries is units else before & entries
        return tree.with_masks()

    def at(self, sparsity: float, /) -> "Pruner":
        """The pruner with the target ``sparsity`` instead of its own amount.

        >>> fp.l1_unstructured(0.2, scope="global").at(0.9)
        Pruner(magnitude(), sparsity=0.9, scope='global')
        """
        return replace(self, amount=None, sparsity=sparsity)

    def counts(self, params: Params, masks: Masks | None = None) -> dict[str, int]:
        """How many units each leaf would lose, by path; ValueError where that takes the scores to know."""
        tree = State(params, masks)
        groups = self._groups(tree)
        if self._in_rows or self.scope == "global":
            raise ValueError(f"{self!r} does not share units out leaf by leaf: found no counts")
        alive = [group.alive(tree.leaves, tree.masks) for group in groups]
        found = self._counts(tree, groups, alive, Budget.drops)
        return {group.name: count for group, count in zip(groups, found, strict=True)}

    @property
    def _in_rows(self) -> bool:
        """Whether parts of a leaf are ranked for themselves."""
        return isinstance(self.structure, NM) or isinstance(self.scope, Within)

    def _groups(self, tree: State) -> list[Group]:
        """What is ranked, checked to fit."""
        groups = structures.grouped(self.structure, selectors.resolve(self.where, tree.leaves), tree.leaves)
        if isinstance(self.scope, Amounts):
            self.scope.check([group.name for group in groups])
        if isinstance(self.scope, Within):
            for group in groups:
                self.scope.check(group.name, tree.leaves[group.name].shape)
        return groups

    def _sources(
        self, tree: State, groups: list[Group], alive: list[Tensor | None], scores: Scores | None
    ) -> list[Source]:
        """What is ranked, group by group."""
        criterion, entries = self.criterion, isinstance(self.structure, Elements)
        paths = list(dict.fromkeys(path for group in groups for path in group.scored))
        if scores is None and isinstance(criterion, Entrywise):
            tree.check_entrywise(paths)
        if scores is None and isinstance(criterion, Entrywise) and entries:
            each = zip(groups, alive, strict=True)
            return [Source(tree.leaves[group.name].detach(), units, criterion.entrywise) for group, units in each]
        if scores is None and isinstance(criterion, UnitScored):
            units = criterion.unit_scores(tree.params, tree.with_masks(), self.structure, paths)
            drawn = [units[group.name] for group in groups]
        else:
            if scores is None and isinstance(criterion, Entrywise):
                values = [criterion.entrywise(tree.leaves[path]) for path in paths]
            else:
                values = tree.scores(criterion(tree.params, tree.with_masks()) if scores is None else scores, paths)
            found = dict(zip(paths, values, strict=True))
            drawn = [group.pool(found, tree.masks) for group in groups]
        return [Source(values, mask, _itself) for values, mask in zip(drawn, alive, strict=True)]

    def _budget(self, path: str) -> Budget:
        return self.scope.budget(path) if isinstance(self.scope, Amounts) else Budget(self.amount, self.sparsity)

    def _counts(self, tree: State, groups: list[Group], alive: list[Tensor | None], drops: Drops) -> list[int]:
        """How many units each ranking loses: each group, or all of them together."""
        words = f"the {len(groups)} selected leaves"
        if self.scope == "global":
            return [drops(self._budget(""), *_sums(tree, groups, alive), words)]
        leaves = [
            Leaf(tuple(tree.leaves[group.name].shape), *_sums(tree, [group], [units]))
            for group, units in zip(groups, alive, strict=True)
        ]
        if not isinstance(self.scope, Share):
            each = zip(groups, leaves, strict=True)
            return [drops(self._budget(group.name), leaf.units, leaf.alive, repr(group.name)) for group, leaf in each]
        charged = self._charged(tree, groups)
        total, left = sum(leaf.units for leaf in leaves), sum(leaf.alive for leaf in leaves)
        count = drops(self._budget(""), total + charged, left + charged, words)
        if count > left:
            raise ValueError(
                f"scope={self.scope!r}: {count} units to prune, more than the {left} alive units of {words}"
            )
        kept = self.scope.keep(left - count, leaves)
        return [leaf.alive - kept_units for leaf, kept_units in zip(leaves, kept, strict=True)]

    def _charged(self, tree: State, groups: list[Group]) -> int:
        """How many entries outside of the selected leaves count in the budget."""
        if not isinstance(self.scope, Share) or self.scope.charge is None:
            return 0
        if not isinstance(self.structure, Elements):
            raise ValueError(
                f"scope={self.scope!r} charges entries, found structure={self.structure!r}: use Elements()"
            )
        inside = {group.name for group in groups}
        outside = {path: leaf for path, leaf in tree.leaves.items() if path not in inside}
        return sum(outside[path].numel() for path in selectors.resolve(self.scope.charge, outside))

    def _drop_in_rows(self, path: str, source: Source, drops: Drops) -> Tensor | None:
        """The units of a leaf that stay when parts of it are ranked for themselves."""
        if isinstance(self.structure, NM):
            return rankings.drop_in_runs(path, source, self.structure)
        assert isinstance(self.scope, Within)
        dim, budget, words = self.scope.dim, self._budget(path), "slice {} along dimension {} of {!r}"
        return rankings.drop_in_slices(
            path, source, dim, lambda units, alive, row: drops(budget, units, alive, words.format(row, dim, path))
        )

    def __repr__(self) -> str:
        return _repr(self, "Pruner")


def _sums(tree: State, groups: list[Group], alive: list[Tensor | None]) -> tuple[int, int]:
    """How many units these groups have, and how many of them are alive."""
    units = [math.prod(group.unit_shape(tree.leaves)) for group in groups]
    left = [n if a is None else int(torch.count_nonzero(a)) for n, a in zip(units, alive, strict=True)]
    return sum(units), sum(left)


def _itself(values: Tensor) -> Tensor:
    return values


def _repr(value: Any, name: str) -> str:
    """The call that makes a dataclass, without arguments that have their defaults."""
    words = []
    for item in fields(value):
        current = getattr(value, item.name)
        default = item.default_factory() if callable(item.default_factory) else item.default
        if item.kw_only:
            if current != default:
                words.append(f"{item.name}={current!r}")
        elif current is not None:
            words.append(repr(current))
    return f"{name}({', '.join(words)})"
