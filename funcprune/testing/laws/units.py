"""What a pruner ranks together, read off its fields: the units of each ranking, in order."""

from typing import Any

import torch
from torch import Tensor

from funcprune import selectors, trees
from funcprune.allocation import Within
from funcprune.trees import Masks, Params, Scores


def selected(pruner: Any, params: Params, /) -> list[str]:
    """The paths that a pruner selects, in natural order."""
    return selectors.resolve(pruner.where, trees.named(params))


def alive(pruner: Any, params: Params, masks: Masks, /) -> list[Tensor]:
    """Which units are alive: one flat bool tensor a ranking."""
    leaves, found = _rows(params, masks)
    rows = {}
    for path in selected(pruner, params):
        units = pruner.structure.alive(leaves[path].shape, found[path])
        shape = pruner.structure.unit_shape(leaves[path].shape)
        rows[path] = torch.ones(shape, dtype=torch.bool) if units is None else units
    return _rankings(pruner, rows)


def unit_scores(pruner: Any, params: Params, masks: Masks, scores: Scores, /) -> list[Tensor]:
    """The scores of the units, pooled from entry scores, in float64: one flat tensor a ranking."""
    _, found = _rows(params, masks)
    _, given = _rows(params, scores)
    rows = {path: pruner.structure.pool(given[path], found[path]).double() for path in selected(pruner, params)}
    return _rankings(pruner, rows)


def _rows(params: Params, other: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    return trees.named(params), trees.beside(params, other, "masks")


def _rankings(pruner: Any, rows: dict[str, Tensor]) -> list[Tensor]:
    if isinstance(pruner.scope, Within):
        return [part.reshape(-1) for row in rows.values() for part in row.movedim(pruner.scope.dim, 0)]
    flat = [row.reshape(-1) for row in rows.values()]
    return [torch.cat(flat)] if pruner.scope == "global" and flat else flat
