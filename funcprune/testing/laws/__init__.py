"""Every law, in one tuple."""

from types import ModuleType

from funcprune.testing.law import Law
from funcprune.testing.laws import (
    adapters,
    algebra,
    combinators,
    counting,
    criteria,
    errors,
    masking,
    methods,
    pruners,
    randomness,
    schedules,
    scores,
    selectors,
    serialization,
    structures,
    training,
    transforms,
)

__all__ = ["ALL", "by_name", "of"]


def _stated(module: ModuleType) -> list[Law]:
    return [value for value in vars(module).values() if isinstance(value, Law)]


ALL: tuple[Law, ...] = tuple(
    law
    for module in (
        algebra,
        masking,
        pruners,
        combinators,
        counting,
        scores,
        randomness,
        structures,
        selectors,
        criteria,
        transforms,
        adapters,
        methods,
        serialization,
        schedules,
        training,
        errors,
    )
    for law in _stated(module)
)
"""The laws, by group, in the order in which they are stated."""


def of(*kinds: str) -> tuple[Law, ...]:
    """The laws that judge subjects of these kinds.

    >>> [law.name for law in fp.testing.laws.of("combinators")]
    ['chain_is_a_sequence', 'identity_changes_nothing', 'custom_is_the_intersection']
    """
    return tuple(law for law in ALL if law.of in kinds)


def by_name(name: str, /) -> Law:
    """The law of that name.

    >>> fp.testing.laws.by_name("idempotent").statement
    'Masks intersected or united with themselves are themselves.'
    """
    found = {law.name: law for law in ALL}
    if name not in found:
        raise ValueError(f"unknown law {name!r}: the laws are {', '.join(found)}")
    return found[name]
