"""`Pruner`: rank the units of the selected leaves, drop the lowest."""

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from funcprune import ranking, selectors
from funcprune.allocation import Budget, Scope, Within, check_scope
from funcprune.criteria import Criterion
from funcprune.criteria.types import Entrywise, UnitScored
from funcprune.pruners.state import State
from funcprune.ranking import Source
from funcprune.selectors import Where
from funcprune.structures import Elements, Slices, Structure
from funcprune.trees import Masks, Params, Scores


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
            ``within(dim)``: each slice of a leaf loses its own share (entries only).
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
    structure: Structure = field(default_factory=Elements)
    scope: Scope = "leaf"
    where: Where = selectors.default

    def __post_init__(self) -> None:
        if not callable(self.criterion):
            raise TypeError(f"criterion: found {self.criterion!r}, expected a callable (params, masks) -> scores")
        Budget(self.amount, self.sparsity)
        check_scope(self.scope)
        if isinstance(self.scope, Within) and not isinstance(self.structure, Elements):
            raise ValueError(f"scope={self.scope!r} ranks entries, found structure={self.structure!r}: use Elements()")
        object.__setattr__(self, "where", selectors.parse(self.where))

    @torch.no_grad()
    def __call__(self, params: Params, masks: Masks | None = None, *, scores: Scores | None = None) -> Masks:
        """The masks after pruning; see the class."""
        tree = State(params, masks)
        paths = selectors.resolve(self.where, tree.leaves)
        for path in paths:
            _check_fits(path, tree.leaves[path].shape, self.structure, self.scope)
        sources = dict(zip(paths, self._sources(tree, paths, scores), strict=True))
        budget = Budget(self.amount, self.sparsity)
        rankings = [paths] if self.scope == "global" else [[path] for path in paths]
        for ranked in rankings:
            if isinstance(self.scope, Within):
                kept = _drop_within(ranked[0], sources[ranked[0]], self.scope.dim, budget)
            else:
                kept = _drop(ranked, sources, budget)
            for path, units in kept.items():
                if units is not None:
                    before, entries = tree.masks[path], self.structure.expand(units, tree.leaves[path].shape)
                    tree.masks[path] = entries if before is None or entries is units else before & entries
        return tree.with_masks()

    def at(self, sparsity: float, /) -> "Pruner":
        """The pruner with the target ``sparsity`` instead of its own amount.

        >>> fp.l1_unstructured(0.2, scope="global").at(0.9)
        Pruner(magnitude(), sparsity=0.9, scope='global')
        """
        return replace(self, amount=None, sparsity=sparsity)

    def _sources(self, tree: "State", paths: list[str], scores: Scores | None) -> list[Source]:
        """What is ranked, leaf by leaf."""
        structure, criterion = self.structure, self.criterion
        alive = [structure.alive(tree.leaves[path].shape, tree.masks[path]) for path in paths]
        if scores is None and isinstance(criterion, Entrywise):
            if isinstance(structure, Elements):
                rows = zip(paths, alive, strict=True)
                return [Source(tree.leaves[path].detach(), units, criterion.entrywise) for path, units in rows]
            values = [criterion.entrywise(tree.leaves[path]) for path in paths]
        elif scores is None and isinstance(criterion, UnitScored):
            drawn = criterion.unit_scores(tree.params, tree.with_masks(), structure, paths)
            return [Source(drawn[path], units, _itself) for path, units in zip(paths, alive, strict=True)]
        else:
            given = criterion(tree.params, tree.with_masks()) if scores is None else scores
            values = tree.scores(given, paths)
        rows_ = zip(paths, values, alive, strict=True)
        return [Source(structure.pool(entries, tree.masks[path]), units, _itself) for path, entries, units in rows_]

    def __repr__(self) -> str:
        return _repr(self, "Pruner")


def _drop(paths: list[str], sources: Mapping[str, Source], budget: Budget) -> dict[str, Tensor | None]:
    """The units that stay in one ranking of the leaves at ``paths``."""
    ranked = [sources[path] for path in paths]
    units = sum(source.values.numel() for source in ranked)
    count = budget.drops(units, sum(map(ranking.alive_count, ranked)), _words(paths))
    try:
        return dict(zip(paths, ranking.drop_lowest(ranked, count), strict=True))
    except ranking.NaNScoreError as error:
        raise _nan(paths[error.source]) from error


def _drop_within(path: str, source: Source, dim: int, budget: Budget) -> dict[str, Tensor | None]:
    """The entries that stay when each slice of a leaf along ``dim`` is ranked for itself."""
    shape = source.values.movedim(dim, 0).shape
    flat = (shape[0], math.prod(shape[1:]))
    rows = [None if t is None else t.movedim(dim, 0).reshape(flat) for t in (source.values, source.alive)]
    values, alive = rows
    assert values is not None
    length = values.shape[1]
    left = [length] * len(values) if alive is None else torch.count_nonzero(alive, dim=1).tolist()
    counts = [budget.drops(length, n, f"slice {row} along dimension {dim} of {path!r}") for row, n in enumerate(left)]
    if not any(counts):
        return {path: source.alive}
    try:
        kept = ranking.drop_lowest_in_rows(
            Source(values, alive, source.score), torch.tensor(counts, device=values.device)
        )
    except ranking.NaNScoreError as error:
        raise _nan(path) from error
    return {path: kept.reshape(shape).movedim(0, dim)}


def _check_fits(path: str, shape: torch.Size, structure: Structure, scope: Scope) -> None:
    """Raises ValueError, naming the path, where a leaf has not the dimension a structure or scope slices along."""
    try:
        structure.unit_shape(shape)
        if isinstance(scope, Within):
            Slices(scope.dim).unit_shape(shape)
    except ValueError as error:
        raise ValueError(f"params at {path!r}: {error}") from error


def _nan(path: str) -> ValueError:
    return ValueError(
        f"scores at {path!r}: found NaN for a unit that is alive, which has no rank: repair the parameter or its score "
        "(torch.nan_to_num), or exclude the leaf with where="
    )


def _words(paths: list[str]) -> str:
    return repr(paths[0]) if len(paths) == 1 else f"the {len(paths)} selected leaves"


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
