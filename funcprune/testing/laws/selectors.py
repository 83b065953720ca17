"""Laws of ``where=``. The subject has the operators ``or_``, ``and_`` and ``invert``, and ``resolve``."""

from typing import Any

from hypothesis import strategies as st

from funcprune import trees
from funcprune.selectors import parse
from funcprune.testing import strategies
from funcprune.testing.law import Case, ensure, law


@law("selectors", "| selects what either selects, & what both select, ~ what is not selected.")
def operators_are_boolean(selectors: Any, case: Case) -> None:
    """Selection is a homomorphism."""
    named = trees.named(case.draw(strategies.params(matrix=True), "params"))
    a, b = (parse(case.draw(strategies.selectors(named), label)) for label in ("a", "b"))
    either, both, neither = selectors.or_(a, b), selectors.and_(a, b), selectors.invert(a)
    for path, leaf in named.items():
        in_a, in_b = a.matches(path, leaf), b.matches(path, leaf)
        found = either.matches(path, leaf), both.matches(path, leaf), neither.matches(path, leaf)
        expected = in_a or in_b, in_a and in_b, not in_a
        ensure(found == expected, f"{path!r}: found {found} for (a | b, a & b, ~a), expected {expected}")


@law(
    "selectors",
    "What is selected is what matches, in the order of the leaves; a where= that matches nothing is refused.",
)
def selection_is_what_matches(selectors: Any, case: Case) -> None:
    """Selection filters."""
    named = trees.named(case.draw(strategies.params(matrix=True), "params"))
    where = case.draw(strategies.selectors(named) | st.just("no.such.*"), "where")
    leaves = dict(case.draw(st.permutations(list(named.items())), "leaves"))
    expected = [path for path, leaf in leaves.items() if parse(where).matches(path, leaf)]
    try:
        found = selectors.resolve(where, leaves)
    except ValueError as error:
        ensure(not expected, f"refused, expected {expected}")
        ensure("no.such.*" in str(error), f"the error does not name the selector: {error}")
    else:
        ensure(found == expected and expected, f"found {found}, expected {expected or 'a ValueError'}")
