"""The summary as a value and as a table."""

import torch

import funcprune as fp


def test_rows_totals_and_an_aligned_table() -> None:
    params = {"layers.10": torch.zeros(20, 100), "layers.9": torch.zeros(1, 2), "bias": torch.zeros(3)}
    masks = {"layers.10": torch.zeros(20, 100, dtype=torch.bool), "layers.9": torch.ones(1, 2).bool(), "bias": None}
    masks["layers.10"][0] = True
    found = fp.summary(params, masks)
    assert [row.path for row in found.rows] == ["bias", "layers.9", "layers.10"]
    assert found.rows[2] == ("layers.10", (20, 100), 100, 2000)
    assert (found.pruned.kept, found.pruned.total) == (102, 2002)
    assert (found.all.kept, found.all.total) == (105, 2005)
    assert found.rows[2].sparsity == 0.95
    lines = str(found).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[4].split() == ["layers.10", "(20,", "100)", "100", "2,000", "95.00%"]


def test_an_empty_tree_has_an_empty_table() -> None:
    found = fp.summary({}, {})
    assert found.rows == ()
    assert found.all.sparsity == 0.0
    assert "all leaves" in str(found)
