"""Laws of the algebra of masks. The subject is an implementation of it, such as ``funcprune.masks``."""

from typing import Any

from funcprune import trees
from funcprune.testing.law import Case, ensure, law, same, untouched


@law("algebra", "intersect and union do not depend on the order of the masks.")
def commutative(algebra: Any, case: Case) -> None:
    """``a & b = b & a``."""
    params = case.params()
    a, b = case.masks(params, "a"), case.masks(params, "b")
    same(algebra.intersect(a, b), algebra.intersect(b, a), "intersect(a, b)")
    same(algebra.union(a, b), algebra.union(b, a), "union(a, b)")


@law("algebra", "intersect and union do not depend on how the masks are grouped.")
def associative(algebra: Any, case: Case) -> None:
    """``(a & b) & c = a & (b & c) = intersect(a, b, c)``."""
    params = case.params()
    a, b, c = case.masks(params, "a"), case.masks(params, "b"), case.masks(params, "c")
    for name in ("intersect", "union"):
        op = getattr(algebra, name)
        same(op(op(a, b), c), op(a, op(b, c)), f"{name} grouped left")
        same(op(a, b, c), op(op(a, b), c), f"{name} of three")


@law("algebra", "Masks intersected or united with themselves are themselves.")
def idempotent(algebra: Any, case: Case) -> None:
    """``a & a = a``."""
    params = case.params()
    a = case.masks(params, "a")
    same(algebra.intersect(a, a), a, "intersect(a, a)")
    same(algebra.union(a, a), a, "union(a, a)")


@law("algebra", "intersect(a, union(a, b)) and union(a, intersect(a, b)) are a.")
def absorption(algebra: Any, case: Case) -> None:
    """``a & (a | b) = a``."""
    params = case.params()
    a, b = case.masks(params, "a"), case.masks(params, "b")
    ensure(algebra.equal(algebra.intersect(a, algebra.union(a, b)), a), "intersect(a, union(a, b)) is not a")
    ensure(algebra.equal(algebra.union(a, algebra.intersect(a, b)), a), "union(a, intersect(a, b)) is not a")


@law("algebra", "intersect distributes over union, and union over intersect.")
def distributive(algebra: Any, case: Case) -> None:
    """``a & (b | c) = (a & b) | (a & c)``."""
    params = case.params()
    a, b, c = case.masks(params, "a"), case.masks(params, "b"), case.masks(params, "c")
    for f, g in ((algebra.intersect, algebra.union), (algebra.union, algebra.intersect)):
        ensure(algebra.equal(f(a, g(b, c)), g(f(a, b), f(a, c))), f"{f.__name__} does not distribute")


@law("algebra", "Inverting an intersection unites the inverses, and inverting twice changes nothing.")
def de_morgan(algebra: Any, case: Case) -> None:
    """``~(a & b) = ~a | ~b``."""
    params = case.params()
    a, b = case.masks(params, "a"), case.masks(params, "b")
    left, right = algebra.invert(params, a), algebra.invert(params, b)
    same(algebra.invert(params, algebra.intersect(a, b)), algebra.union(left, right), "invert(intersect(a, b))")
    same(algebra.invert(params, left), algebra.full(params, a), "invert(invert(a))")


@law("algebra", "None stands for an all-True mask: neutral to intersect, absorbing in union, equal to full(params).")
def none_is_all_true(algebra: Any, case: Case) -> None:
    """None and full agree everywhere."""
    params = case.params()
    a, full = case.masks(params, "a"), algebra.full(params)
    none = algebra.intersect(a, full)
    same(algebra.full(params, none), algebra.full(params, a), "intersect(a, full)")
    same(algebra.union(algebra.full(params, a), full), full, "union(a, full)")
    ensure(algebra.equal(algebra.full(params, a), a), "full(params, a) does not equal a")
    for name in ("intersect", "union"):
        op, b = getattr(algebra, name), case.masks(params, "b")
        written = op(algebra.full(params, a), algebra.full(params, b))
        same(algebra.full(params, op(a, b)), written, f"{name} with None written out")
    ensure(algebra.is_subset(a, full), "a is no subset of full(params)")


@law(
    "algebra",
    "a is a subset of b exactly where intersect(a, b) is a and union(a, b) is b; subsets both ways are equal.",
)
def order(algebra: Any, case: Case) -> None:
    """``a <= b iff a & b = a iff a | b = b``."""
    params = case.params()
    a, b = case.masks(params, "a"), case.masks(params, "b")
    below = algebra.is_subset(a, b)
    ensure(below == algebra.equal(algebra.intersect(a, b), a), f"is_subset(a, b) is {below}")
    ensure(below == algebra.equal(algebra.union(a, b), b), f"is_subset(a, b) is {below}")
    ensure((below and algebra.is_subset(b, a)) == algebra.equal(a, b), "equal is not subset both ways")
    ensure(algebra.is_subset(algebra.intersect(a, b), a), "intersect(a, b) is no subset of a")


@law("algebra", "The difference of a and b is what a keeps and the inverse of b keeps.")
def difference_is_intersection(algebra: Any, case: Case) -> None:
    """``a - b = a & ~b``."""
    params = case.params()
    a, b = case.masks(params, "a"), case.masks(params, "b")
    same(algebra.difference(params, a, b), algebra.intersect(algebra.full(params, a), algebra.invert(params, b)))


@law("algebra", "Counts are exact: kept by a and by b is kept by both and by either; kept and pruned make the total.")
def counts_add_up(algebra: Any, case: Case) -> None:
    """``|a| + |b| = |a & b| + |a | b|``."""
    params = case.params()
    a, b = case.masks(params, "a"), case.masks(params, "b")
    made = {"a": a, "b": b, "and": algebra.intersect(a, b), "or": algebra.union(a, b), "not": algebra.invert(params, a)}
    counts = {name: algebra.counts(params, tree) for name, tree in made.items()}
    for path, row in counts["a"].items():
        kept = {name: table[path].kept for name, table in counts.items()}
        ensure(kept["a"] + kept["b"] == kept["and"] + kept["or"], f"{path!r}: kept {kept}")
        ensure(kept["a"] + kept["not"] == row.total, f"{path!r}: kept {kept} of {row.total}")
    total, pruned = sum(r.total for r in counts["a"].values()), sum(r.total - r.kept for r in counts["a"].values())
    ensure(algebra.sparsity(params, a) == (pruned / total if total else 0.0), "sparsity is not pruned / total")


@law("algebra", "Stacked masks come apart into the masks they were made of.")
def stack_unstack(algebra: Any, case: Case) -> None:
    """``unstack(stack(masks)) = masks``."""
    params = case.params()
    many = [case.masks(params, f"masks {k}") for k in range(3)]
    if any(leaf is not None for tree in many for leaf in trees.flatten(tree)[0]):
        back = algebra.unstack(algebra.stack(many))
        ensure(len(back) == 3, f"found {len(back)} mask trees, expected 3")
        for found, expected in zip(back, many, strict=True):
            same(algebra.full(params, found), algebra.full(params, expected), "unstack(stack(masks))")


@law("algebra", "No operation on masks writes to its inputs.")
def algebra_is_pure(algebra: Any, case: Case) -> None:
    """Inputs are as before."""
    params = case.params()
    a, b = case.masks(params, "a"), case.masks(params, "b")
    with untouched(params, a, b):
        algebra.intersect(a, b), algebra.union(a, b), algebra.invert(params, a), algebra.difference(params, a, b)
        algebra.full(params, a), algebra.counts(params, a), algebra.stack([a, b]), algebra.contiguous(a)
