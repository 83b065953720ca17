"""Laws of schedules. The subject has the constructors of `funcprune.schedules`."""

from itertools import pairwise
from typing import Any, NamedTuple

from hypothesis import strategies as st

from funcprune.schedules import Schedule
from funcprune.testing import strategies
from funcprune.testing.law import Case, ensure, law


class _Ramp(NamedTuple):
    schedule: Schedule
    start: float
    stop: float
    begin: int
    end: int


def _ramp(schedules: Any, case: Case) -> _Ramp:
    name = case.draw(st.sampled_from(("linear", "polynomial", "exponential", "cosine", "one_cycle")), "schedule")
    below = st.floats(0, 0.999) if name == "exponential" else strategies.fractions()
    start, stop = case.draw(below, "start"), case.draw(below, "stop")
    begin = case.draw(st.integers(-5, 1000), "begin")
    end = begin + case.draw(st.integers(1, 200), "end - begin")
    options = {"power": case.draw(st.floats(0.25, 6), "power")} if name == "polynomial" else {}
    return _Ramp(getattr(schedules, name)(start, stop, begin=begin, end=end, **options), start, stop, begin, end)


@law("schedules", "A schedule is its start up to and including begin, and exactly its stop from end on.")
def schedule_is_exact_at_its_ends(schedules: Any, case: Case) -> None:
    """``s(t <= begin) = start``, ``s(t >= end) = stop``."""
    ramp = _ramp(schedules, case)
    for step in (ramp.begin - 1000, ramp.begin - 1, ramp.begin):
        ensure(ramp.schedule(step) == ramp.start, f"found {ramp.schedule(step)} at step {step}, before the begin")
    for step in (ramp.end, ramp.end + 1, ramp.end + 1000):
        ensure(ramp.schedule(step) == ramp.stop, f"found {ramp.schedule(step)} at step {step}, after the end")


@law("schedules", "A schedule stays between its start and its stop, and only ever moves towards its stop.")
def schedule_never_turns(schedules: Any, case: Case) -> None:
    """``|stop - s(t+1)| <= |stop - s(t)|``."""
    ramp = _ramp(schedules, case)
    values = [ramp.schedule(step) for step in range(ramp.begin - 1, ramp.end + 2)]
    low, high = sorted((ramp.start, ramp.stop))
    ensure(all(low <= value <= high for value in values), f"found {values}, outside of {low} to {high}")
    away = [abs(ramp.stop - value) for value in values]
    ensure(all(b <= a + 1e-12 for a, b in pairwise(away)), f"found {values}, which turn")


@law("schedules", "Joined schedules hand over exactly at their boundaries, and all read the same clock.")
def join_hands_over_at_its_boundaries(schedules: Any, case: Case) -> None:
    """``join(a, b, at=[t])`` is a before t and b from t on."""
    parts = case.draw(st.lists(st.lists(strategies.fractions(), min_size=24, max_size=24), min_size=1, max_size=4), "s")
    at = case.draw(st.sets(st.integers(1, 22), min_size=len(parts) - 1, max_size=len(parts) - 1).map(sorted), "at")
    joined = schedules.join(*(part.__getitem__ for part in parts), at=at)
    for step in range(24):
        expected = parts[sum(boundary <= step for boundary in at)][step]
        ensure(joined(step) == expected, f"found {joined(step)} at step {step}, expected {expected}")
