"""Pruning in rounds: score, prune a little, score again."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

from funcprune.allocation import Budget
from funcprune.pruners import Pruner
from funcprune.structures import NM
from funcprune.trees import Masks, Params, Scores

Pace: TypeAlias = Literal["exponential", "linear"]


@dataclass(frozen=True, eq=False, repr=False)
class _Iterated:
    pruner: Pruner
    rounds: int
    schedule: Pace
    progress: Callable[[Iterable[Any]], Iterable[Any]] | None

    def __call__(self, params: Params, masks: Masks | None = None, *, scores: Scores | None = None) -> Masks:
        if scores is not None:
            raise TypeError("iterate scores again each round: found scores=, expected none: pass them to its pruner")
        ends: dict[str, tuple[int, int]] = {}  # of each ranking: units alive before the first round, and after the last
        rounds = range(1, self.rounds + 1)
        for done in rounds if self.progress is None else self.progress(rounds):

            def drops(budget: Budget, units: int, alive: int, ranking: str, done: int = done) -> int:
                if ranking not in ends:
                    ends[ranking] = alive, alive - budget.drops(units, alive, ranking)
                return max(0, alive - _kept(*ends[ranking], done / self.rounds, self.schedule))

            masks = self.pruner.paced(params, masks, drops)
        return masks

    def at(self, sparsity: float, /) -> "_Iterated":
        """The same in rounds, with another target."""
        return replace(self, pruner=self.pruner.at(sparsity))

    def __repr__(self) -> str:
        return f"iterate({self.pruner!r}, rounds={self.rounds}, schedule={self.schedule!r})"


def iterate(
    pruner: Pruner,
    /,
    *,
    rounds: int = 100,
    schedule: Pace = "exponential",
    progress: Callable[[Iterable[Any]], Iterable[Any]] | None = None,
) -> Callable[..., Masks]:
    """A pruner that reaches the counts of ``pruner`` in rounds, scoring anew in each: what SynFlow needs.

    After round ``k`` of ``n`` a ranking that goes from ``a`` to ``b`` alive units has ``a * (b / a) ** (k / n)`` left
    (``"exponential"``, as in SynFlow) or ``a + (b - a) * k / n`` (``"linear"``), rounded; after the last, exactly the
    ``b`` of ``pruner`` itself. Works with every scope and structure but `NM`. Cost: ``rounds`` times that of
    ``pruner``.

    References: Tanaka, Kunin, Yamins, Ganguli 2020, arXiv:2006.05467.

    >>> slow = fp.iterate(fp.l1_unstructured(0.5), rounds=3)
    >>> slow({"w": torch.tensor([[1.0, -4.0, 3.0, 2.0]])})
    {'w': tensor([[False,  True,  True, False]])}
    """
    if not isinstance(pruner, Pruner):
        raise TypeError(f"iterate: found {pruner!r}, expected a Pruner: put iterate inside of a chain, not around it")
    if isinstance(pruner.structure, NM):
        raise ValueError(f"iterate: {pruner.structure!r} fixes its own count, found no way to reach it in rounds")
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
        raise ValueError(f"rounds={rounds!r}: expected an int >= 1")
    if schedule not in get_args(Pace):
        raise ValueError(f"schedule={schedule!r}: expected one of {', '.join(map(repr, get_args(Pace)))}")
    return _Iterated(pruner, rounds, schedule, progress)


def _kept(start: int, end: int, done: float, schedule: Pace) -> int:
    """How many units a ranking still has when the fraction ``done`` of the rounds is."""
    if done == 1 or start == end:
        return end
    if schedule == "linear":
        return round(start + (end - start) * done)
    return max(
        end, round(start * math.exp(done * math.log(max(end, 0.5) / start)))
    )  # towards half a unit where none is to stay
