"""The exact k lowest scores over many tensors, streaming. Knows tensors and counts, no trees and no names.

One total order decides: score, then the order of the sources, then the flat (row-major) index. Nothing as large as the
scores is ever sorted, concatenated or copied. A pass works block by block, in cache: a sample brackets the threshold,
one pass counts what lies below the bracket and gathers the few scores inside, an exact selection among those finds the
threshold, and a last pass writes the masks.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

_BLOCK = 1 << 19  # entries scored at a time: 2 MB of float32
_GATHERED = 1 << 13  # up to so many scores are gathered without a bracket
_SAMPLE = 1 << 16  # scores drawn to place the bracket: one in 64, at most so many, at least a 32nd of so many
_MARGIN = 3.0  # half the width of the bracket, in standard deviations of a sampled rank


class Source(NamedTuple):
    """Entries to rank: their values, which of them are alive (None: all), and what turns values into scores."""

    values: Tensor
    alive: Tensor | None
    score: Callable[[Tensor], Tensor]


class NaNScoreError(ValueError):
    """A score of an alive entry is NaN; ``source`` says in which of the sources."""

    def __init__(self, source: int) -> None:
        super().__init__("NaN score on an alive entry")
        self.source = source


class _Compare:
    """``compare(relation, scores, value)``: the mask ``relation(scores, value)``, on a CPU in half the time.

    There comparisons vectorize into floats, not into bools. The floats are kept for the next block, whose scores must
    have the same dtype, since fresh memory takes longer than a comparison.
    """

    def __init__(self) -> None:
        self._floats: Tensor | None = None

    def __call__(self, relation: Callable[..., Tensor], scores: Tensor, value: float) -> Tensor:
        kept = self._floats
        if kept is None or (kept.shape, kept.device) != (scores.shape, scores.device):
            self._floats = torch.empty_like(scores)
        return relation(scores, value, out=self._floats).to(torch.bool)


class _Threshold(NamedTuple):
    """Entries below ``value`` go, and the first ``ties`` of the ``equal`` entries equal to it."""

    value: float
    ties: int
    equal: int


def alive_count(source: Source, /) -> int:
    """How many entries of a source are alive."""
    return source.values.numel() if source.alive is None else int(torch.count_nonzero(source.alive))


def drop_lowest(sources: Sequence[Source], count: int, /) -> list[Tensor | None]:
    """The masks of what stays alive when the ``count`` lowest of all alive entries go.

    ``count`` is between 0 and the number of alive entries. A mask has its source's shape, device and, where dense,
    strides. Raises NaNScoreError where a ranking meets a NaN; dropping none or all needs no ranking.
    """
    if count == 0:
        return [source.alive for source in sources]
    total = sum(map(alive_count, sources))
    if count == total:
        return [torch.zeros_like(source.values, dtype=torch.bool) for source in sources]
    dtype = _common_dtype(sources)
    threshold = _find(sources, count, total, dtype)
    return _write(sources, threshold, dtype)


def drop_lowest_in_rows(source: Source, counts: Tensor, /) -> Tensor:
    """The mask of what stays alive when, of each row of a matrix, the ``counts[row]`` lowest alive entries go."""
    rows, columns = source.values.shape
    out = torch.empty_like(source.values, dtype=torch.bool)
    step = max(1, _BLOCK // max(1, columns))
    for start in range(0, rows, step):
        scores = source.score(source.values[start : start + step])
        alive = (
            torch.ones_like(scores, dtype=torch.bool) if source.alive is None else source.alive[start : start + step]
        )
        if (scores.isnan() & alive).any():
            raise NaNScoreError(0)
        order = scores.argsort(dim=1, stable=True)
        ranked = alive.gather(1, order)
        stays = ranked.cumsum(1) > counts[start : start + step, None]
        out[start : start + step] = alive & torch.empty_like(alive).scatter_(1, order, stays)
    return out


def _common_dtype(sources: Sequence[Source]) -> torch.dtype:
    """A dtype that holds every score exactly, so that scores of all sources compare."""
    found = {source.score(source.values.new_empty(0)).dtype for source in sources}
    if len(found) == 1:
        return found.pop()
    return torch.float64 if torch.float64 in found else torch.float32


def _blocks(tensors: Sequence[Tensor | None]) -> Iterator[Sequence[Tensor | None]]:
    """Tensors of one shape cut into the same blocks, in the order of the flat index, whatever their strides."""
    first = tensors[0]
    assert first is not None
    if first.numel() <= _BLOCK:
        yield tensors
    elif all(t is None or t.is_contiguous() for t in tensors):
        flat = [None if t is None else t.view(-1) for t in tensors]
        for start in range(0, first.numel(), _BLOCK):
            yield [None if t is None else t[start : start + _BLOCK] for t in flat]
    else:
        rows = max(1, _BLOCK * len(first) // first.numel())
        for start in range(0, len(first), rows):
            part = [None if t is None else t[start : start + rows] for t in tensors]
            if rows == 1:
                yield from _blocks([None if t is None else t[0] for t in part])
            else:
                yield part


def _scored(sources: Sequence[Source], dtype: torch.dtype) -> Iterator[tuple[int, Tensor, Tensor | None]]:
    """Blocks of scores and their alive masks, each with the index of its source."""
    for index, source in enumerate(sources):
        for values, alive in _blocks([source.values, source.alive]):
            assert values is not None
            yield index, source.score(values).to(dtype), alive


def _find(sources: Sequence[Source], count: int, total: int, dtype: torch.dtype) -> _Threshold:
    """The threshold of the ``count`` lowest of ``total`` alive entries."""
    low, high = None, None  # the threshold lies strictly between these two
    below, inside = 0, total  # how many entries lie under that interval, and in it
    while True:
        if inside <= _GATHERED:
            a, b = _bounds(low, high)
        else:
            a, b = _bracket(sources, dtype, low, high, (count - below) / inside)
        value = a
        if a < b:
            under, candidates = _split(sources, dtype, a, b)
            if under < count <= under + len(candidates):
                return _select(candidates, under, count)
            value = a if count <= under else b
        less, equal = _count(sources, dtype, value)
        if less < count <= less + equal:
            return _Threshold(value, count - less, equal)
        if count <= less:
            high, inside = value, less - below
        else:
            low, below, inside = value, less + equal, below + inside - less - equal


def _bounds(low: float | None, high: float | None) -> tuple[float, float]:
    return -math.inf if low is None else low, math.inf if high is None else high


def _bracket(
    sources: Sequence[Source], dtype: torch.dtype, low: float | None, high: float | None, fraction: float
) -> tuple[float, float]:
    """Two scores that very likely enclose the quantile ``fraction`` of the scores between ``low`` and ``high``."""
    entries = sum(source.values.numel() for source in sources)
    wanted = min(_SAMPLE, max(_SAMPLE >> 5, entries >> 6))
    parts = []
    for index, source in enumerate(sources):
        size = source.values.numel()
        if size == 0:
            continue
        generator = torch.Generator().manual_seed(index)  # local and fixed; results do not depend on it, only the speed
        drawn = torch.randint(size, (math.ceil(wanted * size / entries),), generator=generator, device="cpu")
        drawn = drawn.to(source.values.device)
        scores = source.score(source.values.take(drawn))
        if source.alive is not None:
            scores = scores[source.alive.take(drawn)]
        if scores.isnan().any():
            raise NaNScoreError(index)
        parts.append(scores.to(dtype).to(dtype=torch.float64, device="cpu"))
    sample = torch.cat(parts)
    if low is not None:
        sample = sample[sample > low]
    if high is not None:
        sample = sample[sample < high]
    size = len(sample)
    centre, spread = fraction * size, _MARGIN * math.sqrt(size * fraction * (1 - fraction)) + 1
    first, last = math.floor(centre - spread), math.ceil(centre + spread)
    a, b = _bounds(low, high)
    if first >= 0:
        a = sample.kthvalue(first + 1).values.item()
    if last < size:
        b = sample.kthvalue(last + 1).values.item()
    return a, b


def _gather(scores: Tensor, inside: Tensor) -> Tensor:
    """``scores[inside]`` where the mask is True almost nowhere: eight entries of it are looked at as one word."""
    if not inside.is_contiguous() or inside.numel() % 8:
        return scores[inside]
    words = inside.view(-1).view(torch.int64)
    found = words.nonzero().squeeze(1)
    rows, kept = scores.reshape(-1, 8).index_select(0, found), words.index_select(0, found).view(torch.bool)
    return rows.view(-1).index_select(0, kept.nonzero().squeeze(1))


def _split(sources: Sequence[Source], dtype: torch.dtype, a: float, b: float) -> tuple[int, Tensor]:
    """How many alive scores are at most ``a``, and all of those strictly between ``a`` and ``b``."""
    compare, under, gathered = _Compare(), 0, list[Tensor]()
    for index, scores, alive in _scored(sources, dtype):
        low = compare(torch.le, scores, a)
        inside = ~(low | compare(torch.ge, scores, b))  # a NaN lands here, whatever the bounds
        if alive is not None:
            low &= alive
            inside &= alive
        under += int(torch.count_nonzero(low))
        candidates = _gather(scores, inside)
        if candidates.isnan().any():
            raise NaNScoreError(index)
        gathered.append(candidates.to(gathered[0].device if gathered else candidates.device))
    return under, torch.cat(gathered)


def _select(candidates: Tensor, under: int, count: int) -> _Threshold:
    if candidates.dtype.itemsize < 4:
        candidates = candidates.float()
    value = candidates.kthvalue(count - under).values
    less, equal = int(torch.count_nonzero(candidates < value)), int(torch.count_nonzero(candidates == value))
    return _Threshold(value.item(), count - under - less, equal)


def _count(sources: Sequence[Source], dtype: torch.dtype, value: float) -> tuple[int, int]:
    """How many alive scores are less than ``value``, and how many equal it."""
    compare, less, equal = _Compare(), 0, 0
    for index, scores, alive in _scored(sources, dtype):
        parts = [compare(relation, scores, value) for relation in (torch.lt, torch.eq, torch.gt)]
        if alive is not None:
            parts = [part & alive for part in parts]
        found = [int(torch.count_nonzero(part)) for part in parts]
        if sum(found) != (scores.numel() if alive is None else int(torch.count_nonzero(alive))):
            raise NaNScoreError(index)
        less, equal = less + found[0], equal + found[1]
    return less, equal


def _write(sources: Sequence[Source], threshold: _Threshold, dtype: torch.dtype) -> list[Tensor | None]:
    compare, ties = _Compare(), threshold.ties  # equal entries still to go
    written: list[Tensor | None] = []
    for source in sources:
        mask = torch.empty_like(source.values, dtype=torch.bool)
        for values, alive, out in _blocks([source.values, source.alive, mask]):
            assert values is not None
            assert out is not None
            scores = source.score(values).to(dtype)
            if threshold.ties == threshold.equal:
                out.copy_(compare(torch.gt, scores, threshold.value))
            else:
                out.copy_(compare(torch.ge, scores, threshold.value))
                if ties:
                    equal = compare(torch.eq, scores, threshold.value)
                    if alive is not None:
                        equal &= alive
                    found = int(torch.count_nonzero(equal))
                    if found <= ties:
                        out &= ~equal
                    else:
                        out[equal.nonzero()[:ties].unbind(1)] = False
                    ties -= min(ties, found)
            if alive is not None:
                out &= alive
        written.append(mask)
    return written
