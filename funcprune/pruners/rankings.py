"""What a ranking keeps: of several leaves together, of each slice of a leaf, of each run of N:M.

Each raises ValueError, naming the path, where it meets a NaN.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from funcprune import ranking
from funcprune.ranking import Source
from funcprune.structures import NM


def drop_together(paths: Sequence[str], sources: Sequence[Source], count: int, /) -> list[Tensor | None]:
    """The units that stay when one ranking of these leaves loses ``count``."""
    with _nan_named(paths):
        return ranking.drop_lowest(sources, count)


def drop_in_slices(path: str, source: Source, dim: int, drops: Callable[[int, int, int], int], /) -> Tensor | None:
    """The units that stay when each slice along ``dim`` loses ``drops(units, alive, slice)`` of its own."""
    shape = source.values.movedim(dim, 0).shape
    flat = shape[0], math.prod(shape[1:])
    values, alive = (None if t is None else t.movedim(dim, 0).reshape(flat) for t in source[:2])
    assert values is not None
    length = values.shape[1]
    left = [length] * len(values) if alive is None else torch.count_nonzero(alive, dim=1).tolist()
    counts = torch.tensor([drops(length, n, row) for row, n in enumerate(left)], dtype=torch.int64, device="cpu")
    if not counts.any():
        return source.alive
    with _nan_named([path]):
        kept = ranking.drop_lowest_in_rows(Source(values, alive, source.score), counts.to(values.device))
    return kept.reshape(shape).movedim(0, dim)


def drop_in_runs(path: str, source: Source, runs: NM, /) -> Tensor | None:
    """The entries that stay when each run keeps its best."""
    values, alive = (None if t is None else t.movedim(runs.dim, -1).reshape(-1, runs.of) for t in source[:2])
    assert values is not None
    left = torch.full((len(values),), runs.of, device=values.device) if alive is None else alive.sum(1)
    counts = (left - runs.keep).clamp(min=0)
    if not counts.any():
        return source.alive
    with _nan_named([path]):
        kept = ranking.drop_lowest_in_rows(Source(values, alive, source.score), counts)
    return kept.reshape(source.values.movedim(runs.dim, -1).shape).movedim(-1, runs.dim)


@contextmanager
def _nan_named(paths: Sequence[str]) -> Iterator[None]:
    try:
        yield
    except ranking.NaNScoreError as error:
        raise ValueError(
            f"scores at {paths[error.source]!r}: found NaN for a unit that is alive, which has no rank: repair the "
            "parameter or its score (torch.nan_to_num), or exclude the leaf with where="
        ) from error
