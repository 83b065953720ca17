"""Checkpoints of hook-pruned models into dense ones with masks, and back."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from funcprune import trees
from funcprune.compat.slots import as_mask

__all__ = ["join_state_dict", "split_state_dict"]


def split_state_dict(state_dict: Mapping[str, Any], /) -> tuple[dict[str, Any], dict[str, Tensor | None]]:
    """``(dense, masks)`` of the state dict of a model pruned with hooks, this library's or torch's.

    ``dense`` has ``conv.weight`` where the state dict has ``conv.weight_orig`` and ``conv.weight_mask``, with the
    unmasked values: nothing is lost, and ``load_state_dict`` of an unpruned model takes it. ``masks`` has the same
    names: a bool tensor where pruned, None elsewhere. ``fp.bake(dense, masks)`` writes the zeros. An entry counts as
    pruned if both names exist in one shape; a buffer such as ``attn_mask`` alone stays what it is.

    Raises ValueError for a mask that is not zeros and ones.

    >>> state = {"weight_orig": torch.tensor([1.0, 2.0]), "weight_mask": torch.tensor([1.0, 0.0])}
    >>> fp.compat.split_state_dict(state)
    (OrderedDict([('weight', tensor([1., 2.]))]), OrderedDict([('weight', tensor([ True, False]))]))
    """
    pruned = {name for name in map(_pruned_name, state_dict) if name is not None and _is_pruned(state_dict, name)}
    dense: dict[str, Any] = OrderedDict()
    masks: dict[str, Tensor | None] = OrderedDict()
    for key, value in state_dict.items():
        if key.removesuffix("_orig") in pruned and key.endswith("_orig"):
            name = key.removesuffix("_orig")
            mask = state_dict[f"{name}_mask"]
            dense[name], masks[name] = value, as_mask(mask, mask.shape, f"{name}_mask")
        elif not (key.endswith("_mask") and key.removesuffix("_mask") in pruned):
            dense[key], masks[key] = value, None
    _keep_metadata(state_dict, dense)
    return dense, masks


def join_state_dict(dense: Mapping[str, Any], masks: Mapping[str, Tensor | None], /) -> dict[str, Any]:
    """The state dict of the model pruned with hooks: the inverse of `split_state_dict`.

    Where ``masks`` has a mask for ``conv.weight``, the result has ``conv.weight_orig`` and ``conv.weight_mask``, in
    the dtype of the weight. ``masks`` may leave names out: those stay dense. A tied parameter has several names in a
    state dict: give each its mask.

    Raises ValueError for a mask of an unknown name or another shape and where the state has a ``conv.weight_orig`` or
    ``conv.weight_mask`` already, TypeError for a mask that is not bool.

    >>> fp.compat.join_state_dict({"weight": torch.tensor([1.0, 2.0])}, {"weight": torch.tensor([True, False])})
    OrderedDict([('weight_orig', tensor([1., 2.])), ('weight_mask', tensor([1., 0.]))])
    """
    for name, mask in masks.items():
        if name not in dense:
            raise ValueError(f"masks: unknown name {name!r}{trees.closest(name, dense)}, expected names of the state")
        if mask is None:
            continue
        if not isinstance(dense[name], Tensor):
            raise TypeError(f"masks at {name!r}: the state has a {type(dense[name]).__name__} there, expected a tensor")
        if mask.dtype != torch.bool:
            raise TypeError(f"masks at {name!r}: found dtype {mask.dtype}, expected torch.bool")
        if mask.shape != dense[name].shape:
            expected = tuple(dense[name].shape)
            raise ValueError(f"masks at {name!r}: found shape {tuple(mask.shape)}, expected {expected}")
        for taken in (f"{name}_orig", f"{name}_mask"):
            if taken in dense:
                raise ValueError(f"masks at {name!r}: the state has an entry {taken!r} of its own: rename it")
    joined: dict[str, Any] = OrderedDict()
    for key, value in dense.items():
        mask = masks.get(key)
        if mask is None:
            joined[key] = value
        else:
            joined[f"{key}_orig"], joined[f"{key}_mask"] = value, mask.to(value.dtype)
    _keep_metadata(dense, joined)
    return joined


def _pruned_name(key: str) -> str | None:
    return key.removesuffix("_orig") if key.endswith("_orig") else None


def _is_pruned(state_dict: Mapping[str, Any], name: str) -> bool:
    orig, mask = state_dict[f"{name}_orig"], state_dict.get(f"{name}_mask")
    if name in state_dict or not (isinstance(orig, Tensor) and isinstance(mask, Tensor)):
        return False
    return orig.shape == mask.shape


def _keep_metadata(source: Any, target: Any) -> None:
    """The versions of modules, which ``load_state_dict`` reads, travel as an attribute."""
    if hasattr(source, "_metadata"):
        target._metadata = source._metadata
