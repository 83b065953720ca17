"""The selection engine against a sort of everything, with its blocks and samples made small enough to matter."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from funcprune import ranking
from funcprune.ranking import NaNScoreError, Source

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
VALUES = {
    "continuous": lambda x: x,
    "ties": lambda x: (2 * x).round(),
    "two values": lambda x: x.sign(),
    "all equal": torch.zeros_like,
    "sorted": lambda x: x.flatten().sort().values.view(x.shape),
    "infinities": lambda x: torch.where(x > 0.5, torch.inf, torch.where(x < -0.5, -torch.inf, x)),
}


@st.composite
def sources(draw: st.DrawFn) -> list[Source]:
    made = []
    for _ in range(draw(st.integers(1, 4))):
        shape = draw(st.lists(st.sampled_from([0, 1, 2, 5, 8, 9]), max_size=3))
        generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
        values = torch.randn(shape, generator=generator).to(draw(st.sampled_from(DTYPES)))
        values = VALUES[draw(st.sampled_from(sorted(VALUES)))](values)
        if values.ndim >= 2 and draw(st.booleans()):
            values = values.transpose(0, -1)
        if values.ndim and draw(st.booleans()):
            values = values[:1].expand(values.shape)
        density = draw(st.sampled_from([None, 0.9, 0.1]))
        alive = None if density is None else torch.rand(values.shape, generator=generator) < density
        made.append(Source(values, alive, draw(st.sampled_from([torch.abs, lambda x: x]))))
    return made


@pytest.fixture(autouse=True, scope="module")
def small_blocks() -> object:
    """Sizes at which a few hundred entries take every path of the engine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "_BLOCK", 24)
        patch.setattr(ranking, "_GATHERED", 30)
        patch.setattr(ranking, "_SAMPLE", 640)
        yield


def sorted_out(ranked: Sequence[Source], count: int) -> list[Tensor]:
    """The same by sorting all entries: score, then source, then flat index."""
    entries = []
    for index, source in enumerate(ranked):
        alive = alive_of(source).flatten().tolist()
        scores = source.score(source.values).flatten().tolist()
        entries += [(score, index, flat) for flat, score in enumerate(scores) if alive[flat]]
    masks = [alive_of(source).flatten().clone() for source in ranked]
    for _, index, flat in sorted(entries)[:count]:
        masks[index][flat] = False
    return [mask.view(source.values.shape) for mask, source in zip(masks, ranked, strict=True)]


def alive_of(source: Source) -> Tensor:
    return torch.ones(source.values.shape, dtype=torch.bool) if source.alive is None else source.alive


@settings(max_examples=300)
@example([Source(torch.tensor([[1.0, 2.0]]).expand(8, 2), None, lambda x: x)], 0.3)  # scores that have no flat view
@given(sources(), st.floats(0, 1))
def test_drops_what_a_sort_of_everything_drops(ranked: list[Source], fraction: float) -> None:
    count = round(fraction * sum(map(ranking.alive_count, ranked)))
    for found, expected, source in zip(
        ranking.drop_lowest(ranked, count), sorted_out(ranked, count), ranked, strict=True
    ):
        assert torch.equal(alive_of(source) if found is None else found, expected)


@given(sources(), st.data())
def test_rows_are_dropped_as_rankings_of_their_own(ranked: list[Source], data: st.DataObject) -> None:
    first = ranked[0]
    rows = (len(first.values) if first.values.ndim else 1, -1) if first.values.numel() else (2, 0)
    values = first.values.flatten().view(rows)
    alive = None if first.alive is None else first.alive.flatten().view(rows)
    source = Source(values, alive, torch.abs)
    counts = [data.draw(st.integers(0, int(row.sum()))) for row in alive_of(source)]
    found = ranking.drop_lowest_in_rows(source, torch.tensor(counts))
    for row, count in enumerate(counts):
        one = Source(values[row], None if alive is None else alive[row], torch.abs)
        assert torch.equal(found[row], sorted_out([one], count)[0])


@given(sources(), st.data())
def test_a_nan_is_found_wherever_it_is_unless_it_is_dead(ranked: list[Source], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(ranked) - 1))
    values = ranked[index].values.clone()
    total = sum(map(ranking.alive_count, ranked))
    if values.numel() == 0 or total < 2:
        return
    flat = data.draw(st.integers(0, values.numel() - 1))
    values[tuple(torch.unravel_index(torch.tensor(flat), values.shape))] = torch.nan
    ranked[index] = ranked[index]._replace(values=values)
    count = data.draw(st.integers(1, total - 1))
    if alive_of(ranked[index]).flatten()[flat]:
        with pytest.raises(NaNScoreError) as caught:
            ranking.drop_lowest(ranked, count)
        assert caught.value.source == index
    else:
        ranking.drop_lowest(ranked, count)


def test_scores_of_different_dtypes_compare_exactly() -> None:
    """A bfloat16 cannot tell 1.001 from 1: comparing in the leaf's own dtype would drop the wrong entry."""
    coarse = Source(torch.tensor([1.0], dtype=torch.bfloat16), None, torch.abs)
    fine = Source(torch.tensor([0.999], dtype=torch.float32), None, torch.abs)
    assert [mask.tolist() for mask in ranking.drop_lowest([coarse, fine], 1) if mask is not None] == [[True], [False]]


def test_masks_keep_the_strides_of_dense_values() -> None:
    values = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    (mask,) = ranking.drop_lowest([Source(values, None, torch.abs)], 7)
    assert mask is not None
    assert mask.stride() == values.stride()
