"""Laws of criteria. The subject is a callable ``(params, masks) -> scores``."""

from typing import Any

from funcprune import trees
from funcprune.testing import strategies
from funcprune.testing.law import Case, ensure, global_state_untouched, law, same, untouched


@law("criterion", "Scores are a tree like the params: a floating-point tensor of each leaf's shape, on its device.")
def scores_fit_params(criterion: Any, case: Case) -> None:
    """Same structure, same shapes."""
    params = case.params()
    leaves, spec = trees.params(params)
    scores = trees.align(spec, criterion(params, case.masks(params)), "scores")
    for path, leaf, score in zip(trees.paths(params), leaves, scores, strict=True):
        ensure(score is not None, f"{path!r}: found None, expected a tensor")
        ensure(score.is_floating_point(), f"{path!r}: found dtype {score.dtype}, expected a floating-point dtype")
        found, expected = (score.shape, score.device), (leaf.shape, leaf.device)
        ensure(found == expected, f"{path!r}: found {found}, expected {expected}")


@law("criterion", "Finite params have scores that are no NaN.")
def finite_params_have_ranks(criterion: Any, case: Case) -> None:
    """A NaN has no rank."""
    params = case.params()
    leaves, spec = trees.params(params)
    scores = trees.align(spec, criterion(params, case.masks(params)), "scores")
    for path, leaf, score in zip(trees.paths(params), leaves, scores, strict=True):
        ensure(not (leaf.isfinite().all() and score.isnan().any()), f"{path!r}: found NaN in the scores of {leaf}")


@law("criterion", "A criterion writes to nothing that it is given.")
def criterion_is_pure(criterion: Any, case: Case) -> None:
    """Inputs are as before."""
    params = case.params()
    masks = case.masks(params)
    with untouched(params, masks):
        criterion(params, masks)


@law(
    "criterion",
    "The same call gives the same scores and leaves torch's global generator alone.",
    needs=["deterministic"],
)
def scores_are_reproducible(criterion: Any, case: Case) -> None:
    """A criterion is a function of its arguments."""
    params = case.params()
    masks = case.masks(params)
    with global_state_untouched():
        first = criterion(params, masks)
    same(criterion(params, masks), first, "the second call")


@law(
    "criterion", "A nested tree and the flat dict of its paths get the same scores.", needs=["deterministic", "nested"]
)
def scores_ignore_nesting(criterion: Any, case: Case) -> None:
    """``criterion(nest(p)) = nest(criterion(p))``."""
    flat = trees.named(case.params())
    masks = case.masks(flat)
    found = criterion(strategies.nest(flat), strategies.nest(masks))
    same(found, strategies.nest(criterion(flat, masks)), "scores of the nested tree")


@law("criterion", "Scores do not depend on the masks.", needs=["mask_independent", "deterministic"])
def scores_ignore_masks(criterion: Any, case: Case) -> None:
    """``criterion(p, m) = criterion(p, n)``."""
    params = case.params()
    m, n = case.masks(params, "m"), case.masks(params, "n")
    same(criterion(params, m), criterion(params, n), "scores under other masks")


@law("criterion", "entrywise is the criterion itself, block by block.", needs=["entrywise"])
def entrywise_is_the_criterion(criterion: Any, case: Case) -> None:
    """``criterion(p)[block] = criterion.entrywise(p[block])``."""
    params = case.params()
    leaves, spec = trees.params(params)
    same(spec.unflatten(map(criterion.entrywise, leaves)), criterion(params, case.masks(params)), "entrywise")
    for leaf in leaves:
        flat = leaf.reshape(-1)
        blocks = {"block": criterion.entrywise(flat[1::2])}
        same(blocks, {"block": criterion.entrywise(flat)[1::2]}, "entrywise of a part")
