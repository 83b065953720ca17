"""Laws of units. The subject is a structure: ``unit_shape``, ``pool``, ``alive``, ``expand``."""

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from funcprune.testing import strategies
from funcprune.testing.law import Case, ensure, law


@law("structure", "The units of a leaf share its entries out: each entry is in exactly one unit.")
def units_partition_entries(structure: Any, case: Case) -> None:
    """The one-hot unit masks add up to one."""
    shape = torch.Size(case.draw(st.sampled_from(strategies.MATRICES), "shape"))
    sums = torch.zeros(shape, dtype=torch.int64)
    for unit in _one_hot(structure.unit_shape(shape)):
        entries = structure.expand(unit, shape)
        ensure(entries.shape == shape and entries.dtype == torch.bool, f"expand: found {entries}")
        sums += entries
    ensure((sums == 1).all(), f"entries are in this many units: {sums}")


@law("structure", "A unit is alive exactly where it has a kept entry.")
def alive_is_a_kept_entry(structure: Any, case: Case) -> None:
    """``alive(mask) = any over the unit``."""
    shape = torch.Size(case.draw(st.sampled_from(strategies.MATRICES), "shape"))
    mask = case.draw(strategies.unit_masks(shape), "mask")
    found = structure.alive(shape, mask).reshape(-1)
    for index, unit in enumerate(_one_hot(structure.unit_shape(shape))):
        expected = bool((structure.expand(unit, shape) & mask).any())
        ensure(bool(found[index]) == expected, f"unit {index}: found alive={bool(found[index])}, expected {expected}")


@law("structure", "The scores of pruned entries do not count in the scores of living units.")
def pruned_entries_do_not_count(structure: Any, case: Case) -> None:
    """``pool(s, m) = pool(where(m, s, anything), m)``."""
    shape = torch.Size(case.draw(st.sampled_from(strategies.MATRICES), "shape"))
    scores = case.draw(strategies.tensors(shape, finite=True), "scores")
    mask = case.draw(strategies.unit_masks(shape), "mask")
    alive = structure.alive(shape, mask)
    found = structure.pool(scores, mask)[alive]
    expected = structure.pool(torch.where(mask, scores, 100.0), mask)[alive]
    ensure(torch.equal(found, expected), f"found {found}, and {expected} with other scores at pruned entries")


def _one_hot(shape: tuple[int, ...]) -> list[Tensor]:
    size = torch.Size(shape).numel()
    return [(torch.arange(size) == index).reshape(shape) for index in range(size)]
