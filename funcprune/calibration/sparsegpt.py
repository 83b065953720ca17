"""SparseGPT: prune layer after layer, and let the entries that stay make up for those that go."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from funcprune import masks as algebra
from funcprune import selectors
from funcprune.allocation import Budget, Scope, Within
from funcprune.calibration.layerwise import execution_order, in_order
from funcprune.criteria import activations, magnitude
from funcprune.criteria.gradients import Progress, rereadable
from funcprune.criteria.models import skeleton
from funcprune.pruners import Pruner
from funcprune.pruners.state import State
from funcprune.ranking import Source, drop_lowest_in_rows
from funcprune.selectors import Where
from funcprune.structures import NM, Elements
from funcprune.trees import Masks, Params


@torch.no_grad()
def sparsegpt(
    model: nn.Module,
    params: Params,
    batches: Iterable[Any],
    amount: float | int | None = None,
    *,
    sparsity: float | None = None,
    structure: Elements = Elements(),  # noqa: B008 - a frozen value
    scope: Scope = "leaf",
    where: Where = selectors.default,
    masks: Masks | None = None,
    block: int = 128,
    damp: float = 0.01,
    progress: Progress | None = None,
) -> tuple[Params, Masks]:
    """New params and their masks: each layer pruned, and what stays of it adapted to keep its output.

    Args:
        model: whose inputs are measured, in evaluation mode; it is copied (parameters are shared) and left alone.
        params: those of ``dict(model.named_parameters())``.
        batches: calibration inputs, as for `criteria.wanda`; read once a layer.
        amount: as for `Pruner`.
        sparsity: as for `Pruner`.
        structure: ``Elements()``, or `NM` along dimension 1.
        scope: as for `Pruner`, but not ``"global"``, and within no dimension but 0.
        where: as for `Pruner`: weights of Linear, Conv1d and Conv2d.
        masks: those so far; what they prune stays pruned, and is made up for: `bake` the params first where the
            weights under the masks mean nothing any more.
        block: how many columns are chosen at once; each block loses its share of the layer's count.
        damp: added to the diagonal of the Hessian, relative to its mean.
        progress: a wrapper of the layers such as ``tqdm.tqdm``.

    Layers go in the order in which the model uses them, each with the inputs that the pruned ones before it give. With
    ``H = 2 X X^T / n`` and the upper Cholesky factor ``U`` of its inverse, the entries of lowest
    ``w ** 2 / U_jj ** 2`` of a block go, column after column, and ``w / U_jj * U_j`` is taken off the columns after.
    Pruned entries are exactly zero; other leaves are the same objects. Counts are exact. Cost: a forward pass over the
    batches, and ``columns ** 3`` operations and ``4 * columns ** 2`` bytes or so, a layer.

    Raises:
        ValueError: as `Pruner`, and where a leaf is no such weight, or ``H`` has no Cholesky factor.

    References: Frantar, Alistarh 2023, arXiv:2301.00774.

    >>> model, x = torch.nn.Linear(8, 4), torch.randn(32, 8)
    >>> params, masks = fp.sparsegpt(model, dict(model.named_parameters()), [x], structure=fp.NM(2, 4))
    >>> (params["weight"] != 0).sum(1)
    tensor([4, 4, 4, 4])
    """
    counts = Pruner(magnitude(), amount, sparsity=sparsity, structure=structure, scope=scope, where=where)
    if not isinstance(structure, Elements) or (isinstance(structure, NM) and structure.dim != 1):
        raise ValueError(f"sparsegpt: found structure={structure!r}, expected Elements() or NM(keep, of, dim=1)")
    if isinstance(scope, Within) and scope.dim != 0:
        raise ValueError(f"sparsegpt: found scope={scope!r}, expected within(0): output rows are solved on their own")
    if isinstance(block, bool) or not isinstance(block, int) or block < 1 or not damp >= 0:
        raise ValueError(f"sparsegpt: found block={block!r}, damp={damp!r}, expected an int >= 1 and a number >= 0")
    if isinstance(structure, NM):
        block = max(1, block // structure.of) * structure.of
    batches, model = rereadable(batches), skeleton(model)
    tree = State(params, masks)
    paths = selectors.resolve(counts.where, tree.leaves)
    drops = _drops(counts, tree, paths)
    layers = activations.weights(model)
    params, masks = dict(params), tree.with_masks()
    first = next(iter(batches), None)
    if first is None:
        raise ValueError("batches: found none, expected at least one")
    paths = in_order(execution_order(model, first), paths)
    for path in paths if progress is None else progress(paths):
        hessians: list[Tensor] = []
        samples: list[int] = []

        def take(_: str, columns: Tensor, hessians: list[Tensor] = hessians, samples: list[int] = samples) -> None:
            columns = columns.to(torch.promote_types(columns.dtype, torch.float32))
            product = columns.transpose(1, 2) @ columns
            hessians[:] = [hessians[0] + product if hessians else product]
            samples.append(columns.shape[1])

        activations.stream(model, params, masks, batches, [path], take)
        leaf, layer = tree.leaves[path].detach(), layers[path][0]
        hessian = hessians[0] * (2 / max(1, sum(samples)))
        alive = activations.matrix(layer, algebra.written(leaf, tree.masks[path]))
        weight = activations.matrix(layer, leaf).to(hessian.dtype)
        if not (weight.isfinite().all() and hessian.isfinite().all()):
            raise ValueError(
                f"params at {path!r}: found NaN or inf in the weights, those under the masks too, or in their inputs: "
                "`bake` removes what is under masks"
            )
        try:
            solved, kept = _solve(weight, alive, hessian, drops[path], structure, block, damp)
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
            raise ValueError(f"params at {path!r}: the Hessian has no Cholesky factor: use a larger damp=") from error
        params[path] = activations.weight_of(solved, leaf.shape).to(leaf.dtype).contiguous()
        tree.masks[path] = activations.weight_of(kept, leaf.shape).contiguous()
        masks = tree.with_masks()
    return params, masks


def _drops(pruner: Pruner, tree: State, paths: list[str]) -> dict[str, Tensor | None]:
    """How many entries each leaf loses, or each of its output rows; None where the structure says."""
    if isinstance(pruner.structure, NM):
        return dict.fromkeys(paths)
    if not isinstance(pruner.scope, Within):
        return {path: torch.tensor([n]) for path, n in pruner.counts(tree.params, tree.with_masks()).items()}
    budget, found = Budget(pruner.amount, pruner.sparsity), dict[str, Tensor | None]()
    for path in paths:
        leaf, mask = tree.leaves[path], tree.masks[path]
        size = leaf[0].numel()
        alive = [size] * len(leaf) if mask is None else torch.count_nonzero(mask.flatten(1), dim=1).tolist()
        words = f"slice {{}} along dimension 0 of {path!r}"
        found[path] = torch.tensor([budget.drops(size, n, words.format(row)) for row, n in enumerate(alive)])
    return found


class _Choice:
    """Which entries of a block stay: each ranking loses, block after block, its share of what it is to lose in all."""

    def __init__(self, drops: Tensor, alive: Tensor) -> None:
        self.drops, self.alive = drops.to(alive.device), alive.clamp(min=1)
        self.seen = torch.zeros_like(alive)

    def __call__(self, scores: Tensor, alive: Tensor) -> Tensor:
        lines, live = scores.reshape(len(self.seen), -1), alive.reshape(len(self.seen), -1)
        before = self.drops * self.seen // self.alive
        self.seen = self.seen + live.sum(1)
        return _lowest_gone(lines, live, self.drops * self.seen // self.alive - before).reshape(scores.shape)


def _solve(
    weight: Tensor, alive: Tensor, hessian: Tensor, drops: Tensor | None, structure: Elements, block: int, damp: float
) -> tuple[Tensor, Tensor]:
    """The weights of ``(groups, rows, columns)`` after pruning and adapting, and the mask of what stays."""
    groups, rows, _ = weight.shape
    choices: list[_Choice | NM]
    if isinstance(structure, NM):
        choices = [structure] * groups
    elif drops is not None and len(drops) == 1:
        choices = [_Choice(drops, alive.sum().reshape(1))] * groups  # one ranking, through all groups
    else:
        assert drops is not None
        parts = zip(drops.reshape(groups, rows), alive, strict=True)
        choices = [_Choice(part, live.sum(1)) for part, live in parts]
    solved = [_solve_group(*row, block, damp) for row in zip(weight, alive, hessian, choices, strict=True)]
    return torch.stack([group for group, _ in solved]), torch.stack([kept for _, kept in solved])


def _solve_group(
    weight: Tensor, alive: Tensor, hessian: Tensor, choice: _Choice | NM, block: int, damp: float
) -> tuple[Tensor, Tensor]:
    weight, kept = weight.clone(), alive.clone()
    factor = _factor(weight, hessian.clone(), damp)
    diagonal = factor.diagonal()
    for start in range(0, weight.shape[1], block):
        stop = min(start + block, weight.shape[1])
        errors = torch.zeros_like(weight[:, start:stop])
        if isinstance(choice, _Choice):
            scores = (weight[:, start:stop] / diagonal[start:stop]).square()
            kept[:, start:stop] = choice(scores, alive[:, start:stop])
        for column in range(start, stop):
            if isinstance(choice, NM) and column % choice.of == 0:
                run = slice(column, column + choice.of)
                count = (alive[:, run].sum(1) - choice.keep).clamp(min=0)
                kept[:, run] = _lowest_gone((weight[:, run] / diagonal[run]).square(), alive[:, run], count)
            error = torch.where(kept[:, column], 0.0, weight[:, column] / diagonal[column])
            weight[:, column:stop] -= error[:, None] * factor[column, column:stop]
            errors[:, column - start] = error
        weight[:, stop:] -= errors @ factor[start:stop, stop:]
    return torch.where(kept, weight, 0.0), kept


def _factor(weight: Tensor, hessian: Tensor, damp: float) -> Tensor:
    """The upper Cholesky factor of the inverse of the damped Hessian; weights of inputs that are always zero go."""
    diagonal = hessian.diagonal()
    dead = diagonal == 0
    diagonal[dead] = 1
    weight[:, dead] = 0
    diagonal += damp * diagonal.mean()
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor


def _lowest_gone(scores: Tensor, alive: Tensor, counts: Tensor) -> Tensor:
    return drop_lowest_in_rows(Source(scores, alive, lambda values: values), counts)
