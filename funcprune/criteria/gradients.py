"""Gradients of a loss at the masked point, over one batch or many."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.func import grad

from funcprune import trees
from funcprune.masking import bake, selected
from funcprune.trees import Masks, Params

Loss: TypeAlias = Callable[..., Tensor]
"""``loss(params, *batch) -> scalar``, of the unmasked kind: the criterion applies the masks."""
Progress: TypeAlias = Callable[[Iterable[Any]], Iterable[Any]]
"""What wraps an iterable to report on it: ``tqdm.tqdm``."""


class Data:
    """The batches a criterion is bound to: one given as arguments, or an iterable of many that can be read again."""

    def __init__(
        self, loss: Loss, batch: tuple[Any, ...], batches: Iterable[Any] | None, progress: Progress | None
    ) -> None:
        if not callable(loss):
            raise TypeError(f"loss: found {type(loss).__name__}, expected a callable loss(params, *batch) -> scalar")
        if (batches is None) == (not batch):
            found = "neither" if batches is None else "both"
            raise ValueError(f"found {found} of a batch as arguments and batches=, expected exactly one")
        self.loss = loss
        self.batches = [batch] if batches is None else rereadable(batches)
        self.progress = progress

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        found = False
        for batch in self.batches if self.progress is None else self.progress(self.batches):
            found = True
            yield tuple(batch) if isinstance(batch, list | tuple) else (batch,)
        if not found:
            raise ValueError("batches: found none, expected at least one")


class Point:
    """The masked parameters, those of floating point apart from the rest: only the former have gradients."""

    def __init__(self, params: Params, masks: Masks | None) -> None:
        leaves, self.spec = trees.params(params)
        masks = self.spec.unflatten([None] * len(leaves)) if masks is None else masks
        found = trees.align(self.spec, masks, "masks")
        self.leaves, _ = trees.flatten(bake(params, masks))
        self.floating = [i for i, leaf in enumerate(self.leaves) if leaf.is_floating_point()]
        self.values = [self.leaves[i] for i in self.floating]
        self.dense = [leaves[i].detach() for i in self.floating]
        self.kept = [found[i] for i in self.floating]

    def gradient(self, loss: Loss) -> Callable[..., list[Tensor]]:
        """The function ``(values, *batch) -> gradients``."""

        def call(values: list[Tensor], *batch: Any) -> Tensor:
            leaves = list(self.leaves)
            for i, value in zip(self.floating, values, strict=True):
                leaves[i] = value
            return loss(self.spec.unflatten(leaves), *batch)

        function: Callable[..., list[Tensor]] = grad(call)
        return function

    def masked(self, values: Iterable[Tensor]) -> list[Tensor]:
        """These values, zero where pruned."""
        return [v if mask is None else selected(v, mask) for v, mask in zip(values, self.kept, strict=True)]

    def products(self, values: Iterable[Tensor]) -> Any:
        """``W`` times these values as a `tree`, in float32 or better: float16 would round small products to zero."""
        rows = zip(values, self.dense, strict=True)
        return self.tree(value.to(torch.promote_types(value.dtype, torch.float32)) * leaf for value, leaf in rows)

    def tree(self, values: Iterable[Tensor]) -> Any:
        """These values as a tree like the params, None where a leaf is not of floating point."""
        found = dict(zip(self.floating, values, strict=True))
        return self.spec.unflatten([found.get(i) for i in range(len(self.leaves))])


def accumulated(parts: Iterable[list[Tensor]]) -> list[Tensor]:
    """The sum of lists of tensors, entry by entry."""
    total: list[Tensor] = []
    for part in parts:
        total = [a + b for a, b in zip(total, part, strict=True)] if total else part
    return total


def rereadable(batches: Iterable[Any]) -> Iterable[Any]:
    """The batches; TypeError where they can be read only once, as a generator."""
    if isinstance(batches, Tensor) or not isinstance(batches, Iterable):
        raise TypeError(f"batches: found {type(batches).__name__}, expected an iterable of batches, such as a list")
    if isinstance(batches, Iterator):
        raise TypeError("batches: found an iterator, which can be read only once: pass a list or a DataLoader")
    return batches
