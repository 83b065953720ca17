"""Laws of counts. The subject is a pruner with fields as `funcprune.Pruner`, whose budget the laws exchange."""

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from funcprune import masks as algebra
from funcprune.testing import strategies
from funcprune.testing.law import Case, ensure, law
from funcprune.testing.laws import units


@law(
    "pruner",
    "An amount or a sparsity prunes exactly the units it says, of each ranking, ties or not.",
    needs=["budgeted"],
)
def counts_are_exact(pruner: Any, case: Case) -> None:
    """round(amount * alive), half to even; an int as it is; round(sparsity * units) dead."""
    params = case.params()
    masks = case.masks(params)
    before = units.alive(pruner, params, masks)
    least = min((int(row.sum()) for row in before), default=0)
    kind = case.draw(st.sampled_from(["fraction", "count", "sparsity"]), "kind")
    value: float = case.draw(st.integers(0, least) if kind == "count" else strategies.fractions(), "budget")
    judged = replace(
        pruner, **{"amount": None, "sparsity": None, "sparsity" if kind == "sparsity" else "amount": value}
    )
    after = units.alive(judged, params, judged(params, masks))
    for index, (old, new) in enumerate(zip(before, after, strict=True)):
        alive = int(old.sum())
        if kind == "sparsity":
            expected = max(0, round(value * old.numel()) - (old.numel() - alive))
        else:
            expected = int(value) if kind == "count" else round(value * alive)
        gone = alive - int(new.sum())
        ensure(gone == expected, f"ranking {index} lost {gone} of its {alive} alive units, expected {expected}")


@law(
    "pruner",
    "An amount of nothing prunes nothing, and an amount of everything prunes all that is selected.",
    needs=["budgeted"],
)
def ends_of_the_scale(pruner: Any, case: Case) -> None:
    """Amounts 0 and 1."""
    params = case.params()
    masks = case.masks(params)
    for budget in ({"amount": 0}, {"amount": 0.0}, {"sparsity": 0.0}):
        judged = replace(pruner, **{"amount": None, "sparsity": None, **budget})
        ensure(algebra.equal(judged(params, masks), masks), f"{budget} pruned something")
    for budget in ({"amount": 1.0}, {"sparsity": 1.0}):
        judged = replace(pruner, **{"amount": None, "sparsity": None, **budget})
        left = units.alive(judged, params, judged(params, masks))
        ensure(not any(row.any() for row in left), f"{budget} left something alive")


@law("pruner", "A larger budget keeps a subset of what a smaller one keeps.", needs=["budgeted", "deterministic"])
def budget_is_monotone(pruner: Any, case: Case) -> None:
    """``a <= b gives masks(b) <= masks(a)``."""
    params = case.params()
    masks = case.masks(params)
    name = case.draw(st.sampled_from(["amount", "sparsity"]), "kind")
    low, high = sorted(case.draw(strategies.fractions(), f"fraction {k}") for k in range(2))
    small, large = (replace(pruner, **{"amount": None, "sparsity": None, name: value}) for value in (low, high))
    ensure(algebra.is_subset(large(params, masks), small(params, masks)), f"{name}={high} keeps what {low} prunes")


@law(
    "pruner",
    "Sparsity a, then b >= a, is b at once; k1 units, then k2, are k1 + k2 units at once.",
    needs=["budgeted", "deterministic", "mask_independent"],
)
def sequential_is_direct(pruner: Any, case: Case) -> None:
    """Going in steps ends where going at once ends."""
    params = case.params()
    masks = case.masks(params)
    low, high = sorted(case.draw(strategies.fractions(), f"sparsity {k}") for k in range(2))
    first, then = (replace(pruner, amount=None, sparsity=value) for value in (low, high))
    found = then(params, first(params, masks))
    ensure(algebra.equal(found, then(params, masks)), f"sparsity {low} then {high} is not {high}")
    total = case.draw(
        st.integers(0, min((int(row.sum()) for row in units.alive(pruner, params, masks)), default=0)), "total"
    )
    part = case.draw(st.integers(0, total), "part")
    one, rest, both = (replace(pruner, amount=k, sparsity=None) for k in (part, total - part, total))
    found = rest(params, one(params, masks))
    ensure(algebra.equal(found, both(params, masks)), f"{part} then {total - part} units are not {total}")
