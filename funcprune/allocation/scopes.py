"""Scopes: over what units compete, and in what the amount counts."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from funcprune.allocation.budget import Budget
from funcprune.allocation.sharing import Share
from funcprune.trees import closest


@dataclass(frozen=True)
class Within:
    """Each slice of a leaf along ``dim`` is ranked for itself."""

    dim: int

    def check(self, path: str, shape: tuple[int, ...], /) -> None:
        """Raises ValueError where the leaf at ``path`` has no such dimension."""
        if not -len(shape) <= self.dim < len(shape):
            raise ValueError(
                f"params at {path!r}: shape {shape} has no dimension {self.dim} for scope={self!r}: see where="
            )

    def __repr__(self) -> str:
        return f"within({self.dim})"


def within(dim: int, /) -> Within:
    """The scope in which each slice along ``dim`` loses its own share: ``within(0)``, every output row of a Linear.

    >>> fp.within(0)
    within(0)
    """
    if isinstance(dim, bool) or not isinstance(dim, int):
        raise TypeError(f"within({dim!r}): expected an int, the dimension to slice along")
    return Within(dim)


@dataclass(frozen=True, repr=False)
class Amounts:
    """Each leaf named loses its own amount, the others nothing."""

    items: tuple[tuple[str, Budget], ...]

    def budget(self, path: str, /) -> Budget:
        """The budget of a leaf."""
        return dict(self.items).get(path, Budget(0))

    def check(self, paths: Collection[str], /) -> None:
        """Raises ValueError where a leaf named is not among the selected ``paths``."""
        for path, _ in self.items:
            if path not in paths:
                raise ValueError(f"scope={self!r}: no selected leaf at {path!r}{closest(path, paths)}: see where=")

    def __repr__(self) -> str:
        return repr({path: budget.amount for path, budget in self.items})


Scope: TypeAlias = Literal["leaf", "global"] | Within | Share | Amounts | Mapping[str, float]
"""Over what units compete: those of a leaf, of all selected leaves, or of one slice of a leaf; or how
many each leaf loses: a formula (``uniform()``, ``er()``, ``erk()``) or a mapping of paths to amounts."""


def parse(scope: object, /) -> Literal["leaf", "global"] | Within | Share | Amounts:
    """What a ``scope=`` means; ValueError where it means nothing."""
    if isinstance(scope, Within | Share | Amounts):
        return scope
    if isinstance(scope, Mapping):
        return Amounts(tuple((str(path), _amount(path, amount)) for path, amount in scope.items()))
    if scope == "leaf" or scope == "global":
        return scope
    raise ValueError(
        f"scope={scope!r}: expected 'leaf', 'global', within(dim), uniform(), er(), erk(), or a mapping of paths to "
        "amounts"
    )


def _amount(path: object, amount: object) -> Budget:
    try:
        return Budget(amount)  # type: ignore[arg-type]
    except ValueError as error:
        raise ValueError(f"scope at {path!r}: {error}") from error
