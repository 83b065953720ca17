"""Fisher: the diagonal of the curvature, from per-sample gradients."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from funcprune.criteria.additive import Additive
from funcprune.criteria.gradients import Data, Loss, Point, Progress
from funcprune.trees import Masks, Params, Scores


@dataclass(frozen=True, eq=False, repr=False)
class Fisher(Additive):
    """``E[g_i ** 2] W ** 2 / 2``: the rise of the loss, to second order, when an entry goes."""

    data: Data
    chunk: int

    def contributions(self, params: Params, masks: Masks | None, /) -> Scores:
        """The scores themselves: with a diagonal curvature they add up over a unit."""
        point = Point(params, masks)
        gradient = point.gradient(self.data.loss)

        def one(values: list[Tensor], *sample: Tensor) -> list[Tensor]:
            return gradient(values, *(part[None] for part in sample))

        squares = [torch.zeros_like(v, dtype=torch.promote_types(v.dtype, torch.float32)) for v in point.values]
        count = 0
        for batch in self.data:
            size = _size(batch)
            for start in range(0, size, self.chunk):
                samples = tuple(part[start : start + self.chunk] for part in batch)
                found = vmap(one, in_dims=(None, *(0 for _ in samples)))(point.values, *samples)
                for total, g in zip(squares, found, strict=True):
                    total += g.to(total.dtype).square().sum(0)
            count += size
        if not count:
            raise ValueError("fisher: found no samples in any batch, expected at least one")
        return point.tree(s * v.square() / (2 * count) for s, v in zip(squares, point.dense, strict=True))

    def __repr__(self) -> str:
        return f"fisher(..., chunk={self.chunk})"


def fisher(
    loss: Loss,
    *batch: Any,
    batches: Iterable[Any] | None = None,
    chunk: int = 16,
    progress: Progress | None = None,
) -> Fisher:
    """The criterion ``E[g_i ** 2] W ** 2 / 2``, with the gradient ``g_i`` of each sample: a diagonal OBD.

    ``loss`` is called with batches of one sample, by vmap over the first dimension of every tensor of a batch; other
    arguments as `saliency`. Gradients of ``chunk`` samples exist at a time: peak memory is about ``chunk + 3`` times
    the params. A unit scores by the sum over it. Cost: a forward and backward pass a sample, vectorized.

    The mean of squares is the empirical Fisher information, which stands in for the Hessian near a minimum of a
    log-likelihood.

    References: LeCun, Denker, Solla 1990 (Optimal Brain Damage); Theis et al. 2018, arXiv:1801.05787.

    >>> loss = lambda params, x: (params["w"] * x).sum(1).mean()
    >>> fp.criteria.fisher(loss, torch.tensor([[2.0, 0.0], [4.0, 2.0]]))({"w": torch.tensor([1.0, 2.0])})
    {'w': tensor([5., 4.])}
    """
    if isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1:
        raise ValueError(f"chunk={chunk!r}: expected an int >= 1, the samples whose gradients exist at a time")
    return Fisher(Data(loss, batch, batches, progress), chunk)


def _size(batch: tuple[Any, ...]) -> int:
    """How many samples a batch has; ValueError where its parts disagree or are no tensors."""
    sizes = {len(part) if isinstance(part, Tensor) and part.ndim else None for part in batch}
    if len(sizes) != 1 or None in sizes:
        raise ValueError(f"fisher: expected batches of tensors with one common first size, found sizes {sizes}")
    size: int = sizes.pop()  # type: ignore[assignment]
    return size
