"""Schedules: plain callables ``step -> sparsity``.

A schedule is any callable from a step to a fraction between 0 and 1. Those made here are frozen values that hold
``start`` up to and including the step ``begin``, ``stop`` exactly from the step ``end`` on, and lie between the two in
between. They need not rise: `training.rigl` drops a fraction of the weights that falls to zero by `cosine`.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import ClassVar, TypeAlias

__all__ = ["Schedule", "constant", "cosine", "exponential", "join", "linear", "one_cycle", "polynomial"]

Schedule: TypeAlias = Callable[[int], float]
"""``step -> sparsity``, a fraction between 0 and 1."""


def constant(sparsity: float, /) -> Schedule:
    """The schedule that is ``sparsity`` at every step.

    Raises ValueError where it is no fraction between 0 and 1.

    >>> fp.schedules.constant(0.9)(0)
    0.9
    """
    return _Constant(sparsity)


def linear(start: float, stop: float, *, begin: int = 0, end: int) -> Schedule:
    """A straight line: ``start + (stop - start) u`` with ``u = (step - begin) / (end - begin)``.

    Raises ValueError for a ``start`` or ``stop`` that is no fraction between 0 and 1, or ``begin >= end``; TypeError
    for steps that are no ints. So do the other schedules.

    >>> ramp = fp.schedules.linear(0.0, 0.8, begin=10, end=20)
    >>> [ramp(step) for step in (0, 10, 15, 20, 99)]
    [0.0, 0.0, 0.4, 0.8, 0.8]
    """
    return _Linear(start, stop, begin, end)


def polynomial(start: float, stop: float, *, begin: int = 0, end: int, power: float = 3) -> Schedule:
    """Fast at first, slow at last: ``stop + (start - stop) (1 - u)^power``, cubic by default; ``power`` is above 0.

    References: Zhu, Gupta 2017, arXiv:1710.01878.

    >>> cubic = fp.schedules.polynomial(0.0, 0.9, end=100)
    >>> [round(cubic(step), 4) for step in (-1, 0, 10, 25, 50, 75, 100, 101)]
    [0.0, 0.0, 0.2439, 0.5203, 0.7875, 0.8859, 0.9, 0.9]
    """
    return _Polynomial(start, stop, begin, end, power)


def exponential(start: float, stop: float, *, begin: int = 0, end: int) -> Schedule:
    """The same share of what is left goes at each step: the kept fraction is ``(1 - start)^(1-u) (1 - stop)^u``.

    ``start`` and ``stop`` are below 1. From 0 to ``1 - 1 / rho`` it keeps ``rho^(-u)``, the rounds of SynFlow.

    References: Tanaka, Kunin, Yamins, Ganguli 2020, arXiv:2006.05467.

    >>> halves = fp.schedules.exponential(0.0, 0.75, end=2)
    >>> [halves(step) for step in (-1, 0, 1, 2, 3)]
    [0.0, 0.0, 0.5, 0.75, 0.75]
    """
    return _Exponential(start, stop, begin, end)


def cosine(start: float, stop: float, *, begin: int = 0, end: int) -> Schedule:
    """Slow at both ends: ``stop + (start - stop) (1 + cos(pi u)) / 2``.

    >>> wave = fp.schedules.cosine(0.3, 0.0, end=100)
    >>> [round(wave(step), 4) for step in (-1, 0, 25, 50, 75, 100, 101)]
    [0.3, 0.3, 0.2561, 0.15, 0.0439, 0.0, 0.0]
    """
    return _Cosine(start, stop, begin, end)


def one_cycle(
    start: float, stop: float, *, begin: int = 0, end: int, alpha: float = 14.0, beta: float = 5.0
) -> Schedule:
    """A sigmoid, steep early on: ``start + (stop - start) (1 + e^(beta-alpha)) / (1 + e^(beta-alpha u))``.

    At ``begin`` it is ``start``; the formula itself would begin at ``1 / (1 + e^beta)`` of the way. ``alpha`` and
    ``beta`` are above 0.

    References: Hubens, Mancas, Gosselin, Preda, Zaharia 2021, arXiv:2107.02086.

    >>> cycle = fp.schedules.one_cycle(0.0, 0.9, end=100)
    >>> [round(cycle(step), 4) for step in (-1, 0, 1, 25, 50, 75, 100, 101)]
    [0.0, 0.0, 0.0069, 0.1642, 0.7928, 0.8964, 0.9, 0.9]
    """
    return _OneCycle(start, stop, begin, end, alpha, beta)


def join(*schedules: Schedule, at: Sequence[int]) -> Schedule:
    """The first schedule before step ``at[0]``, the second from there on, and so forth. All read the same clock.

    Raises ValueError where there is not one boundary fewer than schedules, or the boundaries do not rise; TypeError
    where a schedule is no callable or a boundary no int.

    >>> warm = fp.schedules.join(fp.schedules.constant(0.0), fp.schedules.linear(0.5, 0.9, begin=10, end=20), at=[10])
    >>> [round(warm(step), 2) for step in (9, 10, 15, 20)]
    [0.0, 0.5, 0.7, 0.9]
    """
    return _Join(schedules, tuple(at))


@dataclass(frozen=True)
class _Constant:
    sparsity: float

    def __post_init__(self) -> None:
        _check_fraction("constant", "sparsity", self.sparsity)

    def __call__(self, step: int) -> float:
        return self.sparsity

    def __repr__(self) -> str:
        return f"constant({self.sparsity})"


@dataclass(frozen=True, repr=False)
class _Ramp:
    """From ``start`` to ``stop``; a subclass says how much of the way is done at ``u``, the fraction of the time."""

    name: ClassVar[str]
    start: float
    stop: float
    begin: int
    end: int

    def __post_init__(self) -> None:
        _check_fraction(self.name, "start", self.start)
        _check_fraction(self.name, "stop", self.stop)
        _check_step(self.name, "begin", self.begin)
        _check_step(self.name, "end", self.end)
        if self.begin >= self.end:
            raise ValueError(f"{self.name}: found begin={self.begin} and end={self.end}, expected begin < end")

    def done(self, u: float) -> float:
        raise NotImplementedError

    def __call__(self, step: int) -> float:
        if step <= self.begin:
            return self.start
        if step >= self.end:
            return self.stop
        value = self.start + (self.stop - self.start) * self.done((step - self.begin) / (self.end - self.begin))
        return min(max(value, min(self.start, self.stop)), max(self.start, self.stop))  # rounding may step over

    def __repr__(self) -> str:
        options = "".join(f", {name}={value}" for name, value in vars(self).items() if name not in ("start", "stop"))
        return f"{self.name}({self.start}, {self.stop}{options})"


class _Linear(_Ramp):
    name = "linear"

    def done(self, u: float) -> float:
        return u


@dataclass(frozen=True, repr=False)
class _Polynomial(_Ramp):
    name = "polynomial"
    power: float

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_positive(self.name, "power", self.power)

    def done(self, u: float) -> float:
        return 1 - float((1 - u) ** self.power)


class _Exponential(_Ramp):
    name = "exponential"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.start == 1 or self.stop == 1:
            raise ValueError(f"{self!r}: expected fractions below 1: nothing kept is no ratio of anything")

    def done(self, u: float) -> float:
        ratio = (1 - self.stop) / (1 - self.start)
        return u if ratio == 1 else (1 - ratio**u) / (1 - ratio)


class _Cosine(_Ramp):
    name = "cosine"

    def done(self, u: float) -> float:
        return (1 - math.cos(math.pi * u)) / 2


@dataclass(frozen=True, repr=False)
class _OneCycle(_Ramp):
    name = "one_cycle"
    alpha: float
    beta: float

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_positive(self.name, "alpha", self.alpha)
        _check_positive(self.name, "beta", self.beta)

    def done(self, u: float) -> float:
        now, last = self.beta - self.alpha * u, self.beta - self.alpha
        scale = max(0.0, now)  # e to the power of it is taken out of both: nothing overflows
        return (math.exp(-scale) + math.exp(last - scale)) / (math.exp(-scale) + math.exp(now - scale))


@dataclass(frozen=True, repr=False)
class _Join:
    schedules: tuple[Schedule, ...]
    at: tuple[int, ...]

    def __post_init__(self) -> None:
        for schedule in self.schedules:
            if not callable(schedule):
                raise TypeError(f"join: found {schedule!r}, expected schedules, callables step -> sparsity")
        for step in self.at:
            _check_step("join", "at", step)
        if len(self.at) != len(self.schedules) - 1:
            found = f"{len(self.schedules)} schedules and {len(self.at)} boundaries"
            raise ValueError(f"join: found {found}, expected one boundary fewer than schedules")
        if any(a >= b for a, b in zip(self.at, self.at[1:], strict=False)):
            raise ValueError(f"join(at={list(self.at)}): expected boundaries that rise")

    def __call__(self, step: int) -> float:
        return self.schedules[bisect_right(self.at, step)](step)

    def __repr__(self) -> str:
        return f"join({', '.join(map(repr, self.schedules))}, at={list(self.at)})"


def _check_fraction(schedule: str, name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) <= 1:
        raise ValueError(f"{schedule}({name}={value!r}): expected a fraction between 0 and 1")


def _check_positive(schedule: str, name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < math.inf:
        raise ValueError(f"{schedule}({name}={value!r}): expected a finite number above 0")


def _check_step(schedule: str, name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{schedule}({name}={value!r}): expected an int, a step")
