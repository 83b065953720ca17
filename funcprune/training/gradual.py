"""Gradual pruning: the sparsity follows a schedule while the model trains."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import torch

from funcprune.pruners import Pruner, combinators
from funcprune.pruners.state import State
from funcprune.schedules import Schedule
from funcprune.training.steps import check_callable, check_steps
from funcprune.trees import Masks, Params

__all__ = ["Gradual", "GradualState", "gradual"]


class GradualState(NamedTuple):
    """How many updates there were, the masks, and the fields of a criterion that accumulates, None for others."""

    step: int
    masks: Masks
    criterion: dict[str, Any] | None = None


torch.serialization.add_safe_globals([GradualState])


@dataclass(frozen=True, repr=False)
class Gradual:
    """The pair of pure functions `init` and `update`; see `gradual`."""

    pruner: Callable[..., Masks]
    schedule: Schedule
    begin: int
    end: int
    every: int

    def init(self, params: Params, masks: Masks | None = None) -> GradualState:
        """The state before the first step: nothing pruned, or ``masks``."""
        return GradualState(0, State(params, masks).with_masks())

    def due(self, state: GradualState) -> bool:
        """Whether the next update prunes; the last one, at ``end``, always does."""
        since = state.step - self.begin
        return 0 <= since <= self.end - self.begin and (since % self.every == 0 or state.step == self.end)

    def update(self, state: GradualState, params: Params, grads: Any = None) -> GradualState:
        """The state after a training step, pruned to ``schedule(state.step)`` where it is due.

        ``grads`` go to a criterion that accumulates, others need none. Costs nothing where no update is due.
        """
        pruner, masks, seen = self.pruner, state.masks, state.criterion
        if isinstance(pruner, Pruner) and hasattr(pruner.criterion, "update"):
            pruner, seen = _accumulated(pruner, seen, params, grads)
        if self.due(state):
            masks = combinators.at(pruner, self.schedule(state.step))(params, masks)
        return GradualState(state.step + 1, masks, seen)

    def __repr__(self) -> str:
        return f"gradual({self.pruner!r}, {self.schedule!r}, begin={self.begin}, end={self.end}, every={self.every})"


def _inside(pruner: Any) -> list[Any]:
    """The pruners that a pruner is made of: those of a chain, the one of `iterate` and of `layerwise`."""
    parts = getattr(pruner, "pruners", ()) or (getattr(pruner, "pruner", None),)
    return [inner for part in parts if part is not None for inner in (part, *_inside(part))]


def _accumulated(
    pruner: Pruner, seen: dict[str, Any] | None, params: Params, grads: Any
) -> tuple[Pruner, dict[str, Any]]:
    """The pruner with its criterion after one more step, and what the state keeps of it."""
    if grads is None:
        raise ValueError(f"gradual: {pruner.criterion!r} accumulates over training: found grads=None, expected a tree")
    criterion: Any = pruner.criterion
    criterion = replace(criterion, **(seen or {})).update(params, grads)
    return replace(pruner, criterion=criterion), {
        item.name: getattr(criterion, item.name) for item in fields(criterion)
    }


def gradual(pruner: Callable[..., Masks], schedule: Schedule, *, begin: int, end: int, every: int) -> Gradual:
    """Pruning during training, from step ``begin`` through step ``end``, every ``every`` steps.

    ``state = g.init(params)``, then ``state = g.update(state, params)`` after each training step, and train through
    ``state.masks``. Steps count from 0: the first update has the number 0. The masks only shrink: where the schedule
    falls, or as much is pruned already, they stay as they are. The last update, at ``end``, always prunes, whatever
    ``every`` is.

    Args:
        pruner: what prunes, to the sparsity of the schedule instead of an amount of its own: a `Pruner`, a chain of
            them, or any pruner with a method ``at(sparsity)`` that returns one.
        schedule: ``step -> sparsity``, see `schedules`.
        begin: the number of the first update that prunes.
        end: the number of the last one.
        every: how many steps there are from one to the next.

    A criterion that accumulates over training, as `criteria.movement` does, is a dataclass with a method
    ``update(params, grads) -> criterion``. It is shown the params and ``grads`` of every update, and its fields travel
    in the state. It wants the params at which the gradient was taken: call ``update`` before the optimizer's step.

    The state is a NamedTuple of tensors and ints: ``torch.save`` it, ``torch.load`` it with ``weights_only=True``.

    Raises:
        ValueError: steps that are not ``0 <= begin <= end`` and ``every >= 1``; a criterion that accumulates inside of
            a chain, `iterate` or `layerwise`.
        TypeError: steps that are no ints, a schedule that is no callable, a pruner without ``at``.

    References: Zhu, Gupta 2017, arXiv:1710.01878.

    >>> ramp = fp.schedules.linear(0.0, 0.75, end=3)
    >>> g = fp.training.gradual(fp.l1_unstructured(sparsity=0.75), ramp, begin=0, end=3, every=2)
    >>> params = {"w": torch.tensor([[4.0, 3.0, 2.0, 1.0]])}
    >>> state = g.init(params)
    >>> for _ in range(4):
    ...     state = g.update(state, params)
    ...     print(state.step, fp.masks.sparsity(params, state.masks))
    1 0.0
    2 0.0
    3 0.5
    4 0.75
    """
    check_steps("gradual", begin=begin, end=end, every=every)
    if begin > end:
        raise ValueError(f"gradual: found begin={begin} and end={end}, expected begin <= end")
    check_callable("gradual", schedule=schedule)
    combinators.at(pruner, schedule(end))
    for inner in _inside(pruner):
        if isinstance(inner, Pruner) and hasattr(inner.criterion, "update"):
            raise ValueError(
                f"gradual: found {inner.criterion!r}, which accumulates over training, inside of {pruner!r}: its state "
                "would be lost; pass its Pruner by itself, expected here are criteria that do not accumulate"
            )
    return Gradual(pruner, schedule, begin, end, every)
