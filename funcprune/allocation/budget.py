"""How many units of a ranking go: integer counts from an amount or a target sparsity."""

from dataclasses import dataclass
from numbers import Integral, Real


@dataclass(frozen=True)
class Budget:
    """An ``amount`` of the alive units, or an absolute target ``sparsity`` of all units; exactly one of them."""

    amount: float | int | None = None
    sparsity: float | None = None

    def __post_init__(self) -> None:
        if (self.amount is None) == (self.sparsity is None):
            found = "neither" if self.amount is None else "both"
            raise ValueError(f"found {found} of amount= and sparsity=, expected exactly one")
        if isinstance(self.amount, Integral) and not isinstance(self.amount, bool):
            if self.amount < 0:
                raise ValueError(f"amount={self.amount}: expected a count of units >= 0")
        elif self.amount is not None:
            _check_fraction("amount", self.amount, "a fraction between 0.0 and 1.0, or an int: that many units")
        if self.sparsity is not None:
            _check_fraction("sparsity", self.sparsity, "a fraction between 0.0 and 1.0")

    def drops(self, units: int, alive: int, ranking: str) -> int:
        """How many of the ``alive`` units of a ranking of ``units`` go.

        A float amount: round(amount * alive), half to even. An int amount: that many, ValueError where fewer are
        alive. A sparsity: as many as leave round(sparsity * units) dead; none where as many are dead already.
        """
        if self.sparsity is not None:
            return max(0, round(float(self.sparsity) * units) - (units - alive))
        if isinstance(self.amount, Integral):
            if self.amount > alive:
                raise ValueError(f"amount={self.amount}: more than the {alive} alive units of {ranking}")
            return int(self.amount)
        assert self.amount is not None
        return round(float(self.amount) * alive)


def _check_fraction(name: str, value: object, expected: str) -> None:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"{name}={value!r}: found {type(value).__name__}, expected {expected}")
    if not 0 <= float(value) <= 1:
        raise ValueError(f"{name}={value!r}: expected {expected}")
