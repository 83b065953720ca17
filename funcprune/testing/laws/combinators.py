"""Laws of pruners made of pruners. The subject has ``chain``, ``identity`` and ``custom_from_mask``."""

from typing import Any

from funcprune import masks as algebra
from funcprune import selectors
from funcprune.testing import strategies
from funcprune.testing.law import Case, ensure, law, same


@law("combinators", "A chain is its pruners one after the other, and a chain of none changes nothing.")
def chain_is_a_sequence(combinators: Any, case: Case) -> None:
    """``chain(p, q)(x, m) = q(x, p(x, m))``."""
    params = case.draw(strategies.params(matrix=True), "params")
    masks = case.masks(params)
    first, second = case.draw(strategies.pruners(), "first"), case.draw(strategies.pruners(), "second")
    found = combinators.chain(first, second)(params, masks)
    same(found, second(params, first(params, masks)), "chain(first, second)")
    ensure(algebra.equal(combinators.chain()(params, masks), masks), "chain() changed the masks")


@law("combinators", "identity() changes nothing, and writes a mask out for every leaf that it selects.")
def identity_changes_nothing(combinators: Any, case: Case) -> None:
    """``identity(m) = m``."""
    params = case.draw(strategies.params(matrix=True), "params")
    masks = case.masks(params)
    where = case.draw(strategies.selectors(params), "where")
    found = combinators.identity(where=where)(params, masks)
    ensure(algebra.equal(found, masks), "identity changed the masks")
    everywhere = combinators.identity(where=selectors.ndim())(params, masks)
    same(everywhere, algebra.full(params, masks), "identity of every leaf")


@law("combinators", "custom_from_mask(m) prunes what m prunes, besides what is pruned already.")
def custom_is_the_intersection(combinators: Any, case: Case) -> None:
    """``custom_from_mask(m)(p, n) = m & n``."""
    params = case.draw(strategies.params(matrix=True), "params")
    m, n = case.masks(params, "m"), case.masks(params, "n")
    found = combinators.custom_from_mask(m)(params, n)
    ensure(algebra.equal(found, algebra.intersect(m, n)), f"found {found}")
