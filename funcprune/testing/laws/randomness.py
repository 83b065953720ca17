"""Laws of seeded pruners. The subject is a pruner whose criterion has a ``seed``."""

from dataclasses import replace
from typing import Any

import torch
from hypothesis import strategies as st

from funcprune import masks as algebra
from funcprune import trees
from funcprune.testing.law import Case, ensure, law


@law(
    "pruner", "The seed decides: the same seed gives the same masks, another seed others.", needs=["seeded", "budgeted"]
)
def seed_decides(pruner: Any, case: Case) -> None:
    """Two seeds, two masks."""
    first, second = case.draw(st.lists(st.integers(0, 2**40), min_size=2, max_size=2, unique=True), "seeds")
    one, again, other = (_seeded(pruner, seed)({"weight": _leaf(pruner)}) for seed in (first, first, second))
    ensure(algebra.equal(one, again), "the same seed gave two results")
    ensure(not algebra.equal(one, other), f"the seeds {first} and {second} gave the same masks")


@law("pruner", "Every path has a stream of its own: equal leaves are pruned differently.", needs=["seeded", "budgeted"])
def paths_have_streams(pruner: Any, case: Case) -> None:
    """Two paths, two masks."""
    judged = _seeded(pruner, case.draw(st.integers(0, 2**40), "seed"))
    masks = judged({"a.weight": _leaf(pruner), "b.weight": _leaf(pruner)})
    ensure(not torch.equal(masks["a.weight"], masks["b.weight"]), "two paths drew the same masks")


@law("pruner", "Random masks do not look at values.", needs=["seeded"])
def values_are_irrelevant(pruner: Any, case: Case) -> None:
    """``pruner(p) = pruner(0)``."""
    params = case.params()
    masks = case.masks(params)
    leaves, spec = trees.params(params)
    zeros = spec.unflatten(map(torch.zeros_like, leaves))
    ensure(algebra.equal(pruner(params, masks), pruner(zeros, masks)), "other values gave other masks")


def _seeded(pruner: Any, seed: int) -> Any:
    criterion = replace(pruner.criterion, seed=seed)
    return replace(pruner, criterion=criterion, amount=0.5, sparsity=None, scope="leaf", where="*")


def _leaf(pruner: Any) -> torch.Tensor:
    """A leaf of at least 64 units: two fair draws of half of them agree less than once in 1e17."""
    shape = [2, 2, 2, 2]
    shape[getattr(pruner.structure, "dim", 0)] = 64
    return torch.zeros(shape)
