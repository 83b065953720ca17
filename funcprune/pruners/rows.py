"""Rankings within a leaf: each slice along a dimension, or each run of N:M, for itself."""

from collections.abc import Callable

import torch
from torch import Tensor

from funcprune import ranking
from funcprune.ranking import Source
from funcprune.structures import NM


def drop_in_slices(source: Source, dim: int, drops: Callable[[int, int, int], int], /) -> Tensor | None:
    """The units that stay when each slice along ``dim`` loses ``drops(units, alive, slice)`` of its own."""
    values, alive = (None if t is None else t.movedim(dim, 0).flatten(1) for t in source[:2])
    assert values is not None
    length = values.shape[1]
    left = [length] * len(values) if alive is None else torch.count_nonzero(alive, dim=1).tolist()
    counts = torch.tensor([drops(length, n, row) for row, n in enumerate(left)], dtype=torch.int64)
    if not counts.any():
        return source.alive
    kept = ranking.drop_lowest_in_rows(Source(values, alive, source.score), counts.to(values.device))
    return kept.reshape(source.values.movedim(dim, 0).shape).movedim(0, dim)


def drop_in_runs(source: Source, runs: NM, /) -> Tensor | None:
    """The entries that stay when each run keeps its best."""
    values, alive = (None if t is None else t.movedim(runs.dim, -1).reshape(-1, runs.of) for t in source[:2])
    assert values is not None
    left = torch.full((len(values),), runs.of, device=values.device) if alive is None else alive.sum(1)
    counts = (left - runs.keep).clamp(min=0)
    if not counts.any():
        return source.alive
    kept = ranking.drop_lowest_in_rows(Source(values, alive, source.score), counts)
    return kept.reshape(source.values.movedim(runs.dim, -1).shape).movedim(-1, runs.dim)
