"""Sharing one budget out over leaves: uniform, Erdős–Rényi, and its kernel form.

A rule gives every leaf a weight, and leaf ``l`` keeps units in proportion to it. A divisor method (Webster's) turns
proportions into integers: seat after seat goes to the leaf with the largest ``weight / (2 * seats + 1)``, ties to the
first, until the units to keep are given away; a leaf never gets more than it has. So counts add up exactly, none
shrinks when the total grows, and each stays within a unit or two of the formula.
"""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NamedTuple

from funcprune import selectors
from funcprune.selectors import Where


class Leaf(NamedTuple):
    """What an allocation sees of a leaf: its shape, how many units it has, and how many of them are alive."""

    shape: tuple[int, ...]
    units: int
    alive: int


@dataclass(frozen=True, repr=False)
class Share:
    """One budget for all selected leaves, shared out by a rule; see `uniform`, `er` and `erk`."""

    rule: Literal["uniform", "er", "erk"]
    charge: selectors.Selector | None = None

    def keep(self, count: int, leaves: Sequence[Leaf], /) -> list[int]:
        """How many units each leaf keeps when together they keep ``count``."""
        weights = [self._weight(leaf) if leaf.units else Fraction(1) for leaf in leaves]
        return apportion(count, weights, [leaf.alive for leaf in leaves])

    def _weight(self, leaf: Leaf) -> Fraction:
        if self.rule == "uniform":
            return Fraction(leaf.units)
        dims = leaf.shape[:2] if self.rule == "er" else leaf.shape
        return Fraction(leaf.units * max(1, sum(dims)), math.prod(dims))

    def __repr__(self) -> str:
        return f"{self.rule}()" if self.charge is None else f"{self.rule}(charge={self.charge!r})"


def uniform(*, charge: Where | None = None) -> Share:
    """The scope in which every leaf is left with the same fraction of its units, one budget adding up exactly.

    A leaf already below its share keeps all it has, and the others share the rest; so it is with `er` and `erk`.
    ``charge`` selects leaves outside ``where`` whose entries count in the budget as dense (entries only).

    >>> masks = fp.l1_unstructured(0.5, scope=fp.uniform())({"a": torch.rand(3, 3), "b": torch.rand(3, 5)})
    >>> [int(mask.sum()) for mask in masks.values()]
    [5, 7]
    """
    return Share("uniform", None if charge is None else selectors.parse(charge))


def er(*, charge: Where | None = None) -> Share:
    """The Erdős–Rényi scope: ``density = eps * (out + in) / (out * in)``, ``eps`` from the budget.

    ``out`` and ``in`` are the first two dimensions, where torch has them; kernel dimensions do not count. A leaf whose
    density would pass 1 stays dense, and ``eps`` is solved again. ``charge`` as in `uniform`.

    References: Mocanu et al. 2018, arXiv:1707.04780.

    >>> params = {"a": torch.rand(4, 4), "b": torch.rand(8, 16)}
    >>> fp.masks.counts(params, fp.l1_unstructured(0.5, scope=fp.er())(params))
    {'a': Count(kept=16, total=16), 'b': Count(kept=56, total=128)}
    """
    return Share("er", None if charge is None else selectors.parse(charge))


def erk(*, charge: Where | None = None) -> Share:
    """The Erdős–Rényi-kernel scope: ``density = eps * sum(shape) / prod(shape)``, ``eps`` from the budget.

    A leaf whose density would pass 1 stays dense, and ``eps`` is solved again. ``charge`` as in `uniform`.

    References: Evci et al. 2020, arXiv:1911.11134.

    >>> masks = fp.l1_unstructured(0.5, scope=fp.erk())({"conv": torch.rand(4, 4, 3, 3), "fc": torch.rand(10, 10)})
    >>> [int(mask.sum()) for mask in masks.values()]
    [50, 72]
    """
    return Share("erk", None if charge is None else selectors.parse(charge))


def apportion(total: int, weights: Sequence[Fraction], caps: Sequence[int], /) -> list[int]:
    """``total`` seats shared out in proportion to positive ``weights``, no more than ``caps``; Webster's method.

    Exact in integers of any size: the result adds up to ``total``, and none of it shrinks when ``total`` grows.
    Raises ValueError where the caps do not hold ``total`` seats.

    References: Balinski, Young 1982, Fair Representation.

    >>> from fractions import Fraction
    >>> fp.allocation.apportion(10, [Fraction(1), Fraction(3)], [100, 6])
    [4, 6]
    """
    if not 0 <= total <= sum(caps):
        raise ValueError(f"cannot share {total} seats out over leaves that hold {sum(caps)}")
    scale = math.lcm(*(weight.denominator for weight in weights))
    whole = [int(weight * scale) for weight in weights]

    def seats(point: int) -> list[int]:
        """All seats (2 s + 1) / (2 weight) at or below ``point / 2**64``."""
        rows = zip(whole, caps, strict=True)
        return [min(cap, (2 * weight * point + (1 << 64)) >> 65) for weight, cap in rows]

    low, high = 0, max(((cap + 1 << 64) // weight + 1 for weight, cap in zip(whole, caps, strict=True)), default=0)
    while high - low > 1 and total - sum(seats(low)) > len(whole):
        middle = (low + high) // 2
        low, high = (middle, high) if sum(seats(middle)) <= total else (low, middle)
    given = seats(low)
    queue = [(Fraction(2 * given[i] + 1, whole[i]), i) for i in range(len(whole)) if given[i] < caps[i]]
    heapq.heapify(queue)
    for _ in range(total - sum(given)):
        _, i = heapq.heappop(queue)
        given[i] += 1
        if given[i] < caps[i]:
            heapq.heappush(queue, (Fraction(2 * given[i] + 1, whole[i]), i))
    return given
