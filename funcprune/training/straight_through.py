"""Masked applications whose gradient reaches the pruned entries: straight-through, and SR-STE."""

from typing import Any

import torch
from torch import Tensor

from funcprune import masks as algebra
from funcprune.masking import selected
from funcprune.trees import Masks, Params

__all__ = ["sr_ste", "straight_through"]


class _StraightThrough(torch.autograd.Function):
    """Forward ``m * w``; backward ``g + decay * (1 - m) * w``; ``decay`` 0 is the identity's gradient."""

    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor, mask: Tensor, decay: float) -> Tensor:  # noqa: ARG004
        return selected(weight, mask)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        weight, mask, ctx.decay = inputs
        ctx.save_for_backward(*((weight, mask) if ctx.decay else ()))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        if not ctx.decay:
            return grad, None, None
        weight, mask = ctx.saved_tensors
        return grad + ctx.decay * selected(weight, ~mask), None, None


def straight_through(params: Params, masks: Masks, /) -> Params:
    """The params with exact zeros at pruned entries, while their gradient is the dense one, as if nothing were pruned.

    Pruned entries keep their latent values and go on learning; with masks computed afresh at each step they can come
    back. For ``torch.func.grad``, ``vmap`` of it, and autograd; not for forward mode. Errors as `apply`.

    References: Bengio, Léonard, Courville 2013, arXiv:1308.3432.

    >>> masks = {"w": torch.tensor([True, False])}
    >>> loss = lambda params: fp.training.straight_through(params, masks)["w"].sum()
    >>> torch.func.grad(loss)({"w": torch.tensor([1.0, 2.0])})
    {'w': tensor([1., 1.])}
    """
    return _applied(params, masks, 0.0)


def sr_ste(params: Params, masks: Masks, /, *, decay: float = 2e-4) -> Params:
    """`straight_through` with the gradient ``g + decay * (1 - m) * w``: pruned entries shrink towards zero.

    ``g`` is the gradient with respect to the masked params. The term does not pass through the loss: it is added
    once for each application that the loss depends on, whatever its scale. ``decay`` is finite and at least 0.

    References: Zhou et al. 2021, arXiv:2102.04010 (``decay`` is their lambda).

    >>> masks = {"w": torch.tensor([True, False])}
    >>> loss = lambda params: fp.training.sr_ste(params, masks, decay=0.5)["w"].sum()
    >>> torch.func.grad(loss)({"w": torch.tensor([1.0, 2.0])})
    {'w': tensor([1., 2.])}
    """
    if isinstance(decay, bool) or not isinstance(decay, int | float) or not 0 <= decay < float("inf"):
        raise ValueError(f"sr_ste(decay={decay!r}): expected a finite number, at least 0")
    return _applied(params, masks, float(decay))


def _applied(params: Params, masks: Masks, decay: float) -> Params:
    spec, leaves, (found,) = algebra.aligned(params, masks)
    rows = zip(leaves, found, strict=True)
    call: Any = _StraightThrough.apply
    return spec.unflatten([leaf if mask is None else call(leaf, mask, decay) for leaf, mask in rows])
