"""Dynamic sparsity: how many weights there are stays, where they are changes. Static sparse training, SET and RigL."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcprune import masks as algebra
from funcprune import schedules, selectors, trees
from funcprune.criteria import Criterion, Random, magnitude
from funcprune.masking import project_
from funcprune.pruners import Pruner
from funcprune.pruners.state import State
from funcprune.schedules import Schedule
from funcprune.structures import Coupled, Elements, Structure
from funcprune.training.optimizers import project, project_optimizer_, project_state
from funcprune.training.steps import check_callable, check_steps
from funcprune.trees import Masks, Params

__all__ = ["Dynamic", "DynamicState", "dynamic", "rigl", "sparse_evolution", "static"]


class DynamicState(NamedTuple):
    """How many updates there were, and the masks."""

    step: int
    masks: Masks


torch.serialization.add_safe_globals([DynamicState])


class _Move(NamedTuple):
    """What happens to a leaf: ``moved`` units go and as many come; the entries of alive and of dead units."""

    alive: Tensor
    dead: Tensor
    moved: int
    dead_units: int


@dataclass(frozen=True, repr=False)
class Dynamic:
    """The pure functions `init` and `update`, and `update_` for ``torch.optim``; see `dynamic`."""

    pruner: Callable[..., Masks]
    drop: Schedule
    every: int
    end: int
    seed: int | None
    criterion: Criterion
    structure: Structure

    def init(self, params: Params, masks: Masks | None = None) -> DynamicState:
        """The state before the first step: the masks that the pruner makes of ``masks``."""
        return DynamicState(0, self.pruner(params, masks))

    def due(self, state: DynamicState) -> bool:
        """Whether the next update drops and grows; any other one needs no ``grads`` and costs nothing."""
        return 0 < state.step < self.end and state.step % self.every == 0

    def update(
        self, state: DynamicState, params: Params, opt_state: Any, *, grads: Any = None
    ) -> tuple[DynamicState, Params, Any]:
        """The state, params and optimizer state after a training step; ``grads`` as `dynamic` says.

        Where it is due, entries that are pruned, and those just grown, are +0.0 in the new params, and in every tree
        in ``opt_state`` that is parallel to them (see `project_state`). Otherwise params and optimizer state are the
        same objects.
        """
        if not self.due(state):
            return state._replace(step=state.step + 1), params, opt_state
        masks = self._rewired(state, params, grads)
        kept = algebra.intersect(state.masks, masks)
        state = DynamicState(state.step + 1, masks)
        return state, project(params, kept), project_state(opt_state, params, kept)

    def update_(
        self, state: DynamicState, params: Params, optimizer: torch.optim.Optimizer, *, grads: Any = None
    ) -> DynamicState:
        """`update` in place: writes the zeros into ``params``, the optimizer's very parameters, and its state."""
        if not self.due(state):
            return state._replace(step=state.step + 1)
        masks = self._rewired(state, params, grads)
        kept = algebra.intersect(state.masks, masks)
        project_optimizer_(optimizer, params, kept)
        project_(params, kept)
        return DynamicState(state.step + 1, masks)

    def _rewired(self, state: DynamicState, params: Params, grads: Any) -> Masks:
        """The masks after dropping and growing."""
        tree, fraction = State(params, state.masks), self.drop(state.step)
        if not 0 <= fraction <= 1:
            raise ValueError(f"drop: found {fraction!r} at step {state.step}, expected a fraction between 0 and 1")
        moves = dict[str, _Move]()
        for path, mask in tree.masks.items():
            units = None if mask is None else self.structure.alive(mask.shape, mask)
            if mask is not None and units is not None:
                alive, dead = int(torch.count_nonzero(units)), int(torch.count_nonzero(~units))
                count = min(round(fraction * alive), dead)
                if count:
                    moves[path] = _Move(mask, self.structure.expand(~units, mask.shape), count, dead)
        if not moves:
            return state.masks
        dropping = tree.scores(self.criterion(params, state.masks), list(moves))
        growing = self._growth_scores(state.step, tree, grads, moves)
        for (path, move), drop, grow in zip(moves.items(), dropping, growing, strict=True):
            stays = self._pruned(path, move.alive, drop, move.moved)
            tree.masks[path] = stays | self._pruned(path, move.dead, grow, move.dead_units - move.moved)
        return tree.with_masks()

    def _pruned(self, path: str, mask: Tensor, scores: Tensor, count: int) -> Tensor:
        """The mask without the ``count`` lowest of its units."""
        pruner = Pruner(magnitude(), count, structure=self.structure, where=selectors.ndim())
        found: Tensor = pruner({path: scores}, {path: mask}, scores={path: scores})[path]
        return found

    def _growth_scores(self, step: int, tree: State, grads: Any, moves: "dict[str, _Move]") -> list[Tensor]:
        """How much the entries of each leaf that moves deserve to grow."""
        if self.seed is not None:
            digest = hashlib.blake2b(f"{self.seed}:{step}".encode(), digest_size=8).digest()
            drawn = Random(int.from_bytes(digest, "little")).unit_scores(tree.params, None, Elements(), list(moves))
            return list(drawn.values())
        expected = "expected the gradient with respect to the masked params, a tree like them"
        if grads is None:
            raise ValueError(f"dynamic: this update grows by gradient: found grads=None, {expected}")
        rows = trees.beside(tree.params, grads, "grads")
        for path in moves:
            if rows[path] is None or rows[path].shape != tree.leaves[path].shape:
                found = "None" if rows[path] is None else f"shape {tuple(rows[path].shape)}"
                raise ValueError(f"grads at {path!r}: found {found}, {expected}")
        if not any(torch.count_nonzero(rows[path][move.dead]) for path, move in moves.items()):
            raise ValueError(
                f"grads: found zero at every pruned entry, {expected}: grad(loss)(fp.apply(params, state.masks), ...). "
                "The gradient of fp.masked(loss) and of fp.functional is zero there and can grow nothing"
            )
        return [rows[path].detach().abs() for path in moves]

    def __repr__(self) -> str:
        options = f"drop={self.drop!r}, every={self.every}, end={self.end}"
        options += "" if self.seed is None else f", seed={self.seed}"
        options += "" if self.criterion == magnitude() else f", criterion={self.criterion!r}"
        options += "" if self.structure == Elements() else f", structure={self.structure!r}"
        return f"dynamic({self.pruner!r}, {options})"


def dynamic(
    pruner: Callable[..., Masks],
    *,
    drop: Schedule,
    every: int,
    end: int,
    seed: int | None = None,
    criterion: Criterion | None = None,
    structure: Structure | None = None,
) -> Dynamic:
    """Sparse training that drops weights and grows as many elsewhere in the same leaf, at every ``every``-th step.

    ``state = method.init(params)``; after each training step
    ``state, params, opt_state = method.update(state, params, opt_state, grads=grads)``. Leaf by leaf,
    ``k = round(drop(step) * alive)`` units of the lowest score are dropped and the ``k`` highest of the others grown;
    fewer where fewer are pruned. Grown weights and their moments start at zero, so nothing jumps.

    Entries dropped by an update do not grow in the same update, while the papers let them: a leaf without pruned
    entries stays as it is, and exactly ``k`` move. They may grow at a later one. The first update has the number 0
    and moves nothing; the last that moves has a number below ``end``.

    Args:
        pruner: makes the masks to start from, with its own structure, scope (``fp.erk()``, ``fp.uniform()``) and
            ``where``; leaves whose mask is None stay dense.
        drop: the fraction of the alive units of each leaf to drop, by step; see `schedules`.
        every: how many steps there are from one drop to the next.
        end: no drops from this step on.
        seed: grow at random, by this seed; without it, where ``grads`` are largest in magnitude. These are then
            needed whenever an update is `due`: the gradient with respect to the MASKED params,
            ``grad(loss)(fp.apply(params, state.masks), ...)``.
        criterion: what ranks the alive entries, magnitude by default.
        structure: the units that are dropped and grown, entries by default; masks to start from should consist of
            whole units. They rank by pooled entry scores.

    The state is a NamedTuple of tensors and ints: ``torch.save`` it, ``torch.load`` it with ``weights_only=True``.

    Raises:
        ValueError: steps that are negative, or ``every=0``; a structure that fixes its own counts; at a due update,
            gradients that are missing, do not fit or are zero at every pruned entry, and a ``drop`` out of range.
        TypeError: steps that are no ints, what should be callable and is not, units that span leaves.

    >>> method = fp.training.dynamic(
    ...     fp.custom_from_mask({"w": torch.tensor([True, True, False, False])}),
    ...     drop=fp.schedules.constant(0.5), every=1, end=10,
    ... )
    >>> params, grads = {"w": torch.tensor([3.0, 1.0, 0.0, 0.0])}, {"w": torch.tensor([0.0, 9.0, 0.1, -0.2])}
    >>> state = method.init(params)
    >>> for _ in range(2):
    ...     state, params, _ = method.update(state, params, None, grads=grads)
    >>> params, state.masks
    ({'w': tensor([3., 0., 0., 0.])}, {'w': tensor([ True, False, False,  True])})
    """
    check_steps("dynamic", every=every, end=end)
    check_callable("dynamic", pruner=pruner, drop=drop)
    criterion, structure = criterion or magnitude(), structure or Elements()
    check_callable("dynamic", criterion=criterion)
    if isinstance(structure, Coupled):
        raise TypeError(f"dynamic: found structure={structure!r}, expected units of one leaf: counts stay leaf by leaf")
    Pruner(magnitude(), 0, structure=structure)  # refuses what fixes its own counts
    if seed is not None:
        Random(seed)
    return Dynamic(pruner, drop, every, end, seed, criterion, structure)


def static(pruner: Callable[..., Masks], /) -> Dynamic:
    """Static sparse training: the `dynamic` method that never changes the masks, the baseline of the others.

    >>> fp.training.static(fp.random_unstructured(0.9, seed=0)).due(fp.training.DynamicState(100, {}))
    False
    """
    return dynamic(pruner, drop=schedules.constant(0.0), every=1, end=0)


def sparse_evolution(
    pruner: Callable[..., Masks],
    *,
    drop: float = 0.3,
    every: int,
    end: int,
    seed: int,
    structure: Structure | None = None,
) -> Dynamic:
    """SET: `dynamic` that drops a constant fraction of the smallest magnitudes and grows at random.

    The paper does so once an epoch: ``every`` is the steps of one.

    References: Mocanu et al. 2018, arXiv:1707.04780.

    >>> fp.training.sparse_evolution(fp.random_unstructured(0.9, seed=0), every=100, end=1000, seed=0).due(
    ...     fp.training.DynamicState(100, {})
    ... )
    True
    """
    return dynamic(pruner, drop=schedules.constant(drop), every=every, end=end, seed=seed, structure=structure)


def rigl(
    pruner: Callable[..., Masks], *, drop: float = 0.3, every: int = 100, end: int, structure: Structure | None = None
) -> Dynamic:
    """RigL: `dynamic` that drops the smallest magnitudes and grows where the gradient is largest.

    At step t it drops the fraction ``drop / 2 * (1 + cos(pi t / end))``. The paper stops at three quarters of the
    training, and trains no weight at a step that rewires; here the optimizer's step of the same iteration stands.

    References: Evci et al. 2020, arXiv:1911.11134.

    >>> method = fp.training.rigl(fp.random_unstructured(0.9, seed=0), end=1000)
    >>> round(method.drop(500), 4)
    0.15
    """
    return dynamic(pruner, drop=schedules.cosine(drop, 0.0, end=end), every=every, end=end, structure=structure)
