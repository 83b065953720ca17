"""The laws of counts and of ranking, with blocks so small that selection streams, brackets and searches."""

import pytest

from funcprune import ranking
from funcprune.testing import laws, run, strategies

NAMES = ["counts_are_exact", "lowest_scores_go", "ties_go_in_order", "sequential_is_direct", "nan_scores_are_refused"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("block", "gathered", "sample"), [(4, 1 << 18, 64), (4, 2, 8), (1, 0, 1)])
def test_law_holds_while_streaming(
    monkeypatch: pytest.MonkeyPatch, name: str, block: int, gathered: int, sample: int
) -> None:
    monkeypatch.setattr(ranking, "_BLOCK", block)
    monkeypatch.setattr(ranking, "_GATHERED", gathered)
    monkeypatch.setattr(ranking, "_SAMPLE", sample)
    run(laws.by_name(name), strategies.pruners("magnitude"), trees=strategies.params(matrix=True))
