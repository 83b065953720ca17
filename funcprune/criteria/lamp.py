"""LAMP: magnitudes made comparable across leaves."""

from dataclasses import dataclass

import torch
from torch import Tensor

from funcprune import masks as algebra
from funcprune import trees
from funcprune.trees import Masks, Params, Scores


@dataclass(frozen=True)
class Lamp:
    """``W_u ** 2`` over the sum of ``W_v ** 2`` of the kept entries ranked at or above ``u`` in the leaf."""

    def __call__(self, params: Params, masks: Masks | None = None) -> Scores:
        """The scores, float64; None at leaves that are not of floating point."""
        leaves, spec = trees.params(params)
        found = [None] * len(leaves) if masks is None else algebra.aligned(params, masks)[2][0]
        return spec.unflatten([_scores(leaf, mask) for leaf, mask in zip(leaves, found, strict=True)])

    def __repr__(self) -> str:
        return "lamp()"


def lamp() -> Lamp:
    """The criterion of layer-adaptive magnitudes: one global ranking of it prunes each leaf at its own rate.

    The scores are float64, and the largest entry of a leaf scores exactly 1, so with ``scope="global"`` no leaf dies
    while as many entries as leaves survive. Within a leaf it ranks as the magnitude does. Pruned entries do not count.
    Data-free. Cost: one sort a leaf, some 32 bytes an entry of the largest leaf and 8 of all.

    References: Lee, Park, Mo, Ahn, Shin 2021, arXiv:2010.07611.

    >>> fp.criteria.lamp()({"w": torch.tensor([1.0, -2.0, 2.0])})["w"]
    tensor([0.1111, 0.5000, 1.0000], dtype=torch.float64)
    """
    return Lamp()


def _scores(leaf: Tensor, mask: Tensor | None) -> Tensor | None:
    if not leaf.is_floating_point():
        return None
    squares = leaf.detach().double().square()
    squares = (squares if mask is None else torch.where(mask, squares, 0.0)).flatten()
    ordered, order = squares.sort(stable=True)
    above = ordered.flip(0).cumsum(0).flip(0)
    shares = torch.where(ordered == 0, 0.0, ordered / above)
    shares[-1:] = 1.0  # of a leaf of zeros too, or the promise that no leaf dies would not hold
    return torch.empty_like(squares).scatter_(0, order, shares).reshape(leaf.shape)
