"""Guards on the guards: every law catches a wrong implementation, or it does not count as a law."""

import pytest
from hypothesis import Phase, settings

from funcprune.testing import LawBrokenError, laws, run

from .wrong import GUARDS

# enough examples for the wrong ones that show rarely; no shrinking: that it falls is the question
SEARCH = settings(
    max_examples=300, phases=[Phase.generate], derandomize=True, database=None, deadline=None, print_blob=False
)
PAIRS = {f"{name}-{k}": (name, guard) for name, found in GUARDS.items() for k, guard in enumerate(found)}


def test_every_law_has_a_guard() -> None:
    assert {law.name for law in laws.ALL} == GUARDS.keys()


def test_names_are_unique() -> None:
    assert len({law.name for law in laws.ALL}) == len(laws.ALL)


@pytest.mark.parametrize("pair", PAIRS)
def test_a_wrong_implementation_falls(pair: str) -> None:
    name, guard = PAIRS[pair]
    with pytest.raises(LawBrokenError) as caught:
        run(laws.by_name(name), guard.subject, trees=guard.trees, options=SEARCH)
    # it must be the law that finds it wrong, not a crash of the wrong implementation
    assert isinstance(caught.value.__cause__, AssertionError)
