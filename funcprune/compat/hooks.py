"""Masks into a module as hooks, and out of it again."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from funcprune import masks as algebra
from funcprune import trees
from funcprune.compat import slots
from funcprune.compat.prune import CustomFromMask
from funcprune.compat.prune.base import commit
from funcprune.compat.slots import Slot
from funcprune.trees import Masks, Params

__all__ = ["bake", "clean", "extract", "install"]


def install(model: nn.Module, masks: Masks, /, *, params: Params | None = None) -> nn.Module:
    """The model, pruned in place with hooks by ``masks``, a flat dict with the names of `extract`'s.

    Where a mask is not None, the tensor ``weight`` becomes the parameter ``weight_orig`` (the same object), a buffer
    ``weight_mask`` of its dtype, a forward pre-hook and the attribute ``weight``, their product. A tensor pruned
    before keeps the intersection. Every name of a tied parameter is pruned. ``params``, a dict with the same names,
    is copied into the parameters. All or nothing: a call that raises changes nothing.

    The masks of `split_state_dict` fit too: other names of the model's state are accepted where their mask is None,
    second names of tied parameters where their mask is that of the first.

    Raises:
        TypeError, ValueError: names, shapes, dtypes or devices that do not fit; a parametrized tensor; a module that
            has an attribute ``weight_orig`` or ``weight_mask`` of its own.

    >>> model = torch.nn.Linear(2, 1)
    >>> model = fp.compat.install(model, {"weight": torch.tensor([[True, False]]), "bias": None})
    >>> list(model.state_dict())
    ['bias', 'weight_orig', 'weight_mask']
    """
    tied = _tied(model)
    paths = {id(rows[0].parameter): path for path, rows in tied.items()}
    known = {slot.path: paths[id(slot.parameter)] for slot in slots.walk(model, remove_duplicate=False)}
    parameters = {path: rows[0].parameter for path, rows in tied.items()}
    first = _fitting(model, masks, known)
    algebra.check(parameters, first)
    values = {} if params is None else _values(parameters, params)
    slots_masks = [(slot, first[path]) for path, rows in tied.items() for slot in rows if first[path] is not None]
    merged = []
    for slot, mask in slots_masks:
        try:
            slots.original(slot.module, slot.name)
        except (TypeError, ValueError, KeyError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"{slot.path!r}: {error.args[0]}") from error
        merged.append(algebra.intersect(slot.mask, mask))
    attentions = [part for part in model.modules() if isinstance(part, nn.MultiheadAttention)]
    for slot, _ in slots_masks:
        if not any(slot.module is attention.out_proj for attention in attentions):
            slots.warn_if_not_called(slot.module)

    with torch.no_grad():
        for path, value in values.items():
            parameters[path].copy_(value)
    for (slot, _), mask in zip(slots_masks, merged, strict=True):
        commit(slot.module, slot.name, CustomFromMask.kept_by(slot.module, slot.name), mask)
    for attention in attentions:
        if slots.hooks(attention.out_proj):
            _refresh_before(attention)
    if params is not None:
        for module in model.modules():
            slots.refresh(module)
    return model


def extract(model: nn.Module, /) -> tuple[dict[str, nn.Parameter], dict[str, Tensor | None]]:
    """``(params, masks)`` of a model pruned with hooks, this library's or torch's or both; the model is untouched.

    Names and order are those of the unpruned model's ``named_parameters()``; for tensors pruned by torch's own
    functions, which lose their position, the order of registration. Params are the same objects, masks new bool
    tensors, None where nothing was pruned.

    Raises:
        ValueError: a mask is not zeros and ones; one name of a tied parameter is pruned otherwise than another.

    >>> model = fp.compat.prune.l1_unstructured(torch.nn.Linear(2, 1), "weight", 1)
    >>> params, masks = fp.compat.extract(model)
    >>> list(params), masks["bias"], int(masks["weight"].sum())
    (['weight', 'bias'], None, 1)
    """
    params, masks = {}, {}
    for path, rows in _tied(model).items():
        params[path], masks[path] = rows[0].parameter, rows[0].mask
        for slot in rows[1:]:
            if not algebra.equal(slot.mask, masks[path]):
                raise ValueError(
                    f"{slot.path!r} and {path!r} are one tied parameter, but their masks differ: install masks on the "
                    "whole model, which prunes both"
                )
    return params, masks


def clean(model: nn.Module, /) -> nn.Module:
    """A copy of the model without pruning hooks that shares its parameters and buffers, to be called functionally.

    The parameters hold their unmasked values: use ``fp.functional(clean(model))(*extract(model), x)``.

    >>> model = fp.compat.prune.l1_unstructured(torch.nn.Linear(2, 1), "weight", 1)
    >>> fp.compat.clean(model).weight is model.weight_orig
    True
    """
    memo: dict[int, object] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    for module in model.modules():
        memo |= slots.copy_memo(module)
    copied = copy.deepcopy(model, memo)
    for slot in list(slots.walk(copied)):
        if slot.hook is not None:
            slots.strip(slot.module, slot.name)
    _forget_refreshes(copied)
    return copied


def bake(model: nn.Module, /) -> nn.Module:
    """The model with all pruning made permanent, in place and in every submodule; nothing to do is no error.

    Pruned entries become exactly +0.0. Parameters return as the same objects, at the position they had before they
    were pruned (for tensors pruned by torch's own functions, at the place of their registration).

    >>> model = fp.compat.prune.l1_unstructured(torch.nn.Linear(2, 1), "weight", 1)
    >>> [name for name, _ in fp.compat.bake(model).named_parameters()]
    ['weight', 'bias']
    """
    pruned = [slot for slot in slots.walk(model) if slot.mask is not None]  # reading every mask checks it
    for slot in pruned:  # one after the other: a tied parameter comes more than once, and keeps the zeros it has
        slots.strip(slot.module, slot.name, slots.baked(slot.module, slot.name, slot.hook))
    _forget_refreshes(model)
    return model


def _tied(model: nn.Module) -> dict[str, list[Slot]]:
    """The slots of each parameter by its first path."""
    groups: dict[int, list[Slot]] = {}
    for slot in slots.walk(model):
        groups.setdefault(id(slot.parameter), []).append(slot)
    return {rows[0].path: rows for rows in groups.values()}


def _fitting(model: nn.Module, masks: Masks, known: Mapping[str, str]) -> dict[str, Tensor | None]:
    """The masks by the first names of parameters; ``known`` has the first name for every name."""
    if not isinstance(masks, Mapping):
        raise TypeError(f"masks: found {type(masks).__name__}, expected a dict with the names of named_parameters()")
    buffers = {name for name, _ in model.named_buffers(remove_duplicate=False)}
    for name, mask in masks.items():
        if name not in known and (mask is not None or name not in buffers):
            raise ValueError(f"masks: unknown parameter {name!r}{trees.closest(str(name), known)}")
    for name, path in known.items():
        if path not in masks:
            raise ValueError(f"masks: missing {path!r}, expected every name of the model's parameters, None = dense")
        if name != path and name in masks and not algebra.equal({name: masks[name]}, {name: masks[path]}):
            raise ValueError(f"masks: {name!r} is tied to {path!r}, found another mask: give both the same one")
    return {path: masks[path] for path in dict.fromkeys(known.values())}


def _values(parameters: Mapping[str, Tensor], params: Params) -> dict[str, Tensor]:
    """Copies of the params, which may be parameters of the very model they are written to."""
    _, spec = trees.flatten(dict(parameters))
    for path, value in zip(trees.spec_paths(spec), trees.align(spec, params, "params"), strict=True):
        expected = parameters[path].shape
        if value is None or value.shape != expected:
            found = "None" if value is None else f"shape {tuple(value.shape)}"
            raise ValueError(f"params at {path!r}: found {found}, expected shape {tuple(expected)}")
    return {path: params[path].detach().clone() for path in parameters}


def _refresh_before(attention: nn.Module) -> None:
    """Has the masked weights of an attention's ``out_proj``, which is never called, refreshed before each call."""
    if _refresh_projection not in attention._forward_pre_hooks.values():
        attention.register_forward_pre_hook(_refresh_projection)


def _refresh_projection(module: nn.Module, _: object) -> None:
    for hook in slots.hooks(module.out_proj).values():  # type: ignore[arg-type]
        hook(module.out_proj, ())


def _forget_refreshes(model: nn.Module) -> None:
    for module in model.modules():
        for key, hook in list(module._forward_pre_hooks.items()):
            if hook is _refresh_projection:
                del module._forward_pre_hooks[key]
