"""Schedules: exact at their ends, the papers' values between, errors at construction."""

import math
import pickle
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from funcprune import schedules
from funcprune.testing import strategies


@given(strategies.fractions(), st.integers(-10, 10))
def test_constant_is_constant(sparsity: float, step: int) -> None:
    assert schedules.constant(sparsity)(step) == sparsity


KNOWN = [  # schedule, u in percent -> value; the cubic row is the table of Zhu and Gupta's formula
    (schedules.polynomial(0.0, 0.9, end=100), {10: 0.2439, 25: 0.5203125, 50: 0.7875, 75: 0.8859375, 100: 0.9}),
    (schedules.polynomial(0.5, 0.9, end=100), {50: 0.85}),
    (schedules.polynomial(0.0, 0.8, end=100, power=1), {25: 0.2, 50: 0.4}),
    (schedules.linear(0.2, 0.8, end=100), {0: 0.2, 50: 0.5, 100: 0.8}),
    (schedules.exponential(0.0, 0.99, end=100), {0: 0.0, 50: 0.9, 100: 0.99}),
    (schedules.exponential(0.5, 0.875, end=100), {50: 0.75}),
    (schedules.exponential(0.5, 0.5, end=100), {50: 0.5}),
    (schedules.cosine(0.3, 0.0, end=100), {0: 0.3, 50: 0.15, 100: 0.0}),
    (schedules.cosine(0.0, 0.8, end=3), {1: 0.2, 2: 0.6}),
]


def close(a: float, b: float) -> bool:
    return math.isclose(a, b, abs_tol=1e-12)


@pytest.mark.parametrize(("schedule", "table"), KNOWN)
def test_known_values(schedule: schedules.Schedule, table: dict[int, float]) -> None:
    assert all(close(schedule(step), value) for step, value in table.items())


def test_synflow_rounds_are_exponential() -> None:
    rho, rounds = 1000, 100
    schedule = schedules.exponential(0.0, 1 - 1 / rho, end=rounds)
    assert all(close(schedule(k), 1 - rho ** (-k / rounds)) for k in range(rounds + 1))


BAD = [
    (lambda: schedules.constant(1.5), ValueError, "sparsity=1.5"),
    (lambda: schedules.constant(True), ValueError, "sparsity=True"),
    (lambda: schedules.linear(-0.1, 0.5, end=1), ValueError, "start=-0.1"),
    (lambda: schedules.linear(0.0, float("nan"), end=1), ValueError, "stop=nan"),
    (lambda: schedules.linear(0.0, "0.5", end=1), ValueError, "stop='0.5'"),
    (lambda: schedules.linear(0.0, 0.5, begin=4, end=4), ValueError, "begin < end"),
    (lambda: schedules.linear(0.0, 0.5, end=1.0), TypeError, "end=1.0"),
    (lambda: schedules.linear(0.0, 0.5, begin=False, end=1), TypeError, "begin=False"),
    (lambda: schedules.polynomial(0.0, 0.5, end=1, power=0), ValueError, "power=0"),
    (lambda: schedules.exponential(0.0, 1.0, end=1), ValueError, "below 1"),
    (lambda: schedules.one_cycle(0.0, 0.5, end=1, alpha=float("inf")), ValueError, "alpha=inf"),
    (lambda: schedules.join(schedules.constant(0.1), at=[1]), ValueError, "one boundary fewer"),
    (lambda: schedules.join(*[schedules.constant(0.1)] * 3, at=[2, 2]), ValueError, "rise"),
    (lambda: schedules.join(0.1, schedules.constant(0.1), at=[2]), TypeError, "found 0.1"),
    (lambda: schedules.join(*[schedules.constant(0.1)] * 2, at=[2.0]), TypeError, "at=2.0"),
]


@pytest.mark.parametrize(("make", "error", "words"), BAD)
def test_bad_arguments_are_refused_at_construction(make: Callable, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()


VALUES = [schedule for schedule, _ in KNOWN] + [
    schedules.constant(0.5),
    schedules.one_cycle(0.1, 0.9, begin=-3, end=7, alpha=10.0),
    schedules.join(schedules.constant(0.0), schedules.linear(0.0, 0.9, begin=5, end=9), at=[5]),
]


@pytest.mark.parametrize("schedule", VALUES)
def test_schedules_are_values(schedule: schedules.Schedule) -> None:
    again = pickle.loads(pickle.dumps(schedule))
    assert again == schedule
    assert hash(again) == hash(schedule)
    assert eval(repr(schedule), vars(schedules)) == schedule


def test_a_steep_cycle_does_not_overflow() -> None:
    cycle = schedules.one_cycle(0.0, 0.9, end=4, alpha=4000.0, beta=2000.0)
    assert [round(cycle(step), 12) for step in range(5)] == [0.0, 0.0, 0.45, 0.9, 0.9]
