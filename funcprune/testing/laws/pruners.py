"""Laws of every pruner. The subject is a callable ``(params, masks=None) -> masks``."""

from collections import OrderedDict
from typing import Any

import torch

from funcprune import masks as algebra
from funcprune import trees
from funcprune.testing import strategies
from funcprune.testing.law import Case, ensure, global_state_untouched, law, same, untouched
from funcprune.testing.laws import units


@law("pruner", "The result is a mask tree for the params, and keeps nothing that the masks passed in prune.")
def result_is_a_subset(pruner: Any, case: Case) -> None:
    """``pruner(p, m) <= m``."""
    params = case.params()
    masks = case.masks(params)
    result = pruner(params, masks)
    algebra.check(params, result)
    ensure(algebra.is_subset(result, masks), f"a pruned entry came back: found {result}")


@law(
    "pruner",
    "No masks, masks that are None, and masks that are all True give the same result.",
    needs=["deterministic"],
)
def none_prunes_the_same(pruner: Any, case: Case) -> None:
    """``pruner(p) = pruner(p, full)``."""
    params = case.params()
    masks = case.masks(params)
    ensure(algebra.equal(pruner(params), pruner(params, algebra.full(params))), "None and all-True masks differ")
    found = pruner(params, algebra.full(params, masks))
    ensure(algebra.equal(pruner(params, masks), found), "a None leaf and an all-True leaf differ")


@law("pruner", "A pruner writes to nothing that it is given.")
def pruner_is_pure(pruner: Any, case: Case) -> None:
    """Inputs are as before."""
    params = case.params()
    masks = case.masks(params)
    with untouched(params, masks):
        pruner(params, masks)


@law(
    "pruner",
    "The same call gives the same masks, whatever torch's global generator did, and leaves it alone.",
    needs=["deterministic"],
)
def result_is_reproducible(pruner: Any, case: Case) -> None:
    """A pruner is a function of its arguments."""
    params = case.params()
    masks = case.masks(params)
    with global_state_untouched():
        first = pruner(params, masks)
    torch.rand(3)
    same(pruner(params, masks), first, "the second call")


@law("pruner", "The order in which a dict was filled does not matter.", needs=["deterministic"])
def dict_order_is_irrelevant(pruner: Any, case: Case) -> None:
    """``pruner(reordered(p)) = reordered(pruner(p))``."""
    params = case.params()
    masks = case.masks(params)
    found = pruner(_reversed(params), _reversed(masks))
    ensure(algebra.equal(found, _reversed(pruner(params, masks))), "another order of the keys gave other masks")


@law("pruner", "A nested tree and the flat dict of its paths get the same masks.", needs=["deterministic", "nested"])
def nesting_is_irrelevant(pruner: Any, case: Case) -> None:
    """``pruner(nest(p)) = nest(pruner(p))``."""
    flat = trees.named(case.params())
    masks = case.masks(flat)
    found = pruner(strategies.nest(flat), strategies.nest(masks))
    ensure(algebra.equal(found, strategies.nest(pruner(flat, masks))), "nesting changed the masks")


@law("pruner", "Leaves that are not selected keep the masks they had.", needs=["selects"])
def other_leaves_keep_their_masks(pruner: Any, case: Case) -> None:
    """Nothing happens outside of where=."""
    params = case.params()
    masks = case.masks(params)
    before, after = (
        dict(zip(trees.paths(params), _leaves(params, tree), strict=True)) for tree in (masks, pruner(params, masks))
    )
    for path in before.keys() - set(units.selected(pruner, params)):
        same({path: after[path]}, {path: before[path]}, "masks")


@law("pruner", "The masks of a leaf do not depend on the other leaves.", needs=["deterministic", "leaf_local"])
def leaves_are_independent(pruner: Any, case: Case) -> None:
    """``pruner(p)[leaf] = pruner({leaf: p[leaf]})[leaf]``."""
    params = trees.named(case.params())
    masks = case.masks(params)
    together = pruner(params, masks)
    for path in units.selected(pruner, params):
        alone = pruner({path: params[path]}, {path: masks[path]})
        ensure(algebra.equal(alone, {path: together[path]}), f"{path!r} is pruned differently without the other leaves")


@law(
    "pruner",
    "Units are pruned whole: the result keeps what was kept before in exactly the units that stay alive.",
    needs=["budgeted"],
)
def units_go_whole(pruner: Any, case: Case) -> None:
    """``result = before & expand(alive units)``."""
    params = case.params()
    masks = case.masks(params)
    result = pruner(params, masks)
    named = trees.named(params)
    rows = {
        path: row
        for path, *row in zip(trees.paths(params), _leaves(params, masks), _leaves(params, result), strict=True)
    }
    for path in units.selected(pruner, params):
        leaf, (before, after) = named[path], rows[path]
        alive = pruner.structure.alive(leaf.shape, algebra.written(leaf, after))
        expected = algebra.written(leaf, before) & pruner.structure.expand(alive, leaf.shape)
        same({path: algebra.written(leaf, after)}, {path: expected}, "masks")


def _leaves(params: Any, other: Any) -> list[Any]:
    return trees.align(trees.flatten(params)[1], other, "masks")


def _reversed(tree: Any) -> Any:
    """The same tree with every dict filled the other way round, as an OrderedDict, which keeps that order."""
    if isinstance(tree, dict):
        return OrderedDict((key, _reversed(value)) for key, value in reversed(tree.items()))
    if isinstance(tree, list):
        return [_reversed(item) for item in tree]
    return type(tree)(*map(_reversed, tree)) if isinstance(tree, strategies.Layer) else tree
