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
    scores = spec.unflatten([torch.ones(leaf.shape) for leaf in leaves])
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
    flipped = spec.unflatten([torch.where(sign, leaf, -leaf) for leaf, sign in zip(leaves, signs, strict=True)])
    ensure(algebra.equal(pruner(flipped, masks), pruner(params, masks)), "other signs gave other masks")


@law("pruner", "Scaling all params by one power of two changes nothing.", needs=["magnitude"])
def scale_is_irrelevant(pruner: Any, case: Case) -> None:
    """``pruner(2p) = pruner(p)``."""
    params = case.params()
    masks = case.masks(params)
    factor = case.draw(st.sampled_from([2.0, 0.5, 4.0]), "factor")
    leaves, spec = trees.params(params)
    scaled = spec.unflatten([leaf * factor for leaf in leaves])
    if any(((leaf * factor) / factor != leaf).any() for leaf in leaves):
        return  # an entry left the range of its dtype
    ensure(algebra.equal(pruner(scaled, masks), pruner(params, masks)), "another scale gave other masks")


_SMALL = 64  # entries


@law(
    "pruner",
    "Permuting the slices of a leaf permutes its masks, where no scores tie.",
    needs=["equivariant", "deterministic"],
)
def permutations_carry_over(pruner: Any, case: Case) -> None:
    """``pruner(permuted p) = permuted pruner(p)``."""
    params = trees.named(case.params())
    paths = [path for path in units.selected(pruner, params) if params[path].ndim]
    if not paths:
        return
    path = case.draw(st.sampled_from(paths), "path")
    if params[path].numel() <= _SMALL:  # no two magnitudes alike; a large leaf is taken as it is
        params[path] = case.draw(strategies.tensors(params[path].shape, distinct=True), "values")
    leaf, none = params[path], dict.fromkeys(params)
    dim = case.draw(st.integers(0, leaf.ndim - 1), "dim")
    order = torch.tensor(case.draw(st.permutations(range(leaf.shape[dim])), "permutation"), dtype=torch.long)
    scores = {name: values.detach().abs() for name, values in params.items()}
    ranked = units.unit_scores(pruner, params, none, scores)
    if any(_nearly_tied(row) for row in ranked):
        return  # units may tie where entries do not
    expected, found = pruner(params), pruner({**params, path: leaf.index_select(dim, order)})
    if expected[path] is not None:
        expected = {**expected, path: expected[path].index_select(dim, order)}
    ensure(algebra.equal(found, expected), f"permuting {path!r} changed what is pruned")


def _nearly_tied(scores: torch.Tensor) -> bool:
    """Whether two of the scores are too close to be told apart for certain after rounding; two infinities are."""
    gaps = scores.sort().values.diff().nan_to_num()
    return bool((gaps < 1e-3 * scores.max()).any()) if len(scores) else False
