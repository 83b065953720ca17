"""`check_pruner`, `check_criterion`, `check_method`: every law that applies, in one call."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import hypothesis
from hypothesis import strategies as st
from torch.nn.utils.prune import BasePruningMethod

from funcprune import compat
from funcprune.criteria import Criterion
from funcprune.pruners import Pruner
from funcprune.testing import laws, strategies
from funcprune.testing import traits as known
from funcprune.testing.law import Law, run
from funcprune.testing.laws.methods import Method
from funcprune.trees import Masks, Params

__all__ = ["applicable", "check_criterion", "check_method", "check_pruner"]

_PLAIN = ((2, 2), (3, 2), (2, 5))  # what every method of the stateful world can prune


def applicable(found: frozenset[str], /, *kinds: str) -> tuple[Law, ...]:
    """The laws of subjects of these kinds that need no other traits than these."""
    return tuple(law for law in laws.of(*kinds) if law.needs <= found)


def check_pruner(
    pruner: Callable[..., Masks],
    /,
    *,
    params: st.SearchStrategy[Params] | None = None,
    traits: Iterable[str] = (),
    settings: hypothesis.settings | None = None,
) -> None:
    """Nothing, where the pruner obeys every law that applies to it.

    Args:
        pruner: a callable ``(params, masks=None) -> masks``, such as a `Pruner` with a criterion of yours. The laws
            of counting try other budgets than its own; an int amount, which small trees must refuse, counts as 0.5.
        params: the parameter trees to try, all of which the pruner must accept; by default trees with at least one
            leaf of two dimensions, nested ones too where the pruner has the trait ``"nested"``. For a model:
            ``st.just(dict(model.named_parameters()))``.
        traits: what else is known of the pruner (see `traits.TRAITS`); ``"-name"`` takes one away. By default what
            can be told from its fields, and that it is deterministic.
        settings: Hypothesis settings; by default the profile in force, without a deadline.

    Raises:
        LawBrokenError: for the first law that it breaks, with the law's sentence and the minimal example.
        ValueError: for an unknown trait.

    >>> fp.testing.check_pruner(fp.l1_unstructured(0.5), settings=hypothesis.settings(max_examples=2, database=None))
    """
    found = known.widened(known.of_pruner(pruner), traits)
    trees = strategies.params(matrix=True, nested="nested" in found) if params is None else params
    if isinstance(pruner, Pruner) and isinstance(pruner.amount, int):
        pruner = replace(pruner, amount=0.5)
    for law in applicable(found, "pruner"):
        run(law, pruner, trees=trees, options=settings)


def check_criterion(
    criterion: Criterion,
    /,
    *,
    params: st.SearchStrategy[Params] | None = None,
    traits: Iterable[str] = (),
    settings: hypothesis.settings | None = None,
) -> None:
    """Nothing, where the criterion obeys every law of criteria, and pruning half by it every law of pruners.

    Arguments and errors as `check_pruner`; the default params are finite.

    >>> def by_value(params, masks):
    ...     return {path: leaf.detach().clone() for path, leaf in params.items()}
    >>> fp.testing.check_criterion(by_value, settings=hypothesis.settings(max_examples=2, database=None))
    """
    found = known.widened(known.of_criterion(criterion), traits)
    trees = params
    if trees is None:
        trees = strategies.params(matrix=True, nested="nested" in found, finite=True)
    for law in applicable(found, "criterion"):
        run(law, criterion, trees=trees, options=settings)
    check_pruner(Pruner(criterion, 0.5), params=trees, traits=traits, settings=settings)


def check_method(
    method_class: type[BasePruningMethod],
    /,
    *args: Any,
    traits: Iterable[str] = (),
    settings: hypothesis.settings | None = None,
    **kwargs: Any,
) -> None:
    """Nothing, where ``method_class(*args, **kwargs)`` obeys the laws of methods, and as a pruner those of pruners.

    A method whose ``PRUNING_TYPE`` is ``"unstructured"`` and that is made with ``amount=`` has the trait
    ``"counted"``: its amount must be exact; ``traits=["-counted"]`` where the word means something else. A method
    that draws from torch's global generator needs ``traits=["-deterministic"]``. Errors as `check_pruner`.

    >>> fp.testing.check_method(
    ...     fp.compat.prune.L1Unstructured, amount=0.5, settings=hypothesis.settings(max_examples=2, database=None)
    ... )
    """
    method = Method(method_class, args, kwargs)
    counted = "amount" in kwargs and getattr(method_class, "PRUNING_TYPE", None) == "unstructured"
    found = known.widened(frozenset({"deterministic"} | ({"counted"} if counted else set())), traits)
    for law in applicable(found, "method"):
        run(law, method, options=settings)
    pruner = compat.as_pruner(method_class, *args, **kwargs)
    trees = strategies.params(matrix=True, shapes=_PLAIN, layouts=["contiguous"], finite=True, nested=False)
    found = known.widened(known.of_pruner(pruner) & frozenset({"deterministic"}), traits)
    for law in applicable(found, "pruner"):
        run(law, pruner, trees=trees, options=settings)
