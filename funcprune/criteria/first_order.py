"""Saliency and Taylor: what the loss says, to first order, of an entry's removal."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from funcprune.criteria.additive import Additive
from funcprune.criteria.gradients import Data, Loss, Point, Progress, accumulated
from funcprune.trees import Masks, Params, Scores


@dataclass(frozen=True, eq=False, repr=False)
class _FirstOrder(Additive):
    data: Data

    def contributions(self, params: Params, masks: Masks | None, /) -> Scores:
        """``W g``: the derivative of the loss with respect to each entry of the mask."""
        point = Point(params, masks)
        gradient = point.gradient(self.data.loss)
        total = accumulated(gradient(point.values, *batch) for batch in self.data)
        return point.products(total)


class Saliency(_FirstOrder):
    """``|W g|``; a unit: ``|sum of W g|``, the derivative with respect to one mask for all of it."""

    def finish(self, totals: Tensor, /) -> Tensor:
        """The absolute value."""
        return totals.abs()

    def __repr__(self) -> str:
        return "saliency(...)"


class Taylor(_FirstOrder):
    """``(W g) ** 2``; a unit: ``(sum of W g) ** 2``."""

    def finish(self, totals: Tensor, /) -> Tensor:
        """The square."""
        return totals.square()

    def __repr__(self) -> str:
        return "taylor(...)"


def saliency(
    loss: Loss, *batch: Any, batches: Iterable[Any] | None = None, progress: Progress | None = None
) -> Saliency:
    """The criterion ``|dL/dm| = |W g|`` (SNIP): entries to which the loss is least sensitive go first.

    Args:
        loss: ``loss(params, *batch) -> scalar``; it sees the masked params, so it need not know of masks.
        batch: one batch, as arguments.
        batches: instead, an iterable of batches (tuples) that can be read again; gradients add up before the absolute
            value.
        progress: a wrapper of the iterable such as ``tqdm.tqdm``.

    ``g`` is the gradient at the masked params. A unit of a structure has one mask for all of its entries, so it
    scores ``|sum of W g|``. Cost: a forward and backward pass a batch.

    References: Lee, Ajanthan, Torr 2019, arXiv:1810.02340.

    >>> loss = lambda params, x: (params["w"] * x).sum()
    >>> fp.criteria.saliency(loss, torch.tensor([2.0, -3.0]))({"w": torch.tensor([1.0, 1.0])})
    {'w': tensor([2., 3.])}
    """
    return Saliency(Data(loss, batch, batches, progress))


def taylor(loss: Loss, *batch: Any, batches: Iterable[Any] | None = None, progress: Progress | None = None) -> Taylor:
    """The criterion ``(W g) ** 2``: the squared change of the loss, to first order, when an entry goes.

    Arguments as `saliency`. A unit scores by the square of the sum of ``W g`` over it. Entries alone rank as by
    `saliency`; units of different leaves compare without a normalization. Gradients add up over batches before the
    square. Cost: a forward and backward pass a batch.

    References: Molchanov et al. 2019, arXiv:1906.10771.

    >>> loss = lambda params, x: (params["w"] * x).sum()
    >>> fp.criteria.taylor(loss, torch.tensor([2.0, -3.0]))({"w": torch.tensor([1.0, 1.0])})
    {'w': tensor([4., 9.])}
    """
    return Taylor(Data(loss, batch, batches, progress))
