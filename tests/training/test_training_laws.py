"""Every law of schedules and training holds here, and catches a wrong implementation."""

import pytest
from hypothesis import Phase, settings

from funcprune.testing import LawBrokenError, laws, run

from .wrong import GUARDS, SUBJECTS

LAWS = {law.name: law for law in laws.of(*SUBJECTS)}
SEARCH = settings(
    max_examples=300, phases=[Phase.generate], derandomize=True, database=None, deadline=None, print_blob=False
)


@pytest.mark.parametrize("name", LAWS)
def test_law(name: str) -> None:
    run(LAWS[name], SUBJECTS[LAWS[name].of])


def test_every_law_has_a_guard() -> None:
    assert LAWS.keys() == GUARDS.keys()


@pytest.mark.parametrize(("name", "number"), [(name, k) for name, found in GUARDS.items() for k in range(len(found))])
def test_a_wrong_implementation_falls(name: str, number: int) -> None:
    with pytest.raises(LawBrokenError) as caught:
        run(LAWS[name], GUARDS[name][number].subject, options=SEARCH)
    assert isinstance(caught.value.__cause__, AssertionError)  # the law found it wrong; it did not crash
