"""Masked models as plain functions.

`apply` multiplies parameters by their masks, so gradients flow to the kept entries and are exactly zero at the pruned
ones; `masked` and `functional` wrap a function and a module around it. `bake` and `project_` write exact zeros.
"""

import sys
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils.prune import BasePruningMethod

from funcprune import masks as algebra
from funcprune import trees
from funcprune.compiling import as_bytes
from funcprune.trees import Masks, Params

__all__ = ["apply", "bake", "functional", "in_dims", "masked", "masked_call", "project_"]

T = TypeVar("T")


def apply(params: Params, masks: Masks, /) -> Params:
    """The params with pruned entries multiplied by zero; leaves whose mask is None are the same objects.

    Shape, dtype, device and memory format of every leaf are kept. A pruned entry that is finite becomes a zero of
    either sign; NaN and inf become NaN, as in any product: `bake` and `project_` erase them. Differentiable in the
    params, transparent to ``torch.func`` and ``torch.compile``.

    Raises:
        TypeError, ValueError: the masks are none for these params (see `masks.check`).

    >>> fp.apply({"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([True, False])})
    {'w': tensor([1., 0.])}
    """
    spec, leaves, (found,) = algebra.aligned(params, masks)
    rows = zip(leaves, found, strict=True)
    return spec.unflatten([leaf if mask is None else _product(leaf, mask) for leaf, mask in rows])


def masked(function: Callable[..., T], /) -> Callable[..., T]:
    """A function of ``(params, *args)`` as a function of ``(params, masks, *args)``.

    >>> loss = fp.masked(lambda params, x: (params["w"] * x).sum())
    >>> torch.func.grad(loss)({"w": torch.ones(2)}, {"w": torch.tensor([True, False])}, torch.tensor([3.0, 4.0]))
    {'w': tensor([3., 0.])}
    """

    @wraps(function)
    def call(params: Params, masks: Masks, /, *args: Any, **kwargs: Any) -> T:
        return function(apply(params, masks), *args, **kwargs)

    del call.__wrapped__  # it has another signature
    return call


def functional(model: nn.Module, /) -> Callable[..., Any]:
    """The model as a pure function ``f(params, masks, *args, buffers=None, **kwargs)`` of a flat dict of parameters.

    The module is walked once, here; build the function again after changing the module's structure. The names are
    those of ``model.named_parameters()``, every one exactly once; parameters tied in the model stay tied, shared
    submodules are safe. The model's own parameters are not touched; its training mode is read at each call.

    With ``buffers=`` (a dict like ``dict(model.named_buffers())``) the call works on clones and returns ``(output,
    new_buffers)``. Without, registered buffers may change as ``model(x)`` would change them: in-place updates
    (BatchNorm in training) then do not work under ``torch.func`` transforms, which need ``buffers=``.

    Not thread-safe: during a call the module holds the masked tensors. Activation checkpointing inside the model
    recomputes after the call, with the module's own parameters, and gives wrong gradients: put the checkpoint around
    the call instead.

    Raises:
        ValueError: here, for a module pruned with hooks, wrapped for checkpointing or not initialized; at a call, for
            unknown or missing names and for masks that do not fit.

    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> f = fp.functional(model)
    >>> f({"weight": torch.ones(1, 2)}, {"weight": torch.tensor([[True, False]])}, torch.tensor([3.0, 4.0]))
    tensor([3.])
    """
    _refuse_module(model)
    parameter_slots = _slots(model, "_parameters")
    buffer_slots = _slots(model, "_buffers")

    def call(params: Params, masks: Masks, /, *args: Any, buffers: Any = None, **kwargs: Any) -> Any:
        _check_names(params, parameter_slots, "parameter", "named_parameters")
        tensors = apply(params, masks)
        state = {slot: tensors[name] for name, slots in parameter_slots.items() for slot in slots}
        if buffers is None:
            return torch.func.functional_call(model, state, args, kwargs, tie_weights=False)
        _check_names(buffers, buffer_slots, "buffer", "named_buffers")
        for name, slots in buffer_slots.items():
            if not isinstance(buffers[name], Tensor):
                raise TypeError(f"buffer {name!r}: found {type(buffers[name]).__name__}, expected a tensor")
            state |= dict.fromkeys(slots, buffers[name].clone())
        output = torch.func.functional_call(model, state, args, kwargs, tie_weights=False)
        return output, {name: state[slots[0]] for name, slots in buffer_slots.items()}

    call.__name__ = call.__qualname__ = f"functional({type(model).__name__})"
    return call


def masked_call(
    model: nn.Module,
    params: Params,
    masks: Masks,
    args: Any = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    buffers: Mapping[str, Tensor] | None = None,
) -> Any:
    """``functional(model)(params, masks, *args, buffers=buffers, **kwargs)``, once; a lone argument needs no tuple.

    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> params = {"weight": torch.ones(1, 2)}
    >>> fp.masked_call(model, params, {"weight": torch.tensor([[True, False]])}, torch.tensor([3.0, 4.0]))
    tensor([3.])
    """
    args = args if isinstance(args, tuple) else (args,)
    return functional(model)(params, masks, *args, buffers=buffers, **(kwargs or {}))


def bake(params: Params, masks: Masks, /) -> Params:
    """The params with pruned entries exactly +0.0, NaN and inf erased: pruning made permanent.

    The result is detached and shares no memory with ``params``. Errors as `apply`.

    >>> fp.bake({"w": torch.tensor([1.0, -float("inf")])}, {"w": torch.tensor([True, False])})
    {'w': tensor([1., 0.])}
    """
    spec, leaves, (found,) = algebra.aligned(params, masks)
    with torch.no_grad():
        rows = zip(leaves, found, strict=True)
        return spec.unflatten([leaf.clone() if mask is None else selected(leaf, mask) for leaf, mask in rows])


def project_(params: Params, masks: Masks, /) -> Params:
    """Writes exact +0.0 into the pruned entries of ``params``, in place, and returns ``params``.

    For training loops that keep their parameters projected: call it after the optimizer step, and the forward pass
    needs no product. Errors as `apply`, and ValueError for an expanded leaf, before anything is written.

    >>> params = {"w": torch.tensor([1.0, 2.0])}
    >>> fp.project_(params, {"w": torch.tensor([True, False])}) is params
    True
    >>> params["w"]
    tensor([1., 0.])
    """
    spec, leaves, (found,) = algebra.aligned(params, masks)
    for index, (leaf, mask) in enumerate(zip(leaves, found, strict=True)):
        if mask is not None and _expanded(leaf):
            path = trees.spec_paths(spec)[index]
            raise ValueError(f"params at {path!r}: found an expanded tensor, whose entries share memory: clone it")
    with torch.no_grad():
        for leaf, mask in zip(leaves, found, strict=True):
            if mask is not None:
                _erase_(leaf, mask)
    return params


def in_dims(masks: Masks, /) -> Any:
    """The ``in_dims`` of stacked masks for ``torch.func.vmap``, which cannot map over None: 0 for a tensor.

    >>> fp.in_dims({"w": torch.ones(3, 2, dtype=torch.bool), "b": None})
    {'w': 0, 'b': None}
    """
    _, spec = trees.flatten(masks)
    return spec.unflatten([None if leaf is None else 0 for leaf in trees.align(spec, masks, "masks")])


_MULTIPLIED = {torch.float64, torch.float32, torch.bfloat16, torch.float16}
_BLOCK = 1 << 18  # entries erased at a time: what eager CPU kernels convert of the mask then stays in cache
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _product(leaf: Tensor, mask: Tensor) -> Tensor:
    if leaf.dtype in _MULTIPLIED:
        return leaf * _factor(mask)
    if leaf.is_complex():
        return _by_component(_product, leaf, mask)
    return selected(leaf, mask)  # a product would promote, or fail


def _factor(mask: Tensor) -> Tensor:
    """The mask as bytes where those multiply faster than bools, twice and more."""
    if not torch.compiler.is_compiling():
        return mask.view(torch.uint8)
    if mask.device.type != "cpu" or torch.compiler.is_exporting():  # an exported program should not need funcprune
        return mask
    return as_bytes(mask)


def selected(leaf: Tensor, mask: Tensor) -> Tensor:
    """A new tensor without gradient: the leaf where kept, +0.0 elsewhere, in the leaf's memory format."""
    if leaf.is_complex():
        return _by_component(selected, leaf, mask)
    # Bits times one or zero: +0.0 from anything, NaN too, at the speed of a product; torch.where takes six times it
    # and would take over the memory format of the mask.
    return (_bits(leaf.resolve_neg()) * mask.view(torch.uint8)).view(leaf.dtype)


def _by_component(function: Callable[[Tensor, Tensor], Tensor], leaf: Tensor, mask: Tensor) -> Tensor:
    # A complex product by one would turn inf + 1j into inf + NaN j.
    return torch.view_as_complex(function(torch.view_as_real(leaf.resolve_conj()), mask.unsqueeze(-1)))


def _erase_(leaf: Tensor, mask: Tensor) -> None:
    """Writes exact +0.0 where the mask prunes."""
    if leaf.is_complex() or leaf.resolve_neg() is not leaf:  # is_neg() would break a compiled graph
        leaf.masked_fill_(~mask, 0)
        return
    bits, kept = _bits(leaf), mask.view(torch.uint8)
    if torch.compiler.is_compiling() or leaf.device.type != "cpu" or leaf.numel() <= _BLOCK:
        bits.mul_(kept)
        return
    rows = max(1, _BLOCK * len(leaf) // leaf.numel())
    for start in range(0, len(leaf), rows):
        bits[start : start + rows].mul_(kept[start : start + rows])


def _expanded(leaf: Tensor) -> bool:
    return 0 in leaf.stride() and any(leaf.size(dim) > 1 and leaf.stride(dim) == 0 for dim in range(leaf.ndim))


def _bits(leaf: Tensor) -> Tensor:
    return leaf.view(_BITS[leaf.dtype.itemsize])


def _slots(model: nn.Module, kind: str) -> dict[str, list[str]]:
    """For each tensor, by its first name, all names that reach it through distinct submodules."""
    first: dict[int, str] = {}
    slots: dict[str, list[str]] = {}
    for prefix, module in model.named_modules():
        for attribute, tensor in getattr(module, kind).items():
            if tensor is not None:
                slot = f"{prefix}.{attribute}" if prefix else attribute
                slots.setdefault(first.setdefault(id(tensor), slot), []).append(slot)
    return slots


def _check_names(given: Any, slots: Mapping[str, list[str]], kind: str, method: str) -> None:
    if isinstance(given, Mapping) and given.keys() == slots.keys():
        return
    expected = f"expected the names of dict(model.{method}())"
    if not isinstance(given, Mapping):
        raise TypeError(f"{kind}s: found {type(given).__name__}, {expected}")
    for name in given:
        for first, tied in slots.items():
            if name in tied[1:]:
                raise ValueError(f"{kind} {name!r} is tied to {first!r} in this model: pass it once, as {first!r}")
        if name not in slots:
            raise ValueError(f"unknown {kind} {name!r}{trees.closest(str(name), slots)}: {expected}")
    missing = next(name for name in slots if name not in given)
    raise ValueError(f"missing {kind} {missing!r}: {expected}")


def _refuse_module(model: nn.Module) -> None:
    """Refuse modules that a functional call would silently get wrong."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: found {type(model).__name__}, expected a torch.nn.Module")
    checkpointing = sys.modules.get("torch.distributed.algorithms._checkpoint.checkpoint_wrapper")
    for name, module in model.named_modules():
        if any(isinstance(tensor, UninitializedParameter) for tensor in module._parameters.values()):
            raise ValueError(f"module {name!r} has uninitialized parameters: call the model once, first")
        if any(isinstance(hook, BasePruningMethod) for hook in module._forward_pre_hooks.values()):
            raise ValueError(
                f"module {name!r} is pruned with hooks, which do not work under transforms: take params and masks with "
                "fp.compat.extract(model), and call fp.functional(fp.compat.clean(model))"
            )
        if checkpointing is not None and isinstance(module, checkpointing.CheckpointWrapper):
            raise ValueError(
                f"module {name!r} is wrapped for activation checkpointing, which would recompute with the module's own "
                "parameters: unwrap it and put torch.utils.checkpoint.checkpoint around the call"
            )
