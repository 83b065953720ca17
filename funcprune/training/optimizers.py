"""Optimizer state that stays zero where weights are pruned.

Momentum that a weight gathered before it was pruned would move it again. With weights, gradients and state exactly
zero at the pruned entries, every elementwise optimizer leaves them there, weight decay included.
"""

from typing import Any

import torch
from torch import Tensor

from funcprune import masks as algebra
from funcprune import trees
from funcprune.masking import selected
from funcprune.trees import Masks, Params, Spec

__all__ = ["project_optimizer_", "project_state"]


def project_state(opt_state: Any, params: Params, masks: Masks, /) -> Any:
    """The optimizer state with +0.0 at the pruned entries of everything in it that is parallel to the params.

    ``opt_state`` is any pytree, ``None`` included. Wherever in it a tree of the structure of the params appears (a
    momentum, the two moments of Adam), its tensors of a parameter's shape are masked like that parameter. All else,
    step counts among it, is handed through. Nothing is written in place.

    Raises:
        TypeError, ValueError: the masks are none for these params (see `masks.check`).

    >>> masks = {"w": torch.tensor([True, False])}
    >>> adam = {"count": 3, "mu": {"w": torch.ones(2)}, "nu": {"w": torch.ones(2)}}
    >>> fp.training.project_state(adam, {"w": torch.zeros(2)}, masks)
    {'count': 3, 'mu': {'w': tensor([1., 0.])}, 'nu': {'w': tensor([1., 0.])}}
    """
    spec, leaves, _ = algebra.aligned(params, masks)
    with torch.no_grad():
        return _projected(opt_state, params, masks, spec) if leaves else opt_state


def project(params: Params, masks: Masks, /) -> Params:
    """`project_` into new tensors, which require gradients as before; leaves without a mask are the same objects."""
    spec, leaves, (found,) = algebra.aligned(params, masks)
    rows = zip(leaves, found, strict=True)
    return spec.unflatten(
        [
            leaf if mask is None else selected(leaf.detach(), mask).requires_grad_(leaf.requires_grad)
            for leaf, mask in rows
        ],
    )


def project_optimizer_(optimizer: torch.optim.Optimizer, params: Params, masks: Masks, /) -> torch.optim.Optimizer:
    """Writes +0.0 at the pruned entries of the optimizer's state, in place, and returns the optimizer.

    ``params`` are the very parameters the optimizer trains. Every state tensor of a parameter's shape is masked: the
    momentum of SGD, the moments of Adam, AdamW, RMSprop, Adagrad and so forth. Together with `project_`, call it when
    masks have changed; and after every step where gradients reach pruned entries, or where an update of one
    entry depends on others (Muon, Adafactor).

    Raises:
        ValueError: a masked parameter that requires gradients is not among the optimizer's; nothing is changed.
        TypeError, ValueError: the masks are none for these params (see `masks.check`).

    >>> w = torch.nn.Parameter(torch.ones(2))
    >>> adam = torch.optim.Adam([w])
    >>> w.sum().backward()
    >>> adam.step()
    >>> fp.training.project_optimizer_(adam, {"w": w}, {"w": torch.tensor([True, False])}).state[w]["exp_avg"]
    tensor([0.1000, 0.0000])
    """
    spec, leaves, (found,) = algebra.aligned(params, masks)
    known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    rows = [(i, leaf, mask) for i, (leaf, mask) in enumerate(zip(leaves, found, strict=True)) if mask is not None]
    for index, leaf, _ in rows:
        if leaf.requires_grad and id(leaf) not in known:
            raise ValueError(
                f"params at {trees.spec_paths(spec)[index]!r}: found a tensor that {type(optimizer).__name__} does not "
                "train, expected the very objects it was made with, such as dict(model.named_parameters())"
            )
    with torch.no_grad():
        for _, leaf, mask in rows:
            for name, value in optimizer.state.get(leaf, {}).items():
                # The step count of a parameter without dimensions has its shape, too.
                if name != "step" and isinstance(value, Tensor) and value.shape == leaf.shape:
                    value.copy_(selected(value, mask))
    return optimizer


def _projected(state: Any, params: Params, masks: Masks, spec: Spec) -> Any:
    if trees.matches(spec, state):
        values, own = trees.flatten(state)  # in its own order and containers
        rows = zip(values, trees.align(own, params, "params"), trees.align(own, masks, "masks"), strict=True)
        return own.unflatten([_masked(*row) for row in rows])
    if trees.is_leaf(state):
        return state
    return trees.map_children(lambda child: _projected(child, params, masks, spec), state)


def _masked(value: Any, parameter: Tensor, mask: Tensor | None) -> Any:
    if mask is None or not isinstance(value, Tensor) or value.shape != parameter.shape:
        return value
    return selected(value, mask)
