"""Pruning methods of the stateful world as pure pruners."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.prune import BasePruningMethod as TorchMethod

from funcprune import selectors
from funcprune.compat.prune.base import next_mask
from funcprune.pruners.state import State
from funcprune.selectors import Where
from funcprune.trees import Masks, Params, Scores

__all__ = ["as_pruner"]


@dataclass(frozen=True, repr=False)
class _AsPruner:
    method_class: type[TorchMethod]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    where: selectors.Selector

    @torch.no_grad()
    def __call__(self, params: Params, masks: Masks | None = None, *, scores: Scores | None = None) -> Masks:
        tree = State(params, masks)
        paths = selectors.resolve(self.where, tree.leaves)
        given = [None] * len(paths) if scores is None else tree.scores(scores, paths)
        for path, score in zip(paths, given, strict=True):
            method = self.method_class(*self.args, **self.kwargs)
            method._tensor_name = path.rpartition(".")[2]
            # a method may write into what it is shown
            shown = tree.leaves[path].detach().clone(), tree.masks[path], None if score is None else score.clone()
            tree.masks[path] = next_mask(method, *shown)
        return tree.with_masks()

    def __repr__(self) -> str:
        words = [self.method_class.__name__, *map(repr, self.args)]
        words += [f"{name}={value!r}" for name, value in self.kwargs.items()]
        return f"as_pruner({', '.join(words)}, where={self.where!r})"


def as_pruner(
    method_class: type[TorchMethod], /, *args: Any, where: Where = selectors.default, **kwargs: Any
) -> Callable[..., Masks]:
    """A pruner that applies ``method_class(*args, **kwargs)`` to each selected leaf.

    Any subclass of ``BasePruningMethod``, this library's or torch's. A leaf pruned before is shown to the method as
    ``PRUNING_TYPE`` says, as when a module is pruned again; ``scores=`` are importance scores. A method that draws
    from torch's global generator does so here.

    >>> class EveryOther(fp.compat.prune.BasePruningMethod):
    ...     PRUNING_TYPE = "unstructured"
    ...     def compute_mask(self, t, default_mask):
    ...         mask = default_mask.clone()
    ...         mask.view(-1)[::2] = 0
    ...         return mask
    >>> pruner = fp.compat.as_pruner(EveryOther, where="bias")
    >>> masks = pruner({"bias": torch.ones(4)})
    >>> pruner({"bias": torch.ones(4)}, masks)
    {'bias': tensor([False, False, False,  True])}
    """
    if not (isinstance(method_class, type) and issubclass(method_class, TorchMethod)):
        raise TypeError(f"as_pruner: found {method_class!r}, expected a subclass of BasePruningMethod")
    return _AsPruner(method_class, args, kwargs, selectors.parse(where))
