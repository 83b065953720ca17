"""Lottery tickets: iterative pruning with rewinding, and its controls."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from funcprune import ranking, trees
from funcprune.criteria import Random
from funcprune.pruners.state import State
from funcprune.ranking import Source
from funcprune.structures import Coupled, Elements, Structure
from funcprune.training.optimizers import project, project_state
from funcprune.training.steps import check_callable, check_steps
from funcprune.trees import Masks, Params

__all__ = ["Lottery", "LotteryState", "lottery", "reinitialized", "shuffled"]


class LotteryState(NamedTuple):
    """How often was pruned, the step of the training run, the masks, and what training is rewound to."""

    round: int
    step: int
    masks: Masks
    params: Params
    opt_state: Any


torch.serialization.add_safe_globals([LotteryState])


@dataclass(frozen=True, repr=False)
class Lottery:
    """The pair of pure functions `init` and `update`; see `lottery`."""

    pruner: Callable[..., Masks]
    rounds: int
    steps: int
    rewind: int

    def init(self, params: Params, opt_state: Any = None, *, masks: Masks | None = None) -> LotteryState:
        """The state before the first step: nothing pruned, or ``masks``."""
        masks = State(params, masks).with_masks()
        return LotteryState(0, 0, masks, _copied(params), _copied(opt_state))

    def done(self, state: LotteryState) -> bool:
        """Whether the last round is trained."""
        return (state.round, state.step) == (self.rounds, self.steps)

    def update(self, state: LotteryState, params: Params, opt_state: Any = None) -> tuple[LotteryState, Params, Any]:
        """The state, params and optimizer state after a training step; rewound where it was the last of a round.

        Raises ValueError where the last round is done.
        """
        if self.done(state):
            raise ValueError(f"{self!r}: found an update after the last step of the last round")
        state = state._replace(step=state.step + 1)
        if state.round == 0 and state.step == self.rewind:
            state = state._replace(params=_copied(params), opt_state=_copied(opt_state))
        if state.step < self.steps or self.done(state):
            return state, params, opt_state
        masks = self.pruner(params, state.masks)
        state = state._replace(round=state.round + 1, step=self.rewind, masks=masks)
        return state, project(_copied(state.params), masks), project_state(_copied(state.opt_state), params, masks)

    def __repr__(self) -> str:
        return f"lottery({self.pruner!r}, rounds={self.rounds}, steps={self.steps}, rewind={self.rewind})"


def lottery(pruner: Callable[..., Masks], *, rounds: int, steps: int, rewind: int = 0) -> Lottery:
    """Iterative pruning with rewinding: train, prune, put the survivors back to step ``rewind``, train again, ...

    ``state = method.init(params, opt_state)``; after each training step ``state, params, opt_state =
    method.update(state, params, opt_state)``, until ``method.done(state)``. `find_tickets` is that loop, with every
    round on disk. Optimizer state is rewound with the weights.

    Args:
        pruner: one round of pruning, given the trained params and the masks so far: ``fp.l1_unstructured(0.2)``.
        rounds: how often to prune. One more run trains what the last pruning left.
        steps: the steps of a whole run.
        rewind: the step of the first run to whose weights and optimizer state the later runs return, below ``steps``;
            0 is the original initialisation. They train from there on, for ``steps - rewind`` steps.

    Raises:
        ValueError: counts that are negative, ``rewind >= steps``.
        TypeError: counts that are no ints, a pruner that is no callable.

    References: Frankle, Carbin 2019, arXiv:1803.03635; Frankle et al. 2019, arXiv:1912.05671 (rewinding to step k).

    >>> method = fp.training.lottery(fp.l1_unstructured(1), rounds=1, steps=2)
    >>> params = {"w": torch.tensor([[1.0, 2.0]])}
    >>> state = method.init(params)
    >>> while not method.done(state):
    ...     params = {"w": params["w"] * torch.tensor([[3.0, 1.0]])}  # trains
    ...     state, params, _ = method.update(state, params)
    ...     print(state.round, state.step, params["w"])
    0 1 tensor([[3., 2.]])
    1 0 tensor([[1., 0.]])
    1 1 tensor([[3., 0.]])
    1 2 tensor([[9., 0.]])
    """
    check_steps("lottery", rounds=rounds, steps=steps, rewind=rewind)
    check_callable("lottery", pruner=pruner)
    if rewind >= steps:
        raise ValueError(f"lottery: found rewind={rewind} and steps={steps}, expected rewind < steps")
    return Lottery(pruner, rounds, steps, rewind)


@torch.no_grad()
def shuffled(params: Params, masks: Masks, /, *, seed: int, structure: Structure | None = None) -> Masks:
    """Random masks with the same number of kept units in each leaf: a control for `lottery`.

    A unit is an entry, or that of ``structure`` (whole units then live or die). None stays None.

    >>> masks = {"w": torch.tensor([True, False, False, False])}
    >>> int(fp.training.shuffled({"w": torch.zeros(4)}, masks, seed=0)["w"].sum())
    1
    """
    tree, units = State(params, masks), structure or Elements()
    if isinstance(units, Coupled):
        raise TypeError(f"shuffled: found structure={units!r}, expected units of one leaf: counts stay leaf by leaf")
    paths = [path for path, mask in tree.masks.items() if mask is not None]
    drawn = Random(seed).unit_scores(params, masks, units, paths)
    for path in paths:
        shape, scores = tree.leaves[path].shape, drawn[path]
        alive = units.alive(shape, tree.masks[path])
        assert alive is not None
        count = alive.numel() - int(torch.count_nonzero(alive))
        (kept,) = ranking.drop_lowest([Source(scores, None, torch.Tensor.detach)], count)
        tree.masks[path] = units.expand(torch.ones_like(alive) if kept is None else kept, shape)
    return tree.with_masks()


@torch.no_grad()
def reinitialized(params: Params, /, *, seed: int) -> Params:
    """The params with the entries of each leaf in another order: another draw of the initialisation, as a control.

    The same values in other places, so that nothing need be known of the distribution they came from; a constant
    leaf stays what it was. Draw afresh instead where the initialisation correlates entries.

    >>> fp.training.reinitialized({"w": torch.tensor([1.0, 2.0, 3.0, 4.0])}, seed=0)["w"].sort().values
    tensor([1., 2., 3., 4.])
    """
    leaves, spec = trees.params(params)
    paths = trees.paths(params)
    drawn = Random(seed).unit_scores(params, None, Elements(), paths)
    orders = [drawn[path].flatten().argsort(stable=True) for path in paths]
    return spec.unflatten([leaf.take(order.view(leaf.shape)) for leaf, order in zip(leaves, orders, strict=True)])


def _copied(tree: Any) -> Any:
    leaves, spec = trees.flatten(tree)
    return spec.unflatten(
        [
            leaf.detach().clone().requires_grad_(leaf.requires_grad) if isinstance(leaf, torch.Tensor) else leaf
            for leaf in leaves
        ],
    )
