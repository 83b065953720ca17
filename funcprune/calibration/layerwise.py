"""Layer after layer: pruning in the order in which a model uses its parameters."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from funcprune import selectors, trees
from funcprune.allocation import Within
from funcprune.criteria.gradients import Progress
from funcprune.criteria.models import called_with, skeleton
from funcprune.masking import functional
from funcprune.pruners import Pruner
from funcprune.pruners.state import State
from funcprune.structures import NM, Coupled
from funcprune.trees import Masks, Params, Scores


@dataclass(frozen=True, eq=False, repr=False)
class _Layerwise:
    pruner: Pruner
    order: tuple[str, ...]
    progress: Progress | None

    def __call__(self, params: Params, masks: Masks | None = None, *, scores: Scores | None = None) -> Masks:
        if scores is not None:
            raise TypeError("layerwise scores each layer itself: found scores=, expected none: pass them to its pruner")
        masks = State(params, masks).with_masks()
        own = isinstance(self.pruner.structure, NM) or isinstance(self.pruner.scope, Within)
        counts = None if own else self.pruner.counts(params, masks)
        paths = in_order(self.order, selectors.resolve(self.pruner.where, trees.named(params)))
        for path in paths if self.progress is None else self.progress(paths):
            alone = replace(self.pruner, where=selectors.regex(re.escape(path)))
            if counts is not None:
                alone = replace(alone, amount=None, sparsity=None, scope={path: counts[path]})
            masks = alone(params, masks)
        return masks

    def at(self, sparsity: float, /) -> "_Layerwise":
        """The same layer after layer, with another target."""
        return replace(self, pruner=self.pruner.at(sparsity))

    def __repr__(self) -> str:
        return f"layerwise({self.pruner!r}, ...)"


def layerwise(
    pruner: Pruner, model: nn.Module, batch: Any, /, *, progress: Progress | None = None
) -> Callable[..., Masks]:
    """A pruner that does what ``pruner`` does, one leaf at a time, in the order in which ``model`` uses them.

    A criterion that looks at activations then sees, in every layer, what the pruned layers before it give. The counts
    are those of ``pruner``; scopes that need the scores of all leaves at once (``"global"``) are refused.

    Args:
        pruner: a `Pruner`, such as one of `criteria.wanda`.
        model: called once, here, on ``batch`` in evaluation mode to learn the order; it is copied and left alone.
        batch: a model input: a tensor, a tuple of arguments, or a mapping of keyword arguments.
        progress: a wrapper of the leaves such as ``tqdm.tqdm``.

    Cost: one call of the criterion a leaf; that of `criteria.wanda` looks at the inputs of that leaf alone.

    >>> model, x = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2)), torch.randn(8, 4)
    >>> wanda = fp.Pruner(fp.criteria.wanda(model, [x]), 1, scope=fp.within(0))
    >>> masks = fp.layerwise(wanda, model, x)(dict(model.named_parameters()))
    >>> masks["0.weight"].sum(1)
    tensor([3, 3, 3])
    """
    if not isinstance(pruner, Pruner):
        raise TypeError(f"layerwise: found {pruner!r}, expected a Pruner")
    if pruner.scope == "global" or isinstance(pruner.structure, Coupled):
        raise ValueError(f"layerwise goes leaf by leaf, found {pruner!r}, which ranks several together")
    return _Layerwise(pruner, execution_order(model, batch), progress)


def execution_order(model: nn.Module, batch: Any, /) -> tuple[str, ...]:
    """The paths of the parameters in the order in which a call of the model on ``batch`` first enters their modules.

    A parameter whose module is not called itself (the output projection of an attention layer) goes with the module
    that holds it.
    """
    model = skeleton(model)
    entered: dict[str, int] = {}

    def enter(name: str) -> None:
        entered.setdefault(name, len(entered))

    for name, module in model.named_modules():
        module.register_forward_pre_hook(lambda *_, name=name: enter(name))
    args, kwargs = called_with(batch)
    params = dict(model.named_parameters())
    with torch.no_grad():
        functional(model)(params, dict.fromkeys(params), *args, buffers=dict(model.named_buffers()), **kwargs)

    def place(path: str) -> int:
        holder = path.rpartition(".")[0]
        return entered[holder] if holder in entered else place(holder)

    return tuple(sorted(params, key=place))


def in_order(order: tuple[str, ...], paths: Iterable[str], /) -> list[str]:
    """The selected paths in this order; ValueError where one is not in it."""
    rank = {path: place for place, path in enumerate(order)}
    for path in paths:
        if path not in rank:
            raise ValueError(f"params at {path!r}: the model has no such parameter: exclude it with where=")
    return sorted(paths, key=rank.__getitem__)
