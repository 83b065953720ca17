"""Movement: keep what training moves away from zero."""

from dataclasses import dataclass

import torch
from torch import Tensor

from funcprune import trees
from funcprune.criteria.additive import Additive
from funcprune.trees import Masks, Params, Scores


@dataclass(frozen=True, eq=False, repr=False)
class Movement(Additive):
    """``-sum of g W`` over the steps it was shown."""

    total: Scores
    steps: int = 0

    def update(self, params: Params, grads: Params, /) -> "Movement":
        """The criterion after one more step, with the params and the gradient that step started from.

        ``grads`` is the gradient with respect to the masked params, as for regrowth: through the masks it would be
        zero at pruned entries, whose scores would then stand still. None is a leaf without a gradient.
        """
        leaves, spec = trees.params(params)
        rows = zip(leaves, trees.align(spec, grads, "grads"), trees.align(spec, self.total, "movement"), strict=True)
        return Movement(spec.unflatten([_moved(*row) for row in rows]), self.steps + 1)

    def contributions(self, params: Params, masks: Masks | None, /) -> Scores:
        """What was accumulated."""
        _, spec = trees.params(params)
        return spec.unflatten(trees.align(spec, self.total, "movement"))

    def __repr__(self) -> str:
        return f"movement(<{self.steps} steps>)"


def movement(params: Params, /) -> Movement:
    """The criterion ``-sum of g W`` over training steps: entries that shrink go first, large or not.

    It starts at zero; after each step replace it: ``criterion = criterion.update(params, grads)``. It is a value, so
    the ones before stay as they were. A unit scores by the sum over it. Cost: one product a step, one tensor a leaf.

    References: Sanh, Wolf, Rush 2020, arXiv:2005.07683.

    >>> params = {"w": torch.tensor([1.0, -2.0])}
    >>> criterion = fp.criteria.movement(params)
    >>> criterion = criterion.update(params, {"w": torch.tensor([0.5, 0.5])})
    >>> criterion(params)
    {'w': tensor([-0.5000,  1.0000])}
    """
    leaves, spec = trees.params(params)
    return Movement(spec.unflatten([_zero(leaf) for leaf in leaves]))


def _zero(leaf: Tensor) -> Tensor | None:
    if not leaf.is_floating_point():
        return None
    return torch.zeros_like(leaf, dtype=torch.promote_types(leaf.dtype, torch.float32), requires_grad=False)


def _moved(leaf: Tensor, grad: Tensor | None, total: Tensor | None) -> Tensor | None:
    if grad is None or total is None:
        return total
    return total - grad.detach().to(total.dtype) * leaf.detach()
