"""Laws of ranking. The subject is a pruner with fields as `funcprune.Pruner`."""

from dataclasses import replace
from typing import Any

import torch
from hypothesis import strategies as st

from funcprune import masks as algebra
from funcprune import trees
from funcprune.testing import strategies
from funcprune.testing.law import Case, ensure, law
from funcprune.testing.laws import units


@law(
    "pruner",
    "Given scores are obeyed: in each ranking no kept unit scores lower than a pruned one.",
    needs=["budgeted"],
)
def lowest_scores_go(pruner: Any, case: Case) -> None:
    """``min(kept) >= max(pruned)``."""
    params = case.params()
    masks = case.masks(params)
    scores = case.draw(strategies.scores(params), "scores")
    judged = replace(pruner, amount=case.draw(strategies.fractions(), "amount"), sparsity=None)
    before = units.alive(judged, params, masks)
    after = units.alive(judged, params, judged(params, masks, scores=scores))
    for old, new, ranked in zip(before, after, units.unit_scores(judged, params, masks, scores), strict=True):
        kept, gone = ranked[new], ranked[old & ~new]
        if kept.numel() and gone.numel():
            ensure(kept.min() >= gone.max(), f"kept a unit of score {kept.min()}, pruned one of {gone.max()}")


@law("pruner", "Of equal scores the first go first: by path in natural order, then by flat index.", needs=["budgeted"])
def ties_go_in_order(pruner: Any, case: Case) -> None:
    """With equal scores everywhere, a prefix of the alive units goes."""
    params = case.params()
    masks = case.masks(params)
    leaves, spec = trees.params(params)
    scores = trees.unflatten(spec, [torch.ones(leaf.shape) for leaf in leaves])
    judged = replace(pruner, amount=case.draw(strategies.fractions(), "amount"), sparsity=None)
    pooled = units.unit_scores(judged, params, masks, scores)
    before = units.alive(judged, params, masks)
    after = units.alive(judged, params, judged(params, masks, scores=scores))
    for old, new, ranked in zip(before, after, pooled, strict=True):
        if (ranked[old] == ranked[old][:1]).all():  # units that lost entries already may score lower
            survivors = new[old]
            lost = int((~survivors).sum())
            ensure(not survivors[:lost].any(), f"of equal units {survivors.tolist()} stay, expected the first to go")


@law(
    "pruner",
    "Passing the criterion's own scores as scores= changes nothing.",
    needs=["budgeted", "deterministic", "pooled"],
)
def own_scores_change_nothing(pruner: Any, case: Case) -> None:
    """``pruner(p, m, scores=criterion(p, m)) = pruner(p, m)``."""
    params = case.params()
    masks = case.masks(params)
    scores = pruner.criterion(params, masks)
    ensure(algebra.equal(pruner(params, masks, scores=scores), pruner(params, masks)), "found other masks")


@law("pruner", "Flipping signs changes nothing.", needs=["magnitude"])
def signs_are_irrelevant(pruner: Any, case: Case) -> None:
    """``pruner(-p) = pruner(p)``."""
    params = case.params()
    masks = case.masks(params)
    leaves, spec = trees.params(params)
    signs = [case.draw(strategies.unit_masks(tuple(leaf.shape)), "signs") for leaf in leaves]
    flipped = trees.unflatten(spec, [torch.where(sign, leaf, -leaf) for leaf, sign in zip(leaves, signs, strict=True)])
    ensure(algebra.equal(pruner(flipped, masks), pruner(params, masks)), "other signs gave other masks")


@law("pruner", "Scaling all params by one power of two changes nothing.", needs=["magnitude"])
def scale_is_irrelevant(pruner: Any, case: Case) -> None:
    """``pruner(2p) = pruner(p)``."""
    params = case.params()
    masks = case.masks(params)
    factor = case.draw(st.sampled_from([4.0, 0.25]), "factor")
    leaves, spec = trees.params(params)
    scaled = trees.unflatten(spec, [leaf * factor for leaf in leaves])
    if any(((leaf * factor) / factor != leaf).any() for leaf in leaves):
        return  # an entry left the range of its dtype
    ensure(algebra.equal(pruner(scaled, masks), pruner(params, masks)), "another scale gave other masks")


@law(
    "pruner",
    "Permuting the slices of a leaf permutes its masks, where no scores tie.",
    needs=["equivariant", "deterministic"],
)
def permutations_carry_over(pruner: Any, case: Case) -> None:
    """``pruner(permuted p) = permuted pruner(p)``."""
    shape = case.draw(st.sampled_from(strategies.MATRICES), "shape")
    leaf = case.draw(strategies.tensors(shape, distinct=True), "weight")
    dim = case.draw(st.integers(0, len(shape) - 1), "dim")
    order = torch.tensor(case.draw(st.permutations(range(shape[dim])), "permutation"), dtype=torch.long)
    ranked = units.unit_scores(pruner, {"weight": leaf}, {"weight": None}, {"weight": leaf.abs()})
    if any(len(row) > 1 and row.sort().values.diff().min() < 1e-3 for row in ranked):
        return  # slices may tie even where entries do not
    expected = pruner({"weight": leaf})["weight"]
    found = pruner({"weight": leaf.index_select(dim, order)})["weight"]
    expected = expected if expected is None else expected.index_select(dim, order)
    ensure(algebra.equal({"weight": found}, {"weight": expected}), "a permutation changed what is pruned")
